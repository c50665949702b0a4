from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save_file

from matrix.checkpoint.files import CheckpointFiles
from matrix.checkpoint.gptq import unpack
from matrix.checkpoint.inspecting import inspect
from matrix.checkpoint.inspection import CheckpointError, Inspection, Quantization, WeightComparison
from matrix.checkpoint.packed import read_packed
from matrix.checkpoint.rounding import Rounding
from matrix.checkpoint.tensors import Tensors
from tests.unit import awq_checkpoints as made
from tests.unit import gptq_checkpoints as gptq

Damage = Callable[[dict[str, made.Array]], object]
L0 = "model.layers.0"
Q = f"{L0}.self_attn.q_proj"
LINEARS = sorted(made.linear_shapes(0))


def quantization(bits: int = 4, form: str = "", group: int = 16) -> Quantization:
    return Quantization("gptq", bits, group, checkpoint_format=form)


def tensors_of(directory: Path, arrays: dict[str, made.Array]) -> Tensors:
    save_file(arrays, directory / "model.safetensors")
    return Tensors(CheckpointFiles(directory))


def weights(inspection: Inspection) -> dict[str, WeightComparison]:
    return {weight.name: weight for weight in inspection.weights}


def slow_dequantize(arrays: dict[str, made.Array], bits: int, add: int) -> made.Array:
    """One weight at a time, from the published layout alone; [out, in]."""
    qweight, qzeros, scales, index = (
        arrays[f"m.{part}"] for part in ("qweight", "qzeros", "scales", "g_idx")
    )
    per_word, mask = 32 // bits, 2**bits - 1
    weight = np.zeros((scales.shape[1], len(index)))
    for o in range(scales.shape[1]):
        for i, group in enumerate(index):
            code = (int(qweight[i // per_word, o]) >> bits * (i % per_word)) & mask
            zero = (int(qzeros[group, o // per_word]) >> bits * (o % per_word)) & mask
            weight[o, i] = (code - ((zero + add) & mask)) * float(scales[group, o])
    return weight


@given(st.data(), st.sampled_from([2, 4, 8]))
@settings(max_examples=100, deadline=None)
def test_unpacking_undoes_packing(data: st.DataObject, bits: int) -> None:
    shape = (data.draw(st.integers(1, 3)), 32 // bits * data.draw(st.integers(1, 3)))
    codes = data.draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, 2**bits - 1)))
    assert np.array_equal(unpack(gptq.pack(codes, bits, 1), bits), codes)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(("form", "add"), [("", 1), ("gptq", 1), ("gptq_v2", 0)])
@pytest.mark.parametrize("permuted", [False, True])
def test_dequantizing_agrees_with_the_layout_weight_by_weight(
    tmp_path: Path, bits: int, form: str, add: int, permuted: bool
) -> None:
    random = np.random.default_rng(bits)
    index = np.repeat(np.arange(3, dtype=np.int32), 16)
    words = np.iinfo(np.int32)
    arrays: dict[str, made.Array] = {
        "m.qweight": random.integers(words.min, words.max, (48 * bits // 32, 64), np.int32),
        "m.qzeros": random.integers(words.min, words.max, (3, 64 * bits // 32), np.int32),
        "m.scales": random.normal(0, 1, (3, 64)).astype(np.float16),
        "m.g_idx": random.permutation(index) if permuted else index,
    }
    linear = read_packed(tensors_of(tmp_path, arrays), "m", quantization(bits, form))
    wanted = slow_dequantize(arrays, bits, add).astype(np.float32)
    assert np.array_equal(linear.weight(), wanted)
    assert np.array_equal(linear.block(32, 64).weight(), wanted[32:64][:, linear.order])


@pytest.mark.parametrize(
    ("change", "scheme", "message"),
    [
        ({}, Quantization("awq", 4, 16), "laid out as gptq, but config.json says awq"),
        ({}, quantization(8), "has 4 bits, but config.json says 8"),
        ({}, quantization(group=8), "groups of 16, but config.json says 8"),
        ({}, quantization(form="marlin"), "checkpoint format marlin"),
        ({"m.g_idx": np.zeros(31, np.int32)}, quantization(), r"g_idx: is I32 \[31\]"),
        ({"m.g_idx": np.full(32, 2, np.int32)}, quantization(), "names groups beyond 2"),
        ({"m.g_idx": np.full(32, -1, np.int32)}, quantization(), "names groups beyond 2"),
        (
            {"m.qweight": np.zeros((3, 32), np.int32), "m.qzeros": np.zeros((2, 3), np.int32)},
            quantization(3),
            "is 3-bit gptq; read here are 2, 4, 8 bits",
        ),
    ],
)
def test_what_does_not_agree_is_named(
    tmp_path: Path, change: dict[str, made.Array], scheme: Quantization, message: str
) -> None:
    weight = np.random.default_rng(0).normal(0, 1, (32, 32))
    arrays = gptq.linear(weight, "m", bits=4, group=16, desc_act=False, v2=False) | change
    with pytest.raises(CheckpointError, match=message):
        read_packed(tensors_of(tmp_path, arrays), "m", scheme)


@pytest.mark.parametrize("group_size", [4, 16])
def test_groups_so_small_that_they_fill_the_memory_are_refused(
    tmp_path: Path, group_size: int
) -> None:
    weight = np.random.default_rng(0).normal(0, 1, (32, 32))
    for group, refused in ((8, False), (4, True)):
        arrays = gptq.linear(weight, "m", bits=4, group=group, desc_act=False, v2=False)
        tensors = tensors_of(tmp_path, arrays)
        if refused:
            with pytest.raises(CheckpointError, match="m: groups of 4 are too small; read are 8"):
                read_packed(tensors, "m", quantization(group=group_size))
        else:
            assert read_packed(tensors, "m", quantization(group=group)).shape.group_size == group


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("desc_act", [False, True])
@pytest.mark.parametrize("v2", [False, True])
def test_good_checkpoint(tmp_path: Path, bits: int, desc_act: bool, v2: bool) -> None:
    inspection = inspect(*gptq.write_pair(tmp_path, bits=bits, desc_act=desc_act, v2=v2))
    assert inspection.problems == []
    assert inspection.missing == inspection.unexpected == []
    assert inspection.zero_tensors == sorted(
        f"{L0}.{part}.bias"
        for part in ("self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
    )
    stored = str(2 ** (bits - 1) - (not v2))
    for module in inspection.modules:
        assert (module.bits, module.group_size, module.note) == (bits, gptq.GROUP, "")
        assert set(module.zero_points) == {stored}
        assert module.group_order == ("permuted" if desc_act else "in order")
    assert [module.name for module in inspection.modules] == LINEARS
    for weight in inspection.weights:
        assert weight.error is not None
        if weight.packed:
            assert weight.error < (0.25 if bits == 4 else 0.02)
            assert weight.ratio == pytest.approx(1, abs=0.01)
            assert weight.group == 0
            assert (weight.rounding, weight.strays) == (Rounding.MOVED, None)
            assert weight.offset is not None
            assert weight.offset < 0.6
        else:
            assert weight.error == 0
    assert f"{L0}.input_layernorm.weight" in weights(inspection)


def scale_part(where: Any, factor: float) -> Damage:
    def damage(tensors: dict[str, made.Array]) -> None:
        tensors[f"{Q}.scales"][where] *= np.float16(factor)

    return damage


@pytest.mark.parametrize("desc_act", [False, True])
@pytest.mark.parametrize(
    ("where", "factor"),
    [
        (np.s_[:], 1.05),
        (np.s_[:], 0.95),
        (np.s_[1, :], 1.05),
        (np.s_[1, :], 0.95),
        (np.s_[:, 5], 1.8),
        (np.s_[2, 9], 2.0),
        (np.s_[2, 9], 0.0),
        (np.s_[2, 9], -1.0),
    ],
)
def test_wrong_scale_shows(tmp_path: Path, desc_act: bool, where: Any, factor: float) -> None:
    damage = scale_part(where, factor)
    compared = weights(inspect(*gptq.write_pair(tmp_path, desc_act=desc_act, damage=damage)))
    group = compared[Q].group
    assert group is not None
    assert group > 0.002
    assert all(weight.group in (0, None) for name, weight in compared.items() if name != Q)


@pytest.mark.parametrize("factor", [1.05, 0.95])
def test_eight_bits_show_five_percent_of_one_group_of_one_row(
    tmp_path: Path, factor: float
) -> None:
    damage = scale_part((2, 9), factor)
    group = weights(inspect(*gptq.write_pair(tmp_path, bits=8, damage=damage)))[Q].group
    assert group is not None
    assert group > 0.002


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("v2", [False, True])
def test_format_that_is_mislabelled_shows_as_an_offset_of_one(
    tmp_path: Path, bits: int, v2: bool
) -> None:
    label = "gptq" if v2 else "gptq_v2"
    inspection = inspect(*gptq.write_pair(tmp_path, bits=bits, v2=v2, checkpoint_format=label))
    for weight in inspection.weights:
        if weight.packed:
            assert weight.offset is not None
            assert weight.offset > 0.8
    assert set(inspection.modules[0].zero_points) == {str(2 ** (bits - 1) - (not v2))}


def test_one_zero_point_off_by_one_shows(tmp_path: Path) -> None:
    def damage(tensors: dict[str, made.Array]) -> None:
        tensors[f"{Q}.qzeros"].view(np.uint32)[1, 0] ^= np.uint32(0xF)  # 7 becomes 8

    inspection = inspect(*gptq.write_pair(tmp_path, damage=damage))
    offset = weights(inspection)[Q].offset
    assert offset is not None
    assert offset > 0.6
    module = next(module for module in inspection.modules if module.name == Q)
    assert module.zero_points["8"] == 1


def test_order_of_groups_that_cannot_be_is_wrong(tmp_path: Path) -> None:
    def damage(tensors: dict[str, made.Array]) -> None:
        tensors[f"{Q}.g_idx"][0] = 1
        tensors[f"{L0}.mlp.up_proj.g_idx"][0] = 99
        tensors[f"{L0}.mlp.down_proj.g_idx"] = np.zeros(3, np.int32)

    inspection = inspect(*gptq.write_pair(tmp_path, damage=damage))
    orders = {module.name: module.group_order for module in inspection.modules}
    wrong = {Q, f"{L0}.mlp.up_proj", f"{L0}.mlp.down_proj"}
    assert {name for name, order in orders.items() if order == "wrong"} == wrong
    assert "names groups beyond 4" in weights(inspection)[f"{L0}.mlp.up_proj"].note


def test_missing_index_matters_with_desc_act_alone(tmp_path: Path) -> None:
    def damage(tensors: dict[str, made.Array]) -> None:
        del tensors[f"{Q}.g_idx"]

    for desc_act, missing in ((False, []), (True, [f"{Q}.g_idx"])):
        root = tmp_path / str(desc_act)
        inspection = inspect(*gptq.write_pair(root, desc_act=desc_act, damage=damage))
        assert inspection.missing == missing


def test_scales_that_are_zero_count_where_they_lose_weights(tmp_path: Path) -> None:
    def damage(tensors: dict[str, made.Array]) -> None:
        tensors[f"{Q}.scales"][1, :3] = 0
        # All codes the zero point: nothing was there to lose.
        tensors[f"{L0}.mlp.up_proj.qweight"][:8, :5] = np.uint32(0x88888888).view(np.int32)
        tensors[f"{L0}.mlp.up_proj.scales"][0, :5] = 0

    inspection = inspect(*gptq.write_pair(tmp_path, damage=damage))
    assert {m.name: m.zero_scales for m in inspection.modules if m.zero_scales} == {Q: 3}


def test_last_group_that_is_shorter_is_read(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(0, 1, (32, 80))
    arrays = gptq.linear(weight, "m", bits=4, group=64, desc_act=False, v2=False)
    linear = read_packed(tensors_of(tmp_path, arrays), "m", quantization(group=64))
    assert linear.shape.group_size == 64
    wanted = slow_dequantize(arrays, 4, 1)
    assert np.array_equal(linear.weight(), wanted.astype(np.float32))
