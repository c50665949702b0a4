"""Where things of a report are: stable and distinct, whatever they are named."""

from __future__ import annotations

import hashlib
import re

CELLS = "cells"
"""The folder with a page for each cell."""


def anchor(name: str, kind: str = "cell") -> str:
    """Return an id for the place of a cell or an environment on a page."""
    return f"{kind}-{_distinct(name)}"


def page_of(cell: str) -> str:
    """Return the page of a cell by the cell's id, relative to the report."""
    return f"{CELLS}/{_distinct(cell)}.html"


def script_of(cell: str) -> str:
    """Return the script beside that page, which repeats the cell."""
    return f"{CELLS}/{_distinct(cell)}.sh"


def _distinct(name: str) -> str:
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", name)[:32].strip("-.")
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()
    return f"{readable or CELLS}-{digest[:10]}"
