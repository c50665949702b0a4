"""Comparing a checkpoint with the float model it was made of, one layer's block at a time."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from matrix.checkpoint import gptq_weights
from matrix.checkpoint.files import CONFIG, CheckpointFiles, Config
from matrix.checkpoint.inspection import CheckpointError, Quantization, WeightComparison
from matrix.checkpoint.layouts import Layout
from matrix.checkpoint.packed import Indices, read_packed
from matrix.checkpoint.shapes import EMBEDDING, HEAD
from matrix.checkpoint.tensors import Floats, Tensors
from matrix.checkpoint.weights import Doubles, Pair, compare, compare_folded, compare_stored

_LINEAR = re.compile(r"(model\.layers\.\d+\..+)\.weight")
_NORM_BEFORE = {
    "self_attn.q_proj": "input_layernorm",
    "self_attn.k_proj": "input_layernorm",
    "self_attn.v_proj": "input_layernorm",
    "mlp.gate_proj": "post_attention_layernorm",
    "mlp.up_proj": "post_attention_layernorm",
}
_FOLDED = {"self_attn.o_proj": "self_attn.v_proj", "mlp.down_proj": "mlp.up_proj"}
"""Second Linear -> the first, whose rows may be folded into the second's columns."""


class Original:
    """The float model a checkpoint was made of.

    Raises:
        CheckpointError: It cannot be read in full, or is quantized itself. Nothing can be compared
            with it then.
    """

    def __init__(self, directory: Path) -> None:
        try:
            self.config, self.tensors = _read_float(directory)
        except CheckpointError as error:
            # Of two folders, this one.
            wrong = error.problem
            where = f"original: {wrong.where}"
            raise CheckpointError(wrong.problem, where, wrong.remedy) from error
        self.linears = sorted(
            found[1]
            for name in self.tensors
            if (found := _LINEAR.fullmatch(name)) and len(self.tensors.info(name).shape) == 2
        )


def _read_float(directory: Path) -> tuple[Config, Tensors]:
    files = CheckpointFiles(directory)
    config = files.config()
    if config.quantization is not None:
        problem = f"is of a quantized model ({config.quantization.method or 'quantization_config'})"
        raise CheckpointError(problem, CONFIG, "Give the float model that was quantized.")
    tensors = Tensors(files)
    for found in tensors.problems:
        raise CheckpointError(found.problem, found.where, found.remedy)
    return config, tensors


def compare_all(
    tensors: Tensors,
    source: Original,
    quantization: Quantization,
    packed: set[str],
    skipped: Collection[str] = (),
) -> list[WeightComparison]:
    """Compare every packed Linear of the original, and every other tensor both have.

    AWQ folds factors into the Linears that it leaves out as well, and nothing tells which: these,
    and those they may be folded into or with, are not compared.

    Args:
        tensors: The checkpoint.
        source: The float model.
        quantization: As config.json says.
        packed: The modules that are packed.
        skipped: The Linears that config.json leaves out.
    """
    ours = sorted(packed & set(source.linears))
    factors: dict[str, Doubles] = {}
    if quantization.method == Layout.AWQ:
        unknown = _folded_with(skipped, source.linears)
        known = [module for module in ours if module not in unknown]
        found = _compare_awq(tensors, source, quantization, known, factors)
        folded = {norm for module in ours if (norm := _norm(module))}
        folded |= {f"{module}.{part}" for module in unknown for part in ("weight", "bias")}
    else:
        found = _compare_gptq(tensors, source, quantization, ours)
        folded = set()
    for name in set(tensors) & set(source.tensors) - folded:
        found[name] = _compare_stored(tensors, source, name, name, factors)
    if HEAD in tensors and HEAD not in source.tensors and EMBEDDING in source.tensors:
        # One matrix under its other name: it must be the same.
        found[HEAD] = _compare_stored(tensors, source, HEAD, EMBEDDING, factors)
    return [found[name] for name in sorted(found)]


def _compare_awq(
    tensors: Tensors,
    source: Original,
    quantization: Quantization,
    ours: list[str],
    factors: dict[str, Doubles],
) -> dict[str, WeightComparison]:
    """Compare packed Linears with all folding undone; put the factors of the folds in."""
    found: dict[str, WeightComparison] = {}
    pair = partial(_pair, tensors, source, quantization)
    for second in ours:
        first = _first(second)
        if first in ours:
            try:
                one, other = pair(first), pair(second)
                row_of = _row_of(source.config, one, other)
                found[first], found[second], factors[first] = compare_folded(one, other, row_of)
            except CheckpointError as error:
                found |= {name: _not_compared(name, error) for name in (first, second)}
    for module in ours:
        if module not in found:
            try:
                found[module] = compare(pair(module))
            except CheckpointError as error:
                found[module] = _not_compared(module, error)
    return found


def _compare_gptq(
    tensors: Tensors, source: Original, quantization: Quantization, ours: list[str]
) -> dict[str, WeightComparison]:
    found = {}
    for module in ours:
        try:
            found[module] = gptq_weights.compare(_pair(tensors, source, quantization, module))
        except CheckpointError as error:
            found[module] = _not_compared(module, error)
    return found


def _not_compared(name: str, error: CheckpointError) -> WeightComparison:
    return WeightComparison(name=name, packed=True, note=str(error))


def _first(second: str) -> str:
    """Return the Linear whose rows may be folded into this one's columns; empty for none."""
    layer, part = _split(second)
    return f"{layer}.{_FOLDED[part]}" if part in _FOLDED else ""


def _folded_with(skipped: Collection[str], linears: Collection[str]) -> set[str]:
    """Return some Linears and those that each may be folded into or with."""
    seconds = {name for name in linears if _first(name) in skipped}
    return {*skipped} | seconds | {first for name in skipped if (first := _first(name))}


def _norm(module: str) -> str:
    """Return the weight of the norm before a Linear; empty for none."""
    layer, part = _split(module)
    return f"{layer}.{_NORM_BEFORE[part]}.weight" if part in _NORM_BEFORE else ""


def _split(module: str) -> tuple[str, str]:
    """Return the layer and what stands in it: ``model.layers.0`` and ``mlp.up_proj``."""
    words = module.split(".")
    return ".".join(words[:3]), ".".join(words[3:])


def _pair(tensors: Tensors, source: Original, quantization: Quantization, module: str) -> Pair:
    packed = read_packed(tensors, module, quantization)
    weight = f"{module}.weight"
    outputs, inputs = source.tensors.find(weight).shape
    if (packed.shape.outputs, packed.shape.inputs) != (outputs, inputs):
        problem = f"stands for {packed.shape.outputs} x {packed.shape.inputs} weights"
        raise CheckpointError(problem, module, f"The original has {outputs} x {inputs}.")
    norm = _norm(module)
    norms = [np.ones(inputs, dtype=np.float32)] * 2
    # GPTQ leaves norms as they are; they are compared by themselves.
    if packed.shape.layout is Layout.AWQ and norm in source.tensors:
        if any(side.find(norm).shape != [inputs] for side in (tensors, source.tensors)):
            raise CheckpointError("has another shape than the original's", norm, "Make it again.")
        norms = [side.floats(norm) for side in (tensors, source.tensors)]
    return Pair(module, packed, partial(source.tensors.float_rows, weight), *norms)


def _row_of(config: Config, first: Pair, second: Pair) -> Indices:
    """Return for each input of ``second`` the row of ``first`` that feeds it.

    With grouped-query attention several heads of o read the same head of v.
    """
    rows, columns = first.packed.shape.outputs, second.packed.shape.inputs
    if rows == columns:
        return np.arange(rows)
    heads, groups = config.num_attention_heads or 0, config.num_key_value_heads or 0
    if heads <= 0 or groups <= 0 or heads % groups or columns % heads:
        raise CheckpointError("heads do not fit the shapes", "original: config.json", "Correct it.")
    size = columns // heads
    if rows != groups * size:
        raise CheckpointError("heads do not fit the shapes", "original: config.json", "Correct it.")
    head, channel = np.divmod(np.arange(columns, dtype=np.intp), size)
    row: Indices = head // (heads // groups) * size + channel
    return row


def _compare_stored(
    tensors: Tensors, source: Original, name: str, counterpart: str, factors: dict[str, Doubles]
) -> WeightComparison:
    """Compare a tensor with the original's; the bias of a folded Linear is folded with it."""
    shape, wanted = tensors.info(name).shape, source.tensors.info(counterpart).shape
    if shape != wanted:
        note = f"shape {shape} instead of {wanted}"
        return WeightComparison(name=name, packed=False, note=note)
    factor = factors.get(name.removesuffix(".bias"))

    def blocks() -> Iterator[tuple[Floats, Floats]]:
        if factor is not None and wanted == list(factor.shape):
            original = source.tensors.floats(counterpart) * factor
            yield tensors.floats(name), original.astype(np.float32)
        else:
            ours, theirs = tensors.float_blocks(name), source.tensors.float_blocks(counterpart)
            yield from zip(ours, theirs, strict=True)

    try:
        return compare_stored(name, blocks())
    except CheckpointError as error:
        return WeightComparison(name=name, packed=False, note=str(error))
