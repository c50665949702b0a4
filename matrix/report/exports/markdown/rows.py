"""Sections of ``matrix.md``, and rows in which everything shown becomes inert text of Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from markupsafe import Markup

from matrix.untrusted.text import markdown

CELLS = 2
"""Of a change or a cause, so many cells are named."""
NAME_CHARS = 150


class Section(NamedTuple):
    """A heading, what stands below it, and rows that may be cut."""

    title: str
    before: str
    """What stands above the rows, the head of their table with it, and ends with a line feed."""
    number: int
    """Of rows."""
    rows: Callable[[], Iterable[str]]


def head_of_table(*columns: str) -> str:
    """Return the names of a table's columns and the rule below them."""
    return f"{row(*columns)}\n|{' --- |' * len(columns)}\n"


def row(*values: object) -> str:
    """Return a row of a table; what is no Markup becomes inert text."""
    shown = (v if isinstance(v, Markup) else markdown(str(v)) for v in values)
    return f"| {' | '.join(shown)} |"


def long(text: str, limit: int) -> Markup:
    """Return a text for a row that may have more characters than others."""
    return Markup(markdown(text, limit))


def first_cells(cells: Sequence[str]) -> Markup:
    """Return the first cells by name, and how many more there are."""
    names = ", ".join(markdown(cell, NAME_CHARS) for cell in cells[:CELLS])
    more = len(cells) - CELLS
    return Markup(f"{names} and {more} more" if more > 0 else names)


def listed(title: str, lines: Sequence[str]) -> Section:
    """Return a section that is a list of lines, which are inert already."""
    return Section(title, "", len(lines), lambda: (f"- {line}" for line in lines))
