"""What a table says of the known issues: which of them its cells have, and which it contradicts.

A catalogue rots where nobody asks whether what it says still happens. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import msgspec

from matrix.diagnose.catalogue import Effect, Issue
from matrix.diagnose.matching import Failure, Fit, fit_of, match_issue
from matrix.judge.diagnosing import failure_at
from matrix.judge.results import CellResult, KnownIssue
from matrix.judge.sides import Installed
from matrix.pipeline.outcomes import Judgement, Outcome
from matrix.pipeline.steps import STAGES
from matrix.plan.cells import Cell
from matrix.untrusted.text import natural

SHOWN = 3
"""How many cells a line names."""


def issues_of(cells: Iterable[CellResult], issues: Mapping[str, Issue]) -> dict[str, KnownIssue]:
    """Return the known issues that cells have or look like, by id, with how many they explain."""
    results = list(cells)
    explained = Counter(cell.issue for cell in results if cell.issue)
    names = {*explained, *(cell.looks_like for cell in results if cell.looks_like)}
    return {
        name: KnownIssue(
            title=issues[name].title,
            effect=issues[name].effect,
            cause=issues[name].cause,
            fix=issues[name].fix,
            repair=issues[name].repair,
            sources=issues[name].sources,
            confidence=issues[name].confidence,
            cells=explained[name],
        )
        for name in sorted(names)
    }


def contradictions(
    pairs: Iterable[tuple[Cell, CellResult]],
    issues: Iterable[Issue],
    installed: Callable[[Cell], Installed],
) -> list[str]:
    """Return a line for each known issue that was observed of cells, and all of them pass now.

    Only what this project observed is looked at, by the environment, checkpoint or cell that it
    was observed of: whether other cells would show an issue, nobody knows.
    """
    judged = [(cell, result, installed(cell)) for cell, result in pairs]
    lines = []
    for issue in issues:
        subjects = {log.subject for log in issue.logs if log.observed}
        if issue.effect is Effect.HARMLESS or issue.hardware or not subjects:
            continue
        outcomes = {
            result.id: passed
            for cell, result, packages in judged
            if subjects & _subjects(cell)
            and (passed := _passes(issue, cell, result, packages)) is not None
        }
        if outcomes and all(outcomes.values()):
            names = sorted(outcomes, key=natural)
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            lines.append(f"{issue.id}: observed of {', '.join(names[:SHOWN])}{more}, which pass")
    return lines


def _subjects(cell: Cell) -> set[str]:
    """Return the names of a cell, its checkpoint and its environments."""
    roles = (cell.checkpoint.quantizer, cell.engine)
    return {cell.id, cell.checkpoint.id, *(role.environment for role in roles)}


def _passes(issue: Issue, cell: Cell, result: CellResult, packages: Installed) -> bool | None:
    """Return whether a cell that an issue is about passes the steps at which it shows; ``None``
    where it is about another one, or the step was not reached."""
    # What a check only remarks in passing shows the issue as well.
    remarks = [
        msgspec.structs.replace(finding, judgement=Judgement.NOTICE) for finding in result.findings
    ]
    shown = match_issue(issue, Failure(findings=remarks))
    if shown is not None or issue.id in (result.issue, result.looks_like):
        return False
    reached = [
        stage
        for stage in result.stages
        if STAGES[stage.stage].step in issue.steps
        and stage.outcome in (Outcome.PASSED, Outcome.DEGRADED, Outcome.FAILED)
        and fit_of(issue, failure_at(stage.stage, cell, packages, None)) is not Fit.LOOKS_LIKE
    ]
    return all(stage.outcome is Outcome.PASSED for stage in reached) if reached else None
