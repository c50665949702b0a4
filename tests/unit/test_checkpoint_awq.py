from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save_file

from matrix.checkpoint.awq import unpack
from matrix.checkpoint.files import CheckpointFiles
from matrix.checkpoint.inspection import CheckpointError, Quantization
from matrix.checkpoint.packed import read_packed
from matrix.checkpoint.tensors import Tensors
from tests.unit import awq_checkpoints as made

AWQ = Quantization("awq", 4, 16, True, "gemm")
codes = hnp.arrays(
    np.uint8,
    st.tuples(st.integers(1, 5), st.integers(1, 4).map(lambda words: words * 8)),
    elements=st.integers(0, 15),
)


def slow_dequantize(
    qweight: made.Array, qzeros: made.Array, scales: made.Array, group: int
) -> made.Array:
    """One weight at a time, from the published layout alone; [out, in]."""
    inputs, outputs = len(qweight), scales.shape[1]
    weight = np.zeros((outputs, inputs))
    for i in range(inputs):
        for o in range(outputs):
            shift = 4 * made.ORDER_MAP.index(o % 8)
            code = (int(qweight[i, o // 8]) >> shift) & 15
            zero = (int(qzeros[i // group, o // 8]) >> shift) & 15
            weight[o, i] = (code - zero) * float(scales[i // group, o])
    return weight


def tensors_of(directory: Path, arrays: dict[str, made.Array]) -> Tensors:
    save_file(arrays, directory / "model.safetensors")
    return Tensors(CheckpointFiles(directory))


def linear(inputs: int = 32, outputs: int = 16, group: int = 16) -> dict[str, made.Array]:
    random = np.random.default_rng(3)
    return {
        "m.qweight": made.pack(random.integers(0, 16, (inputs, outputs))),
        "m.qzeros": made.pack(random.integers(0, 16, (inputs // group, outputs))),
        "m.scales": random.uniform(0.01, 0.1, (inputs // group, outputs)).astype(np.float16),
    }


@given(codes)
@settings(max_examples=200, deadline=None)
def test_unpacking_undoes_packing(original: made.Array) -> None:
    assert np.array_equal(unpack(made.pack(original)), original)


@given(
    hnp.arrays(np.int32, (32, 2)),
    hnp.arrays(np.int32, (2, 2)),
    hnp.arrays(np.float16, (2, 16), elements=st.floats(-60_000, 60_000, width=16)),
)
@settings(
    max_examples=50,
    deadline=None,
)
def test_dequantizing_agrees_with_the_layout_weight_by_weight(
    tmp_path_factory: pytest.TempPathFactory,
    qweight: made.Array,
    qzeros: made.Array,
    scales: made.Array,
) -> None:
    arrays = {"m.qweight": qweight, "m.qzeros": qzeros, "m.scales": scales}
    tensors = tensors_of(tmp_path_factory.mktemp("awq"), arrays)
    weight = read_packed(tensors, "m", AWQ).weight()
    assert weight.dtype == np.float32
    assert np.array_equal(weight, slow_dequantize(qweight, qzeros, scales, 16))


def test_quantizing_and_reading_back_is_within_half_a_step(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(0, 1, (16, 64))
    packed, zeros, scales = made.quantize_weight(weight, group=16)
    arrays = {"m.qweight": made.pack(packed), "m.qzeros": made.pack(zeros), "m.scales": scales}
    restored = read_packed(tensors_of(tmp_path, arrays), "m", AWQ)
    block = restored.block(0, 16)
    off = np.abs(block.weight() - weight) / block.steps
    lowest, highest = block.ends
    assert off[~(lowest | highest)].max() <= 0.5 + 1e-3
    assert off.max() <= 1 + 1e-3


@pytest.mark.parametrize(
    ("change", "quantization", "message"),
    [
        ({}, Quantization("gptq", 4, 16), "laid out as awq, but config.json says gptq"),
        ({}, Quantization("awq", 8, 16), "has 4 bits, but config.json says 8"),
        ({}, Quantization("awq", 4, 16, version="gemv"), "layout gemv"),
        ({}, Quantization("awq", 4, 32), "groups of 16, but config.json says 32"),
        ({}, Quantization("awq", 4, 24), "groups of 16, but config.json says 24"),
        ({}, Quantization("awq", 4, 10**9), "groups of 16, but"),
        ({"m.qzeros": np.zeros((2, 1), np.int32)}, AWQ, "do not agree"),
        ({"m.qzeros": np.zeros((1, 2), np.int32)}, AWQ, "do not agree"),
        ({"m.qweight": np.zeros((33, 2), np.int32)}, AWQ, "do not agree"),
        ({"m.scales": np.zeros((2, 15), np.float16)}, AWQ, "do not agree"),
        ({"m.qweight": np.zeros((32, 2), np.float16)}, AWQ, "not int32"),
        ({"m.qweight": np.zeros(64, np.int32)}, AWQ, "not matrices"),
        ({"m.qweight": np.zeros((0, 2), np.int32)}, AWQ, "not matrices"),
    ],
)
def test_what_does_not_agree_is_named(
    tmp_path: Path, change: dict[str, made.Array], quantization: Quantization, message: str
) -> None:
    tensors = tensors_of(tmp_path, {**linear(), **change})
    with pytest.raises(CheckpointError, match=message):
        read_packed(tensors, "m", quantization)


def test_one_group_for_the_whole_row(tmp_path: Path) -> None:
    tensors = tensors_of(tmp_path, linear(group=32))
    assert read_packed(tensors, "m", Quantization("awq", 4, -1)).scales.shape == (16, 1)


def test_missing_part_is_named(tmp_path: Path) -> None:
    arrays = linear()
    del arrays["m.qzeros"]
    with pytest.raises(CheckpointError, match=r"m\.qzeros: is missing"):
        read_packed(tensors_of(tmp_path, arrays), "m", AWQ)
