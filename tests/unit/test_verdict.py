from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matrix.outcomes import (
    Blame,
    Finding,
    Judgement,
    Outcome,
    Reason,
    Stage,
    StageResult,
    Verdict,
)
from matrix.results import CellResult, Side
from matrix.verdict import JudgedCell, blocks, canaries, compared, fold, stage_results

GOOD = [
    Finding("greedy-text", Stage.GENERATE, Judgement.PASSED),
    Finding("logprobs-reference", Stage.GENERATE, Judgement.PASSED),
]
NOTICE = Finding("tied-embedding", Stage.INSPECT, Judgement.NOTICE, message="only lm_head")
BAD_WEIGHTS = Finding("weights-match", Stage.INSPECT, Judgement.FAILED, message="scale 0.36")
WRONG_TEXT = Finding("greedy-text", Stage.GENERATE, Judgement.FAILED, message="' of of'")
WRONG = [WRONG_TEXT, GOOD[1]]

stages_with_any_outcome = st.tuples(
    *[
        st.builds(
            StageResult,
            st.just(stage),
            st.sampled_from(Outcome),
            st.sampled_from(Reason),
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
    for each in Stage:
        if each is stage:
            observed[each] = StageResult(each, *end)  # type: ignore[arg-type]
            break
        observed[each] = StageResult(each, Outcome.PASSED)
    return observed


def test_all_passed_and_compared_works() -> None:
    assert judge(passed_until(), GOOD) == JudgedCell(
        Verdict.WORKS, Blame.NOBODY, None, Reason.NONE.value, ""
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
    ("outcome", "verdict"),
    [
        (Outcome.FAILED, Verdict.BROKEN),
        (Outcome.UNSUPPORTED, Verdict.UNSUPPORTED),
        (Outcome.NEEDS_HARDWARE, Verdict.UNTESTED),
        (Outcome.INFRA, Verdict.INFRA),
    ],
)
def test_each_end_at_each_stage(
    stage: Stage, blame: Blame, outcome: Outcome, verdict: Verdict
) -> None:
    found = judge(passed_until(stage, outcome, Reason.EXCEPTION, "why"), [])
    expected = blame if verdict is Verdict.BROKEN else Blame.NOBODY
    assert found == JudgedCell(verdict, expected, stage, "exception", "why")


@pytest.mark.parametrize(
    ("inspection", "float_works", "blame"),
    [
        ([], True, Blame.PAIR),
        ([], None, Blame.PAIR),
        ([], False, Blame.ENGINE),
        ([NOTICE], True, Blame.CHECKPOINT),
        ([NOTICE], None, Blame.CHECKPOINT),
        ([NOTICE], False, Blame.ENGINE),
        ([BAD_WEIGHTS], True, Blame.CHECKPOINT),
    ],
)
def test_blame_for_an_engine_that_fails(
    inspection: list[Finding], float_works: bool | None, blame: Blame
) -> None:
    garbage = judge(passed_until(), inspection + WRONG, float_works)
    assert (garbage.verdict, garbage.blame) == (Verdict.GARBAGE, blame)
    raised = passed_until(Stage.LOAD, Outcome.FAILED, Reason.EXCEPTION, "meta tensor")
    broken = judge(raised, inspection, float_works)
    assert (broken.verdict, broken.blame) == (Verdict.BROKEN, blame)


def test_a_tokenizer_keeps_a_model_from_loading_and_never_spoils_an_answer_to_token_ids() -> None:
    drift = Finding("tokenizer-drift", Stage.INSPECT, Judgement.NOTICE, message="merges are pairs")
    raised = passed_until(Stage.LOAD, Outcome.FAILED, Reason.EXCEPTION, "untagged enum")
    assert judge(raised, [drift], True).blame is Blame.CHECKPOINT
    assert judge(passed_until(), [drift, *WRONG], True).blame is Blame.PAIR


def test_tied_defect_shows_at_generate_and_is_the_checkpoints() -> None:
    found = judge(passed_until(), [NOTICE, *WRONG])
    assert found.first_stage is Stage.GENERATE
    assert found.reason == "wrong-output"
    assert "of of" in found.message
    assert judge(passed_until(), [NOTICE, *GOOD]).verdict is Verdict.WORKS


def test_wrong_weights_do_not_keep_an_engine_from_being_tried() -> None:
    harmless = judge(passed_until(), [BAD_WEIGHTS, *GOOD])
    assert (harmless.verdict, harmless.blame) == (Verdict.DEGRADED, Blame.CHECKPOINT)
    garbage = judge(passed_until(), [BAD_WEIGHTS, *WRONG])
    assert (garbage.verdict, garbage.first_stage) == (Verdict.GARBAGE, Stage.INSPECT)
    assert "then generate: greedy-text" in garbage.message


def test_unreadable_checkpoint_is_broken_and_blocks() -> None:
    unreadable = Finding("checkpoint-readable", Stage.INSPECT, Judgement.FAILED, message="pickle")
    results = stage_results({**passed_until()}, [unreadable, *GOOD])
    inspect = results[list(Stage).index(Stage.INSPECT)]
    assert (inspect.outcome, inspect.reason) == (Outcome.FAILED, Reason.UNREADABLE)
    assert blocks(inspect)
    found = fold(results, [unreadable, *GOOD], float_works=True)
    assert (found.verdict, found.blame) == (Verdict.BROKEN, Blame.CHECKPOINT)


@pytest.mark.parametrize("stage", [Stage.LOAD, Stage.GENERATE])
def test_degraded_stage_makes_a_degraded_cell(stage: Stage) -> None:
    slight = Finding("some-check", stage, Judgement.DEGRADED, message="a little")
    found = judge(passed_until(), [*GOOD, slight])
    assert (found.verdict, found.blame, found.first_stage) == (
        Verdict.DEGRADED,
        Blame.PAIR,
        stage,
    )


def test_infrastructure_before_a_failure_hides_it_and_after_it_does_not() -> None:
    observed = passed_until()
    observed[Stage.QUANTIZER_INSTALL] = StageResult(
        Stage.QUANTIZER_INSTALL, Outcome.INFRA, Reason.NETWORK
    )
    observed[Stage.ENGINE_IMPORT] = StageResult(
        Stage.ENGINE_IMPORT, Outcome.FAILED, Reason.EXCEPTION
    )
    assert judge(observed, []).verdict is Verdict.INFRA
    observed[Stage.QUANTIZER_INSTALL] = StageResult(
        Stage.QUANTIZER_INSTALL, Outcome.FAILED, Reason.BUILD_FAILED
    )
    observed[Stage.ENGINE_IMPORT] = StageResult(Stage.ENGINE_IMPORT, Outcome.INFRA)
    assert judge(observed, []).verdict is Verdict.BROKEN


def test_stages_never_reached_are_blocked_or_not_run() -> None:
    after = stage_results(passed_until(Stage.QUANTIZE, Outcome.FAILED, Reason.CRASH), [])
    assert {r.outcome for r in after[4:]} == {Outcome.BLOCKED}
    stopped = stage_results({}, [])
    assert (stopped[0].outcome, stopped[0].reason) == (Outcome.INFRA, Reason.NOT_RUN)
    assert fold(stopped, []).verdict is Verdict.INFRA


def test_answer_without_comparison_is_no_result() -> None:
    results = stage_results(passed_until(), GOOD[:1])
    assert (results[-1].outcome, results[-1].reason) == (Outcome.FAILED, Reason.NO_RESULT)
    unjudged = [StageResult(stage, Outcome.PASSED) for stage in Stage]
    assert fold(unjudged, []).verdict is Verdict.INFRA


def test_fold_wants_the_ten_in_order() -> None:
    with pytest.raises(ValueError, match="stage_results"):
        fold([StageResult(Stage.LOAD, Outcome.PASSED)], GOOD)


@given(stages_with_any_outcome, any_findings, st.sampled_from([True, False, None]))
@settings(max_examples=500, deadline=None)
def test_works_only_if_all_passed_and_was_compared(
    stages: list[StageResult], findings: list[Finding], float_works: bool | None
) -> None:
    found = fold(stages, findings, float_works=float_works)
    if found.verdict is Verdict.WORKS:
        assert all(result.outcome is Outcome.PASSED for result in stages)
        assert compared(findings)
        assert found.blame is Blame.NOBODY
        assert found.first_stage is None
    else:
        assert found.first_stage is not None
    faulty = found.verdict in (Verdict.BROKEN, Verdict.GARBAGE, Verdict.DEGRADED)
    assert (found.blame is not Blame.NOBODY) == faulty


@given(any_findings)
@settings(max_examples=300, deadline=None)
def test_judged_generation_is_never_green_without_both_comparisons(
    findings: list[Finding],
) -> None:
    found = judge(passed_until(), findings)
    conclusive = {f.check for f in findings if f.judgement is not Judgement.NOT_APPLICABLE}
    if found.verdict in (Verdict.WORKS, Verdict.DEGRADED):
        assert {"greedy-text", "logprobs-reference"} <= conclusive


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_one_more_failure_never_makes_it_better(data: st.DataObject) -> None:
    order = [Verdict.WORKS, Verdict.DEGRADED, Verdict.GARBAGE, Verdict.BROKEN]
    findings = GOOD + data.draw(any_findings)
    stage = data.draw(st.sampled_from(Stage))
    before = judge(passed_until(), findings).verdict
    observed = {
        **passed_until(),
        stage: StageResult(stage, Outcome.FAILED, Reason.EXCEPTION),
    }
    after = judge(observed, findings).verdict
    assert order.index(after) >= order.index(before)


def test_every_outcome_blocks_or_does_not() -> None:
    for outcome, stage, reason in itertools.product(Outcome, Stage, Reason):
        assert isinstance(blocks(StageResult(stage, outcome, reason)), bool)


def cell(verdict: Verdict, canary: Verdict | None) -> CellResult:
    side = Side(name="s", environment="e")
    return CellResult(
        id="c",
        model="m",
        scheme="s",
        quantizer=side,
        engine=side,
        verdict=verdict,
        blame=Blame.NOBODY,
        stage=None,
        reason="",
        message="",
        stages=[],
        findings=[],
        canary=canary,
    )


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([], ""),
        ([(Verdict.BROKEN, None)], ""),
        ([(Verdict.WORKS, Verdict.WORKS), (Verdict.GARBAGE, Verdict.GARBAGE)], "established"),
        ([(Verdict.WORKS, Verdict.WORKS), (Verdict.INFRA, Verdict.GARBAGE)], "not established"),
        ([(Verdict.UNTESTED, Verdict.WORKS)], "not established"),
        ([(Verdict.INFRA, Verdict.WORKS), (Verdict.WORKS, Verdict.GARBAGE)], "void"),
        ([(Verdict.DEGRADED, Verdict.WORKS)], "void"),
    ],
)
def test_canaries(verdicts: list[tuple[Verdict, Verdict | None]], expected: str) -> None:
    assert canaries(cell(*pair) for pair in verdicts) == expected
