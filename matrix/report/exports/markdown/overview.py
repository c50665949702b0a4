"""The sections of ``matrix.md`` that say what to believe, what changed, and what is wrong."""

from __future__ import annotations

from collections.abc import Iterator

from matrix.history.changes import Changes
from matrix.judge.results import CanaryState, MatrixResult
from matrix.pipeline.outcomes import Verdict
from matrix.report import table
from matrix.report.causes import Cause, causes
from matrix.report.exports.markdown.rows import (
    NAME_CHARS,
    Section,
    first_cells,
    head_of_table,
    listed,
    long,
    row,
)
from matrix.untrusted.text import markdown


def head(result: MatrixResult) -> Iterator[str]:
    """Yield the lines above the first heading: what the run is, and whether it can be believed."""
    number = table.counts(result.cells)
    yield "# Quantization compatibility matrix\n"
    if result.going_on:
        yield f"**{markdown(result.going_on)}**\n"
    counted = (f"{table.SYMBOLS[verdict]} {number[verdict]} {verdict}" for verdict in Verdict)
    yield f"{len(result.cells)} cells: {', '.join(counted)}\n"
    yield _where_from(result) + "\n"
    if result.canaries is CanaryState.VOID:
        yield "**This run is void: trust nothing below until its canaries are explained.**\n"
    yield from (f"- {markdown(line, 400)}" for line in result.canary_troubles)
    if result.canary_troubles:
        yield ""
    if devices := table.devices(result.cells):
        yield f"Evidence from: {markdown('; '.join(devices), 400)}.\n"
    if releases := table.new_releases(result):
        yield f"New releases: {markdown(', '.join(releases), 1000)}.\n"
    yield from (f"{markdown(line)}.\n" for line in result.budget)


def _where_from(result: MatrixResult) -> str:
    facts = [f"{name}: {value}" for name, value in sorted(result.machine.items()) if value]
    until = result.finished or "no date: nothing was run yet"
    return (
        f"Profile {markdown(result.profile)}, evidence up to {markdown(until)}. "
        f"Canaries: {result.canaries or 'none in this profile'}. "
        f"Machine: {markdown('; '.join(facts), 1000) or 'not recorded'}."
    )


def changes_section(changes: Changes) -> Section:
    """Return what changed since the run before, a line for each group of cells."""
    groups = [
        f"{group.kind}: {markdown(group.title, 300)}: {first_cells(group.cells)}"
        for group in changes.groups
    ]
    title = f"What changed since {markdown(changes.old, NAME_CHARS)}"
    return listed(title, groups or ["Nothing: all came out as before."])


def causes_section(result: MatrixResult) -> Section:
    """Return what is wrong, each cause with its fix."""
    wrong = causes(result)
    before = head_of_table(
        "cells", "where", "cause", "stage: reason", "blame", "known issue", "fix", "source",
        "such as",
    ) if wrong else "Nothing is wrong.\n"  # fmt: skip
    return Section(
        "One cause, counted once", before, len(wrong), lambda: (_cause(c, result) for c in wrong)
    )


def _cause(cause: Cause, result: MatrixResult) -> str:
    issue = result.issues.get(cause.issue)
    unknown = f"not known: {cause.group}" if cause.group else "not known"
    return row(
        len(cause.cells),
        long(", ".join(cause.subjects), 400),
        cause.message or cause.reason,
        f"{cause.stage or 'no stage'}: {cause.reason}",
        cause.blame,
        issue.title if issue else unknown,
        long(issue.fix, 600) if issue else "",
        long(issue.sources[0], 300) if issue and issue.sources else "",
        first_cells(cause.cells),
    )


def contradictions(result: MatrixResult) -> Section:
    """Return the known issues that the run contradicts."""
    troubles = [markdown(line, 400) for line in result.issue_troubles]
    return listed("Known issues that this run contradicts", troubles)


def departures_section(result: MatrixResult, marks: dict[str, str]) -> Section:
    """Return the marks of departures with what they stand for."""
    columns = ("mark", "departure", "what it changes and why")

    def rows() -> Iterator[str]:
        for name, mark in marks.items():
            yield row(mark, name, long(result.departures.get(name, "not explained"), 600))

    before = head_of_table(*columns) if marks else "None.\n"
    return Section("Departures from stock packages", before, len(marks), rows)


def verdicts_section(result: MatrixResult) -> Section:
    """Return what the verdicts mean."""
    number = table.counts(result.cells)

    def rows() -> Iterator[str]:
        for verdict in Verdict:
            word = f"{table.SYMBOLS[verdict]} {verdict}"
            yield row(word, number[verdict], table.MEANINGS[verdict])

    return Section("Verdicts", head_of_table("verdict", "cells", "meaning"), len(Verdict), rows)
