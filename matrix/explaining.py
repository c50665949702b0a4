"""Which finding explains a stage's failure. Pure.

A notice about a file breaks one engine and not another, and an engine fails for reasons that lie in
no file. So each finding says, as data, what it is the cause of (:class:`~matrix.outcomes.Explanation`),
and each failure is one symptom, the gravest that it shows.
"""

from __future__ import annotations

from collections.abc import Sequence

from matrix.outcomes import Explanation, Finding, Judgement, Reason, Stage, StageResult, Symptom

SUSPICIOUS = (Judgement.NOTICE, Judgement.DEGRADED, Judgement.FAILED)


def explanation(failure: StageResult, findings: Sequence[Finding]) -> Finding | None:
    """Return the first finding of an earlier stage that is the cause of a failure, if any is.

    Args:
        failure: How the stage ended, with the message of the exception where it raised.
        findings: All of the cell's, the deepest causes first, as :func:`matrix.checks.judge` has
            them.
    """
    symptom = symptom_of(failure, findings)
    order = list(Stage)
    before = [f for f in findings if order.index(f.stage) < order.index(failure.stage)]
    for finding in before:
        explains = finding.explains
        if symptom and explains and finding.judgement in SUSPICIOUS:
            if symptom in explains.symptoms and _fits(symptom, explains, failure.message):
                return finding
    return None


def _fits(symptom: Symptom, explains: Explanation, message: str) -> bool:
    text = message.casefold()
    return symptom is not Symptom.ERROR or any(part.casefold() in text for part in explains.errors)


def symptom_of(failure: StageResult, findings: Sequence[Finding]) -> Symptom | None:
    """Return the gravest symptom of a stage that failed or is degraded; ``None`` where none is
    known, as of one that ran into its time limit."""
    match failure.reason:
        case Reason.EXCEPTION:
            return Symptom.ERROR
        case Reason.CRASH:
            return Symptom.CRASH
        case Reason.OOM:
            return Symptom.MORE_MEMORY
        case Reason.WRONG_OUTPUT:
            order = list(Symptom)
            shown = [
                finding.symptom
                for finding in findings
                if finding.stage is failure.stage
                and finding.judgement in SUSPICIOUS
                and finding.symptom
            ]
            return max(shown, key=order.index, default=None)
        case _:
            return None
