"""The cells as test cases, as programs for continuous integration show them.

A cell that works or is merely degraded passes, one that is garbage or broken fails, and one that
says nothing of the packages, or is refused by design, is skipped. So do the canaries as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple, assert_never

from matrix.judge.results import CanaryState, CellResult, KnownIssue, MatrixResult
from matrix.pipeline.outcomes import Verdict
from matrix.pipeline.steps import Stage
from matrix.untrusted.text import visible

State = Literal["passed", "failed", "skipped"]
NAME_CHARS = 300
LINE_CHARS = 1000
OWN = (Stage.LOAD, Stage.GENERATE)
"""Stages that no other cell shares."""
MOST_SECONDS = 1e9
"""What no sum of measured times exceeds, and what a format's number can still hold."""


class Case(NamedTuple):
    """One test case; its texts are visible."""

    suite: str
    """Quantizer and scheme."""
    name: str
    state: State
    verdict: str
    message: str
    """Its cause in a line; empty where nothing is to be said."""
    details: list[str]
    """What else a reader wants who sees it, a line each."""
    seconds: float
    """Of its own stages."""
    flaky: bool


def cases(result: MatrixResult) -> Iterator[Case]:
    """Yield the canaries first, then a case for each cell in the order of the table."""
    yield _canaries(result)
    for cell in result.cells:
        yield Case(
            suite=visible(f"{cell.quantizer.name}/{cell.scheme}", NAME_CHARS),
            name=visible(cell.id, NAME_CHARS),
            state=_state(cell.verdict),
            verdict=cell.verdict,
            message=visible(cell.message, LINE_CHARS),
            details=_details(cell, result.issues.get(cell.issue)),
            seconds=min(sum(cell.timings.get(stage, 0.0) for stage in OWN), MOST_SECONDS),
            flaky=cell.flaky,
        )


def _canaries(result: MatrixResult) -> Case:
    state: State = "skipped"
    message = "no canaries in this profile"
    match result.canaries:
        case CanaryState.ESTABLISHED:
            state, message = "passed", ""
        case CanaryState.VOID:
            state, message = "failed", "this run is void: trust nothing before this is explained"
        case CanaryState.NOT_ESTABLISHED:
            message = "they could not be judged"
        case CanaryState.NONE:
            pass
        case never:
            assert_never(never)
    troubles = [visible(line, LINE_CHARS) for line in result.canary_troubles]
    return Case("canaries", "canaries", state, result.canaries, message, troubles, 0.0, flaky=False)


def _state(verdict: Verdict) -> State:
    match verdict:
        case Verdict.WORKS | Verdict.DEGRADED:
            return "passed"
        case Verdict.GARBAGE | Verdict.BROKEN:
            return "failed"
        case Verdict.UNSUPPORTED | Verdict.UNTESTED | Verdict.INFRA | Verdict.NOT_RUN:
            return "skipped"
        case never:
            assert_never(never)


def _details(cell: CellResult, issue: KnownIssue | None) -> list[str]:
    """Return what is told of a cell; nothing of one that works."""
    flaky = "flaky: both good and bad answers were seen of it"
    lines = [flaky] if cell.flaky else []
    if cell.verdict is not Verdict.WORKS:
        lines += [
            f"{cell.verdict} at {cell.stage or 'no stage'}: {cell.reason}; blame: {cell.blame}",
            f"cause: {cell.message or 'none was told'}",
        ]
    if issue:
        source = issue.sources[0] if issue.sources else "none"
        lines += [f"known issue: {issue.title}", f"fix: {issue.fix}", f"source: {source}"]
    if lines:
        lines.append(f"run it alone: {cell.command}")
    return [visible(line, LINE_CHARS) for line in lines]
