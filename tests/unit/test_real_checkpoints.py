"""Checkpoints that real quantizers made, and defects planted one at a time in copies of them.

Of each, the whole set of checks that are not quiet is compared. The engine meant reads every form
that the fixtures are written in, so that only what is planted can speak.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from matrix.pipeline.outcomes import Judgement
from tests.checkpoints.making import QUANTIZED
from tests.unit import real_checkpoints as real
from tests.unit.real_checkpoints import AWQ, DESC_ACT, GOOD, GOOD_GPTQ, GPTQ, Alarms, Damage

FAILED, NOTICE, DEGRADED = Judgement.FAILED, Judgement.NOTICE, Judgement.DEGRADED
WEIGHTS_MATCH: Alarms = {"weights-match": FAILED}
EMBEDDING, HEAD, NORM = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"
LAYER = "model.layers.1"
Q, K, UP, DOWN = (
    f"{LAYER}.{part}"
    for part in ("self_attn.q_proj", "self_attn.k_proj", "mlp.up_proj", "mlp.down_proj")
)
ROW = (slice(None), 3)
ENTRY = (0, 3)


def alarm_pair(checkpoint: Path) -> tuple[Alarms, Alarms]:
    """Return what speaks given the original, and what without it."""
    return real.alarms_of(checkpoint), real.alarms_of(checkpoint, None)


def without_original(expected: Alarms) -> Alarms:
    return {name: judgement for name, judgement in expected.items() if name != "weights-match"}


def test_every_checkpoint_here_is_known() -> None:
    others = {real.DROPPED, real.STOCK, real.ROUND_AWQ, *real.COMPRESSED}
    assert {*GOOD} | others == set(QUANTIZED)


@pytest.mark.parametrize("name", GOOD)
def test_every_check_is_quiet_on_a_good_checkpoint(name: str) -> None:
    assert alarm_pair(real.FOLDER / name) == ({}, {})


def test_every_check_is_quiet_on_the_float_model() -> None:
    assert real.alarms_of(real.FLOAT, quantized=False) == {}
    assert real.alarms_of(real.FLOAT, None, quantized=False) == {}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_checkpoint_has_no_notice_where_no_engine_is_meant(name: str) -> None:
    assert real.alarms_of(real.FOLDER / name, engine={}) == {}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (AWQ, {"tokenizer-drift"}),
        (real.AUTO_GPTQ, {"tokenizer-drift", "stored-size"}),
        (DESC_ACT, {"tokenizer-drift", "stored-size"}),
        (GPTQ, {"tokenizer-drift"}),
        (real.GPTQ_8, {"tokenizer-drift"}),
    ],
)
def test_an_engine_is_told_what_it_is_known_to_stop_at(name: str, expected: set[str]) -> None:
    old = {"tokenizers": "0.19.1", "sglang": "0.4.1"}
    assert real.alarms_of(real.FOLDER / name, engine=old) == dict.fromkeys(expected, NOTICE)


@pytest.mark.parametrize(
    ("name", "expected"),
    [(real.DROPPED, {"tied-embedding": NOTICE}), (real.STOCK, WEIGHTS_MATCH)],
)
def test_what_real_quantizers_damage(name: str, expected: Alarms) -> None:
    assert alarm_pair(real.FOLDER / name) == (expected, without_original(expected))


def damage_of(name: str, damage: Damage, folder: Path) -> tuple[Alarms, Alarms]:
    return alarm_pair(real.damaged(name, folder, damage))


SCALES: Alarms = {"scales": FAILED, "weights-match": FAILED}
IN_ANY: dict[str, tuple[Damage, Alarms]] = {
    "a NaN scale": (real.put(f"{UP}.scales", np.nan, ENTRY), SCALES),
    "an infinite scale": (real.put(f"{Q}.scales", np.inf, ENTRY), SCALES),
    "a zero scale": (real.put(f"{UP}.scales", 0, ENTRY), SCALES),
    "zero scales": (real.put(f"{DOWN}.scales", 0, 0), SCALES),
    "a NaN in a norm": (real.put(NORM, np.nan, 5), SCALES),
    "a layer 5 % up": (real.times(f"{DOWN}.scales", 1.05), WEIGHTS_MATCH),
    "a layer 5 % down": (real.times(f"{Q}.scales", 0.95), WEIGHTS_MATCH),
    "a norm 5 % up": (
        real.times(f"{LAYER}.post_attention_layernorm.weight", 1.05), WEIGHTS_MATCH
    ),
    "the last norm 5 % down": (real.times(NORM, 0.95), WEIGHTS_MATCH),
    "a bias changed": (real.times(f"{K}.bias", -1.0), WEIGHTS_MATCH),
    "a bias dropped": (real.drop(f"{K}.bias"), {"checkpoint-complete": FAILED}),
    "a norm dropped": (real.drop(NORM), {"checkpoint-complete": FAILED}),
    "two layers swapped": (real.swap("model.layers.0", "model.layers.1"), WEIGHTS_MATCH),
    "k and v swapped": (real.swap(f"{LAYER}.self_attn.v_proj", K), WEIGHTS_MATCH),
    "q swapped with the other layer's": (
        real.swap("model.layers.0.self_attn.q_proj", Q), WEIGHTS_MATCH
    ),
    "an unexpected tensor": (
        real.add(f"{LAYER}.self_attn.rotation", np.ones(8, np.float16)),
        {"checkpoint-complete": NOTICE},
    ),
    "an unexpected tensor of zeros": (real.add(f"{UP}.bias", np.zeros(256, np.float16)), {}),
    "the scales of a layer lost": (
        real.drop(f"{UP}.scales"),
        {"checkpoint-complete": FAILED, "packed-layers": FAILED, "weights-match": FAILED},
    ),
    "a layer that is not packed": (
        real.unpack(Q),
        {"checkpoint-complete": FAILED, "packed-layers": FAILED, "stored-size": FAILED},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("defect", IN_ANY)
def test_exactly_the_check_of_a_defect_fires(tmp_path: Path, name: str, defect: str) -> None:
    damage, expected = IN_ANY[defect]
    assert damage_of(name, damage, tmp_path) == (expected, without_original(expected))


SMALLEST: list[tuple[str, float, Any]] = [
    (AWQ, 1.02, ...), (AWQ, 0.98, ...), (AWQ, 1.05, 0), (AWQ, 0.95, 0), (AWQ, 1.05, ROW),
    (AWQ, 0.95, ROW), (AWQ, 1.08, ENTRY), (AWQ, 0.92, ENTRY),
    *((name, factor, ...) for name in GOOD_GPTQ for factor in (1.05, 0.95)),
    *((name, factor, 0) for name in (real.AUTO_GPTQ, GPTQ, real.GPTQ_8) for factor in (1.05, 0.95)),
    (DESC_ACT, 1.1, 0), (DESC_ACT, 0.9, 0), (real.GPTQ_8, 1.02, ...), (real.GPTQ_8, 0.98, ...),
    *((name, factor, ROW) for name in GOOD_GPTQ for factor in (1.6, 0.4)),
    *((name, 0.0, ENTRY) for name in GOOD_GPTQ),
]  # fmt: skip
"""Checkpoint, factor on its scales, and where: all of a layer, a group of all rows, a row, a group
of one row. This much is found in any layer."""


@pytest.mark.parametrize(("name", "factor", "where"), SMALLEST)
@pytest.mark.parametrize("module", [Q, K, UP, DOWN, f"{LAYER}.self_attn.v_proj"])
def test_the_smallest_damage_that_is_always_found(
    tmp_path: Path, module: str, name: str, factor: float, where: Any
) -> None:
    damage = real.times(f"{module}.scales", factor, where)
    assert real.alarms_of(real.damaged(name, tmp_path, damage)) == (
        SCALES if factor == 0 else WEIGHTS_MATCH
    )


def shift_zeros(module: str, bits: int, rows: Any) -> Damage:
    """Add 1 to zero points; they must not be the largest."""

    def damage(tensors: real.Tensors) -> None:
        ones = sum(1 << shift for shift in range(0, 32, bits))
        tensors[f"{module}.qzeros"][rows] += np.int32(ones)

    return damage


@pytest.mark.parametrize("name", GOOD_GPTQ)
@pytest.mark.parametrize("module", [Q, DOWN])
@pytest.mark.parametrize("rows", [..., 0, (0, slice(1))], ids=["a layer", "a group", "a word"])
def test_zero_points_of_gptq_off_by_one(tmp_path: Path, name: str, module: str, rows: Any) -> None:
    damage = shift_zeros(module, 8 if name == real.GPTQ_8 else 4, rows)
    expected = {"zero-points": FAILED, "weights-match": FAILED}
    assert damage_of(name, damage, tmp_path) == (expected, {"zero-points": FAILED})


@pytest.mark.parametrize("module", [Q, UP, DOWN])
def test_zero_points_of_awq_off_by_one(tmp_path: Path, module: str) -> None:
    """Any zero may be right in AWQ, so that only the original tells."""

    def damage(tensors: real.Tensors) -> None:
        # The lowest bit of one output's zero: a step up or down.
        tensors[f"{module}.qzeros"][0, 0] ^= 1

    assert damage_of(AWQ, damage, tmp_path) == (WEIGHTS_MATCH, {})


@pytest.mark.parametrize("name", GOOD)
def test_one_word_of_codes_turned_around(tmp_path: Path, name: str) -> None:
    def damage(tensors: real.Tensors) -> None:
        words = tensors[f"{UP}.qweight"]
        words[:] = words.byteswap()

    assert damage_of(name, damage, tmp_path) == (WEIGHTS_MATCH, {})


@pytest.mark.parametrize("module", [K, DOWN])
def test_an_order_of_desc_act_lost_in_one_layer(tmp_path: Path, module: str) -> None:
    def damage(tensors: real.Tensors) -> None:
        tensors[f"{module}.g_idx"].sort()

    assert damage_of(DESC_ACT, damage, tmp_path) == (WEIGHTS_MATCH, {})


def test_an_order_of_desc_act_lost_in_all_layers(tmp_path: Path) -> None:
    def damage(tensors: real.Tensors) -> None:
        for name in tensors:
            if name.endswith(".g_idx"):
                tensors[name].sort()

    order: Alarms = {"group-size": NOTICE}
    assert damage_of(DESC_ACT, damage, tmp_path) == (WEIGHTS_MATCH | order, order)


def test_an_order_of_desc_act_put_upside_down(tmp_path: Path) -> None:
    def damage(tensors: real.Tensors) -> None:
        index = tensors[f"{DOWN}.g_idx"]
        index[:] = index.max() - index

    assert damage_of(DESC_ACT, damage, tmp_path) == (WEIGHTS_MATCH, {})


def test_a_g_idx_that_desc_act_needs_left_out(tmp_path: Path) -> None:
    alarms = damage_of(DESC_ACT, real.drop(f"{DOWN}.g_idx"), tmp_path)
    expected: Alarms = {"checkpoint-complete": FAILED}
    assert alarms == (WEIGHTS_MATCH | expected, expected)


@pytest.mark.parametrize("value", [-1, 99])
def test_a_g_idx_out_of_range(tmp_path: Path, value: int) -> None:
    def damage(tensors: real.Tensors) -> None:
        tensors[f"{DOWN}.g_idx"][5] = value

    expected: Alarms = {"group-size": FAILED}
    assert damage_of(GPTQ, damage, tmp_path) == (WEIGHTS_MATCH | expected, expected)
