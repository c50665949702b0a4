"""Checks of the ``inspect`` stage: do the parts of each packed Linear make sense together?"""

from __future__ import annotations

from collections.abc import Sequence

from matrix.checkpoint.inspection import (
    COMPRESSED_TENSORS,
    Inspection,
    PackedLinearInfo,
    Quantization,
)
from matrix.checkpoint.shapes import indivisible, linear_shapes, tensor_parallel_problem
from matrix.checks.evidence import Evidence
from matrix.checks.formats import UNFIT
from matrix.checks.wording import NotApplicableError, Opinion, inspected, some
from matrix.pipeline.outcomes import Explanation, Judgement, Symptom

SPOILT = Explanation([Symptom.WRONG_ANSWERS, Symptom.NOT_FINITE])
"""The consequences of wrong scales, zeros or weights, which load without an error."""

V2 = "gptq_v2"


def scales(evidence: Evidence) -> Opinion:
    """All scales are finite, none is 0 where its codes say something, and so is all else finite.

    Protects from "!!!!!!!!": one NaN scale makes every answer token 0, which is "!" to Qwen's
    tokenizers, and a scale of 0 loses its group. Reading the file tells this from the engines that
    make NaN of a good one (known issue vllm-gptq-exllama-exclaim,
    https://github.com/vllm-project/vllm/issues/10656). Value: scales and other values that are
    not finite, and scales that are 0.
    """
    inspection = inspected(evidence)
    faults = {
        f"{module.name} has {number} scales that are {what}": number
        for module in inspection.modules
        for what, number in (
            ("not finite", module.not_finite_scales),
            ("0 where the codes are not", module.zero_scales),
        )
        if number
    }
    for name, number in inspection.not_finite.items():
        faults[f"{name} has {number} values that are not finite"] = number
    if not faults:
        return Opinion(Judgement.PASSED, 0)
    message = f"{some(list(faults))}. Quantize it again"
    return Opinion(Judgement.FAILED, sum(faults.values()), message, explains=SPOILT)


def zero_points(evidence: Evidence) -> Opinion:
    """The stored zero points are those of the file's ``checkpoint_format``.

    Protects from zeros that are off by one: a reader of v1 (``gptq``, or no format said) adds 1 to
    what is stored, a reader of v2 (``gptq_v2``) does not, and the other's file is answered from
    with "!!!!" or random text, without an error. Symmetric groups must store 2^(bits-1) - 1 in v1
    and 2^(bits-1) in v2. AWQ stores zeros as they are, each group its own; compressed-tensors none
    of symmetric weights, where engines pass over any but the middle. Known issue
    gptq-zero-point-format, https://github.com/vllm-project/vllm/issues/38966.
    Value: layers whose zeros are not the label's.
    """
    modules, quantization = _packed(inspected(evidence))
    if quantization.method == COMPRESSED_TENSORS:
        return _signed_points(modules, quantization)
    symmetric = quantization.sym
    if symmetric is None:
        symmetric = all(len(module.zero_points) <= 1 for module in modules)
    if quantization.method != "gptq" or not symmetric:
        message = f"{quantization.method}: each group has its own zero point, so any may be right"
        return Opinion(Judgement.PASSED, 0, message)
    v2 = quantization.checkpoint_format == V2
    wrong = [module for module in modules if not _agrees(module, v2=v2)]
    if not wrong:
        stored = sorted({int(value) for module in modules for value in module.zero_points})
        label = quantization.checkpoint_format or "gptq"
        message = f"all zero points are {some(list(map(str, stored)))}, as {label} wants"
        return Opinion(Judgement.PASSED, 0, message)
    message = _mislabelled(quantization, wrong)
    return Opinion(Judgement.FAILED, len(wrong), message, explains=SPOILT)


def _signed_points(modules: Sequence[PackedLinearInfo], quantization: Quantization) -> Opinion:
    """Return what is said of compressed-tensors' zero points: there are none, or each its own."""
    wrong = []
    schemes = quantization.schemes([module.name for module in modules])
    for module in modules:
        scheme = schemes[module.name]
        middle = {"0", str(2 ** (module.bits - 1))} if module.bits else set()
        if scheme is not None and scheme.sym and not set(module.zero_points) <= middle:
            wrong.append(module.name)
    if not wrong:
        message = f"{quantization.method}: symmetric, or each group has its own zero point"
        return Opinion(Judgement.PASSED, 0, message)
    message = f"config.json says symmetric, but zero points are stored: {some(wrong)}"
    message += ". Correct symmetric in config.json, or quantize it again"
    return Opinion(Judgement.FAILED, len(wrong), message, explains=SPOILT)


def _packed(inspection: Inspection) -> tuple[Sequence[PackedLinearInfo], Quantization]:
    """Return the packed layers, and what config.json says of them."""
    if inspection.quantization is None or not inspection.modules:
        raise NotApplicableError("nothing is packed")
    return inspection.modules, inspection.quantization


def _agrees(module: PackedLinearInfo, *, v2: bool) -> bool:
    """Whether all zeros of a symmetric module are the one that the format has for its bits."""
    right = 2 ** (module.bits - 1) - (not v2) if module.bits else 0
    return set(module.zero_points) <= {str(right)}


def _mislabelled(quantization: Quantization, wrong: list[PackedLinearInfo]) -> str:
    written, first = quantization.checkpoint_format, wrong[0]
    v2, label = written == V2, f"checkpoint_format={written}" if written else "no format"
    stored = some(sorted(first.zero_points, key=lambda value: -first.zero_points[value]))
    message = (
        f"{first.name} stores {stored} where {2 ** (first.bits - 1) - (not v2)} is right for "
        f"{first.bits} bits with {label}"
    )
    if all(_agrees(module, v2=not v2) for module in wrong):
        right = f"checkpoint_format={'gptq' if v2 else V2}"
        return f"{message}; {right} would be right. Write that into config.json"
    return (
        f"{message}; no format has these zeros, so they are damaged or sym is not true. Quantize "
        "it again, or correct sym in config.json"
    )


def group_size(evidence: Evidence) -> Opinion:
    """Each row is divided into whole groups of the size that config.json says, in a known order.

    Protects from a group size that does not divide the inputs, which AutoAWQ stops at and other
    quantizers accept in silence (known issue awq-group-size-multiple,
    https://github.com/casper-hansen/AutoAWQ/blob/v0.2.9/awq/quantize/quantizer.py), from a label of
    another size, from a g_idx that engines pass over because config.json has desc_act=false, and
    from one whose order was lost: desc_act leaves no layer in order, unless its groups are static.
    Value: layers of wrong groups.
    """
    modules, quantization = _packed(inspected(evidence))
    schemes = quantization.schemes([module.name for module in modules])
    faults = [
        f"{module.name} {fault}"
        for module in modules
        if (scheme := schemes[module.name]) and (fault := _group_fault(module, scheme))
    ]
    sizes = sorted({module.group_size for module in modules})
    message = some(faults) or f"groups of {some(list(map(str, sizes)))}"
    judgement, explains = Judgement.PASSED, None
    if faults:
        judgement = Judgement.FAILED
        message += ". Quantize it again, or correct config.json where that is wrong"
        explains = Explanation(UNFIT.symptoms, errors=[*UNFIT.errors, "group_size", "g_idx"])
    elif _order_lost(modules, quantization):
        judgement, explains = Judgement.NOTICE, Explanation([Symptom.WRONG_ANSWERS])
        message += (
            "; config.json says desc_act, but every g_idx is in order. Quantize it again if that "
            "was lost"
        )
    return Opinion(judgement, len(faults), message, explains=explains)


def _group_fault(module: PackedLinearInfo, quantization: Quantization) -> str:
    if not quantization.group_size:  # a method without groups, or one that does not say
        return ""
    size = quantization.group_size
    if module.inputs and indivisible({module.name: (module.outputs, module.inputs)}, size):
        return f"has {module.inputs} inputs, no multiple of the group size {size}"
    wanted = size if size > 0 else module.inputs
    if module.group_size and module.group_size != wanted:
        return f"has groups of {module.group_size} where config.json says {size}"
    if module.group_order == "wrong":
        return "has a g_idx that gives no group its number of inputs"
    if module.group_order == "permuted" and not quantization.desc_act:
        return "has a permuted g_idx, though config.json says nothing of desc_act"
    return ""


def _order_lost(modules: Sequence[PackedLinearInfo], quantization: Quantization) -> bool:
    """Whether no layer has the order that desc_act gives to inputs of more than one group."""
    divided = [module for module in modules if 0 < module.group_size < module.inputs]
    promised = (
        quantization.method != "awq" and quantization.desc_act and not quantization.static_groups
    )
    return bool(promised and divided) and all(m.group_order == "in order" for m in divided)


TENSOR_PARALLEL = (1, 2, 4, 8)
REFUSED_FIRST = sorted(UNFIT.symptoms, key=lambda symptom: symptom is not Symptom.ERROR)
"""On GPUs vLLM stops at uneven shares; on a CPU 0.32.0 answered "!!!!" from them."""


def tensor_parallel(evidence: Evidence) -> Opinion:
    """The model can be divided among as many devices as the engine is told to use.

    Protects from "The input size is not aligned with the quantized weight shape. This can be caused
    by too large tensor parallel size": each device must hold whole heads and whole groups, which
    an intermediate_size of 13696 = 107 x 128 does on one device only, and one zero-padded to
    14336 on up to eight. Known issues vllm-tp-alignment, vllm-heads-tp,
    https://qwen.readthedocs.io/en/latest/quantization/gptq.html. Predicted from the shapes by
    vLLM's rules. Value: the most devices of 1, 2, 4 and 8.
    """
    inspection = inspected(evidence)
    if not linear_shapes(inspection.config):
        raise NotApplicableError("the shapes of this model are not known")
    problems = {
        size: tensor_parallel_problem(inspection.config, inspection.quantization, size)
        for size in sorted({*TENSOR_PARALLEL, evidence.tensor_parallel})
    }
    possible = [size for size, problem in problems.items() if not problem]
    share = f"tensor parallel {', '.join(map(str, possible))} possible"
    if own := problems[evidence.tensor_parallel]:
        message = (
            f"cannot be divided among {evidence.tensor_parallel}: {own} (vLLM's build for CPUs may "
            f"answer garbage instead). Use tensor parallel {', '.join(map(str, possible))}"
        )
        uneven = Explanation(REFUSED_FIRST, errors=UNFIT.errors, engines=["vLLM"])
        return Opinion(Judgement.NOTICE, max(possible), message, explains=uneven)
    first = next(filter(None, problems.values()), "")
    return Opinion(Judgement.PASSED, max(possible), "; ".join(filter(None, (share, first))))
