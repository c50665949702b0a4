"""How long formats last, as a reader sees it: a row each. Pure functions of lifetimes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from matrix.judge.lifetimes import Lifetime, end_in_words


class Row(NamedTuple):
    """One format."""

    method: str
    of: dict[str, Lifetime]
    """By engine, only those that list it; a build for CPUs stands for an engine that has no other,
    and its proof for both."""

    @property
    def ends(self) -> list[Lifetime]:
        """Return those that are gone or will go."""
        return [life for life in self.of.values() if end_in_words(life)]


class Table(NamedTuple):
    """The formats, those most read first."""

    engines: list[str]
    rows: list[Row]
    """Those that several engines list, or that are gone or will go."""
    alone: list[Row]
    """The others."""


def table(lifetimes: Iterable[Lifetime]) -> Table:
    """Return what the page shows of lifetimes, of which a build for CPUs comes after the other."""
    by_method: dict[str, dict[str, Lifetime]] = {}
    for life in lifetimes:
        of, engine = by_method.setdefault(life.method, {}), life.package.removesuffix("-cpu")
        other = of.setdefault(engine, life)
        of[engine] = msgspec.structs.replace(other, proof=other.proof or life.proof)
    every = [Row(method, of) for method, of in by_method.items()]
    alone = [row for row in every if len(row.of) == 1 and not row.ends]
    engines = sorted({engine for row in every for engine in row.of})
    return Table(engines, [row for row in every if row not in alone], alone)
