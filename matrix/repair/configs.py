"""Repairs of what is not tensors: fields of config.json, the tokenizer's files, names of files.

As in :mod:`matrix.repair.tensors`, each returns its edits.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from matrix.checkpoint.files import CONFIG, INDEX, TOKENIZER, TOKENIZER_CONFIG
from matrix.checkpoint.inspection import CheckpointError
from matrix.repair.edits import Edit, RenameFile, SetField
from matrix.repair.json_text import FieldPath
from matrix.repair.names import NEW_CLASSES
from matrix.repair.subject import QUANTIZE_CONFIG, Subject

WEIGHTS = "model.safetensors"
INDEX_SUFFIX = ".safetensors.index.json"
OLD_CLASS = "PreTrainedTokenizerFast"
"""The name that TokenizersBackend had before transformers 5, where it is still an alias of it
(``tokenization_utils_tokenizers.py``): both read tokenizer.json and nothing else."""
GROUPS = ("quantization_config", "config_groups")
DERIVED = {"scale_dtype": (None,), "zp_dtype": (None, "torch.int8")}
"""Fields of compressed-tensors 0.13 -> values that a reader without them has anyway: of integers
up to 8 bits (``quantization/quant_args.py``, ``pytorch_dtype``)."""


def give_back_rope_theta(subject: Subject) -> list[Edit]:
    """Return the edit that gives config.json a top-level rope_theta."""
    facts = subject.inspection.config
    if not facts.rope_parameters or facts.rope_theta:
        return []
    parameters = subject.field(CONFIG, ("rope_parameters",))
    kind, base = parameters.get("rope_type", "default"), parameters["rope_theta"]
    if kind != "default" or isinstance(base, bool) or not isinstance(base, int | float):
        problem = f"has rope_type {str(kind)[:40]!r} and rope_theta {str(base)[:40]}, and how older"
        remedy = "Write rope_theta and rope_scaling of the original model into it."
        raise CheckpointError(f"{problem} readers want that is not known here", CONFIG, remedy)
    return [*subject.set_field(CONFIG, ("rope_theta",), base)]


def give_back_dtype(subject: Subject) -> list[Edit]:
    """Return the edit that gives config.json a torch_dtype."""
    facts = subject.inspection.config
    if not facts.dtype or facts.torch_dtype:
        return []
    return [*subject.set_field(CONFIG, ("torch_dtype",), facts.dtype)]


def give_back_tokenizer_class(subject: Subject) -> list[Edit]:
    """Return the edit that names the tokenizer's class as readers before transformers 5 know it."""
    tokenizer = subject.inspection.tokenizer
    if tokenizer.tokenizer_class not in NEW_CLASSES:
        return []
    if not tokenizer.model_type:
        problem = f"names the class {tokenizer.tokenizer_class}, and there is no {TOKENIZER}"
        raise CheckpointError(problem, TOKENIZER_CONFIG, "Copy the original model's tokenizer.")
    return [*subject.set_field(TOKENIZER_CONFIG, ("tokenizer_class",), OLD_CLASS)]


def join_merges(subject: Subject) -> list[Edit]:
    """Return the edit that writes a tokenizer's merges as texts: ``"a b"`` for ``["a", "b"]``."""
    if subject.inspection.tokenizer.merges != "pairs":
        return []
    path = ("model", "merges")
    return [*subject.set_field(TOKENIZER, path, list(map(_joined, subject.field(TOKENIZER, path))))]


def _joined(merge: Any) -> str:
    match merge:
        case [str() as left, str() as right] if " " not in left + right:
            return f"{left} {right}"
        case _:
            problem = f"has the merge {str(merge)[:80]}, which no text stands for"
            raise CheckpointError(problem, TOKENIZER, "Copy the original model's tokenizer.")


def take_out_derived_types(subject: Subject) -> list[Edit]:
    """Return the edits that take out scale_dtype and zp_dtype, where a reader derives the same."""
    edits: list[SetField] = []
    groups = subject.field(CONFIG, GROUPS)
    for group in groups if isinstance(groups, dict) else ():
        for part in ("weights", "input_activations", "output_activations"):
            for name, values in DERIVED.items():
                edits += _without(subject, (*GROUPS, group, part, name), values)
    for name, values in DERIVED.items():
        edits += _without(subject, ("quantization_config", "kv_cache_scheme", name), values)
    return [*edits]


def _without(subject: Subject, path: FieldPath, values: tuple[str | None, ...]) -> list[SetField]:
    value = subject.field(CONFIG, path)
    if value not in values:
        problem = (
            f"says {'.'.join(path)[-200:]} = {str(value)[:40]}, which readers without the field"
        )
        raise CheckpointError(f"{problem} need not take", CONFIG, "Use a newer reader.")
    return subject.take_out(CONFIG, path)


def take_out_marlin_flag(subject: Subject) -> list[Edit]:
    """Return the edits that take out AutoGPTQ's is_marlin_format, where that is false or null."""
    edits: list[SetField] = []
    for file, outer in ((CONFIG, ("quantization_config",)), (QUANTIZE_CONFIG, ())):
        path = (*outer, "is_marlin_format")
        if subject.field(file, path):
            problem = "says is_marlin_format, a layout of weights that is not read here"
            raise CheckpointError(problem, file, "Load it by the AutoGPTQ that wrote it.")
        edits += subject.take_out(file, path)
    return [*edits]


def name_files_as_usual(subject: Subject) -> list[Edit]:
    """Return the edits that call the weights, or their index, what readers look for."""
    names = sorted(subject.files.sizes)
    if INDEX in names or not subject.has_usual_names:
        return []
    indices = [name for name in names if name.endswith(INDEX_SUFFIX)]
    weights = [name for name in names if name.endswith(".safetensors")]
    if len(indices) > 1:
        problem = f"and {indices[1]} are both an index"
        raise CheckpointError(problem, indices[0], "Remove the one that is not this model's.")
    if indices:
        return [RenameFile(indices[0], INDEX), *_base_names(subject)]
    if len(weights) != 1 or weights == [WEIGHTS]:
        return []
    return [RenameFile(weights[0], WEIGHTS), *_base_names(subject)]


def _base_names(subject: Subject) -> list[SetField]:
    """Return the edits after which AutoGPTQ looks for the new names."""
    edits: list[SetField] = []
    for file, outer in ((CONFIG, ("quantization_config",)), (QUANTIZE_CONFIG, ())):
        path = (*outer, "model_file_base_name")
        edits += subject.change_field(file, path, PurePath(WEIGHTS).stem)
    return edits
