"""``badge.json``: the run in a line, for shields.io (https://shields.io/badges/endpoint-badge)."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from matrix.judge.results import CanaryState
from matrix.pipeline.outcomes import NO_ANSWER, Verdict
from matrix.report.material import Material
from matrix.report.table import counts
from matrix.untrusted.text import visible

LABEL_CHARS = 60


def files(material: Material) -> Iterator[tuple[str, bytes]]:
    """Yield ``badge.json``."""
    message, color = _message(material)
    badge = {
        "schemaVersion": 1,
        "label": visible(f"quantization, {material.result.profile}", LABEL_CHARS),
        "message": message,
        "color": color,
        "isError": material.result.canaries is CanaryState.VOID,
    }
    yield "badge.json", msgspec.json.encode(badge) + b"\n"


def _message(material: Material) -> tuple[str, str]:
    """Return what the badge says, and its colour, which no red cell alone changes: a matrix has
    always some."""
    number = counts(material.result.cells)
    answered = sum(number[verdict] for verdict in Verdict if verdict not in NO_ANSWER)
    changes = material.changes.cells if material.changes else []
    worse = sum(change.is_regression for change in changes)
    if material.result.canaries is CanaryState.VOID:
        return "void", "red"
    if not answered:
        return "nothing was run", "lightgrey"
    words = f"{number[Verdict.WORKS]} of {answered} work"
    if worse:
        return f"{words}, {worse} regressed", "orange"
    return words, "blue" if material.result.canaries is CanaryState.ESTABLISHED else "yellow"
