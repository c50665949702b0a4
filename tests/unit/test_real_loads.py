"""What real engines printed while they loaded real checkpoints, good and with a defect planted.

The texts are those of the observations, cut to the two layers of the fixtures.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from matrix.checkpoint.inspecting import inspect
from matrix.checkpoint.inspection import Inspection
from matrix.checks import run_checks
from matrix.checks.evidence import Evidence, Load, LoadedTensor
from matrix.judge.cells import thresholds
from matrix.pipeline.outcomes import Finding, Judgement
from matrix.pipeline.steps import Stage
from matrix.spec.loading import load
from tests.unit import real_checkpoints as real
from tests.unit.made_evidence import alarms, made_load

UNUSED = [
    f"model.layers.{layer}.{part}.bias"
    for layer in (0, 1)
    for part in ("mlp.down_proj", "mlp.gate_proj", "mlp.up_proj", "self_attn.o_proj")
]
TRANSFORMERS_4 = (
    "transformers.modeling_utils: Some weights of the model checkpoint at <store>/checkpoint were "
    f"not used when initializing Qwen2ForCausalLM: {UNUSED}\n- This IS expected if you are "
    "initializing Qwen2ForCausalLM from the checkpoint of a model trained on another task or with "
    "another architecture (e.g. initializing a BertForSequenceClassification model from a "
    "BertForPreTraining model)."
)
TRANSFORMERS_5 = """\
transformers.modeling_utils: \x1b[1mQwen2ForCausalLM LOAD REPORT\x1b[0m from: <store>/checkpoint
Key                                       | Status     |  |\x20
------------------------------------------+------------+--+-
model.layers.{0, 1}.self_attn.o_proj.bias | UNEXPECTED |  |\x20
model.layers.{0, 1}.mlp.down_proj.bias    | UNEXPECTED |  |\x20
model.layers.{0, 1}.mlp.up_proj.bias      | UNEXPECTED |  |\x20
model.layers.{0, 1}.mlp.gate_proj.bias    | UNEXPECTED |  |\x20

Notes:
- UNEXPECTED:\tcan be ignored when loading from different task/architecture; not ok if you expect \
identical arch."""
UNUSED_QKV = TRANSFORMERS_5.replace("mlp.up_proj", "self_attn.q_proj")
"""The same report of a checkpoint whose q/k/v have biases and whose model has none."""
ACCELERATE = (
    "accelerate.utils.modeling: The model weights are not tied. Please use the `tie_weights` "
    "method before using the `infer_auto_device` function."
)
VLLM_TIED = (
    "vllm.model_executor.model_loader.weight_tying: The config for <store>/checkpoint says the "
    "word embeddings are tied, but the checkpoint contains a different lm_head.weight, which has "
    "been used instead of tying. Set `tie_word_embeddings=False` in the config to silence this "
    "warning."
)


def held(inspection: Inspection) -> list[LoadedTensor]:
    """Return what an engine holds of a file: a tied matrix once, and no biases of zeros."""
    copy = {"lm_head.weight"} if inspection.embedding else set()
    useless = {*inspection.zero_tensors, *copy}
    return [tensor for tensor in made_load(inspection).tensors if tensor.name not in useless]


def check_load(
    inspection: Inspection, tensors: list[LoadedTensor], warnings: list[str]
) -> list[Finding]:
    evidence = Evidence(
        tied=True,
        quantized=True,
        thresholds=thresholds(load()),
        inspection=inspection,
        load=Load(warnings=warnings, kernel="SomeLinear", tensors=tensors),
    )
    return run_checks(evidence, Stage.LOAD)


def loaded(checkpoint: Path, warning: str) -> list[Finding]:
    """Judge an engine that printed this and holds what is in the file."""
    inspection = inspect(checkpoint)
    return check_load(inspection, held(inspection), [warning])


def message(findings: list[Finding]) -> str:
    return next(finding.message for finding in findings if finding.check == "load-warnings")


@pytest.mark.parametrize("text", [TRANSFORMERS_4, TRANSFORMERS_5])
def test_unused_biases_of_auto_gptq_are_harmless_as_they_are_zero(text: str) -> None:
    findings = loaded(real.FOLDER / real.AUTO_GPTQ, text)
    assert alarms(findings) == {}
    assert "8 tensors not used, harmlessly" in message(findings)


@pytest.mark.parametrize("text", [TRANSFORMERS_4, TRANSFORMERS_5])
def test_an_unused_bias_that_is_not_zero_is_told(tmp_path: Path, text: str) -> None:
    damage = real.put("model.layers.1.mlp.up_proj.bias", 0.5, 7)
    findings = loaded(real.damaged(real.AUTO_GPTQ, tmp_path, damage), text)
    assert alarms(findings) == {"load-warnings": Judgement.DEGRADED}
    assert "model.layers.1.mlp.up_proj.bias" in message(findings)


def test_unused_biases_of_q_are_no_zeros() -> None:
    findings = loaded(real.FOLDER / real.AUTO_GPTQ, UNUSED_QKV)
    assert alarms(findings) == {"load-warnings": Judgement.DEGRADED}


def test_an_unused_part_of_a_layer_is_a_failure() -> None:
    text = TRANSFORMERS_5.replace("mlp.up_proj.bias   ", "mlp.up_proj.qweight")
    findings = loaded(real.FOLDER / real.AUTO_GPTQ, text)
    assert alarms(findings) == {"load-warnings": Judgement.FAILED}


@pytest.mark.parametrize("status", ["MISSING", "MISMATCH"])
def test_a_bias_that_is_made_up_is_a_failure(tmp_path: Path, status: str) -> None:
    name = "model.layers.0.self_attn.k_proj.bias"
    checkpoint = real.damaged(real.AUTO_GPTQ, tmp_path, real.drop(name))
    findings = loaded(checkpoint, f"LOAD REPORT from: x\n{name} | {status} |")
    assert alarms(findings) == {"load-warnings": Judgement.FAILED}


@pytest.mark.parametrize("name", real.GOOD)
def test_warnings_of_something_else_are_kept_and_no_alarm(name: str) -> None:
    findings = loaded(real.FOLDER / name, ACCELERATE)
    assert alarms(findings) == {}
    assert message(findings) == "1 warning kept, none of them of weights"


def test_that_vllm_took_the_head_of_a_tied_model_is_no_lost_weight() -> None:
    assert alarms(loaded(real.FOLDER / real.DROPPED, VLLM_TIED)) == {}


@pytest.mark.parametrize("name", real.GOOD)
@pytest.mark.parametrize(("kinds", "factor"), [(("float16", "bfloat16"), 2), (("int32",), 4)])
def test_what_is_held_in_float32_or_unpacked_is_told(
    name: str, kinds: tuple[str, ...], factor: int
) -> None:
    inspection = inspect(real.FOLDER / name)
    wide = [
        LoadedTensor(tensor.name, "float32", tensor.bytes * factor)
        if tensor.dtype in kinds
        else tensor
        for tensor in held(inspection)
    ]
    assert alarms(check_load(inspection, held(inspection), [])) == {}
    assert alarms(check_load(inspection, wide, [])) == {"load-memory": Judgement.DEGRADED}
