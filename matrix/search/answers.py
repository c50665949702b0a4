"""What a try can answer, and what every search says next. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Answer(StrEnum):
    """What a try says of the question."""

    GOOD = "good"
    BAD = "bad"
    UNTESTABLE = "untestable"
    """Neither: it does not build, say, or fails in another way than is asked about."""
    FLAKY = "flaky"
    """It came out in different ways."""


class Ask(NamedTuple, Generic[T]):
    """The search wants answers to these tries."""

    tries: list[T]
    at_most: int
    """How many tries are left, these among them; one more for each that cannot be tested."""


class WrongEnd(NamedTuple):
    """An end is not what it must be, so that there is nothing to search between them."""

    is_good_end: bool
    answer: Answer


def combined(answers: Sequence[Answer], repeat: int) -> Answer | None:
    """Return what the answers to one try say together; ``None`` while more are wanted."""
    if len(set(answers)) > 1:
        return Answer.FLAKY
    return answers[0] if len(answers) >= repeat else None


def spread(candidates: Sequence[T], room: int) -> list[T]:
    """Return so many candidates that cut all into parts of about the same size."""
    parts = min(room, len(candidates)) + 1
    return [candidates[cut * (len(candidates) + 1) // parts - 1] for cut in range(1, parts)]


def most_cuts(candidates: int, room: int) -> int:
    """Return how many tries it takes at most to cut candidates down to none, ``room`` at once."""
    tries = 0
    while candidates:
        now = min(room, candidates)
        tries += now
        candidates = -(-(candidates - now) // (now + 1))
    return tries
