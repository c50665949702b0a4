"""The check of the ``inspect`` stage that compares weights with the original's."""

from __future__ import annotations

import msgspec

from matrix.checkpoint.inspection import WeightComparison
from matrix.checks.evidence import Evidence
from matrix.checks.packing import SPOILT
from matrix.checks.wording import NotApplicableError, Opinion, inspected, some
from matrix.pipeline.outcomes import Judgement


class Bounds(msgspec.Struct, frozen=True):
    """How far a packed Linear may be from the original: see the thresholds of these names."""

    error: float
    ratio: float
    row: float
    group: float
    offset: float
    misplaced: float


def _bounds(evidence: Evidence) -> Bounds:
    limits, inspection = evidence.thresholds, evidence.inspection
    quantization = inspection.quantization if inspection else None
    gptq = quantization is not None and quantization.method == "gptq"
    return Bounds(
        error=limits.gptq_weight_error if gptq else limits.weight_error,
        ratio=limits.gptq_weight_ratio if gptq else limits.weight_ratio,
        row=limits.gptq_weight_row if gptq else limits.weight_row,
        group=limits.gptq_weight_group if gptq else limits.weight_group,
        offset=limits.gptq_weight_offset,
        misplaced=limits.gptq_weight_misplaced,
    )


def most_error(evidence: Evidence) -> float:
    """Return the relative RMS error that a layer may have."""
    return _bounds(evidence).error


def weights_match(evidence: Evidence) -> Opinion:
    """Every weight, read independently and with AWQ's folding undone, is the original's.

    Protects from wrong scales, zeros, nibble order or folding that need not show in a greedy text:
    AutoAWQ's scale search on a CPU scales each Linear twice and its norm once, in silence
    (``_compute_best_scale``,
    https://github.com/casper-hansen/AutoAWQ/blob/v0.2.9/awq/quantize/quantizer.py); GPTQModel
    1.7.4 packed wrongly (known issue gptqmodel-packing-174).
    Value: relative RMS error of the worst layer; the message names the worst out of bounds.
    """
    inspection, bounds = inspected(evidence), _bounds(evidence)
    if not inspection.compared:
        raise NotApplicableError("no original to compare with")
    if not inspection.weights:
        message = "no weight could be compared. Give the float model that it was made of"
        return Opinion(Judgement.FAILED, message=message, explains=SPOILT)
    worst_first = sorted(inspection.weights, key=lambda weight: -(weight.error or 0.0))
    faults = [
        f"{weight.name} {fault}"
        for weight in worst_first
        if (fault := _fault(weight, bounds, evidence.thresholds.unquantized_error))
    ]
    errors = [weight.error for weight in inspection.weights if weight.error is not None]
    value = max(errors, default=None)
    if faults:
        message = f"{some(faults)}. Quantize it again, by another release or method"
        return Opinion(Judgement.FAILED, value, message, explains=SPOILT)
    return Opinion(Judgement.PASSED, value, f"{len(inspection.weights)} weights compared")


def _fault(weight: WeightComparison, bounds: Bounds, unquantized_error: float) -> str:
    """Return what is wrong with one weight, with its number; empty where nothing is."""
    if weight.not_finite:
        return f"has {weight.not_finite} values that are not finite"
    if weight.error is None:
        return f"could not be compared: {weight.note}"
    bound = bounds.error if weight.packed else unquantized_error
    if weight.error > bound:
        return f"differs by {weight.error:.3g} of its size (bound {bound:g}), " + _scale(weight)
    if not weight.packed:
        return ""
    for what, value, most in (
        ("", weight.ratio, bounds.ratio),
        ("a row's ", weight.row, bounds.row),
        ("a column's ", weight.column, bounds.row),
    ):
        if value is not None and abs(value - 1) > most:
            return f"has {what}scale {value:.3f} of the original's"
    if weight.group is not None and weight.group > bounds.group:
        return f"has the scale of a group at least {100 * weight.group:.3g} % off"
    if weight.offset is not None and weight.offset > bounds.offset:
        return f"has a group {weight.offset:.2f} steps off in the mean, as by a wrong zero point"
    if weight.misplaced is not None and weight.misplaced > bounds.misplaced:
        return "has inputs that fit the scales of other groups better, as by a wrong g_idx"
    return ""


def _scale(weight: WeightComparison) -> str:
    return "scale unknown" if weight.ratio is None else f"scale {weight.ratio:.3f}"
