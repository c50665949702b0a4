"""Lines shown: off a terminal as they are, for scripts; on one in colour, tables that wrap.

What packages say is in them, so a terminal gets it as text alone: never as markup of rich's.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Final

import typer

from matrix.history.changes import ChangeKind
from matrix.pipeline.outcomes import Judgement, Outcome, Verdict
from matrix.untrusted.text import visible

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

CHARS = 4000
"""Of a line, or of a cell of a table."""
GOOD, BAD, POOR, DULL = "green", "red", "yellow", "bright_black"
STYLES: Final[dict[str, str]] = {
    Verdict.WORKS: GOOD,
    Verdict.DEGRADED: POOR,
    Verdict.GARBAGE: "magenta",
    Verdict.BROKEN: BAD,
    Verdict.UNSUPPORTED: POOR,
    Verdict.UNTESTED: DULL,
    Verdict.INFRA: "cyan",
    Verdict.NOT_RUN: DULL,
    Outcome.PASSED: GOOD,
    Outcome.FAILED: BAD,
    Outcome.BLOCKED: DULL,
    Outcome.NEEDS_HARDWARE: DULL,
    Judgement.NOTICE: POOR,
    Judgement.NOT_APPLICABLE: DULL,
    ChangeKind.REGRESSED: BAD,
    ChangeKind.FIXED: GOOD,
    ChangeKind.STILL_BROKEN: DULL,
    ChangeKind.CHANGED_CAUSE: POOR,
    ChangeKind.CHANGED_MACHINE: POOR,
    ChangeKind.CHANGED_CHECKS: "cyan",
    **{"ok": GOOD, "lack": POOR, "stop": BAD},  # of `doctor`
}
_LABEL = r"^(cause|fix|repair|source|known issue|what to do|canaries|new releases|report):"
"""What stands before what a line says."""


_NUMBER = re.compile(r"([0-9].{0,15})?")
"""A number with its unit, or nothing."""


class Row(str):
    """A line of a table. Off a terminal it is the line itself, on one its cells, which wrap."""

    cells: tuple[str, ...]
    is_head: bool

    def __new__(cls, line: str, *cells: str, is_head: bool = False) -> Row:
        """Take the line, and the same as cells."""
        row = super().__new__(cls, line)
        row.cells, row.is_head = cells, is_head
        return row


class Copied(str):
    """A line that is there to be copied, such as a command: it is never broken."""


def show(lines: Iterable[str]) -> None:
    """Print lines, among them rows; those of one table stand side by side."""
    if not sys.stdout.isatty():
        for line in lines:
            typer.echo(line)
        return
    from rich.console import Console

    console = Console(markup=False, highlight=False, emoji=False)
    for part in rendered(lines):
        if isinstance(part, Copied):
            console.print(visible(part, CHARS), soft_wrap=True)
        else:
            console.print(part)


def rendered(lines: Iterable[str]) -> Iterator[RenderableType]:
    """Yield what rich is to print of lines: a table of the rows that follow each other."""
    for width, group in groupby(lines, lambda line: len(getattr(line, "cells", ()))):
        if width:
            yield _table([line for line in group if isinstance(line, Row)])
            continue
        for line in group:
            yield line if isinstance(line, Copied) else _indented(line)


def _table(rows: list[Row]) -> RenderableType:
    from rich.padding import Padding
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for column in zip(*(row.cells for row in rows if not row.is_head), strict=True):
        is_number = all(_NUMBER.fullmatch(cell.strip()) for cell in column)
        table.add_column(justify="right" if is_number else "left", no_wrap=is_number)
    for row in rows:
        styles = {} if row.is_head else STYLES
        cells = [_text(cell.strip(), styles.get(cell.strip(), "")) for cell in row.cells]
        table.add_row(*cells, style="bold" if row.is_head else "")
    return Padding(table, (0, 0, 0, _indent(rows[0])))


def _indented(line: str) -> RenderableType:
    """Return a line whose further lines on a terminal begin where its first one does."""
    from rich.padding import Padding

    text = _text(line.strip())
    text.highlight_regex(_LABEL, "bold")
    for word in (*Verdict, *ChangeKind):
        counted = rf"(?:[^\s,] |^|(?<=, ))[0-9,]+ {word}(?=,|$)"
        text.highlight_regex(counted, STYLES.get(word, ""))
    return Padding(text, (0, 0, 0, _indent(line)))


def _text(text: str, style: str = "") -> Text:
    from rich.text import Text

    return Text(visible(text, CHARS), style, overflow="fold")


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))
