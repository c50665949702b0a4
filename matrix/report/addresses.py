"""Where things stand: names of files and places of cells, causes and environments. Pure."""

from __future__ import annotations

import hashlib
import re

_UNFIT = re.compile(r"[^A-Za-z0-9.]+")
CELLS = "cells"
"""The folder of the cells' pages."""


def anchor(name: str, kind: str = "cell") -> str:
    """Return an id for the place of a cell or an environment on the page: stable and distinct."""
    readable = _UNFIT.sub("-", name)[:60].strip("-")
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{kind}-{readable}-{digest}"


def cell_page(cell: str) -> str:
    """Return the address of a cell's page, from that of the whole matrix."""
    return f"{CELLS}/{anchor(cell)}.html"


def css_class(word: str) -> str:
    """Return a verdict or a state as a class of the style sheet."""
    return word.replace(" ", "-")
