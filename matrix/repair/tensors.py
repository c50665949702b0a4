"""Repairs of tensors: of embedding and head, surplus biases, zero points and the order of groups.

Each returns its edits, none where the checkpoint has not what it repairs, and raises
:class:`CheckpointError` where it has and the repair is not sure.
"""

from __future__ import annotations

from matrix.checkpoint.files import CONFIG
from matrix.checkpoint.inspection import CheckpointError
from matrix.checkpoint.shapes import EMBEDDING, HEAD
from matrix.repair.edits import DropTensor, Edit, LowerZeros, RenameTensor, SetField
from matrix.repair.shards import size_of
from matrix.repair.subject import QUANTIZE_CONFIG, Subject

ALIGNMENT = 8
"""Readers want values to lie at multiples of their own size, of which this is the largest."""
TIE = ("tie_word_embeddings",)
GPTQ, GPTQ_V2 = "gptq", "gptq_v2"


def restore_embedding(subject: Subject) -> list[Edit]:
    """Return the edits that give a tied model's embedding its name, stored as the head only."""
    inspection = subject.inspection
    if not inspection.tie_word_embeddings or inspection.embedding or not inspection.head:
        return []
    remedy = "Quantize the model again, with another release."
    if HEAD not in subject.tensors:
        raise CheckpointError("is packed, so it cannot serve as the embedding", "lm_head", remedy)
    others = [name for name in subject.tensors if "embed" in name or "wte" in name]
    if others or not subject.has_usual_names:
        problem = f"is stored, and where this model has its embedding is not sure {others[:1]}"
        raise CheckpointError(problem, HEAD, "Rename it by hand, where you know the name.")
    info, config = subject.tensors.info(HEAD), inspection.config
    wanted = [config.vocabulary, config.hidden_size]
    if len(info.shape) != 2 or any(
        size is not None and size != stored
        for size, stored in zip(wanted, info.shape, strict=False)
    ):
        problem = f"has shape {info.shape}, where the embedding has {wanted}"
        raise CheckpointError(problem, HEAD, remedy)
    return [RenameTensor(info.file, HEAD, EMBEDDING)]


def drop_duplicate_head(subject: Subject) -> list[Edit]:
    """Return the edit that drops the head of a tied model, stored beside the equal embedding."""
    inspection = subject.inspection
    if not inspection.tie_word_embeddings or inspection.head_differs is not False:
        return []
    return [_drop(subject, HEAD, "equal to the embedding")]


def untie(subject: Subject) -> list[Edit]:
    """Return the edit that says a model is not tied whose head is another than its embedding."""
    inspection = subject.inspection
    if not inspection.tie_word_embeddings or not inspection.head_differs:
        return []
    embedding, head = subject.tensors.info(EMBEDDING), subject.tensors.info(HEAD)
    if embedding.shape != head.shape:
        problem = f"has shape {head.shape}, and the embedding {embedding.shape}"
        raise CheckpointError(problem, HEAD, "Remove the one that is not this model's.")
    return [*subject.set_field(CONFIG, TIE, new=False)]


def drop_zero_biases(subject: Subject) -> list[Edit]:
    """Return the edits that drop biases which are zero, of layers that have none."""
    linears = set(subject.inspection.linears)
    return [
        _drop(subject, name, "all zero")
        for name in subject.inspection.zero_tensors
        if name.endswith(".bias") and name.removesuffix(".bias") in linears
    ]


def _drop(subject: Subject, name: str, why: str) -> DropTensor:
    info = subject.tensors.info(name)
    size = size_of(info)
    if size % ALIGNMENT:
        problem = f"has {size} bytes, and without it others would not lie at multiples of 8"
        raise CheckpointError(problem, name[:200], "Save the model again without it.")
    return DropTensor(info.file, name, size, why)


def match_zero_points(subject: Subject) -> list[Edit]:
    """Return the edits after which a symmetric file's zero points are those of its format.

    Only symmetric ones say which format they have. The outcome is the format ``gptq``, which all
    readers take: a file that is labelled ``gptq_v2`` and is none gets the label, and one that is
    labelled ``gptq`` and is none gets the zero points.
    """
    match _symmetric_format(subject), subject.quantization.checkpoint_format:
        case "gptq_v2", "gptq" | "":
            return _lower_zeros(subject)
        case "gptq", "gptq_v2":
            return _labels(subject)
        case _:
            return []


def convert_to_gptq(subject: Subject) -> list[Edit]:
    """Return the edits that turn the format ``gptq_v2`` into ``gptq``, for older readers."""
    if subject.quantization.method != "gptq" or subject.quantization.checkpoint_format != GPTQ_V2:
        return []
    if _symmetric_format(subject) == GPTQ:
        return _labels(subject)
    return [*_lower_zeros(subject), *_labels(subject)]


def _symmetric_format(subject: Subject) -> str:
    """Return the format whose zero points a symmetric GPTQ file has; empty where that is unsure."""
    modules, quantization = subject.inspection.modules, subject.quantization
    is_asymmetric = quantization.sym is False or quantization.method != "gptq"
    if is_asymmetric or not modules or any(module.note for module in modules):
        return ""
    for name, less in ((GPTQ, 1), (GPTQ_V2, 0)):
        if all(set(m.zero_points) == {str(2 ** (m.bits - 1) - less)} for m in modules):
            return name
    return ""


def _lower_zeros(subject: Subject) -> list[Edit]:
    edits: list[Edit] = []
    for module in subject.inspection.modules:
        name = f"{module.name}.qzeros"
        if module.note or not module.zero_points or "0" in module.zero_points:
            problem = module.note or "has a zero point of 0, which gptq has no number for"
            raise CheckpointError(problem, name[:200], "Quantize again in the format gptq.")
        points = list(map(int, module.zero_points))
        stored = points[0] if len(points) == 1 else None
        file = subject.tensors.info(name).file
        edits.append(LowerZeros(file, name, module.bits, stored))
    return edits


def _labels(subject: Subject) -> list[Edit]:
    """Return the edits after which every label says ``gptq``."""
    edits: list[SetField] = []
    for file, outer in ((CONFIG, ("quantization_config",)), (QUANTIZE_CONFIG, ())):
        for key in ("checkpoint_format", "format"):
            path = (*outer, key)
            if subject.field(file, path) == GPTQ_V2:
                edits += subject.set_field(file, path, GPTQ)
    return [*edits]


def say_order_is_plain(subject: Subject) -> list[Edit]:
    """Return the edits that say ``desc_act`` false where every g_idx is in order."""
    quantization, modules = subject.quantization, subject.inspection.modules
    if quantization.method != "gptq" or not quantization.desc_act or not modules:
        return []
    if any(module.group_order != "in order" for module in modules):
        return []
    names = [f"{module.name}.g_idx" for module in modules]
    for name in names:
        if name not in subject.tensors:
            problem = "is missing, so that nothing tells the order of the groups"
            raise CheckpointError(problem, name[:200], "Make the checkpoint again.")
    return [
        *subject.change_field(CONFIG, ("quantization_config", "desc_act"), new=False),
        *subject.change_field(QUANTIZE_CONFIG, ("desc_act",), new=False),
    ]
