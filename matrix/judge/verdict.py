"""From ten stage outcomes to what a cell is, and whose fault it is. Pure.

Three steps, each usable alone: :func:`stage_results` lets the findings of a stage change its
outcome, :func:`fold` makes the verdict, :func:`canary_state` says whether a run may be believed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import assert_never

import msgspec

from matrix.judge.explaining import explanation
from matrix.judge.results import CanaryState, CellResult
from matrix.pipeline.outcomes import (
    NO_ANSWER,
    Finding,
    Judgement,
    Outcome,
    Reason,
    StageResult,
    Verdict,
)
from matrix.pipeline.steps import ALWAYS, STAGES, Blame, Stage

COMPARISONS = ("greedy-text", "logprobs-reference")
"""The checks without which nothing was compared, so that nothing can be said to work."""

READABLE = "checkpoint-readable"
"""The check whose failure says that a checkpoint must not be given to an engine."""

_CONCLUSIVE = (Judgement.PASSED, Judgement.DEGRADED, Judgement.FAILED)
_BY_CHECKS = (Reason.WRONG_OUTPUT, Reason.DEFECTIVE_FILE)
"""Reasons of a stage that came to its end, and failed by what checks found."""


class JudgedCell(msgspec.Struct, frozen=True):
    """What a cell is, whose fault, and why: the cause first, what came of it after."""

    verdict: Verdict
    blame: Blame
    stage: Stage | None
    """Stage at which the cause lies; ``None`` where all passed."""
    reason: Reason
    message: str
    explained_by: str = ""
    """Id of the check whose finding explains it; empty where there is but the stage's own end."""


def blocks(result: StageResult) -> bool:
    """Return whether a stage's end keeps the later stages that build on it from being tried.

    A readable checkpoint with a wrong weight is loaded all the same: what an engine makes of it is
    the question. So is what an engine generates after it warned of missing weights.
    """
    match result.outcome:
        case Outcome.PASSED | Outcome.DEGRADED:
            return False
        case Outcome.FAILED:
            return (result.stage, result.reason) not in _SOFT
        case Outcome.UNSUPPORTED | Outcome.NEEDS_HARDWARE | Outcome.BLOCKED | Outcome.INFRA:
            return True
        case _:
            assert_never(result.outcome)


_SOFT = {(Stage.INSPECT, Reason.DEFECTIVE_FILE), (Stage.LOAD, Reason.WRONG_OUTPUT)}


def stage_results(
    observed: Mapping[Stage, StageResult],
    findings: Sequence[Finding],
    stages: Iterable[Stage] = ALWAYS,
) -> list[StageResult]:
    """Return the results of a cell's stages in order, with what the checks found worked in.

    A stage that passed becomes degraded or failed by its findings. One that was never reached is
    blocked where an earlier one explains it, and otherwise not run, which is infrastructure.
    ``generate`` cannot pass without having been compared.
    """
    results: list[StageResult] = []
    for stage in stages:
        result = observed.get(stage)
        if result is not None and result.outcome is Outcome.PASSED:
            result = _with_findings(result, [f for f in findings if f.stage is stage])
        elif result is None and any(map(blocks, results)):
            result = StageResult(Outcome.BLOCKED, Reason.EARLIER_STAGE, stage=stage)
        elif result is None:
            message = "this stage was not run"
            result = StageResult(Outcome.INFRA, Reason.NOT_RUN, message, stage=stage)
        results.append(result)
    return results


def _with_findings(result: StageResult, findings: list[Finding]) -> StageResult:
    stage = result.stage
    failed = [finding for finding in findings if finding.judgement is Judgement.FAILED]
    degraded = [finding for finding in findings if finding.judgement is Judgement.DEGRADED]
    if stage is Stage.GENERATE and not compared(findings):
        message = "the engine answered, but nothing could be compared"
        return StageResult(Outcome.FAILED, Reason.NO_RESULT, message, stage=stage)
    if not failed and not degraded:
        return result
    reason = Reason.DEFECTIVE_FILE if stage is Stage.INSPECT else Reason.WRONG_OUTPUT
    if any(finding.check == READABLE for finding in failed):
        reason = Reason.UNREADABLE
    outcome = Outcome.FAILED if failed else Outcome.DEGRADED
    message = "; ".join(f"{finding.check}: {finding.message}" for finding in failed or degraded)
    return StageResult(outcome, reason, message, stage=stage)


def compared(findings: Iterable[Finding]) -> bool:
    """Return whether text and log-probabilities were really compared with the reference."""
    conclusive = {finding.check for finding in findings if finding.judgement in _CONCLUSIVE}
    return conclusive.issuperset(COMPARISONS)


def fold(
    stages: Sequence[StageResult], findings: Sequence[Finding], *, float_works: bool | None = None
) -> JudgedCell:
    """Return the verdict of a cell, and its cause.

    The first result that keeps later stages from being tried decides. Where there is none, what
    was generated decides; and it works only if all ten passed and the answer was compared.

    The cause is the exception or whatever else ended it; else the finding that explains the failure
    in this engine; else the first check that failed. What came of it, and what else is wrong, is
    said after it.

    ``float_works`` is whether the float model works in the same engine; ``None`` where unknown, and
    ``False`` for the float model's own cell too, whose trouble is nobody else's. Raises
    ``ValueError`` where ``stages`` are not those of a cell, in order.
    """
    if [result.stage for result in stages] not in (list(ALWAYS), list(Stage)):
        raise ValueError("stages: want each of a cell once, in order; use stage_results()")
    failure = next((result for result in stages if blocks(result)), None)
    if failure is not None:
        verdict = _verdict(failure)
    elif not compared(findings):
        message = "nothing was compared, so nothing can be said"
        failure = StageResult(Outcome.INFRA, Reason.NO_RESULT, message, stage=Stage.GENERATE)
        verdict = Verdict.INFRA
    else:
        failure, verdict = _worst(stages), Verdict.DEGRADED
    if failure is None:
        return JudgedCell(Verdict.WORKS, Blame.NOBODY, None, Reason.NONE, "")
    faulty = verdict in (Verdict.BROKEN, Verdict.GARBAGE, Verdict.DEGRADED)
    # Where the float model fails as well, or no build of the release has what it calls, the engine
    # needs no file to fail.
    by_itself = float_works is False or failure.reason is Reason.NOT_BUILT
    blame = STAGES[failure.stage].blame if faulty else Blame.NOBODY
    if by_itself:
        blame = Blame.ENGINE if blame is Blame.PAIR else blame
        return _judged_cell(verdict, failure, blame, None, findings)
    explained = explanation(failure, findings) if faulty else None
    return _judged_cell(verdict, failure, blame, explained, findings)


def _worst(stages: Sequence[StageResult]) -> StageResult | None:
    """Return the result that decides a cell in which no stage blocked a later one: that of what it
    answered, else the first that failed, else the first that is degraded."""
    imperfect = [result for result in stages if result.outcome is not Outcome.PASSED]
    failed = [result for result in imperfect if result.outcome is Outcome.FAILED]
    answered = [result for result in imperfect if result.stage is Stage.GENERATE]
    return next(iter([*answered, *failed, *imperfect]), None)


def _judged_cell(
    verdict: Verdict,
    failure: StageResult,
    blame: Blame,
    explained: Finding | None,
    findings: Sequence[Finding],
) -> JudgedCell:
    """Return a cell with its cause; ``blame`` is whose fault it is where no finding explains it."""
    stage, reason, parts = failure.stage, failure.reason, [failure.message]
    if explained is not None and explained.explains is not None:
        blame = explained.explains.blame
        cause = f"{explained.check}: {explained.message}"
        if failure.reason in _BY_CHECKS:
            parts = [f"{cause}; then {stage.value}: {failure.message}"]
            stage, reason = explained.stage, _reason(explained)
        else:
            parts.append(f"explained by {cause}")
    parts += [
        f"also {finding.stage.value}: {finding.check}: {finding.message}"
        for finding in findings
        if finding.judgement in (Judgement.DEGRADED, Judgement.FAILED)
        and finding.stage is not failure.stage
        and finding is not explained
    ]
    by = explained.check if explained else ""
    return JudgedCell(verdict, blame, stage, reason, "; ".join(filter(None, parts)), by)


def _reason(explained: Finding) -> Reason:
    """Return the word for a finding that is the cause of a cell's failure."""
    if explained.stage is not Stage.INSPECT:
        return Reason.WRONG_OUTPUT
    notice = explained.judgement is Judgement.NOTICE
    return Reason.UNSUITED_FILE if notice else Reason.DEFECTIVE_FILE


def _verdict(decisive: StageResult) -> Verdict:
    """Return the verdict of a cell that came to its end at ``decisive``."""
    match decisive.outcome:
        case Outcome.FAILED:
            wrong = (decisive.stage, decisive.reason) == (Stage.GENERATE, Reason.WRONG_OUTPUT)
            return Verdict.GARBAGE if wrong else Verdict.BROKEN
        case Outcome.UNSUPPORTED:
            return Verdict.UNSUPPORTED
        case Outcome.NEEDS_HARDWARE:
            return Verdict.UNTESTED
        case Outcome.BLOCKED:
            return Verdict.NOT_RUN  # by nothing that failed: the run did not get there
        case Outcome.INFRA:
            return Verdict.NOT_RUN if decisive.reason is Reason.NOT_RUN else Verdict.INFRA
        case Outcome.PASSED | Outcome.DEGRADED:
            raise ValueError(f"{decisive.stage.value} {decisive.outcome.value} ends nothing")
        case _:
            assert_never(decisive.outcome)


def canary_state(cells: Iterable[CellResult]) -> CanaryState:
    """Return whether the cells that are known beforehand came out as known."""
    states = {_state_of(cell.verdict, cell.canary) for cell in cells if cell.canary is not None}
    gravest = (CanaryState.VOID, CanaryState.NOT_ESTABLISHED, CanaryState.ESTABLISHED)
    return next((state for state in gravest if state in states), CanaryState.NONE)


def _state_of(verdict: Verdict, expected: Verdict) -> CanaryState:
    if verdict is expected:
        return CanaryState.ESTABLISHED
    if verdict in NO_ANSWER:
        return CanaryState.NOT_ESTABLISHED
    return CanaryState.VOID
