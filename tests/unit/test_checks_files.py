"""The checks over files as they are written and read: defects planted in the bytes themselves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from matrix.checkpoint.inspecting import inspect
from matrix.checkpoint.inspection import Inspection
from matrix.checks import run_checks
from matrix.checks.evidence import Evidence, Thresholds
from matrix.pipeline.outcomes import Judgement
from matrix.pipeline.steps import Stage
from matrix.spec.loading import load
from tests.unit import awq_checkpoints as awq
from tests.unit import gptq_checkpoints as gptq
from tests.unit.made_evidence import alarms

L0 = "model.layers.0"
UP = f"{L0}.mlp.up_proj"
FAILED, NOTICE, DEGRADED = Judgement.FAILED, Judgement.NOTICE, Judgement.DEGRADED
Tensors = dict[str, awq.Array]
Damage = Callable[[Tensors], object]


def fired(
    inspection: Inspection, *, tied: bool = True, quantized: bool = True
) -> dict[str, Judgement]:
    thresholds = msgspec.convert(load().spec.thresholds, Thresholds)
    evidence = Evidence(
        tied=tied, quantized=quantized, thresholds=thresholds, inspection=inspection
    )
    return alarms(run_checks(evidence, Stage.INSPECT))


def whole(checkpoint: Path, kv_heads: int = awq.KV_HEADS) -> Path:
    """Complete a made checkpoint's config.json, so that its size is known."""
    file = checkpoint / "config.json"
    config = json.loads(file.read_text())
    config |= {"model_type": "qwen2", "num_hidden_layers": awq.LAYERS}
    config |= {"vocab_size": awq.VOCABULARY, "num_key_value_heads": kv_heads}
    file.write_text(json.dumps(config))
    return checkpoint


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kv_heads", [awq.KV_HEADS, awq.HEADS])
def test_quiet_on_good_awq(tmp_path: Path, tied: bool, kv_heads: int) -> None:
    checkpoint, original = awq.write_pair(tmp_path, tied=tied, kv_heads=kv_heads)
    assert fired(inspect(whole(checkpoint, kv_heads), original), tied=tied) == {}
    assert fired(inspect(checkpoint, None), tied=tied) == {}


@pytest.mark.parametrize(
    "made",
    [{}, {"bits": 8, "group": 128}, {"desc_act": True}, {"v2": True}, {"bits": 8, "v2": True}],
)
def test_quiet_on_good_gptq(tmp_path: Path, made: dict[str, Any]) -> None:
    checkpoint, original = gptq.write_pair(tmp_path, **made)
    assert fired(inspect(whole(checkpoint), original)) == {}
    assert fired(inspect(checkpoint, None)) == {}


@pytest.mark.parametrize("tied", [True, False])
def test_quiet_on_the_float_model(tmp_path: Path, tied: bool) -> None:
    model = awq.write(tmp_path / "m", awq.float_model(tied=tied), tied=tied, quantized=False)
    assert fired(inspect(whole(model), model), tied=tied, quantized=False) == {}


def drop(name: str) -> Damage:
    return lambda tensors: tensors.pop(name)


def times(name: str, factor: float, where: Any = ...) -> Damage:
    def damage(tensors: Tensors) -> None:
        tensors[name] = tensors[name].copy()
        tensors[name][where] *= np.asarray(factor, tensors[name].dtype)

    return damage


def put(name: str, value: float) -> Damage:
    def damage(tensors: Tensors) -> None:
        tensors[name] = tensors[name].copy()
        tensors[name].flat[0] = value

    return damage


def retype(name: str, dtype: type) -> Damage:
    def damage(tensors: Tensors) -> None:
        tensors[name] = tensors[name].astype(dtype)

    return damage


def rename(old: str, new: str) -> Damage:
    def damage(tensors: Tensors) -> None:
        tensors[new] = tensors.pop(old)

    return damage


def copy(old: str, new: str) -> Damage:
    def damage(tensors: Tensors) -> None:
        tensors[new] = tensors[old].copy()

    return damage


def add(name: str, value: float) -> Damage:
    def damage(tensors: Tensors) -> None:
        tensors[name] = np.full(awq.INTERMEDIATE, value, np.float16)

    return damage


EMBEDDING = "model.embed_tokens.weight"
DEFECTS: list[tuple[Damage, dict[str, Judgement]]] = [
    (drop("model.norm.weight"), {"checkpoint-complete": FAILED}),
    (add(f"{UP}.bias", 0.0), {}),
    (add(f"{UP}.bias", 1.0), {"checkpoint-complete": NOTICE}),
    (put(f"{UP}.scales", np.nan), {"scales": FAILED, "weights-match": FAILED}),
    (put("model.norm.weight", np.inf), {"scales": FAILED, "weights-match": FAILED}),
    (times(f"{UP}.scales", 0.0, (0, 3)), {"scales": FAILED, "weights-match": FAILED}),
    (times(f"{UP}.scales", 1.05), {"weights-match": FAILED}),
    (times(f"{L0}.input_layernorm.weight", 0.36), {"weights-match": FAILED}),
    (times(EMBEDDING, 1.05), {"weights-match": FAILED}),
    (retype(f"{UP}.scales", np.float32), {"stored-formats": FAILED}),
    (retype(EMBEDDING, np.float32), {"stored-formats": DEGRADED}),
    (rename(EMBEDDING, "lm_head.weight"), {"tied-embedding": NOTICE}),
    (copy(EMBEDDING, "lm_head.weight"), {}),
    (drop(EMBEDDING), {"tied-embedding": FAILED, "stored-size": FAILED}),
]


@pytest.mark.parametrize("write", [awq.write_pair, gptq.write_pair], ids=["awq", "gptq"])
@pytest.mark.parametrize(("damage", "expected"), DEFECTS)
def test_fires_on_what_is_planted_in_a_file(
    tmp_path: Path, write: Any, damage: Damage, expected: dict[str, Judgement]
) -> None:
    checkpoint, original = write(tmp_path, damage=damage)
    assert fired(inspect(whole(checkpoint), original)) == expected


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("v2", "label"), [(True, "gptq"), (False, "gptq_v2")])
def test_zeros_of_the_other_format(tmp_path: Path, bits: int, v2: bool, label: str) -> None:
    checkpoint, original = gptq.write_pair(tmp_path, bits=bits, v2=v2, checkpoint_format=label)
    assert fired(inspect(checkpoint, None)) == {"zero-points": FAILED}
    assert fired(inspect(checkpoint, original)) == {
        "zero-points": FAILED,
        "weights-match": FAILED,
    }
