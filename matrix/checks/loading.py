"""Checks of the ``load`` stage: what the engine took from the checkpoint, and holds in memory."""

from __future__ import annotations

import math
import re
from collections import Counter

from matrix.checkpoint.inspection import Inspection
from matrix.checkpoint.shapes import EMBEDDING, HEAD
from matrix.checks.evidence import Evidence, LoadedTensor
from matrix.checks.formats import COMPUTED, stored_bytes
from matrix.checks.load_report import LoadReport, expand, read_load_report
from matrix.checks.wording import SHOWN, NotApplicableError, Opinion, amount, some
from matrix.pipeline.outcomes import Explanation, Judgement, Symptom
from matrix.pipeline.steps import Blame
from matrix.untrusted.text import counted

UNFILLED = Explanation([Symptom.WRONG_ANSWERS, Symptom.NOT_FINITE], blame=Blame.PAIR)
"""The consequences of weights that the engine did not take from the file."""


def load_warnings(evidence: Evidence) -> Opinion:
    """The engine used every weight of the checkpoint that says something, and made up none.

    Protects from random weights behind a warning nobody reads (known issue gptq-bias-newly-init,
    https://github.com/QwenLM/Qwen3/issues/930). The reverse, "Some weights ... were not used", is
    harmless where what was not used holds only zeros, by reading the file (gptq-bias-unused,
    https://github.com/huggingface/optimum/pull/1827), or is the second copy of a tied model's
    head. All warnings are kept with the observation. Value: weights made up or lost.
    """
    warnings = evidence.load.warnings if evidence.load else []
    report = read_load_report([*warnings, evidence.log])
    made_up = [name for name in report.made_up if not (evidence.tied and name == HEAD)]
    unused = _unused(report, evidence)
    lost = [name for name, harmless in unused.items() if not harmless]
    parts = [f"made up by the engine: {some(made_up)}"] if made_up else []
    if lost:
        parts.append(f"not used, though not known to be zero: {some(lost)}")
    if unused and not lost:
        parts.append(
            f"{counted(len(unused), 'tensor')} not used, harmlessly: zero, or stored twice"
        )
    if report.cut:
        parts.append("the list of names is cut short")
    value = len(made_up) + len(lost)
    message = "; ".join(parts)
    if made_up or lost or report.cut:
        fails = made_up or any(_is_weight(name) for name in lost)
        judgement = Judgement.FAILED if fails else Judgement.DEGRADED
        explains = UNFILLED if made_up or lost else None
        return Opinion(judgement, value, message, Symptom.MADE_UP_WEIGHTS, explains)
    if evidence.load is None:
        raise NotApplicableError("not loaded")
    if warnings and not parts:
        message = f"{counted(len(warnings), 'warning')} kept, none of them of weights"
    return Opinion(Judgement.PASSED, 0, message)


def _unused(report: LoadReport, evidence: Evidence) -> dict[str, bool]:
    """Return the tensors that were not used, each with whether that is harmless."""
    inspection = evidence.inspection or Inspection()
    names = expand(report.unexpected, [tensor.name for tensor in inspection.tensors])
    harmless = {*inspection.zero_tensors}
    harmless |= {f"{m.name}.g_idx" for m in inspection.modules if m.group_order == "in order"}
    if evidence.tied:
        harmless.add(HEAD)
    return {name: name in harmless or name.endswith(COMPUTED) for name in names}


def _is_weight(name: str) -> bool:
    """Whether a tensor multiplies in a decoder layer, so that the model is lost without it."""
    part = name.rpartition(".")[2]
    return ".layers." in name and part in ("weight", "qweight", "qzeros", "scales", "g_idx")


def tied_head(evidence: Evidence) -> Opinion:
    """A tied model's head is its embedding, also where the file stores no head.

    Protects from a loader that ties the embedding to a head which nothing was loaded into, so that
    both hold what was in memory before, without a warning: AutoGPTQ's own, which loads by
    accelerate, whose ``retie_parameters`` takes the first of the two names, lm_head.weight
    (https://github.com/huggingface/accelerate/blob/v1.1.1/src/accelerate/utils/modeling.py). The
    mark of such memory: each log-probability is not finite, or beyond what weights give, or that
    of a row of zeros, to which all tokens are alike. Value: share that bear it.
    """
    inspection, answers = evidence.inspection, evidence.generation
    if inspection is None or answers is None:
        raise NotApplicableError("not inspected, or nothing answered")
    if not evidence.tied or inspection.head or not inspection.embedding:
        message = "the head is stored" if inspection.head else "the model is not tied"
        return Opinion(Judgement.PASSED, 0, message)
    values = [value for text in answers.held_out for value in text]
    lost = sum(value is None or value < _LEAST for value in values)
    alike = _of_zeros(values, inspection)
    share = (lost + alike) / max(len(values), 1)
    if lost + alike < len(values) or not (alike or evidence.loader in _TIES_TO_HEAD):
        return Opinion(Judgement.PASSED, share)
    message = (
        "tied, and lm_head.weight is not stored: the engine tied the embedding to a head that "
        f"nothing was loaded into. Of {len(values)} log-probabilities, {lost} are not finite or "
        f"below {_LEAST:.0f}, and {alike} are those of zeros. Store lm_head.weight too, or load it "
        "otherwise"
    )
    symptom = Symptom.NOT_FINITE if lost else Symptom.WRONG_ANSWERS
    return Opinion(Judgement.FAILED, share, message, symptom, UNFILLED)


def _of_zeros(values: list[float | None], inspection: Inspection) -> int:
    """Return how many log-probabilities say that all tokens of the vocabulary are alike."""
    shapes = [tensor.shape for tensor in inspection.tensors if tensor.name == EMBEDDING]
    if not shapes or not shapes[0] or shapes[0][0] < 2:
        return 0
    alike = -math.log(shapes[0][0])
    return sum(value is not None and abs(value - alike) < _NEAR for value in values)


_LEAST = -1_000.0
"""Nats below which no weights bring a token: the least of a recorded run of 683 cells was -13.5."""
_NEAR = 1e-3
"""Nats by which a log-probability in 16 bits may be off that of zeros."""
_TIES_TO_HEAD = ("auto_gptq",)
"""Adapters whose loader is known to do so, whatever was in memory."""


def load_memory(evidence: Evidence) -> Opinion:
    """The engine holds the checkpoint in about as many bytes as the file does.

    Protects from "17 GB rather than 7 GB": a dtype of float32, given or by default, doubles all
    that is not packed, and an engine that unpacks the codes holds four times as much (known issue
    loaded-as-float32; how dtype is chosen:
    https://huggingface.co/docs/transformers/main_classes/model). The second copy of a tied model's
    head and zero tensors are not counted. Value: bytes in memory over bytes in the file.
    """
    if evidence.load is None or evidence.inspection is None:
        raise NotApplicableError("not loaded" if evidence.load is None else "not inspected")
    stored = _stored(evidence.inspection, tied=evidence.ties_file)
    held = Counter[str]()
    for tensor in evidence.load.tensors:
        held[tensor.dtype] += tensor.bytes
    if not stored or not held:
        what = "engine does not tell what it holds" if stored else "checkpoint has no tensors"
        raise NotApplicableError(f"the {what}")
    if evidence.tensor_parallel > 1:
        raise NotApplicableError(f"divided among {evidence.tensor_parallel} processes")
    ratio = held.total() / stored.total()
    in_memory, in_file = amount(held.total()), amount(stored.total())
    if ratio < _LEAST_HELD:
        raise NotApplicableError(f"only {in_memory} of {in_file} are parameters or buffers")
    message = f"{in_memory} in memory, {in_file} in the file"
    if ratio > evidence.thresholds.memory_degraded:
        message += f"; {_account(evidence.load.tensors, held, stored)}"
        return Opinion(Judgement.DEGRADED, ratio, message, Symptom.MORE_MEMORY)
    return Opinion(Judgement.PASSED, ratio, message)


_LEAST_HELD = 0.4
"""Below this share an engine keeps weights where they are no parameters, such as oneDNN's packed
ones (vLLM on a CPU, unquantized: 0.08); half is honest, float32 in the file held as float16."""

_STORED = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_STORED |= {f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)} | {"U8": "uint8", "BOOL": "bool"}


def _stored(inspection: Inspection, *, tied: bool) -> Counter[str]:
    """Return the bytes of the file by type, in torch's names, without what has no use."""
    useless = set(inspection.zero_tensors)
    if tied and inspection.embedding:
        useless.add(HEAD)
    stored = Counter[str]()
    for tensor in inspection.tensors:
        if tensor.name not in useless:
            stored[_STORED.get(tensor.dtype, tensor.dtype)] += stored_bytes(tensor)
    return stored


_LAYER = re.compile(r"\.\d{1,6}\.")


def _account(tensors: list[LoadedTensor], held: Counter[str], stored: Counter[str]) -> str:
    """Return which types take more than in the file, and their largest tensors.

    By type, not by name: engines fuse and rename. Those of all layers are counted as one.
    """
    parts = []
    for dtype, _ in (held - stored).most_common(SHOWN):
        sizes = Counter[str]()
        for tensor in tensors:
            if tensor.dtype == dtype:
                sizes[_LAYER.sub(".*.", tensor.name)] += tensor.bytes
        largest = [f"{name[:200]} {amount(size)}" for name, size in sizes.most_common(SHOWN)]
        sums = f"{amount(held[dtype])} for {amount(stored[dtype])} in the file"
        parts.append(f"{dtype} takes {sums}: {', '.join(largest)}")
    return "; ".join(parts)


_FLOAT = re.compile(r"^torch\.nn\.|\.Unquantized\w+$")

# Modules that unpack the weights by ordinary torch operations for each product: right and slow.
# auto-gptq falls back to its cuda modules' torch code where no extension is built or no GPU is.
_SLOW = re.compile(
    r"\b(?:TorchLinear|TorchQuantLinear|TorchAwqLinear|AwqTorchLinear|qlinear_cuda(?:_old)?"
    r"|WQLinear_GEMM)\b"
)


def kernel(evidence: Evidence) -> Opinion:
    """What multiplies the packed weights is known by name.

    Protects from "silently slow": without its compiled kernels a package unpacks the weights by
    torch for every product, with a warning at most (known issues gptq-kernel-abi,
    awq-kernel-abi, https://github.com/AutoGPTQ/AutoGPTQ/issues/402). Never an alarm: slow is not
    wrong. Value: modules that run in it.
    """
    if evidence.load is None:
        raise NotApplicableError("not loaded")
    if not evidence.quantized:
        raise NotApplicableError("this is the float model")
    if not evidence.load.kernel:
        raise NotApplicableError("the engine does not name it")
    name, kernels = evidence.load.kernel, evidence.load.kernels
    modules = {full: n for full, n in kernels.items() if not _FLOAT.search(full)}
    message = some([name, *(f"{full} x {n}" for full, n in modules.items())])
    if _SLOW.search(message):
        message += "; torch unpacks the weights for each product, which is slow"
    return Opinion(Judgement.PASSED, sum(modules.values()), message)
