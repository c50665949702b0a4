"""The check of the ``inspect`` stage that compares weights with the original's."""

from __future__ import annotations

from matrix.checkpoint.inspection import WeightComparison
from matrix.checkpoint.rounding import Rounding
from matrix.checks.evidence import Evidence, Thresholds
from matrix.checks.packing import SPOILT
from matrix.checks.wording import NotApplicableError, Opinion, inspected, some
from matrix.pipeline.outcomes import Judgement


def weights_match(evidence: Evidence) -> Opinion:
    """Every weight, read independently and with all folding undone, is the original's, rounded.

    Protects from wrong scales, zeros, nibble order or folding that need not show in a greedy text:
    AutoAWQ's scale search on a CPU scales each Linear twice and its norm once, in silence
    (``_compute_best_scale``,
    https://github.com/casper-hansen/AutoAWQ/blob/v0.2.9/awq/quantize/quantizer.py); GPTQModel
    1.7.4 packed wrongly (known issue gptqmodel-packing-174).
    Value: relative RMS error of the worst layer; the message names the worst that is wrong.
    """
    inspection = inspected(evidence)
    if not inspection.compared:
        raise NotApplicableError("no original to compare with")
    if not inspection.weights:
        message = "no weight could be compared. Give the float model that it was made of"
        return Opinion(Judgement.FAILED, message=message, explains=SPOILT)
    worst_first = sorted(inspection.weights, key=lambda weight: -(weight.error or 0.0))
    faults = [
        f"{weight.name} {fault}"
        for weight in worst_first
        if (fault := _fault(weight, evidence.thresholds))
    ]
    errors = [weight.error for weight in inspection.weights if weight.error is not None]
    value = max(errors, default=None)
    if faults:
        message = f"{some(faults)}. Quantize it again, by another release or method"
        return Opinion(Judgement.FAILED, value, message, explains=SPOILT)
    ways = sorted({weight.rounding for weight in inspection.weights if weight.rounding})
    how = "".join(f", rounded {way}" for way in ways)
    return Opinion(Judgement.PASSED, value, f"{len(inspection.weights)} weights compared{how}")


def _fault(weight: WeightComparison, limits: Thresholds) -> str:
    """Return what is wrong with one weight, with its number; empty where nothing is."""
    if weight.not_finite:
        return f"has {weight.not_finite} values that are not finite"
    if weight.error is None:
        return f"could not be compared: {weight.note.rstrip('.')}"
    if weight.rounding is Rounding.MOVED:
        return _moved_fault(weight, limits)
    if weight.strays:
        how = f"rounding {weight.rounding}" if weight.rounding else "a cast"
        size = f"differs by {weight.error:.3g} of its size"
        return f"has {weight.strays} values that {how} does not explain ({size}{_scale(weight)})"
    if weight.group:
        return _group_fault(weight.group)
    return ""


def _moved_fault(weight: WeightComparison, limits: Thresholds) -> str:
    """Return what is wrong with a weight of which only statistics can be held to bounds."""
    if weight.error is not None and weight.error > limits.gptq_weight_error:
        bound = f"bound {limits.gptq_weight_error:g}"
        return f"differs by {weight.error:.3g} of its size ({bound}{_scale(weight)})"
    for what, value, most in (
        ("", weight.ratio, limits.gptq_weight_ratio),
        ("a row's ", weight.row, limits.gptq_weight_row),
    ):
        if value is not None and abs(value - 1) > most:
            return f"has {what}scale {value:.3f} of the original's"
    if weight.group is not None and weight.group > limits.gptq_weight_group:
        return _group_fault(weight.group)
    if weight.offset is not None and weight.offset > limits.gptq_weight_offset:
        return f"has a group {weight.offset:.2f} steps off in the mean, as by a wrong zero point"
    if weight.moved is not None and weight.moved > limits.gptq_weight_moved:
        return f"has a row that is {weight.moved:.1f} steps off, as by garbage in its codes"
    if weight.misplaced is not None and weight.misplaced > limits.gptq_weight_misplaced:
        return "has inputs that fit the scales of other groups better, as by a wrong g_idx"
    return ""


def _group_fault(off: float) -> str:
    return f"has the scale of a group at least {100 * off:.3g} % off"


def _scale(weight: WeightComparison) -> str:
    return "" if weight.ratio is None else f", scale {weight.ratio:.3f}"
