"""Files rounded in each way, in each format, and what is planted in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from matrix.checkpoint.inspecting import inspect
from matrix.checkpoint.inspection import WeightComparison
from matrix.checkpoint.rounding import Rounding, Traces, rounding_of
from tests.unit.made_checkpoints import Kind, Model, float_model, quantized, rounded, write

WAYS = {
    "nearest": Rounding.NEAREST,
    "up or down": Rounding.EITHER,
    "GPTQ": Rounding.MOVED,
}
AWQ = Kind("awq", "nearest", symmetric=False, fold="AWQ")
AUTO_AWQ = Kind("awq", "up or down", symmetric=False)
AUTO_GPTQ = Kind("gptq", "up or down")
AUTO_PACKED = Kind("pack-quantized", "up or down")
PACKED = Kind("pack-quantized", "nearest", symmetric=False, fold="AWQ")
PACKED_8 = Kind("pack-quantized", "nearest", 8, symmetric=False)
INT = Kind("int-quantized", "nearest", 8, fold="SmoothQuant")
SMOOTHED = Kind("int-quantized", "GPTQ", 8, fold="SmoothQuant")
FLOAT = Kind("float-quantized", "nearest", 8)
FP4 = Kind("nvfp4-pack-quantized", "nearest")
NEAREST = [AWQ, Kind("gptq_v2", "nearest"), PACKED, PACKED_8, INT, FLOAT, FP4]
EITHER = [AUTO_AWQ, AUTO_GPTQ, AUTO_PACKED]
MOVED = [Kind("gptq", "GPTQ", desc_act=True), Kind("pack-quantized", "GPTQ"), SMOOTHED]
Q = "model.layers.0.self_attn.q_proj"
UP = "model.layers.0.mlp.up_proj"
NORM = "model.layers.0.input_layernorm.weight"


def compared(
    folder: Path, kind: Kind, damage: Callable[[Model], object] = lambda _: None, dtype: str = "F16"
) -> dict[str, WeightComparison]:
    """Return what comes of a (damaged) file of a kind, by name."""
    random = np.random.default_rng(5)
    original = float_model(random, kind, dtype)
    model = quantized(random, original)
    damage(model)
    source = write(folder / "original", original)
    inspection = inspect(write(folder / "checkpoint", model), source)
    assert inspection.problems == []
    return {weight.name: weight for weight in inspection.weights}


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
@pytest.mark.parametrize("kind", [*NEAREST, *EITHER, *MOVED], ids=str)
def test_a_sound_file_has_no_strays(tmp_path: Path, kind: Kind, dtype: str) -> None:
    for weight in compared(tmp_path, kind, dtype=dtype).values():
        assert weight.note == ""
        if weight.packed:
            assert weight.rounding is WAYS[kind.rounding]
            assert weight.strays == (None if kind.rounding == "GPTQ" else 0)
            assert weight.group == 0
        else:
            assert (weight.rounding, weight.strays) == (None, 0)


@pytest.mark.parametrize("kind", [*NEAREST, *EITHER], ids=str)
def test_norms_are_compared_where_nothing_is_folded_into_them(tmp_path: Path, kind: Kind) -> None:
    assert (NORM in compared(tmp_path, kind)) == (kind.fold == "")


def scale(module: str, where: Any, factor: float) -> Callable[[Model], object]:
    def damage(model: Model) -> None:
        linear = model.linears[module]
        factors = np.ones(linear.scales.shape)
        factors[where] = factor
        linear.scales = rounded(linear.scales * factors, model.dtype)

    return damage


@pytest.mark.parametrize("kind", [kind for kind in NEAREST if kind is not FP4], ids=str)
@pytest.mark.parametrize("module", [Q, UP])
@pytest.mark.parametrize("factor", [1.08, 0.92])
def test_eight_percent_of_one_row_of_a_group_is_found_of_nearest(
    tmp_path: Path, kind: Kind, module: str, factor: float
) -> None:
    weights = compared(tmp_path, kind, scale(module, np.s_[7, :1], factor))
    assert weights[module].rounding is Rounding.NEAREST
    assert (weights[module].strays or 0) > 0


@pytest.mark.parametrize("kind", EITHER, ids=str)
@pytest.mark.parametrize("factor", [1.05, 0.95])
def test_five_percent_of_a_layer_is_found_though_weights_stay_within_a_step(
    tmp_path: Path, kind: Kind, factor: float
) -> None:
    weights = compared(tmp_path, kind, scale(UP, ..., factor))
    assert (weights[UP].group or 0) > 0
    assert all(weight.group in (0, None) for name, weight in weights.items() if name != UP)


def move_code(by: int) -> Callable[[Model], object]:
    """Return the damage that moves the middle code of a row, away from the ends of its group."""

    def damage(model: Model) -> None:
        codes = model.linears[Q].codes
        code = codes[3, :16]
        place = int(np.argmin(np.abs(code - (code.min() + code.max()) / 2)))
        codes[3, place] += by

    return damage


@pytest.mark.parametrize("kind", [kind for kind in NEAREST if kind not in (PACKED_8, FP4)], ids=str)
@pytest.mark.parametrize("by", [1, -1])
def test_one_code_off_by_one_is_found_of_nearest(tmp_path: Path, kind: Kind, by: int) -> None:
    assert compared(tmp_path, kind, move_code(by))[Q].strays == 1


@pytest.mark.parametrize("kind", EITHER, ids=str)
def test_one_code_off_by_two_is_found_of_either(tmp_path: Path, kind: Kind) -> None:
    assert compared(tmp_path, kind, move_code(2))[Q].strays == 1


@pytest.mark.parametrize("kind", [AWQ, PACKED, INT, SMOOTHED], ids=str)
def test_a_norm_that_factors_were_folded_into_shows_in_what_follows(
    tmp_path: Path, kind: Kind
) -> None:
    def damage(model: Model) -> None:
        model.tensors[NORM] = rounded(model.tensors[NORM] * 1.05, model.dtype)

    weight = compared(tmp_path, kind, damage)[Q]
    assert (weight.strays or 0) > 0 or abs((weight.ratio or 1) - 1.05) < 0.01


NEAR, WITHIN, FAR = (
    Traces(*facts, both_signs=False) for facts in ((True, True), (False, True), (False, False))
)
SIGNED = WITHIN._replace(both_signs=True)


@pytest.mark.parametrize(
    ("layers", "moved", "autoround", "expected"),
    [
        ([], True, False, Rounding.NEAREST),
        ([NEAR] * 5, True, False, Rounding.NEAREST),
        ([NEAR] * 2 + [FAR] * 3, True, False, Rounding.NEAREST),
        ([NEAR] + [FAR] * 3, True, False, Rounding.NEAREST),
        ([NEAR] + [FAR] * 4, True, False, Rounding.MOVED),
        ([WITHIN] * 5, True, False, Rounding.MOVED),
        ([WITHIN] * 5, True, True, Rounding.EITHER),
        ([FAR] * 5, True, True, Rounding.EITHER),
        ([SIGNED] * 4 + [FAR], True, False, Rounding.EITHER),
        ([SIGNED] * 2 + [FAR] * 3, True, False, Rounding.MOVED),
        ([WITHIN] * 5, False, False, Rounding.EITHER),
        ([FAR] * 5, False, False, Rounding.NEAREST),
    ],
)
def test_a_quarter_of_the_layers_tells_which_way_all_were_rounded(
    layers: list[Traces], moved: bool, autoround: bool, expected: Rounding
) -> None:
    assert rounding_of(layers, moved=moved, autoround=autoround) is expected


def test_what_float16_loses_of_the_smallest_weights_is_no_stray(tmp_path: Path) -> None:
    """A group of next to nothing, as models have them, has steps of few bits."""
    random = np.random.default_rng(5)
    original = float_model(random, AWQ, "F16")
    small = original.tensors[f"{Q}.weight"]
    small[:8] = rounded(small[:8] * 2e-5, "F16")
    model = quantized(random, original)
    source = write(tmp_path / "original", original)
    weights = inspect(write(tmp_path / "checkpoint", model), source).weights
    assert {weight.strays for weight in weights} == {0}


@pytest.mark.parametrize("kind", EITHER, ids=str)
def test_a_little_more_than_a_step_is_too_far(tmp_path: Path, kind: Kind) -> None:
    original = float_model(np.random.default_rng(5), kind, "F16")
    model = quantized(np.random.default_rng(6), original)
    linear = model.linears[Q]
    steps = original.tensors[f"{Q}.weight"] / linear.scales[:, linear.group_of]
    levels = linear.codes - linear.zeros[:, linear.group_of]
    inside = (linear.codes > 4) & (linear.codes < 11)
    row, column = np.argwhere(inside & (levels - steps > 0.1) & (levels - steps < 0.3))[0]
    linear.codes[row, column] += 1
    source = write(tmp_path / "original", original)
    weights = inspect(write(tmp_path / "checkpoint", model), source).weights
    assert {w.name: w.strays for w in weights if w.strays} == {Q: 1}


@pytest.mark.parametrize("kind", [AWQ, PACKED_8, INT, AUTO_AWQ], ids=str)
def test_a_weight_of_nothing_must_stay_nothing(tmp_path: Path, kind: Kind) -> None:
    original = float_model(np.random.default_rng(5), kind, "F16")
    original.tensors[f"{Q}.weight"][:, 5] = 0
    model = quantized(np.random.default_rng(6), original)
    model.linears[Q].codes[3, 5] += 2
    source = write(tmp_path / "original", original)
    weights = inspect(write(tmp_path / "checkpoint", model), source).weights
    assert {w.name: w.strays for w in weights if w.strays} == {Q: 1}


@pytest.mark.parametrize("kind", EITHER, ids=str)
def test_a_group_of_next_to_nothing_beside_large_weights_tells_no_scale(
    tmp_path: Path, kind: Kind
) -> None:
    original = float_model(np.random.default_rng(5), kind, "F16")
    original.tensors[f"{Q}.weight"][3, :32] *= 0.01
    original.tensors[f"{Q}.weight"][3, :2] = 0.3, -0.3
    model = quantized(np.random.default_rng(6), original)
    model.linears[Q].codes[3, 2:32] = model.linears[Q].zeros[3, 0]
    source = write(tmp_path / "original", original)
    weights = inspect(write(tmp_path / "checkpoint", model), source).weights
    assert {w.name: (w.strays, w.group) for w in weights if w.strays or w.group} == {}


@pytest.mark.parametrize(("moves", "least", "most"), [((1, 1), 0.3, 1.2), ((5, -3), 0, 0.3)])
def test_an_offset_is_told_of_what_is_moved_alike(
    tmp_path: Path, moves: tuple[int, int], least: float, most: float
) -> None:
    """As GPTQ moves single weights by steps where inputs hardly count, the mean is off as well."""

    def damage(model: Model) -> None:
        codes = model.linears[Q].codes[3, :32].reshape(-1, 2)
        codes[...] = np.clip(codes + moves, 0, 15)

    offset = compared(tmp_path, MOVED[1], damage)[Q].offset
    assert offset is not None
    assert least <= offset <= most


def test_rows_of_garbage_are_far_off_at_eight_bits(tmp_path: Path) -> None:
    def damage(model: Model) -> None:
        codes = model.linears[Q].codes
        codes[3, ::2] = (codes[3, ::2] + 64) % 256

    assert (compared(tmp_path / "sound", SMOOTHED)[Q].moved or 0) < 2
    assert (compared(tmp_path / "damaged", SMOOTHED, damage)[Q].moved or 0) > 40
