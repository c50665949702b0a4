"""Checks of the ``inspect`` stage: what is packed, in which types, and how large it is."""

from __future__ import annotations

import math
import re
from collections import Counter

from matrix.checkpoint.inspection import COMPRESSED_TENSORS, Inspection, Quantization, TensorInfo
from matrix.checkpoint.layouts import ACTIVATION_PARTS, TYPES, Layout
from matrix.checkpoint.shapes import HEAD
from matrix.checks.evidence import Evidence
from matrix.checks.wording import NotApplicableError, Opinion, amount, inspected, some
from matrix.pipeline.outcomes import Explanation, Judgement, Symptom
from matrix.repair.names import VLLM
from matrix.untrusted.text import counted

COMPUTED = "rotary_emb.inv_freq"
"""What old files store although every reader computes it itself, at 32 bits."""
_HALF = ("F16", "BF16")
_WIDE = ("F32", "F64")
_BITS = re.compile(r"\d+")
UNFIT = Explanation(
    [Symptom.WRONG_ANSWERS, Symptom.NOT_FINITE, Symptom.CRASH, Symptom.ERROR],
    errors=["shape", "size mismatch", "size of tensor", "not aligned", "divisible", "dimension"],
)
"""The consequences of packed layers that are not of the form which config.json names."""


def stored_bytes(tensor: TensorInfo) -> int:
    """Return the bytes that a tensor takes in its file, by its type and shape.

    The reader's own table of types is not asked: it comes with numpy, which nox need not load.
    """
    width = _BITS.search(tensor.dtype)  # BOOL has no number in it: one byte
    return math.prod(tensor.shape) * (int(width[0]) if width else 8) // 8


def packed_layers(evidence: Evidence) -> Opinion:
    """Exactly the decoder's Linear layers are packed, in a form that can be read.

    Protects from layers skipped in silence, and from a packed head or embedding, which many engines
    cannot read. Known issue only-linear-quantized says which are meant to be packed,
    https://huggingface.co/docs/transformers/quantization/gptq. Of the float model, nothing is
    packed. Value: layers that are packed wrongly or not at all.
    """
    inspection = inspected(evidence)
    packed = {module.name for module in inspection.modules}
    wrong, parts = _wrongly_packed(inspection, packed, quantized=evidence.quantized)
    if evidence.quantized and inspection.quantization is None:
        parts.append(
            "config.json has no quantization_config, so engines take it for a float model. Add it"
        )
    if not evidence.quantized and inspection.quantization is not None:
        parts.append(
            "config.json of the float model has a quantization_config. Give one that has none"
        )
    message = "; ".join(parts) or f"{counted(len(packed), 'layer')} packed"
    if inspection.unread and not parts:
        message += f"; of layers in {inspection.unread}, which is not read here, nothing is said"
        return Opinion(Judgement.NOTICE, wrong, message)
    if parts:
        unpacked = [*UNFIT.symptoms, Symptom.MORE_MEMORY]
        names = ["qweight", "weight_packed", "weight_scale", "lm_head"]
        explains = Explanation(unpacked, errors=[*UNFIT.errors, *names])
        return Opinion(Judgement.FAILED, wrong, message, explains=explains)
    if not inspection.linears and packed:
        message += "; which ones this model should have is not known"
    return Opinion(Judgement.PASSED, wrong, message)


def _wrongly_packed(
    inspection: Inspection, packed: set[str], *, quantized: bool
) -> tuple[int, list[str]]:
    """Return how many layers are not packed as they should be, and what is wrong with them."""
    expected = set(inspection.linears or packed) - set(inspection.left_out) if quantized else set()
    declared = {"lm_head"} if inspection.quantization and inspection.quantization.lm_head else set()
    extra = packed - expected - declared
    # What to do comes once, after all of them.
    unread = [module.note.rstrip(".") for module in inspection.modules if module.note]
    parts = []
    if quantized and not packed and not inspection.unread:
        parts.append("nothing is packed. Give the quantized model")
    elif expected - packed:
        left_out = f"not packed: {some(sorted(expected - packed))}"
        parts.append(f"{left_out}. Quantize these too, or let config.json leave them out")
    if extra:
        parts.append(f"packed, but should not be: {some(sorted(extra))}. Leave these in float16")
    if unread:
        parts.append(f"cannot be read: {some(unread)}. Quantize it again")
    return len(expected - packed) + len(extra) + len(unread), parts


def stored_formats(evidence: Evidence) -> Opinion:
    """Codes, zeros and scales are of the types their format has, all else has 16 bits.

    Answers "it shows float16, is it quantized at all?": embeddings, norms and head are float16 in
    every quantized checkpoint, and that is right; the message says what is packed, at how many
    bits per weight. Protects from codes in a type that engines do not read, and from a float32
    part, which takes twice its room in the file. Known issue only-linear-quantized,
    https://huggingface.co/docs/transformers/quantization/gptq. Value: tensors of a wrong type.
    """
    inspection = inspected(evidence)
    modules = {module.name for module in inspection.modules}
    method = inspection.quantization.method if inspection.quantization else ""
    is_compressed = method == COMPRESSED_TENSORS
    wrong: list[str] = []
    wide: list[str] = []
    kept: Counter[tuple[str, str]] = Counter()
    for tensor in inspection.tensors:
        module, _, part = tensor.name.rpartition(".")
        if module in modules and part in TYPES:
            if tensor.dtype not in TYPES[part]:
                wrong.append(f"{tensor.name} is {tensor.dtype}")
            continue
        if part in ACTIVATION_PARTS and is_compressed:
            continue
        if inspection.unread and tensor.dtype not in (*_HALF, *_WIDE):
            continue
        kept[_kind(tensor.name), tensor.dtype] += 1
        if tensor.name.endswith(COMPUTED) or tensor.dtype in _HALF:
            continue
        (wide if tensor.dtype in _WIDE else wrong).append(f"{tensor.name} is {tensor.dtype}")
    wrong += _other_bits(inspection)
    message = f"{_packing(inspection)}; {_kept(kept)}"
    if wrong or wide:
        remedy = "Quantize it again, or correct config.json" if wrong else "Store it as float16"
        message = f"{some(wrong + wide)}. {remedy}; {message}"
    judgement, explains = Judgement.PASSED, None
    if wide:
        judgement, explains = Judgement.DEGRADED, Explanation([Symptom.MORE_MEMORY])
    if wrong:
        judgement = Judgement.FAILED
        explains = Explanation(UNFIT.symptoms, errors=[*UNFIT.errors, "dtype"])
    return Opinion(judgement, len(wrong) + len(wide), message, explains=explains)


def _other_bits(inspection: Inspection) -> list[str]:
    if inspection.quantization is None:
        return []
    faults = []
    schemes = inspection.quantization.schemes([module.name for module in inspection.modules])
    for module in inspection.modules:
        scheme = schemes[module.name]
        bits = scheme.bits if scheme else None
        # Integers of fewer bits may be stored in a byte each.
        is_byte = module.layout == Layout.INTEGERS and (bits or 0) < module.bits
        if bits and module.bits and module.bits != bits and not is_byte:
            faults.append(f"{module.name} has {module.bits} bits where config.json says {bits}")
    return faults


def _packing(inspection: Inspection) -> str:
    """Return how many bits a packed weight takes, its scales and zeros counted."""
    weights = [module.inputs * module.outputs for module in inspection.modules]
    if not sum(weights):
        return "nothing packed"
    bits = sum(
        module.bits_per_weight * size
        for module, size in zip(inspection.modules, weights, strict=True)
    )
    size = f"{bits / sum(weights):.3g} bits per weight in {counted(len(weights), 'packed layer')}"
    return f"{_named(inspection.quantization)}{size}"


def _named(quantization: Quantization | None) -> str:
    """Return how weights are stored, in words, before something else that is said of them."""
    if quantization is None:
        return ""
    words = [quantization.method]
    if quantization.checkpoint_format not in ("", quantization.method):
        words.append(quantization.checkpoint_format)
    if quantization.activations:
        words.append(f"with {quantization.activations} activations")
    if quantization.kv_cache:
        words.append(f"and a {quantization.kv_cache} cache of keys and values")
    return " ".join(words) + ", "


def _kind(name: str) -> str:
    if "norm" in name:
        return "norms"
    if name.endswith(".bias"):
        return "biases"
    return next((part for part in ("embed_tokens", "lm_head") if part in name), "other weights")


def _kept(kept: Counter[tuple[str, str]]) -> str:
    """Return what is not packed, by type: ``embed_tokens, norms in F16``."""
    kinds: dict[str, list[str]] = {}
    for kind, dtype in sorted(kept):
        kinds.setdefault(dtype, []).append(kind)
    return "; ".join(f"{', '.join(names)} in {dtype}" for dtype, names in sorted(kinds.items()))


def stored_size(evidence: Evidence) -> Opinion:
    """The checkpoint takes as many bytes as its shapes and its scheme say.

    Protects from a part lost or stored twice without a word. A tied model's head beside its
    embedding is such a copy, which transformers and vLLM read past and others stop at: known issue
    gptqmodel-tied-duplicate, https://github.com/sgl-project/sglang/issues/2935; a lost embedding of
    an untied model makes it smaller: awq-tied-embedding-dropped. Zero biases are named and
    tolerated; what other checks judge (unexpected tensors, float32) is named and left to them.
    Value: bytes that nothing accounts for, as a share of those expected.
    """
    inspection, limit = inspected(evidence), evidence.thresholds.stored_size
    if not inspection.expected_bytes:
        raise NotApplicableError("what it should take is not known for this model or scheme")
    surplus = _surplus(inspection, tied=evidence.ties_file)
    stored = sum(map(stored_bytes, inspection.tensors))
    expected = max(inspection.expected_bytes - _index_left_out(inspection), 1)
    left = stored - sum(surplus.values()) - expected
    share = left / expected
    parts = [f"{amount(stored)} where {amount(expected)} are expected"]
    parts += [f"{amount(size)} are {what}" for what, size in surplus.items() if size]
    judgement, explains = Judgement.PASSED, None
    # Of other engines it is not known that they read past a tied model's second copy.
    reads_past = evidence.engine.keys() & {"transformers", *VLLM}
    if surplus[DUPLICATE] and evidence.engine and not reads_past:
        judgement = Judgement.NOTICE
        explains = Explanation([Symptom.ERROR], errors=[HEAD.removesuffix(".weight")])
    if left < 0 and abs(share) > limit:
        lost = [Symptom.WRONG_ANSWERS, Symptom.NOT_FINITE, Symptom.CRASH]
        judgement, explains = Judgement.FAILED, Explanation(lost)
        parts.append(f"{amount(-left)} are lacking. Save or download it again")
    elif share > limit:
        judgement, explains = Judgement.DEGRADED, None
        parts.append(f"{amount(left)} are unaccounted for. Remove what no engine reads")
    return Opinion(judgement, share, "; ".join(parts), explains=explains)


DUPLICATE = "the tied embedding again, as lm_head.weight"


def _surplus(inspection: Inspection, *, tied: bool) -> dict[str, int]:
    """Return what makes the file larger and is explained, with its bytes."""
    unexpected, zero = set(inspection.unexpected), set(inspection.zero_tensors)
    wide, inputs = "of types wider than 16 bits", "scales of activations"
    surplus = dict.fromkeys((DUPLICATE, "zero tensors", "unexpected tensors", wide, inputs), 0)
    for tensor in inspection.tensors:
        size = stored_bytes(tensor)
        if tensor.name in zero:
            surplus["zero tensors"] += size
        elif tensor.name in unexpected:
            surplus["unexpected tensors"] += size
        elif tied and inspection.embedding and tensor.name == HEAD:
            surplus[DUPLICATE] += size
        elif tensor.name.rpartition(".")[2] in ACTIVATION_PARTS:
            surplus[inputs] += size
        elif tensor.dtype in _WIDE:
            surplus[wide] += size - 2 * math.prod(tensor.shape)
    return surplus


def _index_left_out(inspection: Inspection) -> int:
    """Return the bytes of each GPTQ layer's g_idx that is not there, and need not be there."""
    if inspection.quantization is None or inspection.quantization.method != "gptq":
        return 0
    there = {tensor.name for tensor in inspection.tensors}
    return sum(4 * m.inputs for m in inspection.modules if f"{m.name}.g_idx" not in there)
