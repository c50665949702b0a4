"""Which side of a cell is to blame: beside a good quantizer's and a good engine's. Pure."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from enum import StrEnum
from itertools import product
from typing import NamedTuple, assert_never

from matrix.pipeline.outcomes import Verdict
from matrix.plan.cells import Cell, Role
from matrix.search.answers import Answer


class Square(NamedTuple):
    """Four cells of one model and scheme, or what they are."""

    this: Cell
    other_engine: Cell
    """This quantizer in a good engine."""
    other_quantizer: Cell
    """A good quantizer in this engine."""
    good: Cell
    """The good ones together."""


class Culprit(StrEnum):
    """What is to blame, in words."""

    NOTHING = "nothing: it works"
    QUANTIZER = "the quantizer environment"
    ENGINE = "the engine environment"
    PAIR = "the pair: each works with another, and not together"
    BOTH = "both environments: neither works with a good one"
    MODEL = "the model or the machine: all four fail"
    UNCLEAR = "cannot be told"


def answer_of(verdict: Verdict) -> Answer:
    """Return whether a cell of such a verdict can be used; untestable where nobody knows."""
    match verdict:
        case Verdict.WORKS | Verdict.DEGRADED:
            return Answer.GOOD
        case Verdict.GARBAGE | Verdict.BROKEN | Verdict.UNSUPPORTED:
            return Answer.BAD
        case Verdict.UNTESTED | Verdict.INFRA | Verdict.NOT_RUN:
            return Answer.UNTESTABLE
        case _:
            assert_never(verdict)


def culprit(
    this: Verdict, other_engine: Verdict, other_quantizer: Verdict, good: Verdict
) -> Culprit:
    """Return what the verdicts of a square blame."""
    answers = [answer_of(verdict) for verdict in (this, other_engine, other_quantizer, good)]
    works, works_elsewhere, others_work, good_works = (a is Answer.GOOD for a in answers)
    if Answer.UNTESTABLE in answers:
        return Culprit.UNCLEAR
    if works:
        return Culprit.NOTHING
    if not good_works:
        return Culprit.UNCLEAR if works_elsewhere or others_work else Culprit.MODEL
    match works_elsewhere, others_work:
        case True, True:
            return Culprit.PAIR
        case True, False:
            return Culprit.ENGINE
        case False, True:
            return Culprit.QUANTIZER
        case _:
            return Culprit.BOTH


def square_of(
    cell: Cell,
    cells: Iterable[Cell],
    works: Callable[[Cell], bool],
    releases: Mapping[str, Mapping[str, str]],
) -> Square | None:
    """Return the square of a cell with the nearest partners that work; ``None`` without any.

    A quantizer is good where its checkpoint of this model and scheme works in some engine, an
    engine where some quantizer's works in it. Those that work together come first, then other
    versions of the same package. Of these, the ones that work with the cell's other side come
    first: an engine in which any quantizer's works is not to blame alone.

    Args:
        cell: Of a quantizer, not of the float model.
        cells: Those of the plan.
        works: Whether a cell works by the evidence there is.
        releases: Environment -> the releases it names, package by package, its own first.
    """
    same = {_sides(other): other for other in cells if other.runs and _same(other, cell)}
    working = {sides for sides, other in same.items() if works(other)}
    ours, theirs = _sides(cell)
    quantizers = _nearest(
        cell.checkpoint.quantizer,
        {maker: other.checkpoint.quantizer for (maker, _), other in same.items()},
        {maker for maker, _ in working},
        {maker for maker, reader in working if reader == theirs},
        releases,
    )
    engines = _nearest(
        cell.engine,
        {reader: other.engine for (_, reader), other in same.items()},
        {reader for _, reader in working},
        {reader for maker, reader in working if maker == ours},
        releases,
    )
    pairs = [
        pair
        for pair in product(quantizers, engines)
        if {pair, (ours, pair[1]), (pair[0], theirs)} <= same.keys()
    ]
    if not pairs:
        return None
    maker, reader = min(pairs, key=lambda pair: pair not in working)
    return Square(cell, same[ours, reader], same[maker, theirs], same[maker, reader])


def _sides(cell: Cell) -> tuple[str, str]:
    return cell.checkpoint.quantizer.name, cell.engine.name


def _same(cell: Cell, other: Cell) -> bool:
    """Whether two cells are of one model and scheme."""
    ours, theirs = cell.checkpoint, other.checkpoint
    return (ours.model.name, ours.scheme_name) == (theirs.model.name, theirs.scheme_name)


def _nearest(
    role: Role,
    others: Mapping[str, Role],
    good: Container[str],
    good_here: Container[str],
    releases: Mapping[str, Mapping[str, str]],
) -> list[str]:
    """Return the names of good roles of other environments, the nearest first.

    ``others`` are in the plan's order; ``good_here`` work with the other side of the cell.
    """
    places = {name: place for place, name in enumerate(others)}
    own = releases[role.environment]

    def rank(name: str) -> tuple[bool, bool, int, int]:
        theirs = releases[others[name].environment]
        is_other = next(iter(own), "") != next(iter(theirs), "")
        differ = sum(own.get(package) != theirs.get(package) for package in {*own, *theirs})
        return is_other, name not in good_here, differ, abs(places[name] - places[role.name])

    elsewhere = (name for name, other in others.items() if other.environment != role.environment)
    return sorted((name for name in elsewhere if name in good), key=rank)
