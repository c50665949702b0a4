"""Which finding explains a stage's failure. Pure.

A notice about a file breaks one engine and not another, and an engine fails for reasons that lie in
no file. So each finding carries its consequences as data (``Explanation`` in
:mod:`matrix.pipeline.outcomes`), and each failure is one symptom, the gravest that it shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from matrix.pipeline.outcomes import Explanation, Finding, Judgement, Reason, StageResult, Symptom
from matrix.pipeline.steps import Stage

SUSPICIOUS = (Judgement.NOTICE, Judgement.DEGRADED, Judgement.FAILED)


def explanation(failure: StageResult, findings: Sequence[Finding]) -> Finding | None:
    """Return the finding of an earlier stage that is the cause of a failure, if any is.

    A check that failed comes before what is only noticed of a file; else the first one. All of the
    cell's ``findings`` are wanted, the deepest causes first, as ``checks.run_checks`` has them.
    """
    symptom = symptom_of(failure, findings)
    before = set(takewhile(lambda stage: stage is not failure.stage, Stage))
    causes = [
        finding
        for finding in findings
        if finding.judgement in SUSPICIOUS
        and finding.stage in before
        and _is_cause(finding.explains, symptom, failure.message)
    ]
    return min(causes, key=lambda cause: cause.judgement is not Judgement.FAILED, default=None)


def _is_cause(explains: Explanation | None, symptom: Symptom | None, message: str) -> bool:
    if explains is None or symptom is None or symptom not in explains.symptoms:
        return False
    text = message.casefold()
    return symptom is not Symptom.ERROR or any(part.casefold() in text for part in explains.errors)


def symptom_of(failure: StageResult, findings: Sequence[Finding]) -> Symptom | None:
    """Return the gravest symptom of a stage that failed or is degraded; ``None`` where none is
    known, as of one that ran into its time limit."""
    if failure.reason is not Reason.WRONG_OUTPUT:
        return _SYMPTOMS.get(failure.reason)
    shown = [
        finding.symptom
        for finding in findings
        if finding.stage is failure.stage and finding.judgement in SUSPICIOUS and finding.symptom
    ]
    return max(shown, key=list(Symptom).index, default=None)


_SYMPTOMS = {
    Reason.EXCEPTION: Symptom.ERROR,
    Reason.CRASH: Symptom.CRASH,
    Reason.OOM: Symptom.MORE_MEMORY,
}
