from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix.checks import run_checks
from matrix.checks.evidence import (
    Evidence,
    EvidenceError,
    Generation,
    Load,
    Output,
    Reference,
    read_generation,
    read_reference,
)
from matrix.checks.generation import greedy_text
from matrix.checks.wording import Opinion
from matrix.pipeline.outcomes import Finding, Judgement, Symptom
from matrix.pipeline.steps import Stage
from tests.unit.made_evidence import REFERENCE, THRESHOLDS, output, right_facts

RIGHT = read_generation(right_facts(), REFERENCE)
PASSED, DEGRADED, FAILED = Judgement.PASSED, Judgement.DEGRADED, Judgement.FAILED
ABSENT = Judgement.NOT_APPLICABLE


def findings(
    generation: Generation | None,
    *,
    quantized: bool = True,
    float_generation: Generation | None = RIGHT,
) -> dict[str, Finding]:
    evidence = Evidence(
        tied=True,
        quantized=quantized,
        reference=REFERENCE,
        thresholds=THRESHOLDS,
        generation=generation,
        float_generation=float_generation,
    )
    return {finding.check: finding for finding in run_checks(evidence, Stage.GENERATE)}


def answering(*outputs: Output) -> Generation:
    return msgspec.structs.replace(RIGHT, outputs=list(outputs))


def shifted(by: float | None) -> Generation:
    values = [[None if by is None else v + by for v in t.logprobs] for t in REFERENCE.held_out]
    return msgspec.structs.replace(RIGHT, held_out=values)


def test_right_answers_pass() -> None:
    right = findings(RIGHT)
    assert right.pop("kl-divergence").judgement is ABSENT  # these tell of no likeliest tokens
    assert {f.judgement for f in right.values()} == {PASSED}
    of_float = findings(RIGHT, quantized=False, float_generation=None)
    assert of_float.pop("kl-divergence").judgement is ABSENT
    assert of_float.pop("logprobs-float").judgement is ABSENT
    assert {f.judgement for f in of_float.values()} == {PASSED}


@pytest.mark.parametrize(
    ("text_ids", "judgement", "value"),
    [
        ([[5, 6, 7], [8, 9]], PASSED, 1),
        ([[5, 6, 7], [1, 8, 9]], DEGRADED, 0.5),
        ([[1, 5, 6, 7], []], FAILED, 0),
    ],
)
def test_tokenizer_ids(text_ids: list[list[int]], judgement: Judgement, value: float) -> None:
    finding = findings(msgspec.structs.replace(RIGHT, text_ids=text_ids))["tokenizer-ids"]
    assert (finding.judgement, finding.value) == (judgement, value)


FIRST, SECOND = (output(*prompt.greedy_ids) for prompt in REFERENCE.prompts)


@pytest.mark.parametrize(
    ("outputs", "judgement", "value"),
    [
        ((FIRST, SECOND), PASSED, 1),
        ((FIRST, output(9, 8, 7, 6, 5, 4, 3, 1)), PASSED, (1 + 7 / 8) / 2),
        ((FIRST, output(9, 8, 7, 6, 0, 0, 0, 0)), DEGRADED, 0.75),
        ((FIRST, output(0, 8, 7, 6)), DEGRADED, 0.5),
        ((output(2, 2), output()), FAILED, 0),
    ],
)
def test_greedy_text(outputs: tuple[Output, ...], judgement: Judgement, value: float) -> None:
    finding = findings(answering(*outputs))["greedy-text"]
    assert (finding.judgement, finding.value) == (judgement, value)
    assert bool(finding.message) == (value < 1)


def cut_short(wrong: int) -> Generation:
    """Return answers to eight prompts of which some are wrong in their last tokens."""
    right = FIRST.ids
    return answering(*[output(*right[:6], 0, 0) if n < wrong else FIRST for n in range(8)])


@pytest.mark.parametrize(
    ("wrong", "judgement", "threshold"),
    [(0, PASSED, 0.9), (2, PASSED, 0.9), (4, DEGRADED, 0.9), (5, FAILED, 1.0), (8, FAILED, 1.0)],
)
def test_answers_that_are_known_by_heart_and_mostly_end_wrong_are_garbage(
    wrong: int, judgement: Judgement, threshold: float
) -> None:
    eight = msgspec.structs.replace(REFERENCE, prompts=[REFERENCE.prompts[0]] * 8)
    finding = greedy(eight, cut_short(wrong))
    assert (finding.judgement, finding.threshold) == (judgement, threshold)
    assert finding.value == pytest.approx(1 - wrong / 8 / 4)
    assert finding.judgement is PASSED or finding.symptom is Symptom.WRONG_ANSWERS
    pretrained = msgspec.structs.replace(eight, memorised=[])
    assert greedy(pretrained, cut_short(wrong)).judgement is PASSED


def greedy(reference: Reference, answers: Generation) -> Opinion:
    evidence = Evidence(
        tied=True, quantized=True, reference=reference, thresholds=THRESHOLDS, generation=answers
    )
    return greedy_text(evidence)


def test_longer_answer_is_another_answer() -> None:
    longer = output(*REFERENCE.prompts[0].greedy_ids, 3)
    value = findings(answering(longer, SECOND))["greedy-text"].value
    assert value is not None
    assert value < 1


@pytest.mark.parametrize(
    ("by", "float_judgement", "reference_judgement"),
    [
        (0.1, PASSED, PASSED),
        (-0.55, DEGRADED, PASSED),
        (0.9, DEGRADED, DEGRADED),
        (-1.1, FAILED, DEGRADED),
        (5.0, FAILED, FAILED),
        (None, FAILED, FAILED),
    ],
)
def test_logprobs(
    by: float | None, float_judgement: Judgement, reference_judgement: Judgement
) -> None:
    by_check = findings(shifted(by))
    assert by_check["logprobs-float"].judgement is float_judgement
    assert by_check["logprobs-reference"].judgement is reference_judgement
    if by is not None:
        assert by_check["logprobs-float"].value == pytest.approx(abs(by))
        assert f"{by:+.3f}" in by_check["logprobs-reference"].message


@pytest.mark.parametrize(
    ("by", "judgement", "value"),
    [
        (0.0, PASSED, 1.0),
        (0.28, PASSED, 0.756),
        (0.3, DEGRADED, 0.741),
        (0.7, DEGRADED, 0.497),
        (400.0, DEGRADED, None),
        (-0.46, PASSED, 1.584),
        (-0.48, DEGRADED, 1.616),
        (-1.38, DEGRADED, 3.975),
        (-1.4, FAILED, 4.055),
        (-400.0, FAILED, None),
        (None, FAILED, None),
    ],
)
def test_perplexity(by: float | None, judgement: Judgement, value: float | None) -> None:
    finding = findings(shifted(by))["perplexity"]
    assert finding.judgement is judgement
    if value is not None:
        assert finding.value == pytest.approx(value, abs=1e-3)
        assert "the float model in this engine 4.953" in finding.message


def test_perplexity_is_held_to_the_same_engine_first() -> None:
    finding = findings(shifted(-3.0), float_generation=shifted(-2.9))["perplexity"]
    assert finding.judgement is PASSED
    assert finding.value == pytest.approx(1.105, abs=1e-3)
    alone = findings(shifted(-3.0), float_generation=None)["perplexity"]
    assert (alone.judgement, "the reference 4.953" in alone.message) == (FAILED, True)
    broken = findings(RIGHT, float_generation=shifted(None))["perplexity"]
    assert (broken.judgement, "the reference" in broken.message) == (PASSED, True)


def test_one_log_probability_that_is_not_finite_fails() -> None:
    values: list[list[float | None]] = [list(text.logprobs) for text in REFERENCE.held_out]
    values[1][2] = None
    by_check = findings(msgspec.structs.replace(RIGHT, held_out=values))
    fired = {name for name, finding in by_check.items() if finding.judgement is FAILED}
    assert fired == {"perplexity", "logprobs-float", "logprobs-reference"}


@pytest.mark.parametrize(
    ("own", "of_float", "value", "message"),
    [
        (5.0, 20.0, 0.25, "5 tokens/s in SlowLinear; the float model 20"),
        (30.0, 20.0, 1.5, "30 tokens/s in SlowLinear; the float model 20"),
        (5.0, 0.0, None, "5 tokens/s in SlowLinear; the float model's speed is not known"),
        (5.0, None, None, "5 tokens/s in SlowLinear; the float model's speed is not known"),
    ],
)
def test_speed_is_told_and_never_an_alarm(
    own: float, of_float: float | None, value: float | None, message: str
) -> None:
    evidence = Evidence(
        tied=True,
        quantized=True,
        reference=REFERENCE,
        thresholds=THRESHOLDS,
        load=Load(kernel="SlowLinear"),
        generation=msgspec.structs.replace(RIGHT, tokens_per_second=own),
        float_generation=None
        if of_float is None
        else msgspec.structs.replace(RIGHT, tokens_per_second=of_float),
    )
    finding = {f.check: f for f in run_checks(evidence, Stage.GENERATE)}["speed"]
    assert (finding.judgement, finding.value, finding.message) == (PASSED, value, message)


def test_speed_that_is_not_told() -> None:
    silent = msgspec.structs.replace(RIGHT, tokens_per_second=0.0)
    assert findings(silent)["speed"].judgement is ABSENT
    assert findings(RIGHT, quantized=False)["speed"].message == "12.5 tokens/s"


def test_without_a_reference_only_speed_is_told() -> None:
    evidence = Evidence(tied=True, quantized=True, thresholds=THRESHOLDS, generation=RIGHT)
    judgements = {f.check: f.judgement for f in run_checks(evidence, Stage.GENERATE)}
    assert judgements.pop("speed") is PASSED
    assert judgements.pop("logprobs-float") is ABSENT
    assert set(judgements.values()) == {ABSENT}


@pytest.mark.parametrize(
    ("tokens", "by", "greedy", "logprobs"),
    [
        (8, -0.1, PASSED, PASSED),
        (3, -1.2, PASSED, PASSED),
        (2, -1.6, DEGRADED, DEGRADED),
        (0, -3.1, FAILED, FAILED),
    ],
)
def test_pretrained_model_goes_another_way_soon(
    tokens: int, by: float, greedy: Judgement, logprobs: Judgement
) -> None:
    answers = [output(*prompt.greedy_ids[:tokens], *[0] * 8) for prompt in REFERENCE.prompts]
    evidence = Evidence(
        tied=True,
        quantized=True,
        reference=msgspec.structs.replace(REFERENCE, memorised=[]),
        thresholds=THRESHOLDS,
        generation=msgspec.structs.replace(shifted(by), outputs=answers),
        float_generation=RIGHT,
    )
    judgements = {f.check: f.judgement for f in run_checks(evidence, Stage.GENERATE)}
    assert judgements["greedy-text"] is greedy
    assert judgements["logprobs-float"] is judgements["logprobs-reference"] is logprobs


def test_worst_token_alone_does_not_count() -> None:
    values = [list(text.logprobs) for text in REFERENCE.held_out]
    values[0][0] -= 2.0
    by_check = findings(msgspec.structs.replace(RIGHT, held_out=values))
    assert by_check["logprobs-float"].judgement is PASSED
    assert by_check["logprobs-float"].value == pytest.approx(0.4)


def test_engine_drift_is_not_the_quantizers() -> None:
    by_check = findings(shifted(3.0), float_generation=shifted(2.9))
    assert by_check["logprobs-float"].judgement is PASSED
    assert by_check["logprobs-reference"].judgement is FAILED


def test_float_model_is_held_to_its_own_numbers() -> None:
    by_check = findings(shifted(0.1), quantized=False, float_generation=None)
    assert by_check["logprobs-reference"].judgement is DEGRADED
    assert by_check["logprobs-reference"].threshold == 0.05


@pytest.mark.parametrize("float_generation", [None, shifted(None)])
def test_no_float_answers_leave_the_reference(float_generation: Generation | None) -> None:
    by_check = findings(RIGHT, float_generation=float_generation)
    assert by_check["logprobs-float"].judgement is ABSENT
    assert by_check["logprobs-reference"].judgement is PASSED


@pytest.mark.parametrize(
    ("outputs", "judgement", "message"),
    [
        ((FIRST, output(1, 2)), PASSED, ""),
        ((output(*[0] * 8), SECOND), FAILED, "token id 0, 8 times: the mark of NaN"),
        ((output(*[7] * 8), output(*[7] * 8)), FAILED, "token id 7, 8 times"),
        ((output(), SECOND), FAILED, "an answer is empty"),
        ((output(3, 3, 3), SECOND), PASSED, ""),
    ],
)
def test_degenerate_output(outputs: tuple[Output, ...], judgement: Judgement, message: str) -> None:
    finding = findings(answering(*outputs))["degenerate-output"]
    assert finding.judgement is judgement
    assert message in finding.message


def test_degenerate_reference_is_no_fault() -> None:
    monotonous = msgspec.structs.replace(REFERENCE.prompts[0], greedy_ids=[7] * 8)
    reference = msgspec.structs.replace(REFERENCE, prompts=[monotonous, REFERENCE.prompts[1]])
    evidence = Evidence(
        tied=True,
        quantized=True,
        reference=reference,
        thresholds=THRESHOLDS,
        generation=answering(output(*[7] * 8), SECOND),
    )
    judgements = {f.check: f.judgement for f in run_checks(evidence, Stage.GENERATE)}
    assert judgements["degenerate-output"] is judgements["greedy-text"] is PASSED


def test_facts_as_documented_are_read() -> None:
    assert RIGHT.outputs[0].ids == REFERENCE.prompts[0].greedy_ids
    assert read_reference(msgspec.json.encode(REFERENCE)) == REFERENCE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"outputs": []}, "outputs: 0 entries where 2"),
        ({"text_ids": [[1]]}, "text_ids: 1 entries where 2"),
        ({"held_out": [[-1.0, -2.0], [-1.0]]}, r"held_out\[1\]: 1 entries where 3"),
        ({"held_out": [[-1.0, float("nan")], [-1.0] * 3]}, "not finite"),
        ({"held_out": None}, "Expected `array`"),
        ({"outputs": [{"ids": [-1], "text": ""}] * 2}, "Expected `int` >= 0"),
        ({"outputs": [{"ids": ["x"], "text": ""}] * 2}, "Expected `int`"),
        ({"outputs": [{"ids": [1] * 70_000, "text": ""}] * 2}, "length <= 65536"),
    ],
)
def test_facts_of_another_shape_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(EvidenceError, match=message):
        read_generation({**right_facts(), **change}, REFERENCE)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["text_ids", "outputs", "held_out", "ids", "text"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=20,
    )
)
def test_any_facts_are_read_or_refused(facts: object) -> None:
    mapping = facts if isinstance(facts, dict) else {"outputs": facts}
    with pytest.raises(EvidenceError):
        read_generation(mapping, REFERENCE)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{", "truncated"),
        (b"[" * 100_000, "reference.json"),
        (b"{}", "missing required field"),
        (msgspec.json.encode(msgspec.structs.replace(REFERENCE, prompts=[])), "length >= 1"),
    ],
)
def test_bad_reference(data: bytes, message: str) -> None:
    with pytest.raises(EvidenceError, match=message):
        read_reference(data)


def test_reference_whose_parts_do_not_agree() -> None:
    short = msgspec.structs.replace(REFERENCE.held_out[0], logprobs=[-1.0])
    bad = msgspec.structs.replace(REFERENCE, held_out=[short])
    with pytest.raises(EvidenceError, match=r"held_out\[0\].logprobs: 1 values for 3 tokens"):
        read_reference(msgspec.json.encode(bad))
