from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from matrix.checkpoint.inspecting import inspect
from matrix.checkpoint.inspection import CheckpointError, Inspection, WeightComparison
from matrix.checkpoint.rounding import Rounding
from tests.unit import awq_checkpoints as made

Damage = Callable[[dict[str, made.Array]], object]
L0 = "model.layers.0"
LINEARS = [n for layer in range(made.LAYERS) for n in made.linear_shapes(layer)]


def weights(inspection: Inspection) -> dict[str, WeightComparison]:
    return {weight.name: weight for weight in inspection.weights}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kv_heads", [made.KV_HEADS, made.HEADS])
@pytest.mark.parametrize("clip", [1.0, 0.9])
def test_good_checkpoint(tmp_path: Path, tied: bool, kv_heads: int, clip: float) -> None:
    inspection = inspect(*made.write_pair(tmp_path, tied=tied, kv_heads=kv_heads, clip=clip))
    assert not inspection.problems
    assert [module.name for module in inspection.modules] == inspection.linears == sorted(LINEARS)
    for module in inspection.modules:
        assert (module.bits, module.group_size, module.note) == (4, made.GROUP, "")
        assert (module.not_finite_scales, module.zero_scales) == (0, 0)
        assert sum(module.zero_points.values()) * made.GROUP == module.inputs * module.outputs
        assert module.bits_per_weight == 4 + (4 + 16) / made.GROUP
    assert (inspection.embedding, inspection.head) == (True, not tied)
    assert inspection.tie_word_embeddings is tied
    assert inspection.missing == inspection.unexpected == inspection.zero_tensors == []
    assert inspection.not_finite == {}
    assert inspection.files["config.json"] > 0
    for weight in inspection.weights:
        assert weight.not_finite == 0
        assert weight.error is not None
        if weight.packed:
            assert weight.error < 0.15
            assert weight.ratio == pytest.approx(1, abs=0.02)
            assert weight.group == 0
            assert (weight.rounding, weight.strays) == (Rounding.NEAREST, 0)
        else:
            assert weight.error < 0.01
            assert weight.strays == 0
    compared = set(weights(inspection))
    assert compared >= {*LINEARS, "model.embed_tokens.weight", "model.norm.weight"}
    assert f"{L0}.self_attn.v_proj.bias" in compared


@pytest.mark.parametrize("tied", [True, False])
def test_float_model_is_its_own_good_checkpoint(tmp_path: Path, tied: bool) -> None:
    tensors = made.float_model(tied=tied)
    model = made.write(tmp_path / "m", tensors, tied=tied, quantized=False)
    inspection = inspect(model, model)
    assert inspection.problems == []
    assert inspection.modules == []
    assert inspection.missing == inspection.unexpected == []
    assert inspection.linears == sorted(LINEARS)
    assert inspection.quantization is None
    assert {weight.error for weight in inspection.weights} == {0.0}
    assert len(inspection.weights) == len(tensors)


def scale_all(tensors: dict[str, made.Array], module: str, factor: float) -> None:
    tensors[f"{module}.scales"] = (tensors[f"{module}.scales"] * factor).astype(np.float16)


def scale_part(module: str, where: Any, factor: float) -> Damage:
    def damage(tensors: dict[str, made.Array]) -> None:
        tensors[f"{module}.scales"][where] *= np.float16(factor)

    return damage


@pytest.mark.parametrize("module", LINEARS[:7])
@pytest.mark.parametrize("factor", [1.05, 0.95])
@pytest.mark.parametrize(
    "where", [np.s_[:], np.s_[:, 5], np.s_[1, :]], ids=["layer", "row", "group"]
)
@pytest.mark.parametrize("kv_heads", [made.KV_HEADS, made.HEADS])
def test_scale_five_percent_off_shows(
    tmp_path: Path, module: str, factor: float, where: Any, kv_heads: int
) -> None:
    damage = scale_part(module, where, factor)
    compared = weights(inspect(*made.write_pair(tmp_path, damage=damage, kv_heads=kv_heads)))
    group = compared[module].group
    assert group is not None
    # Of what is folded both ways, either Linear takes half of it.
    assert 0.001 < group < 0.06
    assert (compared[module].strays or 0) > 0
    if where == np.s_[:]:
        assert compared[module].ratio == pytest.approx(factor, abs=0.015)


@pytest.mark.parametrize("module", LINEARS[:7])
def test_one_scale_of_one_group_of_one_row_shows(tmp_path: Path, module: str) -> None:
    damage = scale_part(module, (0, 3), 1.08)
    weight = weights(inspect(*made.write_pair(tmp_path, damage=damage)))[module]
    assert weight.group is not None
    assert weight.group > 0.001
    assert (weight.strays or 0) > 0


def test_fold_undone_on_one_side_only_shows(tmp_path: Path) -> None:
    """AutoAWQ's fault on a CPU: Linears scaled twice, the norm before them divided once."""

    def damage(tensors: dict[str, made.Array]) -> None:
        norm = tensors[f"{L0}.input_layernorm.weight"]
        norm *= np.float16(0.36)

    compared = weights(inspect(*made.write_pair(tmp_path, damage=damage)))
    for part in "qkv":
        assert compared[f"{L0}.self_attn.{part}_proj"].ratio == pytest.approx(0.36, abs=0.01)
    assert compared[f"{L0}.mlp.up_proj"].ratio == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(
    ("first", "second"),
    [("mlp.up_proj", "mlp.down_proj"), ("self_attn.v_proj", "self_attn.o_proj")],
)
def test_no_damage_hides_in_the_fold(tmp_path: Path, first: str, second: str) -> None:
    def damage(tensors: dict[str, made.Array]) -> None:
        scale_all(tensors, f"{L0}.{second}", 0.9)

    compared = weights(inspect(*made.write_pair(tmp_path, damage=damage, kv_heads=made.HEADS)))
    for name in (first, second):
        assert compared[f"{L0}.{name}"].ratio == pytest.approx(0.9, abs=0.02)


def swap_nibbles(tensors: dict[str, made.Array]) -> None:
    words = tensors[f"{L0}.self_attn.q_proj.qweight"].view(np.uint32)
    low, high = words & np.uint32(0x0F0F0F0F), words >> np.uint32(4) & np.uint32(0x0F0F0F0F)
    tensors[f"{L0}.self_attn.q_proj.qweight"] = (low << np.uint32(4) | high).view(np.int32)


def shift_zeros(tensors: dict[str, made.Array]) -> None:
    tensors[f"{L0}.self_attn.q_proj.qzeros"] -= np.int32(0x11111111)


def flip_signs(tensors: dict[str, made.Array]) -> None:
    tensors[f"{L0}.self_attn.q_proj.scales"] *= np.float16(-1)


def zero_scales(tensors: dict[str, made.Array]) -> None:
    tensors[f"{L0}.self_attn.q_proj.scales"][:] = 0


def one_code_in_a_row(tensors: dict[str, made.Array]) -> None:
    words = tensors[f"{L0}.self_attn.q_proj.qweight"].view(np.uint32)
    words[:, 0] &= np.uint32(0xFFFFFFF0)


def codes_at_the_ends_in_a_row(tensors: dict[str, made.Array]) -> None:
    words = tensors[f"{L0}.self_attn.q_proj.qweight"].view(np.uint32)
    words[:, 0] &= np.uint32(0xFFFFFFF0)
    words[::2, 0] |= np.uint32(0xF)


def zero_norm_channel(tensors: dict[str, made.Array]) -> None:
    tensors[f"{L0}.input_layernorm.weight"][7] = 0


def zero_one_scale(tensors: dict[str, made.Array]) -> None:
    tensors[f"{L0}.self_attn.q_proj.scales"][0, 0] = 0


@pytest.mark.parametrize(
    ("damage", "least_error", "least_group"),
    [
        (swap_nibbles, 0.5, 1),
        (shift_zeros, 0.25, 1),
        (flip_signs, 1.5, 1),
        (zero_scales, 0.9, 0.9),
        (zero_one_scale, 0, 0.9),
        (one_code_in_a_row, 0, 0.5),
        (codes_at_the_ends_in_a_row, 0, 0.5),
    ],
)
def test_planted_defects(
    tmp_path: Path, damage: Damage, least_error: float, least_group: float
) -> None:
    weight = weights(inspect(*made.write_pair(tmp_path, damage=damage)))[f"{L0}.self_attn.q_proj"]
    assert weight.error is not None
    assert weight.group is not None
    assert weight.error > least_error
    assert weight.group > least_group
    assert (weight.strays or 0) > 0


def test_lost_norm_channel_makes_a_column_of_strays(tmp_path: Path) -> None:
    compared = weights(inspect(*made.write_pair(tmp_path, damage=zero_norm_channel)))
    assert compared[f"{L0}.self_attn.q_proj"].strays == made.HIDDEN


def test_a_norm_two_percent_off_in_one_channel_shows(tmp_path: Path) -> None:
    def damage(tensors: dict[str, made.Array]) -> None:
        tensors[f"{L0}.input_layernorm.weight"][9] *= np.float16(1.02)

    compared = weights(inspect(*made.write_pair(tmp_path, damage=damage)))
    assert any(compared[f"{L0}.self_attn.{part}_proj"].strays for part in "qkv")
    assert compared[f"{L0}.mlp.up_proj"].strays == 0


def test_one_value_that_is_only_stored_shows_where_no_cast_makes_it(tmp_path: Path) -> None:
    def damage(tensors: dict[str, made.Array]) -> None:
        tensors["model.norm.weight"][3] *= np.float16(1.01)
        tensors["model.embed_tokens.weight"] = (
            tensors["model.embed_tokens.weight"].view(np.uint16) ^ np.uint16(1)
        ).view(np.float16)  # as by a cast: the last bit

    compared = weights(inspect(*made.write_pair(tmp_path, damage=damage)))
    assert compared["model.norm.weight"].strays == 1
    assert compared["model.embed_tokens.weight"].strays == 0


def test_not_finite_scales_are_counted(tmp_path: Path) -> None:
    def damage(tensors: dict[str, made.Array]) -> None:
        tensors[f"{L0}.mlp.down_proj.scales"][0, :2] = np.nan
        tensors[f"{L0}.mlp.up_proj.scales"][0, 0] = np.inf

    inspection = inspect(*made.write_pair(tmp_path, damage=damage))
    counts = {module.name: module.not_finite_scales for module in inspection.modules}
    assert {name: count for name, count in counts.items() if count} == {
        f"{L0}.mlp.down_proj": 2,
        f"{L0}.mlp.up_proj": 1,
    }
    down = weights(inspection)[f"{L0}.mlp.down_proj"]
    assert (down.not_finite, down.error) == (2 * made.GROUP, None)


def test_bias_of_a_folded_linear_is_unfolded(tmp_path: Path) -> None:
    name = f"{L0}.self_attn.v_proj.bias"

    def damage(tensors: dict[str, made.Array]) -> None:
        tensors[name] *= np.float16(1.05)

    inspection = inspect(*made.write_pair(tmp_path, damage=damage, kv_heads=made.HEADS))
    assert weights(inspection)[name].error == pytest.approx(0.05, abs=0.01)
    assert weights(inspection)[name].strays == made.HIDDEN


@pytest.mark.parametrize(
    ("part", "not_compared"),
    [
        ("self_attn.k_proj", ["self_attn.k_proj"]),
        ("mlp.up_proj", ["mlp.down_proj", "mlp.up_proj"]),
        ("self_attn.v_proj", ["self_attn.o_proj", "self_attn.v_proj"]),
    ],
)
def test_a_linear_left_out_is_scaled_all_the_same_and_no_alarm(
    tmp_path: Path, part: str, not_compared: list[str]
) -> None:
    module = f"{L0}.{part}"

    def damage(tensors: dict[str, made.Array]) -> None:
        for stored in ("qweight", "qzeros", "scales"):
            del tensors[f"{module}.{stored}"]
        folded = made.fold(made.float_model(tied=True, kv_heads=made.HEADS))
        tensors[f"{module}.weight"] = folded[f"{module}.weight"]

    checkpoint, original = made.write_pair(tmp_path, damage=damage, kv_heads=made.HEADS)
    config = json.loads((checkpoint / "config.json").read_text())
    config["quantization_config"]["modules_to_not_convert"] = [part]
    (checkpoint / "config.json").write_text(json.dumps(config))
    inspection = inspect(checkpoint, original)
    assert (inspection.problems, inspection.missing, inspection.unexpected) == ([], [], [])
    assert inspection.left_out == [module]
    compared = weights(inspection)
    assert set(LINEARS) - set(compared) == {f"{L0}.{name}" for name in not_compared}
    assert f"{module}.weight" not in compared
    for weight in inspection.weights:
        assert weight.error is not None
        assert weight.error < (0.15 if weight.packed else 0.01)
        assert not weight.group


def rename_embedding(tensors: dict[str, made.Array]) -> None:
    tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")


def test_tied_defect_of_autoawq_0_2_7_is_told_and_its_head_compared(tmp_path: Path) -> None:
    inspection = inspect(*made.write_pair(tmp_path, damage=rename_embedding))
    assert (inspection.embedding, inspection.head, inspection.missing) == (False, True, [])
    assert weights(inspection)["lm_head.weight"].error == 0


def test_missing_unexpected_and_zero_tensors(tmp_path: Path) -> None:
    def damage(tensors: dict[str, made.Array]) -> None:
        del tensors["model.norm.weight"], tensors[f"{L0}.mlp.up_proj.qzeros"]
        tensors[f"{L0}.mlp.up_proj.bias"] = np.zeros(made.INTERMEDIATE, np.float16)
        tensors[f"{L0}.mlp.down_proj.bias"] = np.ones(made.HIDDEN, np.float16)

    inspection = inspect(*made.write_pair(tmp_path, damage=damage))
    assert inspection.missing == [f"{L0}.mlp.up_proj.qzeros", "model.norm.weight"]
    assert inspection.unexpected == [f"{L0}.mlp.down_proj.bias"]
    assert inspection.zero_tensors == [f"{L0}.mlp.up_proj.bias"]
    assert "up_proj.qzeros: is missing" in weights(inspection)[f"{L0}.mlp.up_proj"].note


def test_a_weight_of_another_shape_is_not_compared(tmp_path: Path) -> None:
    def damage(tensors: dict[str, made.Array]) -> None:
        tensors["model.embed_tokens.weight"] = np.zeros((3, 3), np.float16)
        for part in ("qweight", "qzeros", "scales"):
            name = f"{L0}.mlp.gate_proj.{part}"
            tensors[name] = tensors[name][:, : tensors[name].shape[1] // 2]

    compared = weights(inspect(*made.write_pair(tmp_path, damage=damage)))
    assert compared["model.embed_tokens.weight"].note == "shape [3, 3] instead of [48, 256]"
    assert "stands for 256 x 256 weights" in compared[f"{L0}.mlp.gate_proj"].note


def test_unreadable_checkpoint_is_a_result_and_unreadable_original_an_error(
    tmp_path: Path,
) -> None:
    _, original = made.write_pair(tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert len(inspect(empty, original).problems) == 2
    assert inspect(tmp_path / "gone", original).problems
    with pytest.raises(CheckpointError):
        inspect(original, empty)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, "original: .*original: No such file or directory"),
        (lambda folder: (folder / "config.json").unlink(), "original: config.json: is missing"),
        (
            lambda folder: (folder / "config.json").write_text("{"),
            "original: config.json: Input data was truncated",
        ),
        (
            lambda folder: (folder / "model.safetensors").write_bytes(b""),
            "original: model.safetensors: its header should have 0 bytes",
        ),
        (
            lambda folder: (folder / "config.json").write_text(
                json.dumps(made.config(tied=True, quantized=True))
            ),
            r"original: config.json: is of a quantized model \(awq\)\. Give the float model",
        ),
    ],
)
def test_what_is_wrong_with_the_original_says_so(
    tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    checkpoint, original = made.write_pair(tmp_path)
    spoil(original)
    with pytest.raises(CheckpointError, match=f"^{message}"):
        inspect(checkpoint, original)
