"""Comparing a checkpoint with the float model it was made of, one layer's block at a time."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import assert_never

import numpy as np
from msgspec.structs import replace

from matrix.checkpoint import gptq_weights
from matrix.checkpoint.files import CONFIG, CheckpointFiles, Config
from matrix.checkpoint.inspection import CheckpointError, Quantization, WeightComparison
from matrix.checkpoint.layouts import Layout
from matrix.checkpoint.packed import Indices, read_packed
from matrix.checkpoint.rounding import REACH, Rounding, rounding_of
from matrix.checkpoint.shapes import EMBEDDING, HEAD
from matrix.checkpoint.tensors import Floats, Tensors
from matrix.checkpoint.weights import (
    UNITS,
    Factors,
    Pair,
    compare,
    compare_folded,
    compare_stored,
    trace,
)

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
_GPTQ = "gptq"
_TELLING = 24
"""So many Linears tell which way a file was rounded, and are soon read."""
_ROUNDINGS, _FOLDED_ROUNDINGS = 3, 6
"""How often a weight in steps was rounded on its way (:mod:`matrix.checkpoint.rounding`)."""


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
    norms = sorted({norm for module in ours if (norm := _norm(module)) in source.tensors})
    # GPTQ leaves norms as they are.
    changed = [] if quantization.method == _GPTQ else _changed(tensors, source, norms)
    pair = partial(_pair, tensors, source, quantization, _unit(tensors))
    rounding = _rounding(partial(pair, bool(changed)), ours, quantization)
    folds = _folds(rounding, quantization, len(changed), len(norms))
    pair = partial(pair, folds)
    factors: dict[str, Factors] = {}
    left_out = {f"{module}.weight" for module in packed}
    if folds:
        unknown = _folded_with(skipped, source.linears)
        ours = [module for module in ours if module not in unknown]
        left_out |= {*norms, *(f"{name}.{part}" for name in unknown for part in ("weight", "bias"))}
    compared = {}
    if folds and rounding is Rounding.NEAREST:
        compared = _compare_folded(pair, source.config, ours, factors)
    for module in ours:
        if module not in compared:
            compared[module] = _compare(pair, module, rounding)
    compared = {name: replace(entry, rounding=rounding) for name, entry in compared.items()}
    for name in set(tensors) & set(source.tensors) - left_out:
        compared[name] = _compare_stored(tensors, source, name, name, factors)
    if HEAD in tensors and HEAD not in source.tensors and EMBEDDING in source.tensors:
        # One matrix under its other name: it must be the same.
        compared[HEAD] = _compare_stored(tensors, source, HEAD, EMBEDDING, factors)
    return [compared[name] for name in sorted(compared)]


def _unit(tensors: Tensors) -> float:
    """Return the unit roundoff of the coarsest type that the file was computed in."""
    kinds = {tensors.info(name).dtype for name in tensors}
    return max((UNITS[kind] for kind in kinds & UNITS.keys()), default=0.0)


def _changed(tensors: Tensors, source: Original, norms: list[str]) -> list[str]:
    """Return the norms that no cast makes of the original's."""
    compared = {
        norm: _compare_stored(tensors, source, norm, norm, {}) for norm in norms if norm in tensors
    }
    return [norm for norm, comparison in compared.items() if comparison.strays != 0]


def _rounding(pair: Callable[[str], Pair], ours: list[str], quantization: Quantization) -> Rounding:
    """Return which way the weights were rounded, by Linears that are folded into norms alone."""
    telling = [name for name in ours if _norm(name) and _split(name)[1] not in _FOLDED.values()]
    telling = telling or ours
    traces = []
    for module in telling[:: -(-len(telling) // _TELLING) or 1]:
        # What cannot be read tells nothing, and is said where it is compared.
        with suppress(CheckpointError):
            traces.append(trace(pair(module)))
    moved = quantization.method != Layout.AWQ
    return rounding_of(traces, moved=moved, autoround=quantization.autoround)


def _folds(rounding: Rounding, quantization: Quantization, changed: int, norms: int) -> bool:
    """Return whether factors were folded into norms, of which so many are changed."""
    match rounding:
        case Rounding.NEAREST:
            # A norm that was damaged shows in the Linears after it.
            return quantization.method == Layout.AWQ or changed > 0
        case Rounding.EITHER:
            return False
        case Rounding.MOVED:
            # SmoothQuant before GPTQ changes them all.
            return 2 * changed > norms
        case _:
            assert_never(rounding)


def _compare_folded(
    pair: Callable[[str], Pair], config: Config, ours: list[str], factors: dict[str, Factors]
) -> dict[str, WeightComparison]:
    """Compare Linears with what they may be folded into; put the factors of the folds in."""
    compared: dict[str, WeightComparison] = {}
    for second in ours:
        first = _first(second)
        if first in ours:
            try:
                before, after = pair(first), pair(second)
                row_of = _row_of(config, before, after)
                compared[first], compared[second], factors[first] = compare_folded(
                    before, after, row_of, REACH[Rounding.NEAREST]
                )
            except CheckpointError as error:
                compared |= {name: _not_compared(name, error) for name in (first, second)}
    return compared


def _compare(pair: Callable[[str], Pair], module: str, rounding: Rounding) -> WeightComparison:
    try:
        linear = pair(module)
    except CheckpointError as error:
        return _not_compared(module, error)
    match rounding:
        case Rounding.NEAREST:
            return compare(linear, REACH[rounding])
        case Rounding.EITHER:
            bounded = compare(linear, REACH[rounding])
            # A step is wide: a scale that is off shows earlier in many weights at once.
            group = gptq_weights.compare(linear, clipped=True).group
            return replace(bounded, group=max(bounded.group or 0.0, group or 0.0))
        case Rounding.MOVED:
            return gptq_weights.compare(linear)
        case _:
            assert_never(rounding)


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


def _pair(
    tensors: Tensors,
    source: Original,
    quantization: Quantization,
    unit: float,
    folds: bool,
    module: str,
) -> Pair:
    packed = read_packed(tensors, module, quantization)
    weight = f"{module}.weight"
    outputs, inputs = source.tensors.find(weight).shape
    if (packed.shape.outputs, packed.shape.inputs) != (outputs, inputs):
        problem = f"stands for {packed.shape.outputs} x {packed.shape.inputs} weights"
        raise CheckpointError(problem, module, f"The original has {outputs} x {inputs}.")
    norm = _norm(module)
    stored = before = np.ones(inputs, dtype=np.float32)
    # Where they are as they were, they are compared by themselves.
    if folds and norm in source.tensors:
        if any(side.find(norm).shape != [inputs] for side in (tensors, source.tensors)):
            raise CheckpointError("has another shape than the original's", norm, "Make it again.")
        stored, before = tensors.floats(norm), source.tensors.floats(norm)
    original = partial(source.tensors.float_rows, weight)
    roundings = _FOLDED_ROUNDINGS if folds else _ROUNDINGS
    return Pair(module, packed, original, stored, before, unit, roundings)


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
    tensors: Tensors, source: Original, name: str, counterpart: str, factors: dict[str, Factors]
) -> WeightComparison:
    """Compare a tensor with the original's; the bias of a folded Linear is folded with it."""
    shape, wanted = tensors.info(name).shape, source.tensors.info(counterpart).shape
    if shape != wanted:
        note = f"shape {shape} instead of {wanted}"
        return WeightComparison(name=name, packed=False, note=note)
    factor = factors.get(name.removesuffix(".bias"))

    def blocks() -> Iterator[tuple[Floats, Floats]]:
        ours, theirs = tensors.float_blocks(name), source.tensors.float_blocks(counterpart)
        yield from zip(ours, theirs, strict=True)

    try:
        if factor is not None and wanted == list(factor.by_row.shape):
            original = source.tensors.floats(counterpart) * factor.by_row
            bias = [(tensors.floats(name), original.astype(np.float32))]
            return compare_stored(name, iter(bias), factor.share)
        return compare_stored(name, blocks())
    except CheckpointError as error:
        return WeightComparison(name=name, packed=False, note=str(error))
