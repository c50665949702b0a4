"""``matrix.md``: the table, its causes and what works together, for an issue or a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from matrix.judge.results import CanaryState, CellResult, MatrixResult, Standing
from matrix.pipeline.outcomes import Verdict
from matrix.report.causes import causes
from matrix.report.constraints import declared_bounds, held_bounds, tried
from matrix.report.locks import install_lines
from matrix.report.standings import (
    STATES,
    Row,
    groups,
    remarks,
    resolutions,
    resolved,
    state,
)
from matrix.report.table import (
    MEANINGS,
    NO_SPECIFIERS,
    SYMBOLS,
    Part,
    columns,
    counts,
    devices,
    engines,
    frame,
    markers,
    need,
    new_releases,
    otherwise_elsewhere,
    packages_in_words,
    parts,
    pivot,
    ran,
    short_device,
    together,
)
from matrix.untrusted.text import markdown, markdown_code


def markdown_document(result: MatrixResult) -> str:
    """Return the Markdown text of a normalised result."""
    sections = [
        _head(result),
        *((f"## Table: {_title(part)}", _pivot_table(result, part)) for part in parts(result)),
        ("## One cause, counted once", _causes_table(result)),
        *(
            (f"## What works together: {_title(part)}", _together_table(result, part))
            for part in parts(result)
        ),
        ("## Install what works", _install_list(result)),
        ("## Declared, resolves, works", _standings_table(result)),
        ("## Specifiers that hold", _specifiers_table(result)),
        ("## Cells", _cells_table(result)),
        ("## Departures from stock packages", _departures_table(result)),
        ("## Verdicts", _legend(result)),
    ]
    return "\n".join("\n".join([title, "", *body, ""]) for title, body in sections)


def _table(header: list[str], rows: Iterable[list[str]], nothing: str) -> list[str]:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    if not lines:
        return [nothing]
    return ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header), *lines]


def _head(result: MatrixResult) -> tuple[str, list[str]]:
    number = counts(result.cells)
    shown = ", ".join(f"{SYMBOLS[verdict]} {number[verdict]} {verdict}" for verdict in Verdict)
    machine = "; ".join(
        f"{markdown(k)}: {markdown(v)}" for k, v in sorted(result.machine.items()) if v
    )
    seen_on = devices(result.cells)
    new = ", ".join(map(markdown, new_releases(result)))
    return "# Quantization compatibility matrix", [
        *([f"**{markdown(result.going_on)}**", ""] if result.going_on else []),
        f"{len(result.cells)} cells: {shown}",
        "",
        f"Profile {markdown(result.profile)}, evidence up to "
        f"{markdown(result.finished) or 'no date: nothing was run yet'}. "
        f"Canaries: {markdown(result.canaries) or 'none in this profile'}. "
        f"Machine: {machine or 'not recorded'}.",
        *_canary_troubles(result),
        *(["", f"Evidence from: {markdown('; '.join(seen_on), 400)}."] if seen_on else []),
        *(["", f"New releases: {new}."] if new else []),
        *(text for line in result.budget for text in ("", f"{markdown(line)}.")),
    ]


def _canary_troubles(result: MatrixResult) -> list[str]:
    void = "**This run is void: trust nothing below until its canaries are explained.**"
    lines = ["", void] if result.canaries is CanaryState.VOID else []
    if result.canary_troubles:
        lines += ["", *(f"- {markdown(line, 400)}" for line in result.canary_troubles)]
    return lines


def _title(part: Part) -> str:
    return markdown(part.title) or "all cells"


def _pivot_table(result: MatrixResult, part: Part) -> list[str]:
    table = pivot(frame(part.cells))
    marks = markers(result)
    several = len(devices(result.cells)) > 1
    header = ["quantizer", "scheme"]
    header += [f"{markdown(engine)}: {markdown(model)}" for engine, model in columns(table)]
    rows = []
    for index, values in zip(table.index, table.to_numpy(), strict=True):
        slots = [_slot(part.cells, numbers, marks, several=several) for numbers in values]
        rows.append([*(markdown(part) for part in index), *slots])
    return _table(header, rows, "There are no cells.")


def _slot(cells: list[CellResult], numbers: object, marks: dict[str, str], *, several: bool) -> str:
    if not isinstance(numbers, tuple):
        return "·"
    shown = []
    for cell in (cells[number] for number in numbers):
        mark = "".join(" " + marks[name] for name in cell.departures)
        canary = " (canary)" if cell.canary else ""
        where = f" on {markdown(short_device(cell.device), 40)}" if several and ran(cell) else ""
        needs = f" ({markdown(need(cell), 60)})" if need(cell) else ""
        others = "; ".join(
            f"{markdown(verdict, 40)} on {markdown(device, 100)}"
            for device, verdict in otherwise_elsewhere(cell).items()
        )
        elsewhere = f" (elsewhere {others})" if others else ""
        more = f"{mark}{canary}{where}{needs}{elsewhere}"
        shown.append(f"{SYMBOLS[cell.verdict]} {cell.verdict}{more}")
    return ", ".join(shown)


def _causes_table(result: MatrixResult) -> list[str]:
    rows = [
        [
            str(cause.cells),
            markdown(", ".join(cause.subjects), 400),
            markdown(cause.message) or markdown(cause.reason),
            f"{cause.stage or 'no stage'}: {markdown(cause.reason)}",
            markdown(cause.blame),
        ]
        for cause in causes(result)
    ]
    return _table(["cells", "where", "cause", "stage: reason", "blame"], rows, "Nothing is wrong.")


def _together_table(result: MatrixResult, part: Part) -> list[str]:
    marks = markers(result)
    names = engines(part.cells)
    rows = []
    for row in together(part.cells):
        works = [
            "".join(["✓ works", *(f" {marks[departure]}" for departure in row.engines[name])])
            if name in row.engines
            else ("no" if name in row.fails else "not known")
            for name in names
        ]
        shown = markdown(row.quantizer.name)
        packages = markdown(packages_in_words(row.quantizer))
        rows.append([shown, markdown(row.scheme), *works, packages])
    header = ["quantizer", "scheme", *(markdown(name) for name in names), "packages"]
    return _table(header, rows, "No quantizer works with every model in any engine.")


def _install_list(result: MatrixResult) -> list[str]:
    lines = [
        f"- {markdown(name)} ([lock]({install.lock})): {markdown_code(install.line, 1000)}"
        for name, install in install_lines(result).items()
    ]
    if not lines:
        return ["Nothing works that could be installed again."]
    return [
        "Each line makes a virtualenv in the folder of this report, with just the packages that "
        "were seen to work. The lock says what was otherwise here.",
        "",
        *lines,
    ]


def _standings_table(result: MatrixResult) -> list[str]:
    listed = groups(result)
    times = resolutions(listed)
    rows = [
        [
            markdown(row.environment.name),
            "; ".join(f"{word} ({markdown(by)})" if by else word for word, by in row.declared),
            *(_standing(row, row.at[resolution]) for resolution in times),
            "; ".join(markdown(line) for line in row.environment.differences) or "nothing",
        ]
        for group in listed
        for row in group.rows
    ]
    header = ["environment", "declared", *times.values(), "what differs"]
    return _table(header, rows, "No resolver was asked yet.")


def _standing(row: Row, standing: Standing | None) -> str:
    word = state(standing)
    parts = [f"{STATES[word]} {word}"]
    if standing is not None:
        parts += filter(
            None, (markdown(resolved(row, standing)), *map(markdown, remarks(standing)))
        )
        parts += [markdown(standing.refusal)] if standing.refusal else []
    return ": ".join([parts[0], "; ".join(parts[1:])]) if parts[1:] else parts[0]


def _specifiers_table(result: MatrixResult) -> list[str]:
    if result.canaries is CanaryState.VOID:
        return [NO_SPECIFIERS]
    rows = [
        [
            markdown(f"{specifier.package} {specifier.release}"),
            markdown_code(held_bounds(specifier)),
            markdown(declared_bounds(specifier)),
            "; ".join(markdown(line) for line in specifier.differs)
            or ("not known" if specifier.declared is None else "nothing"),
            "; ".join(f"{word}: {markdown(versions)}" for word, versions in tried(specifier)),
            markdown("; ".join(specifier.devices)),
        ]
        for specifier in result.specifiers
    ]
    header = ["release", "holds", "declared", "what differs", "evidence", "on"]
    return _table(header, rows, "Nothing was observed that says which versions go together.")


def _cells_table(result: MatrixResult) -> list[str]:
    rows = [
        [
            markdown(cell.id),
            f"{SYMBOLS[cell.verdict]} {cell.verdict}",
            markdown(cell.message),
            cell.stage.value if cell.stage else "",
            markdown(cell.reason),
            cell.blame.value,
            markdown_code(cell.command),
        ]
        for cell in result.cells
    ]
    header = ["cell", "verdict", "cause", "stage", "reason", "blame", "run it alone"]
    return _table(header, rows, "There are no cells.")


def _departures_table(result: MatrixResult) -> list[str]:
    rows = [
        [mark, markdown(name), markdown(result.departures.get(name, "not explained"), 600)]
        for name, mark in markers(result).items()
    ]
    return _table(["mark", "departure", "what it changes and why"], rows, "None.")


def _legend(result: MatrixResult) -> list[str]:
    number = counts(result.cells)
    rows = [[f"{SYMBOLS[v]} {v}", str(number[v]), MEANINGS[v]] for v in Verdict]
    return _table(["verdict", "cells", "meaning"], rows, "")
