"""The searches for a first bad release and for a smallest set of pins, on made-up histories."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, log2
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matrix.search import bisection, pins
from matrix.search.answers import Answer, Ask, WrongEnd, combined
from matrix.search.bisection import Between, FirstBad, Wavering, bisect
from matrix.search.pins import Smallest, shrink

GOOD, BAD, UNTESTABLE, FLAKY = Answer
HISTORIES = 1000


@st.composite
def monotone(draw: st.DrawFn) -> list[Answer]:
    """Return what each release is: good up to one, bad from there on, some of them untestable."""
    count = draw(st.integers(2, 300))
    first_bad = draw(st.integers(1, count - 1))
    share = draw(st.sampled_from([0.0, 0.1, 0.5, 0.95]))
    random = Random(draw(st.integers(0, 10**6)))
    history = [GOOD if place < first_bad else BAD for place in range(count)]
    for place in range(1, count - 1):
        if random.random() < share:
            history[place] = UNTESTABLE
    return history


def search(
    history: list[Answer], room: int = 1
) -> tuple[bisection.End, dict[int, Answer], list[int]]:
    """Return how a search ended, its answers, and what it said was left before each round."""
    answers: dict[int, Answer] = {}
    left = []
    while isinstance(step := bisect(len(history), answers, room), Ask):
        assert 0 < len(step.tries) <= room
        assert not answers.keys() & set(step.tries)
        left.append(step.at_most)
        answers |= {place: history[place] for place in step.tries}
    return step, answers, left


@settings(max_examples=HISTORIES)
@given(monotone(), st.integers(1, 4))
def test_the_first_bad_release_is_named_or_between_which_it_lies(
    history: list[Answer], room: int
) -> None:
    end, answers, _ = search(history, room)
    good = max(place for place, answer in enumerate(history) if answer is GOOD)
    bad = history.index(BAD)
    assert end == (FirstBad(bad) if bad == good + 1 else Between(good, bad))
    assert set(answers.values()) <= {GOOD, BAD, UNTESTABLE}


@settings(max_examples=HISTORIES)
@given(monotone())
def test_a_search_takes_no_more_tries_than_it_says(history: list[Answer]) -> None:
    _, answers, left = search(history)
    untestable = sum(answer is UNTESTABLE for answer in answers.values())
    assert len(answers) <= ceil(log2(len(history))) + 2 + untestable
    for place, at_most in enumerate(left):  # a try each
        assert len(answers) - place <= at_most + untestable


@settings(max_examples=HISTORIES)
@given(st.text("gbu", max_size=60), st.sampled_from("gggggbuf"), st.integers(1, 4))
def test_no_culprit_contradicts_an_answer(between: str, first: str, room: int) -> None:
    """Whatever a release answers: good after bad, in different ways, not at all."""
    history = [{a.value[0]: a for a in Answer}[letter] for letter in f"{first}{between}b"]
    end, answers, _ = search(history, room)
    match end:
        case FirstBad(bad):
            assert (answers[bad - 1], answers[bad]) == (GOOD, BAD)
            assert all(answer is not BAD for place, answer in answers.items() if place < bad)
            assert all(answer is not GOOD for place, answer in answers.items() if place > bad)
            assert FLAKY not in answers.values()
        case Between(good, bad):
            assert (answers[good], answers[bad]) == (GOOD, BAD)
            assert {answers[place] for place in range(good + 1, bad)} == {UNTESTABLE}
        case Wavering(bad, good):
            assert bad < good
            assert (answers[good], answers[bad]) == (GOOD, BAD)
        case WrongEnd(is_good_end, answer):
            assert answers[0 if is_good_end else len(history) - 1] is answer
            assert answer is not (GOOD if is_good_end else BAD)
        case bisection.TooFlaky(place):
            assert answers[place] is FLAKY


@pytest.mark.parametrize(
    ("history", "end"),
    [
        ([GOOD, BAD], FirstBad(1)),
        ([GOOD, UNTESTABLE, UNTESTABLE, BAD], Between(0, 3)),
        ([GOOD, UNTESTABLE, GOOD, BAD], FirstBad(3)),
        ([BAD, BAD], WrongEnd(True, BAD)),
        ([GOOD, GOOD, GOOD], WrongEnd(False, GOOD)),
        ([GOOD, GOOD, UNTESTABLE], WrongEnd(False, UNTESTABLE)),
        ([GOOD, FLAKY, BAD], bisection.TooFlaky(1)),
    ],
)
def test_how_searches_end(history: list[Answer], end: bisection.End) -> None:
    assert search(history)[0] == end


def test_what_is_bad_between_good_ones_is_told() -> None:
    assert search([GOOD, BAD, GOOD, BAD], room=2)[0] == Wavering(1, 2)


@pytest.mark.parametrize(
    ("answers", "repeat", "together"),
    [
        ([], 1, None),
        ([GOOD], 1, GOOD),
        ([GOOD], 2, None),
        ([BAD, BAD], 2, BAD),
        ([BAD, GOOD], 3, FLAKY),
        ([UNTESTABLE, BAD], 2, FLAKY),
    ],
)
def test_answers_to_one_try_are_put_together(
    answers: list[Answer], repeat: int, together: Answer | None
) -> None:
    assert combined(answers, repeat) is together


Judge = Callable[[frozenset[str]], Answer]


def shrunk(
    names: list[str], judge: Judge, room: int = 1
) -> tuple[pins.End, dict[frozenset[str], Answer]]:
    answers: dict[frozenset[str], Answer] = {}
    while isinstance(step := shrink(names, answers, room), Ask):
        assert 0 < len(step.tries) <= room
        assert not answers.keys() & set(step.tries)
        answers |= {tried: judge(tried) for tried in step.tries}
    return step, answers


NAMES = [f"p{number}" for number in range(40)]


@st.composite
def culprits(draw: st.DrawFn) -> tuple[list[str], frozenset[str]]:
    names = NAMES[: draw(st.integers(1, len(NAMES)))]
    random = Random(draw(st.integers(0, 10**6)))
    return names, frozenset(random.sample(names, min(len(names), draw(st.integers(1, 4)))))


@settings(max_examples=HISTORIES)
@given(culprits(), st.integers(1, 4))
def test_the_pins_that_are_bad_only_together_are_named(
    case: tuple[list[str], frozenset[str]], room: int
) -> None:
    names, culprit = case
    end, answers = shrunk(names, lambda tried: BAD if culprit <= tried else GOOD, room)
    assert end == Smallest(culprit, frozenset())
    if room == 1:
        assert len(answers) <= 2 + len(culprit) * (ceil(log2(len(names))) + 2)


@settings(max_examples=HISTORIES)
@given(st.integers(1, 12), st.integers(0, 10**6), st.integers(1, 3))
def test_what_is_named_was_seen_to_be_bad_and_nothing_less_of_it(
    count: int, seed: int, room: int
) -> None:
    """Whatever a set answers: a larger one may be good again, and many cannot be tested."""
    names, random = NAMES[:count], Random(seed)
    kept: dict[frozenset[str], Answer] = {frozenset(): GOOD, frozenset(NAMES[:count]): BAD}

    def judge(tried: frozenset[str]) -> Answer:
        return kept.setdefault(tried, random.choice([GOOD, BAD, UNTESTABLE]))

    end, answers = shrunk(names, judge, room)
    assert isinstance(end, Smallest)
    assert answers[end.pins] is BAD
    fewer = {name: answers[end.pins - {name}] for name in end.pins}
    assert BAD not in fewer.values()
    assert end.untested == {name for name, answer in fewer.items() if answer is UNTESTABLE}


@pytest.mark.parametrize(
    ("none", "every", "end"),
    [
        (BAD, BAD, WrongEnd(True, BAD)),
        (GOOD, GOOD, WrongEnd(False, GOOD)),
        (GOOD, FLAKY, pins.TooFlaky(frozenset("ab"))),
    ],
)
def test_ends_of_pins_are_confirmed_first(none: Answer, every: Answer, end: pins.End) -> None:
    assert shrunk(["a", "b"], lambda tried: every if tried else none) == (
        end,
        {frozenset(): none} if none is BAD else {frozenset(): none, frozenset("ab"): every},
    )
