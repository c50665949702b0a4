"""What a check says: an opinion, and words for many things. Who shows these makes them visible."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from matrix.checkpoint.inspection import Inspection
from matrix.checks.evidence import Evidence, Generation, Reference
from matrix.pipeline.outcomes import Explanation, Judgement, Symptom

SHOWN = 3
_LONGEST = 300


class Opinion(msgspec.Struct, frozen=True):
    """What a check says of one cell: a finding but for the check's id, stage and threshold."""

    judgement: Judgement
    value: float | None = None
    message: str = ""
    symptom: Symptom | None = None
    explains: Explanation | None = None
    threshold: float | None = None
    """Instead of the check's own, where that depends on what is judged."""


class NotApplicableError(Exception):
    """A check has nothing to judge. The text says why."""


def inspected(evidence: Evidence) -> Inspection:
    """Return what is in the checkpoint's files, without which a check has nothing to judge."""
    if evidence.inspection is None:
        raise NotApplicableError("not inspected")
    return evidence.inspection


def answered(evidence: Evidence) -> tuple[Generation, Reference]:
    """Return what the engine answered, and what the float model's own answers are."""
    if evidence.generation is None or evidence.reference is None:
        raise NotApplicableError(
            "nothing was generated, or there is no reference to compare it with"
        )
    return evidence.generation, evidence.reference


def within(value: float, bounds: tuple[float, float], message: str) -> Opinion:
    """Return what a difference from the right answers comes to: bounds are degraded and failed."""
    degraded, failed = bounds
    for bound, judgement in ((failed, Judgement.FAILED), (degraded, Judgement.DEGRADED)):
        if value > bound:
            return Opinion(judgement, value, message, Symptom.WRONG_ANSWERS, threshold=bound)
    return Opinion(Judgement.PASSED, value, message, threshold=degraded)


def some(names: Sequence[str]) -> str:
    """Return the first few names, each bounded, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(name[:_LONGEST] for name in names[:SHOWN]) + more


def amount(size: float) -> str:
    """Return bytes in the decimal unit that fits them: ``1.23 MB``."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(size) >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size:.0f} bytes"
