"""The first bad release between a good one and a bad one. Pure.

A function of the answers so far: whoever has the same answers goes on at the same place. With room
for a single try at once, a search among n releases takes at most ceil(log2 n) + 2 tries, both ends
among them, and one more for each release that cannot be tested.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from matrix.search.answers import Answer, Ask, WrongEnd, most_cuts, spread


class FirstBad(NamedTuple):
    """This release is bad, and the one before it is good."""

    position: int


class Between(NamedTuple):
    """One of these releases is the first bad one, and those between them cannot be tested."""

    good: int
    bad: int


class Wavering(NamedTuple):
    """A release is bad and a later one good, so that no single release parts them."""

    bad: int
    good: int


class TooFlaky(NamedTuple):
    """This release came out in different ways."""

    position: int


End = FirstBad | Between | Wavering | WrongEnd | TooFlaky


def bisect(count: int, answers: Mapping[int, Answer], room: int = 1) -> Ask[int] | End:
    """Return which releases to try next, or how the search ended.

    Args:
        count: How many releases there are, at least two: position 0 is the good end.
        answers: Position -> what its try said.
        room: How many are tried at once.
    """
    flaky = [position for position, answer in answers.items() if answer is Answer.FLAKY]
    if flaky:
        return TooFlaky(min(flaky))
    last = count - 1
    for end, wanted in ((0, Answer.GOOD), (last, Answer.BAD)):
        if end in answers and answers[end] is not wanted:
            return WrongEnd(end == 0, answers[end])
    if missing := [end for end in (0, last) if end not in answers]:
        return Ask(missing[:room], len(missing) + most_cuts(last - 1, room))
    good = max(position for position, answer in answers.items() if answer is Answer.GOOD)
    bad = min(position for position, answer in answers.items() if answer is Answer.BAD)
    if bad < good:
        return Wavering(bad, good)
    if untried := [position for position in range(good + 1, bad) if position not in answers]:
        return Ask(spread(untried, room), most_cuts(len(untried), room))
    return FirstBad(bad) if bad == good + 1 else Between(good, bad)
