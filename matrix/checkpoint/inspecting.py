"""Inspecting a checkpoint: what it holds, what its config promises, how its weights compare."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from matrix.checkpoint.comparing import Original, compare_all
from matrix.checkpoint.files import CheckpointFiles, Config
from matrix.checkpoint.inspection import (
    COMPRESSED_TENSORS,
    CheckpointError,
    ConfigFacts,
    Inspection,
    PackedLinearInfo,
    Problem,
    Quantization,
    TokenizerFacts,
)
from matrix.checkpoint.layouts import ACTIVATION_PARTS, WORDS, parts_of
from matrix.checkpoint.scanning import scan
from matrix.checkpoint.shapes import (
    EMBEDDING,
    HEAD,
    LinearShape,
    expected_bytes,
    float_shapes,
    left_out,
    linear_shapes,
    packed_parts,
    unread_formats,
)
from matrix.checkpoint.tensors import Tensors

_PACKING_METHODS = ("awq", "gptq", COMPRESSED_TENSORS)
_HEAD_MODULE = "lm_head"


@dataclass(frozen=True)
class _Plan:
    """What the float model is made of: by the original or, without one, by config.json."""

    linears: list[str]
    names: set[str]
    """All its tensors. Empty where the model is not known: nothing is claimed then."""

    def expected(
        self, quantization: Quantization | None, quantized: bool, skipped: Collection[str]
    ) -> set[str]:
        """Return the tensors a checkpoint must have, but for embedding and head."""
        names = self.names - {EMBEDDING, HEAD}
        if not quantized:
            return names
        quantization = quantization or Quantization("unknown")
        schemes = {name: quantization.of(name) for name in set(self.linears) - set(skipped)}
        weights = {f"{module}.weight" for module in schemes}
        return (names - weights) | {
            f"{module}.{part}"
            for module, scheme in schemes.items()
            if scheme is not None
            for part in packed_parts(scheme)
        }


def inspect(directory: Path, original: Path | None = None) -> Inspection:
    """Return what a checkpoint holds and, given the original, how its weights compare with it.

    What is wrong with the checkpoint is in the result, ``problems`` first; it is never raised. The
    checkpoint counts as quantized if its config.json says so or anything in it is packed.

    Raises:
        CheckpointError: The original cannot be read.
    """
    source = Original(original) if original is not None else None
    try:
        files = CheckpointFiles(directory)
    except CheckpointError as error:
        linears = source.linears if source is not None else []
        return Inspection(compared=source is not None, linears=linears, problems=[error.problem])
    tensors = Tensors(files)
    problems = files.problems + tensors.problems
    config, tokenizer = _read_configs(files, problems)
    plan = _plan(source, config)
    modules = {*plan.linears, *(name.rpartition(".")[0] for name in tensors)}
    quantization = _matched(config.quantization, modules)
    scanned = scan(tensors, quantization)
    packed = {module.name for module in scanned.modules}
    quantization = _matched(_with_head(quantization, packed), modules)
    unread = _joined(unread_formats(quantization, packed), scanned.unread)
    problems += scanned.problems + _contradictions(config, quantization, packed, tensors, unread)
    left = left_out(plan.linears, packed, quantization)
    skipped = [name for name in plan.linears if name in left or name in scanned.unread]
    expected = plan.expected(quantization, bool(packed) or quantization is not None, skipped)
    if unread:
        # How those layers are stored is not known.
        expected -= {f"{module}.weight" for module in skipped}
    names = set(tensors)
    surplus = names - expected - _optional(packed, tensors, quantization)
    if unread or not plan.names:
        surplus = set()
    return Inspection(
        compared=source is not None,
        files=files.sizes,
        tensors=[tensors.info(name) for name in sorted(names)],
        tie_word_embeddings=config.tie_word_embeddings,
        config=config.facts,
        tokenizer=tokenizer,
        quantization=quantization,
        modules=_with_shape_notes(scanned.modules, config.facts),
        linears=plan.linears,
        left_out=skipped,
        unread=unread,
        embedding=EMBEDDING in names,
        head=HEAD in names or _HEAD_MODULE in packed,
        head_differs=_head_differs(tensors) if config.tie_word_embeddings else None,
        missing=sorted(expected - names),
        unexpected=sorted(surplus - scanned.zero),
        zero_tensors=sorted(surplus & scanned.zero),
        not_finite=scanned.not_finite,
        expected_bytes=None
        if unread
        else expected_bytes(config.facts, bool(config.tie_word_embeddings), quantization, skipped),
        weights=[]
        if source is None
        else compare_all(tensors, source, quantization or Quantization("unknown"), packed, skipped),
        problems=problems,
    )


def _read_configs(files: CheckpointFiles, problems: list[Problem]) -> tuple[Config, TokenizerFacts]:
    """Return what the JSON files say; add why one cannot be read."""
    config, tokenizer = Config(), TokenizerFacts()
    try:
        config = files.config()
    except CheckpointError as error:
        problems.append(error.problem)
    try:
        tokenizer = files.tokenizer()
    except CheckpointError as error:
        problems.append(error.problem)
    return config, tokenizer


def _matched(quantization: Quantization | None, modules: Collection[str]) -> Quantization | None:
    """Return what is said, with its regular expressions already run on these modules."""
    if quantization is not None:
        quantization.match(modules)
    return quantization


def _with_head(quantization: Quantization | None, packed: set[str]) -> Quantization | None:
    """Return what is said, and whether the head is packed as compressed-tensors says.

    ``Linear`` means the head to some of its readers and not to others, so that either is right.
    """
    if quantization is None or quantization.method != COMPRESSED_TENSORS:
        return quantization
    has_head = _HEAD_MODULE in packed and quantization.of(_HEAD_MODULE) is not None
    return msgspec.structs.replace(quantization, lm_head=has_head)


def _joined(formats: str, widths: Mapping[str, str]) -> str:
    """Return what is not read here, in one line: whole formats, and widths of others."""
    return ", ".join(filter(None, (formats, *sorted(set(widths.values())))))


def _contradictions(
    config: Config,
    quantization: Quantization | None,
    packed: set[str],
    tensors: Tensors,
    unread: str,
) -> list[Problem]:
    """Return where config.json and the tensors cannot both be meant."""
    if packed and quantization is None and config != Config():
        problem = f"has no quantization_config, but {len(packed)} modules are packed"
        return [Problem(problem, "config.json", "Copy it from the run that quantized the model.")]
    if quantization is None or packed or not list(tensors):
        return []
    # Of compressed-tensors, only the cache may be rounded.
    is_of_cache = bool(quantization.kv_cache and not quantization.groups)
    if quantization.method in _PACKING_METHODS and not is_of_cache and not unread:
        problem = f"says {quantization.method}, but nothing is packed"
        return [Problem(problem, "config.json", "Remove quantization_config, or quantize again.")]
    return []


def _plan(source: Original | None, config: Config) -> _Plan:
    if source is not None:
        return _Plan(source.linears, set(source.tensors))
    facts = config.facts
    shapes = float_shapes(facts, bool(config.tie_word_embeddings))
    return _Plan(sorted(linear_shapes(facts)), set(shapes))


def _optional(packed: set[str], tensors: Tensors, quantization: Quantization | None) -> set[str]:
    """Return what a checkpoint may have: both names of a tied matrix, a packed head, g_idx, and
    of compressed-tensors what is for activations."""
    optional = {EMBEDDING, HEAD} | {f"{module}.{WORDS.order}" for module in packed}
    if _HEAD_MODULE in packed:
        parts = parts_of(_HEAD_MODULE, tensors).names
        optional |= {f"{_HEAD_MODULE}.{part}" for part in parts}
    if quantization is not None and quantization.method == COMPRESSED_TENSORS:
        optional |= {name for name in tensors if name.rpartition(".")[2] in ACTIVATION_PARTS}
    return optional


def _head_differs(tensors: Tensors) -> bool | None:
    """Whether the two names of a tied matrix hold different values; ``None`` if one is not there.

    Read a second time, since they need not lie side by side; a tied matrix is a small model's.
    """
    if EMBEDDING not in tensors or HEAD not in tensors:
        return None
    if tensors.info(EMBEDDING).shape != tensors.info(HEAD).shape:
        return True
    try:
        blocks = zip(tensors.float_blocks(EMBEDDING), tensors.float_blocks(HEAD), strict=True)
        return not all(np.array_equal(one, other, equal_nan=True) for one, other in blocks)
    except CheckpointError:
        return None  # the scan, which reads every tensor, has said why


def _with_shape_notes(
    modules: list[PackedLinearInfo], config: ConfigFacts
) -> list[PackedLinearInfo]:
    """Note of each module that has not the shape config.json means."""
    shapes: dict[str, LinearShape] = linear_shapes(config)
    found = []
    for module in modules:
        wanted = shapes.get(module.name)
        if not module.note and wanted not in (None, (module.outputs, module.inputs)):
            note = f"{module.name}: holds {module.outputs} x {module.inputs} weights; "
            note += f"config.json means {wanted[0]} x {wanted[1]}" if wanted else ""
            module = msgspec.structs.replace(module, note=note)
        found.append(module)
    return found
