"""The smallest set of pins that turns a good environment into a bad one. Pure.

Delta debugging along a chain: from the good environment, pins are changed to those of the bad one,
one more with each link. Where the chain first turns bad, the pin of that link is necessary; it is
kept, and the search goes on among the pins before it until those that were kept are bad alone. At
the end each is left out once. What cannot be tested counts as not bad. So what is named was seen to
be bad, and nothing less of it was, whether or not more pins make it worse; and it takes at most
ceil(log2 n) + 2 tries for each pin that is named, and two for the ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matrix.search.answers import Answer, Ask, WrongEnd, most_cuts, spread

Pins = frozenset[str]


class Smallest(NamedTuple):
    """These pins together are bad, and without any of them they are not."""

    pins: Pins
    untested: Pins
    """Those of them without which the rest could not be tested."""


class TooFlaky(NamedTuple):
    """These pins came out in different ways."""

    pins: Pins


End = Smallest | WrongEnd | TooFlaky


def shrink(names: Sequence[str], answers: Mapping[Pins, Answer], room: int = 1) -> Ask[Pins] | End:
    """Return which sets of pins to try next, or how the search ended.

    Args:
        names: The pins that differ; the likeliest to be named come first.
        answers: Set of pins that were changed -> what its try said.
        room: How many are tried at once.
    """
    flaky = [pins for pins, answer in answers.items() if answer is Answer.FLAKY]
    if flaky:
        return TooFlaky(min(flaky, key=sorted))
    none, every = Pins(), Pins(names)
    for end, wanted in ((none, Answer.GOOD), (every, Answer.BAD)):
        if end in answers and answers[end] is not wanted:
            return WrongEnd(end == none, answers[end])
    if missing := [end for end in (none, every) if end not in answers]:
        return Ask(missing[:room], len(missing) + _most(len(names), room))
    kept: Pins = none
    left = list(names)
    while left:
        if kept and (ask := _unanswered([kept], answers, room, _most(len(left), room))):
            return ask
        if kept and answers[kept] is Answer.BAD:
            break
        cut = _turning_point(kept, left, answers, room)
        if isinstance(cut, Ask):
            return cut
        kept, left = kept | {left[cut]}, left[:cut]
    return _left_out(kept, answers, room)


def _most(count: int, room: int) -> int:
    """Return how many tries it takes at most to name one more pin of so many."""
    return most_cuts(count - 1, room) + 2


def _unanswered(
    wanted: Sequence[Pins], answers: Mapping[Pins, Answer], room: int, at_most: int
) -> Ask[Pins] | None:
    missing = [pins for pins in wanted if pins not in answers]
    return Ask(missing[:room], at_most) if missing else None


def _turning_point(
    kept: Pins, left: Sequence[str], answers: Mapping[Pins, Answer], room: int
) -> Ask[Pins] | int:
    """Return the index of the pin with which the chain first turns bad: all together they are."""

    def link(length: int) -> Pins:
        return kept | frozenset(left[:length])

    low, high = 0, len(left)
    while high - low > 1:
        cuts = spread(range(low + 1, high), room)
        at_most = most_cuts(high - low - 1, room) + 2
        if ask := _unanswered([link(cut) for cut in cuts], answers, room, at_most):
            return ask
        bad = [cut for cut in cuts if answers[link(cut)] is Answer.BAD]
        high = min(bad, default=high)
        low = max((cut for cut in cuts if cut < high), default=low)
    return high - 1


def _left_out(kept: Pins, answers: Mapping[Pins, Answer], room: int) -> Ask[Pins] | End:
    """Leave each pin out of those that are bad together; go on with fewer where that is bad too."""
    while len(kept) > 1:
        fewer = [kept - {name} for name in sorted(kept)]
        if ask := _unanswered(fewer, answers, room, len(fewer)):
            return ask
        bad = [pins for pins in fewer if answers[pins] is Answer.BAD]
        if not bad:
            without = {name for name in kept if answers[kept - {name}] is Answer.UNTESTABLE}
            return Smallest(kept, Pins(without))
        kept = bad[0]
    return Smallest(kept, Pins())
