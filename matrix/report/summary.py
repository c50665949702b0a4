"""The last lines that a run prints."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from matrix.history.changes import ChangeKind, Changes
from matrix.judge.results import PAGE, CanaryState, MatrixResult
from matrix.pipeline.outcomes import Verdict
from matrix.report.causes import Cause, causes
from matrix.report.table import SYMBOLS, counts, new_releases, normalise
from matrix.untrusted.text import visible

SUMMARY_CAUSES = 5
LINE_CHARS = 300
CAUSE_CHARS = 200


def summary(
    result: MatrixResult,
    directory: str | os.PathLike[str] = "reports",
    changes: Changes | None = None,
) -> list[str]:
    """Return the last lines that a run prints, each safe for a terminal."""
    ordered = normalise(result)
    number = counts(ordered.cells)
    listed = causes(ordered)
    is_void = ordered.canaries is CanaryState.VOID
    new = new_releases(ordered)
    lines = [
        *([visible(ordered.going_on, LINE_CHARS)] if ordered.going_on else []),
        *(visible(line, LINE_CHARS) for line in ordered.budget),
        f"{len(ordered.cells)} cells in profile {visible(ordered.profile, 60)}: "
        + ", ".join(f"{SYMBOLS[verdict]} {number[verdict]} {verdict}" for verdict in Verdict),
        f"canaries: {visible(ordered.canaries, 60) or 'none in this profile'}"
        + ("; trust no verdict before this is explained" if is_void else ""),
        *(f"  {visible(line, LINE_CHARS)}" for line in ordered.canary_troubles),
    ]
    if changes:
        lines.append(_changes_line(changes))
    if new:
        lines.append(f"new releases: {visible(', '.join(new), LINE_CHARS)}")
    if listed:
        lines.append(f"main causes ({min(len(listed), SUMMARY_CAUSES)} of {len(listed)}):")
        for cause in listed[:SUMMARY_CAUSES]:
            lines += _cause_lines(cause, ordered)
    lines += [
        f"known issue that this run contradicts: {visible(line, LINE_CHARS)}"
        for line in ordered.issue_troubles
    ]
    return [*lines, f"report: {Path(directory) / PAGE}"]


def _changes_line(changes: Changes) -> str:
    """Return how many cells came out otherwise than in the run before, by what became of them."""
    cells: Counter[ChangeKind] = Counter()
    for group in changes.groups:
        cells[group.kind] += len(group.cells)
    numbers = ", ".join(f"{number:,} {kind}" for kind, number in cells.items())
    tells = f"{numbers} (`matrix diff` says which)" if numbers else "nothing changed"
    return f"since {visible(changes.old, LINE_CHARS)}: {tells}"


def _cause_lines(cause: Cause, result: MatrixResult) -> list[str]:
    """Return a line for a cause, and one for its fix where it is a known issue."""
    first, more = visible(cause.subjects[0], 100), len(cause.subjects) - 1
    where = f"{first} and {more} more" if more else first
    number = len(cause.cells)
    cells = "cell" if number == 1 else "cells"
    entry = result.issues.get(cause.issue)
    what = entry.title if entry else visible(cause.message, CAUSE_CHARS) or cause.reason
    lines = [f"  {number:4} {cells:5}  {what} ({cause.stage or 'no stage'}: {where})"]
    if entry:
        lines.append(f"{'':14}fix: {visible(' '.join(entry.fix.split()), LINE_CHARS)}")
    return lines
