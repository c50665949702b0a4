"""Which releases can share an environment, as a reader sees it. Pure functions of answers."""

from __future__ import annotations

from typing import Literal, NamedTuple

from matrix.spec.pairs import Pair, Pairs
from matrix.untrusted.text import natural

FILE = "pairs.html"
"""The page of all of them, beside the report's."""
State = Literal["resolves", "refused", "not asked"]


class Row(NamedTuple):
    """One release."""

    package: str
    release: str
    beside: dict[str, Pair | None]
    """Every package in the order of the spec -> the answer; ``None`` for itself, and where uv gave
    none."""


class Table(NamedTuple):
    """All releases, and the newest of each package beside each other."""

    newest: list[Row]
    rows: dict[str, list[Row]]
    """Package -> its releases, the newest first."""


def table(pairs: Pairs) -> Table:
    """Return what the page shows of answers."""
    answers: dict[tuple[str, str], dict[str, Pair]] = {}
    for pair in pairs.pairs:
        answers.setdefault((pair.package, pair.release), {})[pair.partner] = pair
    rows: dict[str, list[Row]] = {package: [] for package in pairs.since}
    for package, release in sorted(answers, key=lambda key: natural(key[1]), reverse=True):
        beside = answers[package, release]
        row = Row(package, release, {partner: beside.get(partner) for partner in pairs.since})
        rows.setdefault(package, []).append(row)
    return Table([of[0] for of in rows.values() if of], {p: of for p, of in rows.items() if of})


def state(pair: Pair | None) -> State:
    """Return in a word what became of a pair."""
    if pair is None:
        return "not asked"
    return "refused" if pair.refusal else "resolves"
