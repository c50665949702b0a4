from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matrix.judge.verdict import JudgedCell, blocks, compared, fold, stage_results
from matrix.pipeline.outcomes import (
    REASONS,
    Explanation,
    Finding,
    Judgement,
    Outcome,
    Reason,
    StageResult,
    Symptom,
    Verdict,
)
from matrix.pipeline.steps import ALWAYS, Blame, Stage

GOOD = [
    Finding("greedy-text", Stage.GENERATE, Judgement.PASSED),
    Finding("logprobs-reference", Stage.GENERATE, Judgement.PASSED),
]
NOTICE = Finding(
    "tied-embedding", Stage.INSPECT, Judgement.NOTICE, message="only lm_head",
    explains=Explanation([Symptom.WRONG_ANSWERS, Symptom.ERROR], errors=["meta tensor"]),
)  # fmt: skip
BAD_WEIGHTS = Finding(
    "weights-match", Stage.INSPECT, Judgement.FAILED, message="scale 0.36",
    explains=Explanation([Symptom.WRONG_ANSWERS]),
)  # fmt: skip
WRONG_TEXT = Finding(
    "greedy-text", Stage.GENERATE, Judgement.FAILED, message="' of of'",
    symptom=Symptom.WRONG_ANSWERS,
)  # fmt: skip
WRONG = [WRONG_TEXT, GOOD[1]]

PAIRS = [(outcome, reason) for outcome, reasons in REASONS.items() for reason in sorted(reasons)]
stages_with_any_outcome = st.tuples(
    *[
        st.builds(
            lambda pair, stage: StageResult(*pair, stage=stage),
            st.sampled_from(PAIRS),
            st.just(stage),
        )
        for stage in Stage
    ]
).map(list)
any_findings = st.lists(
    st.builds(
        Finding,
        st.sampled_from(["greedy-text", "logprobs-reference", "weights-match", "tied-embedding"]),
        st.sampled_from(Stage),
        st.sampled_from(Judgement),
        symptom=st.one_of(st.none(), st.sampled_from(Symptom)),
        explains=st.one_of(
            st.none(),
            st.builds(
                Explanation,
                st.lists(st.sampled_from(Symptom)),
                errors=st.just([""]),
                blame=st.sampled_from([Blame.CHECKPOINT, Blame.PAIR]),
            ),
        ),
    ),
    max_size=8,
)


def judge(
    observed: dict[Stage, StageResult],
    findings: list[Finding],
    float_works: bool | None = True,
) -> JudgedCell:
    return fold(stage_results(observed, findings), findings, float_works=float_works)


def passed_until(stage: Stage | None = None, *end: object) -> dict[Stage, StageResult]:
    """All stages passed, up to ``stage``, which ended as said; nothing after it was tried."""
    observed = {}
    for reached in Stage:
        if reached is stage:
            observed[reached] = StageResult(*end, stage=reached)  # type: ignore[arg-type]
            break
        observed[reached] = StageResult(Outcome.PASSED, stage=reached)
    return observed


def test_all_passed_and_compared_works() -> None:
    assert judge(passed_until(), GOOD) == JudgedCell(
        Verdict.WORKS, Blame.NOBODY, None, Reason.NONE, ""
    )


@pytest.mark.parametrize(
    ("stage", "blame"),
    [
        (Stage.QUANTIZER_RESOLVE, Blame.QUANTIZER),
        (Stage.QUANTIZER_INSTALL, Blame.QUANTIZER),
        (Stage.QUANTIZER_IMPORT, Blame.QUANTIZER),
        (Stage.QUANTIZE, Blame.QUANTIZER),
        (Stage.INSPECT, Blame.CHECKPOINT),
        (Stage.ENGINE_RESOLVE, Blame.ENGINE),
        (Stage.ENGINE_INSTALL, Blame.ENGINE),
        (Stage.ENGINE_IMPORT, Blame.ENGINE),
        (Stage.LOAD, Blame.PAIR),
        (Stage.GENERATE, Blame.PAIR),
    ],
)
@pytest.mark.parametrize(
    ("outcome", "reason", "verdict"),
    [
        (Outcome.FAILED, Reason.EXCEPTION, Verdict.BROKEN),
        (Outcome.UNSUPPORTED, Reason.REFUSED, Verdict.UNSUPPORTED),
        (Outcome.NEEDS_HARDWARE, Reason.NO_GPU, Verdict.UNTESTED),
        (Outcome.INFRA, Reason.EXCEPTION, Verdict.INFRA),
    ],
)
def test_each_end_at_each_stage(
    stage: Stage, blame: Blame, outcome: Outcome, reason: Reason, verdict: Verdict
) -> None:
    cell = judge(passed_until(stage, outcome, reason, "why"), [])
    expected = blame if verdict is Verdict.BROKEN else Blame.NOBODY
    assert cell == JudgedCell(verdict, expected, stage, reason, "why")


@pytest.mark.parametrize(
    ("inspection", "float_works", "blame"),
    [
        ([], True, Blame.PAIR),
        ([], None, Blame.PAIR),
        ([], False, Blame.ENGINE),
        ([NOTICE], True, Blame.CHECKPOINT),
        ([NOTICE], None, Blame.CHECKPOINT),
        ([NOTICE], False, Blame.ENGINE),
    ],
)
def test_blame_for_an_engine_that_fails(
    inspection: list[Finding], float_works: bool | None, blame: Blame
) -> None:
    garbage = judge(passed_until(), inspection + WRONG, float_works)
    assert (garbage.verdict, garbage.blame) == (Verdict.GARBAGE, blame)
    raised = passed_until(Stage.LOAD, Outcome.FAILED, Reason.EXCEPTION, "no Meta tensor, please")
    broken = judge(raised, inspection, float_works)
    assert (broken.verdict, broken.blame) == (Verdict.BROKEN, blame)


def raised(message: str) -> dict[Stage, StageResult]:
    return passed_until(Stage.LOAD, Outcome.FAILED, Reason.EXCEPTION, message)


def of_symptom(symptom: Symptom) -> list[Finding]:
    return [msgspec.structs.replace(WRONG_TEXT, symptom=symptom), GOOD[1]]


def test_what_a_finding_does_not_explain_is_not_blamed_on_it() -> None:
    assert (
        judge(raised("'_C' object has no attribute 'gptq_shuffle'"), [NOTICE]).blame is Blame.PAIR
    )
    nan = judge(passed_until(), [NOTICE, *of_symptom(Symptom.NOT_FINITE)])
    assert (nan.verdict, nan.blame, nan.explained_by) == (Verdict.GARBAGE, Blame.PAIR, "")
    assert nan.message.startswith("greedy-text: ")
    for reason in (Reason.TIMEOUT, Reason.SILENCE, Reason.NO_RESULT, Reason.CRASH):
        ended = passed_until(Stage.LOAD, Outcome.FAILED, reason, "meta tensor")
        assert judge(ended, [NOTICE, BAD_WEIGHTS]).blame is Blame.PAIR
    harmless = msgspec.structs.replace(NOTICE, judgement=Judgement.PASSED)
    assert judge(passed_until(), [harmless, *WRONG]).blame is Blame.PAIR


def test_the_gravest_symptom_is_what_must_be_explained() -> None:
    symptoms = [*WRONG, *of_symptom(Symptom.NOT_FINITE)]
    scales = msgspec.structs.replace(
        BAD_WEIGHTS, check="scales", explains=Explanation([Symptom.NOT_FINITE])
    )
    assert judge(passed_until(), [NOTICE, scales, *symptoms]).explained_by == "scales"
    memory = Finding(
        "load-memory", Stage.LOAD, Judgement.DEGRADED, message="twice",
        symptom=Symptom.MORE_MEMORY,
    )  # fmt: skip
    assert judge(passed_until(), [NOTICE, memory, *WRONG]).explained_by == "tied-embedding"
    assert judge(passed_until(), [NOTICE, memory, *GOOD]).explained_by == ""


def test_a_process_that_ran_out_of_memory_is_explained_by_what_takes_more() -> None:
    wide = Finding(
        "stored-formats", Stage.INSPECT, Judgement.DEGRADED, message="F32",
        explains=Explanation([Symptom.MORE_MEMORY]),
    )  # fmt: skip
    killed = passed_until(Stage.LOAD, Outcome.FAILED, Reason.OOM, "over its limit")
    cell = judge(killed, [wide])
    assert (cell.verdict, cell.blame, cell.stage) == (
        Verdict.BROKEN, Blame.CHECKPOINT, Stage.LOAD
    )  # fmt: skip
    assert cell.message == "over its limit; explained by stored-formats: F32"


def test_a_tokenizer_keeps_a_model_from_loading_and_never_spoils_an_answer_to_token_ids() -> None:
    drift = Finding(
        "tokenizer-drift", Stage.INSPECT, Judgement.NOTICE, message="merges are pairs",
        explains=Explanation([Symptom.ERROR], errors=["tokenizer", "ModelWrapper"]),
    )  # fmt: skip
    assert judge(raised("untagged enum ModelWrapper"), [drift]).blame is Blame.CHECKPOINT
    assert judge(raised("no kernel image"), [drift]).blame is Blame.PAIR
    assert judge(passed_until(), [drift, *WRONG]).blame is Blame.PAIR


def test_the_cause_of_wrong_answers_comes_before_its_symptoms() -> None:
    memory = Finding(
        "load-memory", Stage.LOAD, Judgement.DEGRADED, message="1.52 MB in memory",
        symptom=Symptom.MORE_MEMORY,
    )  # fmt: skip
    cell = judge(passed_until(), [NOTICE, memory, *WRONG])
    assert cell == JudgedCell(
        Verdict.GARBAGE, Blame.CHECKPOINT, Stage.INSPECT, Reason.UNSUITED_FILE,
        "tied-embedding: only lm_head; then generate: greedy-text: ' of of'; "
        "also load: load-memory: 1.52 MB in memory",
        "tied-embedding",
    )  # fmt: skip
    assert judge(passed_until(), [NOTICE, *GOOD]).verdict is Verdict.WORKS


def test_what_ended_a_cell_comes_before_all_else() -> None:
    cell = judge(raised("NotImplementedError: meta tensor"), [BAD_WEIGHTS, NOTICE])
    assert cell == JudgedCell(
        Verdict.BROKEN, Blame.CHECKPOINT, Stage.LOAD, Reason.EXCEPTION,
        "NotImplementedError: meta tensor; explained by tied-embedding: only lm_head; "
        "also inspect: weights-match: scale 0.36",
        "tied-embedding",
    )  # fmt: skip
    refused = passed_until(Stage.LOAD, Outcome.UNSUPPORTED, Reason.REFUSED, "no 8 bits")
    none = judge(refused, [BAD_WEIGHTS, NOTICE])
    assert (none.verdict, none.blame, none.stage) == (
        Verdict.UNSUPPORTED, Blame.NOBODY, Stage.LOAD
    )  # fmt: skip
    assert none.message == "no 8 bits; also inspect: weights-match: scale 0.36"


def test_a_finding_says_whom_it_points_at() -> None:
    head = Finding(
        "tied-head", Stage.LOAD, Judgement.FAILED, message="nothing was loaded into it",
        symptom=Symptom.NOT_FINITE,
        explains=Explanation([Symptom.NOT_FINITE], blame=Blame.PAIR),
    )  # fmt: skip
    cell = judge(passed_until(), [head, NOTICE, *of_symptom(Symptom.NOT_FINITE)])
    assert (cell.blame, cell.stage, cell.reason) == (Blame.PAIR, Stage.LOAD, "wrong-output")


def test_wrong_weights_do_not_keep_an_engine_from_being_tried() -> None:
    harmless = judge(passed_until(), [BAD_WEIGHTS, *GOOD])
    assert (harmless.verdict, harmless.blame) == (Verdict.DEGRADED, Blame.CHECKPOINT)
    assert (harmless.stage, harmless.message) == (Stage.INSPECT, "weights-match: scale 0.36")
    garbage = judge(passed_until(), [BAD_WEIGHTS, *WRONG])
    assert (garbage.verdict, garbage.stage) == (Verdict.GARBAGE, Stage.INSPECT)
    assert garbage.reason == "defective-file"
    assert garbage.message == "weights-match: scale 0.36; then generate: greedy-text: ' of of'"


def test_unreadable_checkpoint_is_broken_and_blocks() -> None:
    unreadable = Finding("checkpoint-readable", Stage.INSPECT, Judgement.FAILED, message="pickle")
    results = stage_results({**passed_until()}, [unreadable, *GOOD])
    inspect = results[ALWAYS.index(Stage.INSPECT)]
    assert (inspect.outcome, inspect.reason) == (Outcome.FAILED, Reason.UNREADABLE)
    assert blocks(inspect)
    cell = fold(results, [unreadable, *GOOD], float_works=True)
    assert (cell.verdict, cell.blame) == (Verdict.BROKEN, Blame.CHECKPOINT)


@pytest.mark.parametrize("stage", [Stage.LOAD, Stage.GENERATE])
def test_degraded_stage_makes_a_degraded_cell(stage: Stage) -> None:
    slight = Finding("some-check", stage, Judgement.DEGRADED, message="a little")
    cell = judge(passed_until(), [*GOOD, slight])
    assert (cell.verdict, cell.blame, cell.stage) == (
        Verdict.DEGRADED,
        Blame.PAIR,
        stage,
    )


def test_infrastructure_before_a_failure_hides_it_and_after_it_does_not() -> None:
    observed = passed_until()
    observed[Stage.QUANTIZER_INSTALL] = StageResult(
        Outcome.INFRA, Reason.NETWORK, stage=Stage.QUANTIZER_INSTALL
    )
    observed[Stage.ENGINE_IMPORT] = StageResult(
        Outcome.FAILED, Reason.EXCEPTION, stage=Stage.ENGINE_IMPORT
    )
    assert judge(observed, []).verdict is Verdict.INFRA
    observed[Stage.QUANTIZER_INSTALL] = StageResult(
        Outcome.FAILED, Reason.BUILD_FAILED, stage=Stage.QUANTIZER_INSTALL
    )
    observed[Stage.ENGINE_IMPORT] = StageResult(
        Outcome.INFRA, Reason.NOT_RUN, stage=Stage.ENGINE_IMPORT
    )
    assert judge(observed, []).verdict is Verdict.BROKEN


def test_stages_never_reached_are_blocked_or_not_run() -> None:
    after = stage_results(passed_until(Stage.QUANTIZE, Outcome.FAILED, Reason.CRASH), [])
    assert {r.outcome for r in after[4:]} == {Outcome.BLOCKED}
    stopped = stage_results({}, [])
    assert (stopped[0].outcome, stopped[0].reason) == (Outcome.INFRA, Reason.NOT_RUN)
    assert fold(stopped, []).verdict is Verdict.NOT_RUN


def test_answer_without_comparison_is_no_result() -> None:
    results = stage_results(passed_until(), GOOD[:1])
    assert (results[-1].outcome, results[-1].reason) == (Outcome.FAILED, Reason.NO_RESULT)
    unjudged = [StageResult(Outcome.PASSED, stage=stage) for stage in Stage]
    assert fold(unjudged, []).verdict is Verdict.INFRA


def test_fold_wants_the_ten_in_order() -> None:
    with pytest.raises(ValueError, match="stage_results"):
        fold([StageResult(Outcome.PASSED, stage=Stage.LOAD)], GOOD)


@given(stages_with_any_outcome, any_findings, st.sampled_from([True, False, None]))
@settings(max_examples=500, deadline=None)
def test_works_only_if_all_passed_and_was_compared(
    stages: list[StageResult], findings: list[Finding], float_works: bool | None
) -> None:
    cell = fold(stages, findings, float_works=float_works)
    if cell.verdict is Verdict.WORKS:
        assert all(result.outcome is Outcome.PASSED for result in stages)
        assert compared(findings)
        assert cell.blame is Blame.NOBODY
        assert cell.stage is None
    else:
        assert cell.stage is not None
    faulty = cell.verdict in (Verdict.BROKEN, Verdict.GARBAGE, Verdict.DEGRADED)
    assert (cell.blame is not Blame.NOBODY) == faulty


@given(any_findings)
@settings(max_examples=300, deadline=None)
def test_judged_generation_is_never_green_without_both_comparisons(
    findings: list[Finding],
) -> None:
    cell = judge(passed_until(), findings)
    conclusive = {f.check for f in findings if f.judgement is not Judgement.NOT_APPLICABLE}
    if cell.verdict in (Verdict.WORKS, Verdict.DEGRADED):
        assert {"greedy-text", "logprobs-reference"} <= conclusive


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_one_more_failure_never_makes_a_verdict_better(data: st.DataObject) -> None:
    order = [Verdict.WORKS, Verdict.DEGRADED, Verdict.GARBAGE, Verdict.BROKEN]
    findings = GOOD + data.draw(any_findings)
    stage = data.draw(st.sampled_from(Stage))
    before = judge(passed_until(), findings).verdict
    observed = {
        **passed_until(),
        stage: StageResult(Outcome.FAILED, Reason.EXCEPTION, stage=stage),
    }
    after = judge(observed, findings).verdict
    assert order.index(after) >= order.index(before)


def test_every_outcome_blocks_or_does_not() -> None:
    for (outcome, reason), stage in itertools.product(PAIRS, Stage):
        assert isinstance(blocks(StageResult(outcome, reason, stage=stage)), bool)
