"""What a cell answers to a search's question, by its verdict and where it ended."""

from __future__ import annotations

import pytest

from matrix.judge.results import CellResult, Side
from matrix.pipeline.outcomes import Reason, Verdict
from matrix.pipeline.steps import Blame, Stage
from matrix.search.answers import Answer
from matrix.search.question import MESSAGE_CHARS, Question, in_words, question_of

WORKS, DEGRADED, GARBAGE, BROKEN, UNSUPPORTED, UNTESTED, INFRA, NOT_RUN = Verdict


def result(
    verdict: Verdict,
    stage: Stage | None = None,
    reason: Reason = Reason.EXCEPTION,
    message: str = "",
) -> CellResult:
    side = Side("s", "s")
    return CellResult(
        id="m/s/q/e", model="m", scheme="s", quantizer=side, engine=side, verdict=verdict,
        blame=Blame.NOBODY, stage=stage, reason=reason, message=message, stages=[], findings=[],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("good", "bad", "chosen", "question"),
    [
        (WORKS, BROKEN, [], ({WORKS, DEGRADED}, {BROKEN})),
        (WORKS, DEGRADED, [], ({WORKS}, {DEGRADED})),
        (GARBAGE, BROKEN, [], ({GARBAGE}, {BROKEN})),
        (DEGRADED, BROKEN, [GARBAGE, BROKEN], ({WORKS, DEGRADED}, {GARBAGE, BROKEN})),
        (WORKS, WORKS, [], ({DEGRADED}, {WORKS})),  # so that the good end is none
    ],
)
def test_bad_is_what_the_bad_end_is_or_what_was_chosen(
    good: Verdict,
    bad: Verdict,
    chosen: list[Verdict],
    question: tuple[set[Verdict], set[Verdict]],  # good, bad
) -> None:
    made = question_of(good, bad, frozenset(chosen))
    assert (set(made.good), set(made.bad)) == question


@pytest.mark.parametrize(
    ("verdict", "answer"),
    [
        (WORKS, Answer.GOOD),
        (DEGRADED, Answer.GOOD),
        (GARBAGE, Answer.BAD),
        (BROKEN, Answer.UNTESTABLE),
        (UNSUPPORTED, Answer.UNTESTABLE),
        (UNTESTED, Answer.UNTESTABLE),
        (INFRA, None),
    ],
)
def test_a_verdict_that_was_not_asked_about_says_nothing(
    verdict: Verdict, answer: Answer | None
) -> None:
    question = question_of(WORKS, GARBAGE, frozenset())
    assert question.answer(result(verdict, Stage.LOAD)) is answer


@pytest.mark.parametrize(
    ("stage", "reason", "answer"),
    [
        (Stage.QUANTIZER_RESOLVE, Reason.UNRESOLVABLE, Answer.UNTESTABLE),
        (Stage.ENGINE_INSTALL, Reason.BUILD_FAILED, Answer.UNTESTABLE),
        (Stage.LOAD, Reason.NOT_BUILT, Answer.UNTESTABLE),
        (Stage.QUANTIZER_IMPORT, Reason.EXCEPTION, Answer.BAD),
        (Stage.QUANTIZE, Reason.EXCEPTION, Answer.BAD),
    ],
)
def test_what_does_not_build_is_not_broken(stage: Stage, reason: Reason, answer: Answer) -> None:
    question = Question(frozenset({WORKS}), frozenset({BROKEN}))
    assert question.answer(result(BROKEN, stage, reason)) is answer


def test_a_try_is_told_in_a_line() -> None:
    assert in_words(result(WORKS)) == "works"
    assert in_words(result(BROKEN, Stage.LOAD, message="a\nb")) == "broken: load: a b"
    assert in_words(result(INFRA, None, message="x" * 900)) == f"infra: {'x' * MESSAGE_CHARS}…"
