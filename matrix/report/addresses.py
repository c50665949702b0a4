"""Where things of a report are: stable and distinct, whatever they are named."""

from __future__ import annotations

import functools
import hashlib
import re

CELLS = "cells"
"""The folder with the pages of the cells."""


def anchor(name: str, kind: str = "cell") -> str:
    """Return an id for the place of a cell or an environment on a page."""
    return f"{kind}-{_distinct(name)}"


def page_of(cell: str) -> str:
    """Return the address of a cell by the cell's id, relative to the report."""
    return f"{file_of(cell)}#{place_of(cell)}"


def file_of(cell: str) -> str:
    """Return the page on which a cell is told, with those of its checkpoint in other engines.

    A file for each of 20,000 cells takes a busy disk 20 seconds. Its name is short, since a page of
    hundreds of cells has it hundreds of times.
    """
    return f"{CELLS}/{_digest(cell.rpartition('/')[0], 10)}.html"


def place_of(cell: str) -> str:
    """Return the id of a cell's place on that page."""
    return _distinct(cell.rpartition("/")[2], 12, digits=6)


@functools.lru_cache(20_000)
def _distinct(name: str, readable_chars: int = 32, digits: int = 10) -> str:
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", name)[:readable_chars].strip("-.")
    return f"{readable or CELLS}-{_digest(name, digits)}"


@functools.lru_cache(20_000)
def _digest(name: str, digits: int) -> str:
    return hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:digits]
