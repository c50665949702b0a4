"""A search that runs its tries and says what goes on, and how what it ended with is shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import TypeVar, assert_never

import typer
from packaging.version import Version

from matrix.cli.options import LINE_CHARS
from matrix.run.trying import Trial, Tries
from matrix.search import bisection, pins
from matrix.search.answers import Answer, Ask, WrongEnd
from matrix.search.bisection import Between, FirstBad, Wavering, bisect
from matrix.search.made_up import Pin, moved
from matrix.search.pins import Pins, Smallest, shrink
from matrix.untrusted.text import visible

T = TypeVar("T")
Say = Callable[[str], None]
"""Is given each line that is shown while a search goes on, and at its end."""
SHOWN = 12
"""So many packages are shown that moved with others."""


class Status(IntEnum):
    """How the command ends; a mistake of the user's is 2."""

    NAMED = 0
    NOT_NAMED = 1
    TOO_FLAKY = 3


class Releases:
    """The search along the releases of one package, from the good end's to the bad end's."""

    def __init__(
        self, axis: Pin, versions: list[str], followers: Callable[[Pin], list[Pin]], say: Say
    ) -> None:
        """Take what gives the pins that must follow the axis's."""
        self._axis = axis
        self._say = say
        self._followers = followers
        self._versions = versions
        self._trials: dict[int, Trial] = {}

    def search(self, tries: Tries, jobs: int) -> bisection.End:
        """Return how the search ended, after running its tries."""
        count = len(self._versions)
        ends = f"{self._versions[0]} to {self._versions[-1]}"
        self._say(f"{self._axis.package} of the {self._axis.side}: {count} releases, {ends}")
        while isinstance(step := bisect(count, answers(self._trials), jobs), Ask):
            perform(step, self._pins, self._name, tries, self._trials, self._say)
        return step

    def print_end(self, end: bisection.End) -> Status:
        """Say what the search ended with."""
        match end:
            case FirstBad(bad):
                self._print_first_bad(bad)
                return Status.NAMED
            case Between(good, bad):
                self._say(
                    f"Between {self._name(good)} and {self._versions[bad]}: the releases between"
                )
                self._say("them cannot be tested, so none can be named")
            case Wavering(bad, good):
                self._say(
                    f"None can be named: {self._name(bad)} is bad, {self._versions[good]} is good"
                )
                self._say("again. Take that one for GOOD, or the first for BAD")
            case WrongEnd(is_good_end, answer):
                place = 0 if is_good_end else len(self._versions) - 1
                self._say(f"None can be named: {self._name(place)} alone is {answer}")
            case bisection.TooFlaky(place):
                self._say(f"Too flaky: {self._name(place)} comes out in different ways")
                return Status.TOO_FLAKY
            case _:
                assert_never(end)
        return Status.NOT_NAMED

    def _print_first_bad(self, bad: int) -> None:
        before, after = self._trials[bad - 1], self._trials[bad]
        last = self._trials[len(self._versions) - 1]
        good_version, bad_version = self._versions[bad - 1], self._versions[bad]
        which = "First" if Version(good_version) < Version(bad_version) else "Last"
        self._say(f"{which} bad release: {self._name(bad)}; {good_version} is good")
        self._say(f"  {after.message}")
        if last.message != after.message:
            self._say(f"  {self._versions[-1]} fails in another way: {last.message}")
        print_moved(before, after, [self._axis], self._say)

    def culprits(self, end: bisection.End) -> list[Pin]:
        """Return the first bad release as a pin, with that which is good before it."""
        if not isinstance(end, FirstBad):
            return []
        before, version = self._versions[end.position - 1], self._versions[end.position]
        return [self._axis._replace(before=before, version=version)]

    def _pins(self, place: int) -> list[Pin]:
        pin = self._axis._replace(version=self._versions[place])
        return [pin, *self._followers(pin)] if place else []

    def _name(self, place: int) -> str:
        return f"{self._axis.package} {self._versions[place]}"


class PinSets:
    """The search among all pins that differ."""

    def __init__(self, differ: list[Pin], say: Say) -> None:
        both = len({pin.side for pin in differ}) > 1
        self._differ = {f"{p.package} ({p.side})" if both else p.package: p for p in differ}
        self._trials: dict[Pins, Trial] = {}
        self._say = say

    def search(self, tries: Tries, jobs: int) -> pins.End:
        """Return how the search ended, after running its tries."""
        names = list(self._differ)
        self._say(f"{len(names)} pins differ: {', '.join(names)}")
        while isinstance(step := shrink(names, answers(self._trials), jobs), Ask):
            perform(step, self._pins, self._name, tries, self._trials, self._say)
        return step

    def print_end(self, end: pins.End) -> Status:
        """Say what the search ended with."""
        match end:
            case Smallest(culprits, untested):
                count = "one pin" if len(culprits) == 1 else f"{len(culprits)} pins together"
                self._say(f"To blame: {count}: {self._listed(culprits)}")
                self._say(f"  {self._trials[culprits].message}")
                for fewer in (culprits - {name} for name in sorted(untested)):
                    why = self._trials[fewer].message
                    self._say(f"  {self._listed(fewer)} alone cannot be tested: {why}")
                print_moved(
                    self._trials[Pins()], self._trials[culprits], self._pins(culprits), self._say
                )
                return Status.NAMED
            case WrongEnd(is_good_end, answer):
                what = "nothing" if is_good_end else "all that differs"
                self._say(
                    f"None can be named: with {what} changed in the good environment it is {answer}"
                )
                return Status.NOT_NAMED
            case pins.TooFlaky(culprits):
                self._say(f"Too flaky: {self._listed(culprits)} comes out in different ways")
                return Status.TOO_FLAKY
            case _:
                assert_never(end)

    def culprits(self, end: pins.End) -> list[Pin]:
        """Return the pins that are to blame together."""
        return self._pins(end.pins) if isinstance(end, Smallest) else []

    def _pins(self, names: Pins) -> list[Pin]:
        return [pin for name, pin in self._differ.items() if name in names]

    def _name(self, names: Pins) -> str:
        return "all of them" if len(names) == len(self._differ) > 1 else self._listed(names)

    def _listed(self, names: Pins) -> str:
        versions = {name: pin.version or "left out" for name, pin in self._differ.items()}
        texts = [f"{name} {version}" for name, version in versions.items() if name in names]
        return ", ".join(texts) or "the good environment"


def answers(trials: Mapping[T, Trial]) -> dict[T, Answer]:
    """Return the answers of trials."""
    return {tried: trial.answer for tried, trial in trials.items()}


def perform(
    ask: Ask[T],
    pins_of: Callable[[T], list[Pin]],
    name_of: Callable[[T], str],
    tries: Tries,
    trials: dict[T, Trial],
    say: Say,
) -> None:
    """Run the tries of one round into ``trials``; say how many are left, and what they came to."""
    left = "1 try is left" if ask.at_most == 1 else f"at most {ask.at_most} tries are left"
    say(f"{left}: {'; '.join(map(name_of, ask.tries))}")
    done = tries.of_all([pins_of(tried) for tried in ask.tries])
    for tried, trial in zip(ask.tries, done, strict=True):
        trials[tried] = trial
        say(f"  {trial.answer}: {trial.message}")


def print_moved(before: Trial, after: Trial, culprits: list[Pin], say: Say) -> None:
    """Say which packages had to move with those that were changed."""
    for side in after.pins:
        without = [pin.package for pin in culprits if pin.side == side]
        changes = moved(before.pins.get(side, {}), after.pins[side], without)
        texts = [
            f"{name} {old or 'none'} -> {new or 'none'}" for name, (old, new) in changes.items()
        ]
        if texts:
            more = f", and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
            say(f"  moved with it in the {side}: {', '.join(texts[:SHOWN])}{more}")


def echo(line: str) -> None:
    """Print a line that may quote a package."""
    typer.echo(visible(line, LINE_CHARS))
