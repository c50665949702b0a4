"""Inspecting a checkpoint beside the original model: what it holds, and how its weights compare."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from matrix.checkpoint.awq import read_packed
from matrix.checkpoint.files import CheckpointFiles, Config
from matrix.checkpoint.inspection import (
    CheckpointError,
    Inspection,
    Quantization,
    WeightComparison,
)
from matrix.checkpoint.tensors import Tensors
from matrix.checkpoint.weights import Doubles, Pair, compare, compare_folded, compare_stored

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
PACKED_PARTS = ("qweight", "qzeros", "scales")

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
        CheckpointError: It cannot be read in full. Nothing can be compared with it then.
    """

    def __init__(self, directory: Path) -> None:
        files = CheckpointFiles(directory)
        self.config = files.config()
        self.tensors = Tensors(files)
        problem = next(iter(self.tensors.problems), None)
        if problem is not None:
            raise CheckpointError(problem.problem, f"original: {problem.where}", problem.remedy)
        self.linears = sorted(
            found[1]
            for name in self.tensors
            if (found := _LINEAR.fullmatch(name)) and len(self.tensors.info(name).shape) == 2
        )

    def expected(self, quantized: bool) -> set[str]:
        """Return the tensors a checkpoint must have, but for embedding and head."""
        names = set(self.tensors) - {EMBEDDING, HEAD}
        if not quantized:
            return names
        weights = {f"{module}.weight" for module in self.linears}
        packed = {f"{module}.{part}" for module in self.linears for part in PACKED_PARTS}
        return (names - weights) | packed


def inspect(directory: Path, original: Path) -> Inspection:
    """Return what a checkpoint holds and how its weights compare with the original's.

    What is wrong with the checkpoint is in the result, ``problems`` first; it is never raised. The
    checkpoint counts as quantized if its config.json says so or anything in it is packed.

    Raises:
        CheckpointError: The original cannot be read.
    """
    source = Original(original)
    try:
        files = CheckpointFiles(directory)
    except CheckpointError as error:
        return Inspection(linears=source.linears, problems=[error.problem])
    tensors = Tensors(files)
    problems = files.problems + tensors.problems
    try:
        config = files.config()
    except CheckpointError as error:
        problems.append(error.problem)
        config = Config()
    packed = sorted(n.removesuffix(".qweight") for n in tensors if n.endswith(".qweight"))
    expected = source.expected(quantized=bool(packed) or config.quantization is not None)
    names = set(tensors)
    surplus = sorted(names - expected - {EMBEDDING, HEAD})
    zero_biases = [name for name in surplus if name.endswith(".bias") and _is_zero(tensors, name)]
    return Inspection(
        files=files.sizes,
        tensors=[tensors.info(name) for name in sorted(names)],
        tie_word_embeddings=config.tie_word_embeddings,
        quantization=config.quantization,
        packed=packed,
        linears=source.linears,
        embedding=EMBEDDING in names,
        head=HEAD in names,
        missing=sorted(expected - names),
        unexpected=sorted(set(surplus) - set(zero_biases)),
        zero_biases=zero_biases,
        not_finite_scales=_not_finite_scales(tensors, packed),
        weights=_compare_all(
            tensors, source, config.quantization or Quantization("unknown"), packed
        ),
        problems=problems,
    )


def _is_zero(tensors: Tensors, name: str) -> bool:
    try:
        return not tensors.floats(name).any()
    except CheckpointError:
        return False


def _not_finite_scales(tensors: Tensors, packed: list[str]) -> dict[str, int]:
    counts = {}
    for module in packed:
        name = f"{module}.scales"
        if name in tensors and tensors.info(name).dtype in ("F16", "BF16", "F32", "F64"):
            count = int(np.count_nonzero(~np.isfinite(tensors.floats(name))))
            if count:
                counts[name] = count
    return counts


def _compare_all(
    tensors: Tensors, source: Original, quantization: Quantization, packed: list[str]
) -> list[WeightComparison]:
    """Compare every packed Linear of the original, and every other tensor both have."""
    found: dict[str, WeightComparison] = {}
    factors: dict[str, Doubles] = {}
    ours = [module for module in packed if module in source.linears]
    for second in ours:
        first = _first(second)
        if first in ours:
            try:
                one = _pair(tensors, source, quantization, first)
                other = _pair(tensors, source, quantization, second)
                row_of = _row_of(source.config, one, other)
            except CheckpointError as error:
                found |= {name: _not_compared(name, error) for name in (first, second)}
                continue
            found[first], found[second], factors[first] = compare_folded(one, other, row_of)
    for module in ours:
        if module not in found:
            try:
                found[module] = compare(_pair(tensors, source, quantization, module))
            except CheckpointError as error:
                found[module] = _not_compared(module, error)
    norms = {norm for module in ours if (norm := _norm(module))}
    for name in set(tensors) & set(source.tensors) - norms:
        found[name] = _compare_stored(tensors, source, name, name, factors)
    if HEAD in tensors and HEAD not in source.tensors and EMBEDDING in source.tensors:
        # One matrix under its other name: it must be the same.
        found[HEAD] = _compare_stored(tensors, source, HEAD, EMBEDDING, factors)
    return [found[name] for name in sorted(found)]


def _not_compared(name: str, error: CheckpointError) -> WeightComparison:
    return WeightComparison(name=name, packed=True, note=str(error))


def _first(second: str) -> str | None:
    """Return the Linear whose rows may be folded into this one's columns."""
    layer, part = _split(second)
    return f"{layer}.{_FOLDED[part]}" if part in _FOLDED else None


def _norm(module: str) -> str | None:
    """Return the weight of the norm before a Linear."""
    layer, part = _split(module)
    return f"{layer}.{_NORM_BEFORE[part]}.weight" if part in _NORM_BEFORE else None


def _split(module: str) -> tuple[str, str]:
    """Return the layer and what stands in it: ``model.layers.0`` and ``mlp.up_proj``."""
    words = module.split(".")
    return ".".join(words[:3]), ".".join(words[3:])


def _pair(tensors: Tensors, source: Original, quantization: Quantization, module: str) -> Pair:
    packed = read_packed(tensors, module, quantization)
    original = source.tensors.floats(f"{module}.weight")
    outputs, inputs = original.shape
    if packed.codes.shape != (inputs, outputs):
        problem = f"stands for {packed.codes.shape[1]} x {packed.codes.shape[0]} weights"
        raise CheckpointError(problem, module, f"The original has {outputs} x {inputs}.")
    norm = _norm(module)
    norms = [np.ones(inputs, dtype=np.float32)] * 2
    if norm is not None and norm in source.tensors:
        norms = [side.floats(norm) for side in (tensors, source.tensors)]
        if any(one.shape != (inputs,) for one in norms):
            raise CheckpointError("has another shape than the original's", norm, "Make it again.")
    return Pair(module, packed, original, *norms)


def _row_of(config: Config, first: Pair, second: Pair) -> npt.NDArray[np.intp]:
    """Return for each input of ``second`` the row of ``first`` that feeds it.

    With grouped-query attention several heads of o read the same head of v.
    """
    rows, columns = len(first.original), second.original.shape[1]
    if rows == columns:
        return np.arange(rows)
    heads, groups = config.num_attention_heads or 0, config.num_key_value_heads or 0
    if heads <= 0 or groups <= 0 or heads % groups or columns % heads:
        raise CheckpointError("heads do not fit the shapes", "original: config.json", "Correct it.")
    size = columns // heads
    if rows != groups * size:
        raise CheckpointError("heads do not fit the shapes", "original: config.json", "Correct it.")
    head, channel = np.divmod(np.arange(columns, dtype=np.intp), size)
    row: npt.NDArray[np.intp] = head // (heads // groups) * size + channel
    return row


def _compare_stored(
    tensors: Tensors, source: Original, name: str, counterpart: str, factors: dict[str, Doubles]
) -> WeightComparison:
    """Compare a tensor with the original's; the bias of a folded Linear is folded with it."""
    try:
        stored, original = tensors.floats(name), source.tensors.floats(counterpart)
    except CheckpointError as error:
        return WeightComparison(name=name, packed=False, note=str(error))
    factor = factors.get(name.removesuffix(".bias"))
    if factor is not None and original.shape == factor.shape:
        original = (original * factor).astype(np.float32)
    return compare_stored(name, stored, original)
