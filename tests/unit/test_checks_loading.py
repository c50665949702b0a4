from __future__ import annotations

import pytest

from matrix.checks import judge
from matrix.checks.evidence import Evidence, Load
from matrix.outcomes import Finding, Judgement, Stage
from tests.unit.made_evidence import REFERENCE, THRESHOLDS

# As transformers 4.51.3 and 5.23.0 print them.
NEWLY = (
    "Some weights of Qwen2ForCausalLM were not initialized from the model checkpoint at model and "
    "are newly initialized: ['model.embed_tokens.weight', 'model.layers.0.mlp.up_proj.bias']\n"
    "You should probably TRAIN this model on a down-stream task"
)
UNUSED = (
    "Some weights of the model checkpoint at model were not used when initializing "
    "Qwen2ForCausalLM: ['model.layers.0.mlp.down_proj.bias', 'lm_head.weight']\n- This IS expected"
)
TABLE = """Qwen2ForCausalLM LOAD REPORT from: model
Key                                       | Status     |  |
------------------------------------------+------------+--+-
model.layers.{0, 1}.mlp.down_proj.bias    | UNEXPECTED |  |
model.layers.{0...11}.mlp.up_proj.qweight | \x1b[31mMISSING\x1b[0m |
model.norm.weight                         | MISMATCH   | Reinit due to size mismatch

Notes:
- UNEXPECTED:\tcan be ignored when loading from different task/architecture
- MISSING:\tthose params were newly initialized because missing from the checkpoint."""
HEAD_ROW = "Key            | Status  |\n---------------+---------+\nlm_head.weight | MISSING |"


def found(*warnings: str, tied: bool = True) -> Finding:
    evidence = Evidence(
        tied=tied,
        quantized=True,
        reference=REFERENCE,
        thresholds=THRESHOLDS,
        load=Load(list(warnings)),
    )
    return judge(evidence, Stage.LOAD)[0]


def test_quiet_without_warnings() -> None:
    assert found().judgement is Judgement.PASSED


@pytest.mark.parametrize(
    ("warning", "names"),
    [
        (NEWLY, ["model.embed_tokens.weight", "model.layers.0.mlp.up_proj.bias"]),
        (TABLE, ["model.layers.{0...11}.mlp.up_proj.qweight", "model.norm.weight"]),
    ],
)
def test_made_up_weights_fail(warning: str, names: list[str]) -> None:
    result = found("something else", warning)
    assert (result.judgement, result.value) == (Judgement.FAILED, len(names))
    assert result.message == f"made up by the engine: {', '.join(names)}"


@pytest.mark.parametrize("warning", [UNUSED, "`torch_dtype` is deprecated", "[" * 10_000, ""])
def test_harmless_warnings_are_told_apart_and_counted(warning: str) -> None:
    result = found(warning)
    assert result.judgement is Judgement.PASSED
    assert result.message.startswith("1 warnings kept")


def test_missing_head_of_a_tied_model_is_harmless() -> None:
    assert found(HEAD_ROW).judgement is Judgement.PASSED
    assert found(HEAD_ROW, tied=False).judgement is Judgement.FAILED
