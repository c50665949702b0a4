"""Checks of the ``inspect`` stage: is the checkpoint what a quantizer should have made?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from matrix.checkpoint.inspection import Inspection, WeightComparison
from matrix.checks.evidence import Evidence, Thresholds
from matrix.outcomes import Finding, Judgement, Stage

_finding = partial(Finding, stage=Stage.INSPECT)
_SHOWN = 3


def _some(names: Sequence[str]) -> str:
    """Return the first few names, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def checkpoint_readable(evidence: Evidence) -> Finding:
    """Every file is safetensors or JSON, whole, in its directory, and reads without executing it.

    Protects from truncated or malformed files, and from ones that would run code when loaded
    (pickles), reach outside the directory or exhaust memory. Value: number of problems.
    """
    say = partial(_finding, "checkpoint-readable")
    if evidence.inspection is None:
        return say(judgement=Judgement.NOT_APPLICABLE, message="not inspected")
    problems = evidence.inspection.problems
    if problems:
        text = "; ".join(str(problem) for problem in problems[:_SHOWN])
        return say(judgement=Judgement.FAILED, value=len(problems), threshold=0, message=text)
    return say(judgement=Judgement.PASSED, value=0, threshold=0)


def checkpoint_complete(evidence: Evidence) -> Finding:
    """Every tensor of the model is there, none besides, and all scales are finite.

    Protects from engines that fill what is missing with random numbers, and from NaN scales (the
    model then answers token 0 for ever). All-zero biases are harmless: auto-gptq writes them, see
    known issue gptq-zero-bias-stored. Value: tensors missing or not finite.
    """
    say = partial(_finding, "checkpoint-complete")
    found = evidence.inspection
    if found is None:
        return say(judgement=Judgement.NOT_APPLICABLE, message="not inspected")
    bad = len(found.missing) + len(found.not_finite_scales)
    parts = []
    if found.missing:
        parts.append(f"missing: {_some(found.missing)}")
    if found.not_finite_scales:
        parts.append(f"scales not finite: {_some(list(found.not_finite_scales))}")
    if found.unexpected:
        parts.append(f"unexpected: {_some(found.unexpected)}")
    if found.zero_biases:
        parts.append(f"{len(found.zero_biases)} unexpected biases, all zero (harmless)")
    judgement = Judgement.FAILED if bad else Judgement.PASSED
    if found.unexpected and not bad:
        judgement = Judgement.NOTICE
    return say(judgement=judgement, value=bad, threshold=0, message="; ".join(parts))


def packed_layers(evidence: Evidence) -> Finding:
    """Exactly the decoder's Linear layers are packed: int32 codes and zeros, 16-bit scales.

    Protects from layers skipped in silence, and from a packed head or embedding, which many engines
    cannot read (known issue only-linear-quantized says which are meant to be packed). Of the
    float model, nothing is packed. Value: layers that are packed wrongly or not at all.
    """
    say = partial(_finding, "packed-layers")
    found = evidence.inspection
    if found is None:
        return say(judgement=Judgement.NOT_APPLICABLE, message="not inspected")
    expected = set(found.linears) if evidence.quantized else set()
    packed = set(found.packed)
    wrong_type = _wrong_types(found)
    parts = []
    if expected - packed:
        parts.append(f"not packed: {_some(sorted(expected - packed))}")
    if packed - expected:
        parts.append(f"packed, but should not be: {_some(sorted(packed - expected))}")
    if wrong_type:
        parts.append(f"wrong type: {_some(wrong_type)}")
    if evidence.quantized and found.quantization is None:
        parts.append("config.json has no quantization_config, so engines take it for a float model")
    if not evidence.quantized and found.quantization is not None:
        parts.append("config.json of the float model has a quantization_config")
    return say(
        judgement=Judgement.FAILED if parts else Judgement.PASSED,
        value=len(expected ^ packed) + len(wrong_type),
        threshold=0,
        message="; ".join(parts) or f"{len(packed)} layers packed",
    )


def _wrong_types(found: Inspection) -> list[str]:
    packed = set(found.packed)
    kinds = {"qweight": ("I32",), "qzeros": ("I32",), "scales": ("F16", "BF16")}
    wrong = []
    for tensor in found.tensors:
        module, _, part = tensor.name.rpartition(".")
        if module in packed and part in kinds and tensor.dtype not in kinds[part]:
            wrong.append(f"{tensor.name} is {tensor.dtype}")
    return wrong


def tied_embedding(evidence: Evidence) -> Finding:
    """Embedding and head are stored as ``tie_word_embeddings`` says.

    Protects from the defect of autoawq 0.2.7 to 0.2.7.post2: of a tied model it keeps
    ``lm_head.weight`` and drops ``model.embed_tokens.weight``. vLLM skips ``lm_head.*`` for tied
    models and answers garbage with no error; transformers is fine, hence a notice and no failure.
    Known issue awq-tied-embedding-dropped, https://github.com/casper-hansen/AutoAWQ/issues/665.
    Value: how many of the two are stored.
    """
    say = partial(_finding, "tied-embedding")
    found = evidence.inspection
    if found is None:
        return say(judgement=Judgement.NOT_APPLICABLE, message="not inspected")
    judgement, message = _embedding(evidence.tied, found.embedding, found.head)
    stored = found.tie_word_embeddings
    if stored is not None and stored != evidence.tied:
        judgement = Judgement.FAILED
        message += f"; config.json says tie_word_embeddings={str(stored).lower()} of it, wrongly"
    return say(judgement=judgement, value=found.embedding + found.head, message=message)


def _embedding(tied: bool, embedding: bool, head: bool) -> tuple[Judgement, str]:
    match tied, embedding, head:
        case True, True, False:
            return Judgement.PASSED, "tied; the embedding is stored"
        case True, True, True:
            return Judgement.PASSED, "tied; stored under both names, one of them surplus"
        case True, False, True:
            return Judgement.NOTICE, (
                "tied, but only lm_head.weight is stored: engines that skip it for tied models "
                "(vLLM) answer garbage. Rename it to model.embed_tokens.weight"
            )
        case False, True, True:
            return Judgement.PASSED, "untied; both are stored"
        case False, True, False:
            return Judgement.FAILED, "untied, but lm_head.weight is missing"
        case False, False, True:
            return Judgement.FAILED, "untied, but model.embed_tokens.weight is missing"
        case _:
            return Judgement.FAILED, "neither the embedding nor lm_head.weight is stored"


def weights_match(evidence: Evidence) -> Finding:
    """Every weight, read independently and with AWQ's folding undone, is the original's.

    Protects from wrong scales, zeros, nibble order or folding that need not show in a greedy text:
    AutoAWQ's scale search on a CPU scales each Linear twice and its norm once, in silence.
    Value: relative RMS error of the worst layer; the message names the worst out of bounds.
    """
    say = partial(_finding, "weights-match", threshold=evidence.thresholds.weight_error)
    found = evidence.inspection
    if found is None:
        return say(judgement=Judgement.NOT_APPLICABLE, message="not inspected")
    if not found.weights:
        return say(judgement=Judgement.FAILED, message="no weight could be compared")
    worst_first = sorted(found.weights, key=lambda weight: -(weight.error or 0.0))
    faults = [
        f"{weight.name} {fault}"
        for weight in worst_first
        if (fault := _fault(weight, evidence.thresholds))
    ]
    errors = [weight.error for weight in found.weights if weight.error is not None]
    message = _some(faults) if faults else f"{len(found.weights)} weights compared"
    return say(
        judgement=Judgement.FAILED if faults else Judgement.PASSED,
        value=max(errors, default=None),
        message=message,
    )


def _fault(weight: WeightComparison, limits: Thresholds) -> str:
    """Return what is wrong with one weight, with its number; empty where nothing is."""
    if weight.not_finite:
        return f"has {weight.not_finite} values that are not finite"
    if weight.error is None:
        return f"could not be compared: {weight.note}"
    bound = limits.weight_error if weight.packed else limits.unquantized_error
    if weight.error > bound:
        return f"differs by {weight.error:.3g} of its size (bound {bound:g}), " + _scale(weight)
    if not weight.packed:
        return ""
    for what, value, most in (
        ("", weight.ratio, limits.weight_ratio),
        ("a row's ", weight.row, limits.weight_row),
        ("a column's ", weight.column, limits.weight_row),
    ):
        if value is not None and abs(value - 1) > most:
            return f"has {what}scale {value:.3f} of the original's"
    if weight.group is not None and weight.group > limits.weight_group:
        return f"has the scale of a group at least {100 * weight.group:.3g} % off"
    return ""


def _scale(weight: WeightComparison) -> str:
    return "scale unknown" if weight.ratio is None else f"scale {weight.ratio:.3f}"
