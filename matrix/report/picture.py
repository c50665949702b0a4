"""The matrix as a picture: a small square for each cell, quantizers down and engines across. Pure.

It is put together as text: a template that is asked for each of 20,000 squares takes minutes.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from types import MappingProxyType
from typing import NamedTuple

from markupsafe import Markup, escape

from matrix.history.changes import ChangeKind
from matrix.judge.results import CellResult
from matrix.pipeline.steps import Stage
from matrix.report.addresses import page_of
from matrix.report.table import (
    SYMBOLS,
    Part,
    Row,
    css_class,
    group_and_label,
    need,
    otherwise_elsewhere,
)
from matrix.spec.loading import FLOAT_MODEL
from matrix.untrusted.text import counted, visible

LONGEST = 40
"""A table has at most about so many rows and columns of squares; what is longer goes on beside or
below, so that a picture is about as wide as high."""
BEFORE_ENGINES = frozenset(
    {Stage.QUANTIZER_RESOLVE, Stage.QUANTIZER_INSTALL, Stage.QUANTIZER_IMPORT, Stage.QUANTIZE}
)
_NAME_CHARS = 120
_LABELS = 3
"""Of more rows that are folded together, only the first and the last are named."""


class Notes(NamedTuple):
    """What squares say beside their verdicts."""

    causes: Mapping[str, int]
    """Cell -> number of its cause, in the list of causes."""
    titles: Sequence[str]
    """Of the causes."""
    changes: Mapping[str, ChangeKind]
    """Cell -> what became of it, of those of which something did."""
    installs: Mapping[str, str]
    """Environment -> place on the page that says how to install it."""
    marks: Mapping[str, str]
    """Departure -> its marker."""
    at_heads: Mapping[tuple[str, ...], frozenset[str]] = MappingProxyType({})
    """Quantizer and scheme, or engine -> departures of all its cells: the head is marked for them,
    and no square. Most cells of a CPU depart in something."""


class _Fold(NamedTuple):
    """Rows beneath each other that never got to an engine, for one cause."""

    rows: list[Row]


def tables(part: Part, notes: Notes, caption: str) -> Iterator[Markup]:
    """Yield the tables of a part, each with the heads it needs; ``caption`` is their name's id."""
    notes = notes._replace(at_heads=_departures_at_heads(part))
    blocks = _cut_columns(part)
    for columns in blocks:
        for lines in _cut_lines(_lines(part, columns)):
            yield Markup(_table(part, columns, lines, notes, caption))


def _departures_at_heads(part: Part) -> dict[tuple[str, ...], frozenset[str]]:
    by_head: dict[tuple[str, ...], list[frozenset[str]]] = {}
    for row in part.rows:
        for cell in (cell for slot in row.slots for cell in slot):
            departures = frozenset(cell.departures)
            by_head.setdefault(_row_key(row), []).append(departures)
            by_head.setdefault((cell.engine.name,), []).append(departures)
    return {head: frozenset.intersection(*of_cells) for head, of_cells in by_head.items()}


def _row_key(row: Row) -> tuple[str, str]:
    return row.quantizer.name, row.scheme


def _cut_columns(part: Part) -> list[range]:
    """Return runs of about equally many columns, no engine's cut apart."""
    spans = list(part.engines.values())
    number = max(1, -(-len(part.columns) // LONGEST))
    blocks, start, end = [], 0, 0
    for span in spans:
        end += span
        if end - start >= len(part.columns) / number:
            blocks.append(range(start, end))
            start = end
    if start < end or not blocks:
        blocks.append(range(start, end))
    return blocks


def _lines(part: Part, columns: range) -> list[str | Row | _Fold]:
    """Return what stands in the rows of a table: headings, rows with squares, folded rows."""
    rows = [row._replace(slots=row.slots[columns.start : columns.stop]) for row in part.rows]
    lines: list[str | Row | _Fold] = []
    for group, of_group in groupby((row for row in rows if any(row.slots)), lambda row: row.group):
        own = list(of_group)
        if len(own) > 1 or own[0].label != group:
            lines.append(group)
        for end, run in groupby(own, _early_end):
            alike = list(run)
            lines += alike if end is None else [_Fold(alike)]
    return lines


def _early_end(row: Row) -> tuple[str, ...] | None:
    """Return how all cells of a row ended before an engine was reached, or ``None``."""
    cells = [cell for slot in row.slots for cell in slot]
    ends = {
        (cell.verdict, cell.stage or "", cell.issue or cell.group or cell.message) for cell in cells
    }
    if len(ends) > 1 or any(cell.stage not in BEFORE_ENGINES for cell in cells):
        return None
    return next(iter(ends))


def _cut_lines(lines: list[str | Row | _Fold]) -> list[list[str | Row | _Fold]]:
    """Return runs of about equally many lines, none of which ends with a heading."""
    size = -(-len(lines) // max(1, -(-len(lines) // LONGEST)))
    runs: list[list[str | Row | _Fold]] = [[]]
    heading: list[str | Row | _Fold] = []
    for line in lines:
        if isinstance(line, str):
            heading = [line]
        elif (line.rows[0] if isinstance(line, _Fold) else line).group not in heading:
            heading = []
        if len(runs[-1]) + isinstance(line, str) >= max(size, 2):
            runs.append([] if isinstance(line, str) else [*heading])
        runs[-1].append(line)
    return runs


def _table(
    part: Part, columns: range, lines: list[str | Row | _Fold], notes: Notes, caption: str
) -> str:
    width = len(columns) + 1
    rows = []
    for line in lines:
        match line:
            case str():
                head = f'<th scope="rowgroup" colspan="{width}"><bdi>{_shown(line)}</bdi>'
                rows.append(f'<tr class="group">{head}')
            case Row():
                rows.append(_row(line, notes))
            case _Fold():
                rows.append(_fold(line, notes, width))
    return (
        f'<div class="scroll"><table class="grid" role="grid" aria-labelledby="{caption}">'
        f"<thead>{_heads(part, columns, notes)}</thead>\n<tbody>"
        + "\n".join(rows)
        + "</tbody></table></div>"
    )


def _heads(part: Part, columns: range, notes: Notes) -> str:
    shown = part.columns[columns.start : columns.stop]
    one_model = len({model for _, model in part.columns}) == 1
    engines, before = [], ""
    for name, of_engine in groupby(shown, lambda column: column[0]):
        product, label = _product_and_label(part, name)
        place = notes.installs.get(part.sides[name].environment)
        install = f' data-install="{escape(place)}"' if place else ""
        new = ' class="product"' if product != before else ""
        before = product
        engines.append(
            f'<th scope="col" colspan="{len(list(of_engine))}"{new} data-engine="{_shown(name)}"'
            f"{install}><span><b>{_shown(product)}</b> {_shown(label)}"
            f"{_mark(notes, notes.at_heads.get((name,), ()))}</span>"
        )
    models = [f'<th scope="col"><span>{_shown(model)}</span>' for _, model in shown]
    if one_model:
        model = _shown(shown[0][1]) if shown else ""
        return f'<tr class="engines" data-model="{model}"><td>{"".join(engines)}'
    return f'<tr class="engines"><td rowspan="2">{"".join(engines)}<tr class="models">' + "".join(
        models
    )


def _product_and_label(part: Part, name: str) -> tuple[str, str]:
    """Return what an engine is and its releases: ``vllm`` and ``0.32.0 tp2``."""
    release, rest = group_and_label(name, part.sides[name].axes)
    if release == name:
        product, _, version = name.partition("-")
        return product, version.replace("+", " ")
    product, _, version = release.rpartition("-")
    return product, f"{version} {rest}".replace("+", " ")


def _row(row: Row, notes: Notes) -> str:
    squares = "".join(f"<td>{''.join(square(cell, notes) for cell in slot)}" for slot in row.slots)
    return f'<tr {_names(row)}><th scope="row">{_label(row, notes)}{squares}'


def _fold(fold: _Fold, notes: Notes, width: int) -> str:
    """Return a line that opens into the rows that ended for one cause."""
    cells = [cell for row in fold.rows for slot in row.slots for cell in slot]
    first = cells[0]
    number = notes.causes.get(first.id)
    why = notes.titles[number] if number is not None else first.message or first.reason.value
    labels = list(dict.fromkeys(_shown(_row_label(row)) for row in fold.rows))
    if len(labels) > _LABELS:
        labels = [f"{len(fold.rows)} rows, {labels[0]} to {labels[-1]}"]
    rows = "".join(
        f"<div {_names(row)}><span>{_label(row, notes)}</span>"
        + "".join(
            square(cell, notes, column) for column, slot in enumerate(row.slots) for cell in slot
        )
        + "</div>"
        for row in fold.rows
    )
    return (
        f'<tr class="fold"><td colspan="{width}"><details><summary>'
        f'<i class="{css_class(first.verdict)}">{SYMBOLS[first.verdict]}</i>'
        f" <b>{', '.join(labels)}</b> {first.verdict}: {_shown(why)}"
        f" <small>({counted(len(cells), 'cell')})</small></summary>"
        f"{rows}</details>"
    )


def square(cell: CellResult, notes: Notes, column: int | None = None) -> str:
    """Return the square of a cell, a link to its page; ``column`` where it stands in none."""
    marks, label = "", f"{cell.verdict}: {_shown(cell.model)} in {_shown(cell.engine.name)}"
    if needs := need(cell):
        label += f", {_shown(needs.partition(' (')[0])}"  # what is here says the page
    if cell.canary:
        marks, label = "★", f"{label}, canary: must be {cell.canary}"
    if elsewhere := otherwise_elsewhere(cell):
        marks += "⇄"
        label += "".join(
            f", {_shown(verdict)} on {_shown(device)}" for device, verdict in elsewhere.items()
        )
    attributes = f' data-column="{column}"' if column is not None else ""
    if (number := notes.causes.get(cell.id)) is not None:
        attributes += f' data-cause="{number}"'
    if cell.flaky:
        marks += "~"
        attributes += ' data-flaky="1"'
        label += ", flaky"
    if kind := notes.changes.get(cell.id):
        marks += "•"
        attributes += f' data-changed="{css_class(kind)}"'
        label += f", {kind}"
    at_heads = notes.at_heads.get((cell.quantizer.name, cell.scheme), frozenset())
    at_heads |= notes.at_heads.get((cell.engine.name,), frozenset())
    if own := sorted(set(cell.departures) - at_heads):
        marks += "†"
        label += f", {''.join(notes.marks[name] for name in own)}"
    corner = f"<sup>{marks[:1]}</sup>" if marks else ""
    return (
        f'<a class="{css_class(cell.verdict)}" href="{page_of(cell.id)}"{attributes}'
        f' aria-label="{label}">{SYMBOLS[cell.verdict]}{corner}</a>'
    )


def _names(row: Row) -> str:
    return f'data-quantizer="{_shown(row.quantizer.name)}"'


def _label(row: Row, notes: Notes) -> str:
    mark = _mark(notes, notes.at_heads.get(_row_key(row), ()))
    return f"<bdi>{_shown(_row_label(row))}</bdi> <small>{_shown(row.scheme)}</small>{mark}"


def _mark(notes: Notes, departures: Iterable[str]) -> str:
    marks = "".join(notes.marks[name] for name in sorted(departures))
    return f' <small class="mark">{marks}</small>' if marks else ""


def _row_label(row: Row) -> str:
    return "none: the float model" if row.quantizer.name == FLOAT_MODEL else row.label


@functools.lru_cache(100_000)
def _shown(text: str) -> str:
    """Return untrusted text as HTML shows it, between tags and in attributes."""
    return str(escape(visible(text, _NAME_CHARS)))
