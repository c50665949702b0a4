"""Real checkpoints of llm-compressor and AutoRound, sound and damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from matrix.cli.inspect import examine
from matrix.pipeline.outcomes import Judgement
from matrix.spec.loading import load
from tests.unit import real_checkpoints as real
from tests.unit.real_checkpoints import FP8, LLM_AWQ, LLM_GPTQ, ROUND_AWQ, W8A8, Alarms, Damage

FAILED, NOTICE, DEGRADED = Judgement.FAILED, Judgement.NOTICE, Judgement.DEGRADED
UP = "model.layers.0.mlp.up_proj"
DOWN = "model.layers.1.mlp.down_proj"
GOOD = (*real.COMPRESSED, ROUND_AWQ)
Change = Callable[[real.Config], object]


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("original", [real.FLOAT, None])
def test_good_files_raise_no_alarm(name: str, original: Path | None) -> None:
    assert real.alarms_of(real.FOLDER / name, original) == {}
    assert examine(real.FOLDER / name, original, load(), {}).is_sound


def test_scales_of_activations_and_of_the_cache_are_no_surplus(tmp_path: Path) -> None:
    names = [f"{UP}.input_scale", f"{UP}.input_zero_point", "model.layers.0.self_attn.k_scale"]

    def add(tensors: real.Tensors) -> None:
        kinds = (np.float32, np.int8, np.float16)
        tensors |= {name: np.ones(1, kind) for name, kind in zip(names, kinds, strict=True)}

    checkpoint = real.damaged(W8A8, tmp_path, add)
    assert real.alarms_of(checkpoint) == {}


def test_a_format_that_is_not_read_is_no_fault(tmp_path: Path) -> None:
    """Nothing is said of its layers, and that is said."""
    checkpoint = real.configured(
        FP8, tmp_path, lambda config: group_of(config).update(format="mxfp8-quantized")
    )
    assert real.alarms_of(checkpoint, None) == {"packed-layers": NOTICE}
    answer = examine(checkpoint, None, load(), {})
    assert answer.is_sound
    assert "mxfp8-quantized, which is not read here" in answer.summary


def roll(name: str) -> Damage:
    """Give each row of a tensor the values of the one before."""

    def damage(tensors: real.Tensors) -> None:
        tensors[name] = np.roll(tensors[name], 1, axis=0)

    return damage


def turn(name: str, where: Any, bits: int) -> Damage:
    """Turn some bits of some codes."""

    def damage(tensors: real.Tensors) -> None:
        raw = tensors[name].view(np.uint8).reshape(len(tensors[name]), -1)
        raw[where] ^= np.uint8(bits)

    return damage


def points_one_off(tensors: real.Tensors) -> None:
    """Subtract 1 from each zero point of a layer, in each half of a byte; none of these is 0."""
    raw = tensors[f"{DOWN}.weight_zero_point"].view(np.uint8)
    assert (raw & 15).all()
    assert (raw >> 4).all()
    raw -= np.uint8(0x11)


def drop_layer(module: str) -> Damage:
    """Remove all parts of a packed layer."""

    def damage(tensors: real.Tensors) -> None:
        for name in [name for name in tensors if name.startswith(f"{module}.")]:
            del tensors[name]

    return damage


COMPLETE: Alarms = {"checkpoint-complete": FAILED}
MATCH: Alarms = {"weights-match": FAILED}
PACKED: Alarms = {"packed-layers": FAILED}
SCALES: Alarms = {"scales": FAILED}
SIZE: Alarms = {"stored-size": FAILED}
TYPES: Alarms = {"stored-formats": FAILED}
DAMAGES: dict[str, tuple[str, Damage, Alarms]] = {
    "scales of a layer": (LLM_GPTQ, real.times(f"{DOWN}.weight_scale", 1.2), MATCH),
    "a scale": (LLM_AWQ, real.times(f"{UP}.weight_scale", 1.2, (5, 1)), MATCH),
    "zero points of a layer": (LLM_AWQ, points_one_off, MATCH),
    "rows": (LLM_AWQ, roll(f"{DOWN}.weight_packed"), MATCH),
    "rows of gptq": (LLM_GPTQ, roll(f"{DOWN}.weight_packed"), MATCH),
    "codes": (W8A8, turn(f"{UP}.weight", (3, slice(0, 64)), 0x40), MATCH),
    "scale of a row": (W8A8, real.times(f"{UP}.weight_scale", 1.2, 7), MATCH),
    "scale of a row of floats": (FP8, real.times(f"{UP}.weight_scale", 1.2, 7), MATCH),
    "signs of floats": (FP8, turn(f"{UP}.weight", (3, slice(0, 64)), 0x80), MATCH),
    "a code that is no number": (FP8, turn(f"{DOWN}.weight", (3, 5), 0), {}),
    "scales lost in a row": (
        W8A8, real.put(f"{UP}.weight_scale", 0, (3, 0)), SCALES | MATCH,
    ),
    "part lost: scales": (
        LLM_GPTQ, real.drop(f"{UP}.weight_scale"), COMPLETE | PACKED | MATCH,
    ),
    "part lost: shape": (
        LLM_GPTQ, real.drop(f"{UP}.weight_shape"), COMPLETE | PACKED | MATCH,
    ),
    "part lost: zero points": (
        LLM_AWQ, real.drop(f"{UP}.weight_zero_point"), COMPLETE | MATCH,
    ),
    "part lost: scales of bytes": (
        W8A8, real.drop(f"{UP}.weight_scale"), COMPLETE | PACKED | TYPES | MATCH,
    ),
    "a name": (
        W8A8, real.rename(f"{UP}.weight_scale", f"{UP}.weight_scales"),
        COMPLETE | PACKED | TYPES | MATCH,
    ),
    "layer not packed": (
        LLM_GPTQ, drop_layer(UP), COMPLETE | PACKED | SIZE,
    ),
}  # fmt: skip
DAMAGES |= {
    f"not a number in {name}": (
        name, real.put(f"{UP}.weight_scale", np.nan, (3, 0)), SCALES | MATCH,
    )
    for name in real.COMPRESSED
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_told(tmp_path: Path, damage: str) -> None:
    """With the original; without it all but the weights."""
    name, change, expected = DAMAGES[damage]
    checkpoint = real.damaged(name, tmp_path, change)
    assert real.alarms_of(checkpoint) == expected
    alone = {check: judgement for check, judgement in expected.items() if check not in MATCH}
    assert real.alarms_of(checkpoint, None) == alone


def group_of(config: real.Config) -> real.Config:
    """Return the only group of a config.json."""
    group: real.Config = config["quantization_config"]["config_groups"]["group_0"]
    return group


def weights_of(config: real.Config) -> real.Config:
    """Return what a config.json says of the weights of its only group."""
    weights: real.Config = group_of(config)["weights"]
    return weights


LEFT_OUT = COMPLETE | PACKED | SIZE
UNKNOWN_POINTS: Alarms = {"checkpoint-complete": NOTICE, "zero-points": FAILED}
ORDER_LOST: Alarms = {"group-size": NOTICE}
GROUPS: Alarms = {"group-size": FAILED}
CONFIGS: dict[str, tuple[str, Change, Alarms]] = {
    "bits": (LLM_GPTQ, lambda c: weights_of(c).update(num_bits=8), TYPES | SIZE),
    "group size": (LLM_GPTQ, lambda c: weights_of(c).update(group_size=32), GROUPS | SIZE),
    "symmetric": (LLM_AWQ, lambda c: weights_of(c).update(symmetric=True), UNKNOWN_POINTS),
    "asymmetric": (LLM_GPTQ, lambda c: weights_of(c).update(symmetric=False), COMPLETE),
    "format": (W8A8, lambda c: group_of(c).update(format="pack-quantized"), LEFT_OUT),
    "targets": (LLM_GPTQ, lambda c: group_of(c).update(targets=["lm_head"]), LEFT_OUT),
    "ignore": (
        LLM_GPTQ, lambda c: c["quantization_config"]["ignore"].append("re:.*mlp.*"), LEFT_OUT,
    ),
    "reordered": (
        LLM_GPTQ, lambda c: weights_of(c).update(actorder="group"), COMPLETE | SIZE | ORDER_LOST,
    ),
    "none": (
        LLM_GPTQ, lambda c: c.pop("quantization_config"), LEFT_OUT | {"checkpoint-readable": FAILED}
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", CONFIGS)
def test_a_wrong_config_is_told(tmp_path: Path, change: str) -> None:
    name, edit, expected = CONFIGS[change]
    checkpoint = real.configured(name, tmp_path, edit)
    assert real.alarms_of(checkpoint, None) == expected


@pytest.mark.parametrize(
    ("name", "version", "judgement"),
    [
        (LLM_GPTQ, "0.10.2", None),
        (LLM_GPTQ, "0.11.0", NOTICE),  # vLLM 0.10.2: extra inputs are not permitted
        (LLM_GPTQ, "0.15.0.1", None),
        (W8A8, "0.15.0.1", NOTICE),  # vLLM 0.19.1: must use group quantization strategy
        (W8A8, "0.17.0", None),
        (FP8, "0.15.0.1", None),
        (FP8, "0.4.0", NOTICE),
    ],
)
def test_a_release_that_refuses_what_is_written(
    name: str, version: str, judgement: Judgement | None
) -> None:
    alarms = real.alarms_of(real.FOLDER / name, engine={"compressed-tensors": version})
    assert alarms.get("config-drift") is judgement


@pytest.mark.parametrize(("version", "judgement"), [("0.18.0", None), ("0.19.0", NOTICE)])
def test_a_release_that_no_longer_reads_an_order(
    tmp_path: Path, version: str, judgement: Judgement | None
) -> None:
    edit: Change = lambda config: weights_of(config).update(actorder="group")  # noqa: E731
    checkpoint = real.configured(LLM_GPTQ, tmp_path, edit)
    alarms = real.alarms_of(checkpoint, None, engine={"compressed-tensors": version})
    assert alarms.get("config-drift") is judgement


def test_an_untied_copy_of_a_tied_head_is_no_difference(tmp_path: Path) -> None:
    """llm-compressor 0.8.1 leaves tied models so."""
    untie: Change = lambda config: config.update(tie_word_embeddings=False)  # noqa: E731
    checkpoint = real.configured(LLM_GPTQ, tmp_path, untie)
    tensors, metadata = real.read_tensors(checkpoint / real.WEIGHTS)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
    real.write_tensors(checkpoint / real.WEIGHTS, tensors, metadata)
    assert examine(checkpoint, real.FLOAT, load(), {}).is_sound
    del tensors["lm_head.weight"]
    real.write_tensors(checkpoint / real.WEIGHTS, tensors, metadata)
    assert not examine(checkpoint, real.FLOAT, load(), {}).is_sound
