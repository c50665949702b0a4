from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from matrix.checkpoint.inspecting import inspect
from matrix.checkpoint.inspection import Inspection, Problem, WeightComparison
from matrix.checks import CHECKS, judge
from matrix.checks.evidence import Evidence
from matrix.outcomes import Finding, Judgement, Stage
from tests.unit import awq_checkpoints as made
from tests.unit.made_evidence import REFERENCE, THRESHOLDS

L0 = "model.layers.0"
Damaged = dict[str, made.Array]


def findings(
    inspection: Inspection | None, *, tied: bool = True, quantized: bool = True
) -> dict[str, Finding]:
    evidence = Evidence(
        tied=tied,
        quantized=quantized,
        inspection=inspection,
        reference=REFERENCE,
        thresholds=THRESHOLDS,
    )
    return {found.check: found for found in judge(evidence, Stage.INSPECT)}


def alarms(found: dict[str, Finding]) -> dict[str, Judgement]:
    quiet = (Judgement.PASSED, Judgement.NOT_APPLICABLE)
    return {name: f.judgement for name, f in found.items() if f.judgement not in quiet}


def test_ids_and_stages_are_the_functions_own() -> None:
    evidence = Evidence(tied=True, quantized=True, reference=REFERENCE, thresholds=THRESHOLDS)
    for check in CHECKS:
        found = check.function(evidence)
        assert (found.check, found.stage) == (check.id, check.stage)
        assert found.judgement is Judgement.NOT_APPLICABLE
        assert check.title.endswith(".")
    assert len({check.id for check in CHECKS}) == len(CHECKS)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kv_heads", [made.KV_HEADS, made.HEADS])
def test_quiet_on_a_good_checkpoint(tmp_path: Path, tied: bool, kv_heads: int) -> None:
    found = findings(inspect(*made.both(tmp_path, tied=tied, kv_heads=kv_heads)), tied=tied)
    assert alarms(found) == {}
    assert found["weights-match"].value == pytest.approx(0.12, abs=0.02)
    assert found["packed-layers"].message == f"{7 * made.LAYERS} layers packed"


@pytest.mark.parametrize("tied", [True, False])
def test_quiet_on_the_float_model(tmp_path: Path, tied: bool) -> None:
    tensors = made.float_model(tied=tied)
    model = made.write(tmp_path / "m", tensors, tied=tied, quantized=False)
    found = findings(inspect(model, model), tied=tied, quantized=False)
    assert alarms(found) == {}
    assert found["weights-match"].value == 0


def drop(name: str) -> object:
    return lambda tensors: tensors.pop(name)


def nan_scale(tensors: Damaged) -> None:
    tensors[f"{L0}.mlp.up_proj.scales"][0, 0] = np.nan


def add_bias(tensors: Damaged) -> None:
    tensors[f"{L0}.mlp.up_proj.bias"] = np.ones(made.INTERMEDIATE, np.float16)


def add_zero_bias(tensors: Damaged) -> None:
    tensors[f"{L0}.mlp.up_proj.bias"] = np.zeros(made.INTERMEDIATE, np.float16)


def leave_unpacked(tensors: Damaged) -> None:
    for part in ("qweight", "qzeros", "scales"):
        del tensors[f"{L0}.mlp.up_proj.{part}"]
    tensors[f"{L0}.mlp.up_proj.weight"] = made.float_model(tied=True)[f"{L0}.mlp.up_proj.weight"]


def pack_the_head(tensors: Damaged) -> None:
    for part in ("qweight", "qzeros", "scales"):
        tensors[f"lm_head.{part}"] = tensors[f"{L0}.self_attn.q_proj.{part}"].copy()


def float32_scales(tensors: Damaged) -> None:
    name = f"{L0}.mlp.up_proj.scales"
    tensors[name] = tensors[name].astype(np.float32)


def only_the_head(tensors: Damaged) -> None:
    tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")


def both_names(tensors: Damaged) -> None:
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()


def another_head(tensors: Damaged) -> None:
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] * np.float16(1.05)


def five_percent(tensors: Damaged) -> None:
    tensors[f"{L0}.mlp.gate_proj.scales"][:, 3] *= np.float16(1.05)


def scaled_norm(tensors: Damaged) -> None:
    tensors[f"{L0}.input_layernorm.weight"] *= np.float16(0.36)


def scaled_embedding(tensors: Damaged) -> None:
    tensors["model.embed_tokens.weight"] *= np.float16(1.05)


FAILED, NOTICE = Judgement.FAILED, Judgement.NOTICE


@pytest.mark.parametrize(
    ("damage", "expected", "message"),
    [
        (drop("model.norm.weight"), {"checkpoint-complete": FAILED}, "model.norm.weight"),
        (add_zero_bias, {}, "all zero (harmless)"),
        (add_bias, {"checkpoint-complete": NOTICE}, "unexpected: model.layers.0.mlp.up_proj.bias"),
        (nan_scale, {"checkpoint-complete": FAILED, "weights-match": FAILED}, "not finite"),
        (pack_the_head, {"checkpoint-complete": NOTICE, "packed-layers": FAILED}, "lm_head"),
        (float32_scales, {"packed-layers": FAILED}, "scales is F32"),
        (only_the_head, {"tied-embedding": NOTICE}, "only lm_head.weight is stored"),
        (both_names, {}, "stored under both names"),
        (another_head, {"weights-match": FAILED}, "lm_head.weight differs by 0.0"),
        (drop("model.embed_tokens.weight"), {"tied-embedding": FAILED}, "neither"),
        (five_percent, {"weights-match": FAILED}, "gate_proj has the scale of a group"),
        (scaled_norm, {"weights-match": FAILED}, "(bound 0.25), scale 0.3"),
        (scaled_embedding, {"weights-match": FAILED}, "embed_tokens.weight differs by 0.0"),
    ],
)
def test_fires_on_its_planted_defect_alone(
    tmp_path: Path, damage: object, expected: dict[str, Judgement], message: str
) -> None:
    found = findings(inspect(*made.both(tmp_path, damage=damage)))  # type: ignore[arg-type]
    assert alarms(found) == expected
    assert any(message in one.message for one in found.values())


def test_layer_left_unpacked(tmp_path: Path) -> None:
    found = findings(inspect(*made.both(tmp_path, damage=leave_unpacked)))
    assert found["packed-layers"].judgement is FAILED
    assert found["packed-layers"].message == f"not packed: {L0}.mlp.up_proj"
    assert found["packed-layers"].value == 1


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("lm_head.weight", "untied, but lm_head.weight is missing"),
        ("model.embed_tokens.weight", "untied, but model.embed_tokens.weight is missing"),
    ],
)
def test_untied_needs_both(tmp_path: Path, missing: str, message: str) -> None:
    damage = drop(missing)
    found = findings(
        inspect(*made.both(tmp_path, tied=False, damage=damage)),  # type: ignore[arg-type]
        tied=False,
    )
    assert alarms(found) == {"tied-embedding": FAILED}
    assert found["tied-embedding"].message == message


def test_config_that_says_otherwise(tmp_path: Path) -> None:
    inspection = inspect(*made.both(tmp_path))
    untied = msgspec.structs.replace(inspection, tie_word_embeddings=False)
    assert alarms(findings(untied)) == {"tied-embedding": FAILED}
    unnamed = msgspec.structs.replace(inspection, quantization=None)
    assert alarms(findings(unnamed)) == {"packed-layers": FAILED}
    float_one = findings(inspection, quantized=False)["packed-layers"]
    assert "config.json of the float model has a quantization_config" in float_one.message


def test_unreadable_is_its_own_check(tmp_path: Path) -> None:
    inspection = inspect(*made.both(tmp_path))
    problem = Problem("may hold pickled objects", "x.bin", "Remove it.")
    found = findings(msgspec.structs.replace(inspection, problems=[problem]))
    assert alarms(found) == {"checkpoint-readable": FAILED}
    assert found["checkpoint-readable"].message == "x.bin: may hold pickled objects. Remove it."


def test_nothing_compared_is_no_match() -> None:
    assert findings(Inspection())["weights-match"].judgement is FAILED
    unread = WeightComparison(name="m", packed=True, note="is 3-bit odd")
    found = findings(Inspection(weights=[unread]))["weights-match"]
    assert (found.judgement, found.value) == (FAILED, None)
    assert found.message == "m could not be compared: is 3-bit odd"
