"""Makes GPTQ checkpoints of the small float models, for the tests.

Written from the published algorithm (each column's error moved into those after it) and the
published layout; it shares no code with the reader.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from tests.unit import awq_checkpoints as made
from tests.unit.awq_checkpoints import Array

GROUP = 64


def pack(codes: Array, bits: int, axis: int) -> Array:
    """Pack codes along an axis into int32 words, the first in the lowest bits."""
    moved = np.moveaxis(codes, axis, 0).astype(np.uint64)
    per_word = 32 // bits
    words = np.zeros((len(moved) // per_word, *moved.shape[1:]), np.uint64)
    for position in range(per_word):
        words |= moved[position::per_word] << np.uint64(bits * position)
    return np.ascontiguousarray(np.moveaxis(words, 0, axis)).astype(np.uint32).view(np.int32)


@cache
def activations(inputs: int, desc_act: bool) -> tuple[Array, Array]:
    """Return the order of columns, and how the error of each moves into those after it."""
    random = np.random.default_rng(0)
    order = random.permutation(inputs) if desc_act else np.arange(inputs)
    samples = random.normal(0, 1, (3 * inputs, inputs)) @ random.normal(0, 0.06, (inputs, inputs))
    samples += random.normal(0, 1, samples.shape)
    hessian = samples[:, order].T @ samples[:, order]
    return order, np.linalg.cholesky(np.linalg.inv(hessian)).T


def quantize_weight(
    weight: Array, bits: int, group: int, desc_act: bool
) -> tuple[Array, Array, Array]:
    """Return codes [in, out], scales [groups, out] and g_idx [in]; the zero is 2^(bits - 1)."""
    outputs, inputs = weight.shape
    order, upper = activations(inputs, desc_act)
    left = weight[:, order].astype(np.float64)
    zero = 2 ** (bits - 1)
    codes, scales = np.zeros((inputs, outputs), int), np.zeros((-(-inputs // group), outputs))
    for column in range(inputs):
        if column % group == 0:
            most = np.abs(left[:, column : column + group]).max(axis=1)
            most[most == 0] = 1
            scale = (2 * most / (2**bits - 1)).astype(np.float16).astype(np.float64)
            scales[column // group] = scale
        code = np.clip(np.round(left[:, column] / scale) + zero, 0, 2**bits - 1)
        codes[order[column]] = code
        error = (left[:, column] - (code - zero) * scale) / upper[column, column]
        left[:, column:] -= np.outer(error, upper[column, column:])
    index = np.zeros(inputs, np.int32)
    index[order] = np.arange(inputs) // group
    return codes, scales.astype(np.float16), index


def linear(
    weight: Array, name: str, *, bits: int, group: int, desc_act: bool, v2: bool
) -> dict[str, Array]:
    """Return the tensors of one packed Linear."""
    codes, scales, index = quantize_weight(weight, bits, group, desc_act)
    stored = np.full(scales.shape, 2 ** (bits - 1) - (not v2))
    return {
        f"{name}.qweight": pack(codes, bits, 0),
        f"{name}.qzeros": pack(stored, bits, 1),
        f"{name}.scales": scales,
        f"{name}.g_idx": index,
    }


@cache
def gptq_model(bits: int, group: int, desc_act: bool) -> dict[str, Array]:
    """Return the tensors of a GPTQ checkpoint of the tied float model, as auto-gptq writes them."""
    packed = dict(made.float_model(tied=True))
    for name in [n.removesuffix(".weight") for n in packed if n.endswith("_proj.weight")]:
        weight = packed.pop(f"{name}.weight")
        packed |= linear(weight, name, bits=bits, group=group, desc_act=desc_act, v2=False)
        packed.setdefault(f"{name}.bias", np.zeros(len(weight), np.float16))
    return packed


def write_pair(
    root: Path,
    *,
    bits: int = 4,
    group: int = GROUP,
    desc_act: bool = False,
    v2: bool = False,
    checkpoint_format: str | None = None,
    damage: Callable[[dict[str, Array]], object] | None = None,
) -> tuple[Path, Path]:
    """Write a float model and a (damaged) checkpoint of it; return checkpoint and original."""
    packed = {name: array.copy() for name, array in gptq_model(bits, group, desc_act).items()}
    for name in [name for name in packed if v2 and name.endswith(".qzeros")]:
        packed[name] += np.int32(0x11111111 if bits == 4 else 0x01010101)
    if damage is not None:
        damage(packed)
    tensors = made.float_model(tied=True)
    original = made.write(root / "original", tensors, tied=True, quantized=False)
    checkpoint = made.write(root / "checkpoint", packed, tied=True, quantized=False)
    config = json.loads((checkpoint / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "gptq",
        "bits": bits,
        "group_size": group,
        "sym": True,
        "desc_act": desc_act,
    }
    if checkpoint_format or v2:
        config["quantization_config"]["checkpoint_format"] = checkpoint_format or "gptq_v2"
    (checkpoint / "config.json").write_text(json.dumps(config))
    return checkpoint, original
