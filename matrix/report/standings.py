"""How environments stand, as a reader sees it: one row each, grouped by release, and an overview.

Pure functions of a ``MatrixResult``, like those of :mod:`matrix.report.table`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from matrix.judge.results import (
    NOT_RUN,
    EnvironmentResult,
    MatrixResult,
    RunVerdict,
    Standing,
)
from matrix.judge.standings import MOVED
from matrix.report.table import SYMBOLS
from matrix.spec.tables import Resolution
from matrix.untrusted.text import natural

RESOLUTIONS: dict[Resolution, str] = {
    "released": "as released",
    "today": "as of today",
    "pinned": "pinned",
}
"""In the order of the columns: with what there was then, with what there is now, with our pins."""
REFUSED, RESOLVES, NOT_ASKED, ABSENT = "refused", "resolves", "not asked", "none"
STATES = {**{verdict.value: symbol for verdict, symbol in SYMBOLS.items()},
          REFUSED: "⊗", RESOLVES: "◇", NOT_ASKED: "·", ABSENT: "–"}  # fmt: skip
"""What one resolution came to -> its symbol."""
STATE_MEANINGS = {
    REFUSED: "the resolver finds no set of packages",
    RESOLVES: "a set of packages is found; it was not run",
    NOT_ASKED: "the resolver was not asked",
    ABSENT: "it has no pins, or names no release whose date is known",
}
FORBIDDEN = "−"
"""The mark of an environment that metadata forbids."""
BY_ITSELF = ""
"""The column of environments that name no transformers."""
PARTNER = "transformers"
"""The axis whose values are the columns of the overview."""


class Row(NamedTuple):
    """One environment."""

    environment: EnvironmentResult
    label: str
    """What tells it apart in its group."""
    declared: list[tuple[str, str]]
    """Each word that metadata says, and who says it; more than one where our pins change it."""
    at: dict[Resolution, Standing | None]

    @property
    def forbidden(self) -> bool:
        """Whether metadata forbids it."""
        return any(word == "forbidden" for word, _ in self.declared)

    @property
    def telling(self) -> bool:
        """Whether its answers differ in more than in packages that moved on."""
        return any(not line.startswith(MOVED) for line in self.environment.differences)


class Group(NamedTuple):
    """The environments of one release."""

    name: str
    rows: list[Row]

    @property
    def telling(self) -> int:
        """How many of them differ in more than what others brought."""
        return sum(row.telling for row in self.rows)


class Overview(NamedTuple):
    """Releases down, versions of transformers across."""

    columns: list[str]
    resolutions: dict[Resolution, str]
    """Those in which anything was asked."""
    rows: dict[str, dict[str, list[Row]]]
    """Release (with what else tells it apart) -> version -> its environments."""


def groups(result: MatrixResult) -> list[Group]:
    """Return the environments whose standing is known, under the release that names them."""
    rows: dict[str, list[Row]] = {}
    for environment in result.environments:
        if environment.standings:
            group, label = group_and_label(environment.name, environment.axes)
            rows.setdefault(group, []).append(_row(environment, label))
    return [Group(name, rows[name]) for name in sorted(rows, key=natural)]


def group_and_label(name: str, axes: Mapping[str, str]) -> tuple[str, str]:
    """Return the release under which an environment stands, and the rest of its name.

    That is the axis with which its name begins: ``autoawq-0.2.7+transformers-4.47.1`` gives
    ``autoawq-0.2.7`` and ``transformers-4.47.1``. Where it is named otherwise, its name is both.
    """
    for axis, version in axes.items():
        release = f"{axis.replace('_', '-')}-{version}"
        if name.startswith(f"{release}+"):
            return release, name.removeprefix(f"{release}+")
    return name, name


def _row(environment: EnvironmentResult, label: str) -> Row:
    at = {standing.resolution: standing for standing in environment.standings}
    declared_by: dict[str, dict[str, None]] = {}
    for standing in environment.standings:
        # With our pins more is named, of which more is said; told once.
        declared_by.setdefault(standing.declared, {}).update(
            dict.fromkeys(standing.declared_by.split("; "))
        )
    declared = [(word, "; ".join(filter(None, by))) for word, by in declared_by.items()]
    return Row(environment, label, declared, {r: at.get(r) for r in RESOLUTIONS})


def resolutions(listed: list[Group]) -> dict[Resolution, str]:
    """Return the resolutions that any environment has, in the order of the columns."""
    rows = [row for group in listed for row in group.rows]
    return {key: when for key, when in RESOLUTIONS.items() if any(row.at[key] for row in rows)}


def overview(listed: list[Group]) -> Overview:
    """Return the rows of all groups laid out by the transformers beside them."""
    rows: dict[str, dict[str, list[Row]]] = {}
    for row in (row for group in listed for row in group.rows):
        column = row.environment.axes.get(PARTNER, BY_ITSELF)
        key = _without_partner(row.environment.name, column)
        rows.setdefault(key, {}).setdefault(column, []).append(row)
    columns = {column for slots in rows.values() for column in slots}
    shown = {
        resolution: when
        for resolution, when in RESOLUTIONS.items()
        if any(
            state(row.at[resolution]) not in (NOT_ASKED, ABSENT)
            for group in listed
            for row in group.rows
        )
    }
    return Overview(sorted(columns, key=natural), shown, rows)


def _without_partner(name: str, version: str) -> str:
    """Return an environment's name without the partner's version, and without the partner where
    that is not what the environment is named after."""
    if version == BY_ITSELF:
        return name
    rest = name.replace(f"+{PARTNER}-{version}", "", 1)
    return rest if rest != name else name.replace(f"{PARTNER}-{version}", PARTNER, 1)


def state(standing: Standing | None) -> str:
    """Return in a word what an environment came to in one resolution."""
    if standing is None:
        return ABSENT
    if standing.resolves == "not asked":
        return NOT_ASKED
    if standing.resolves == "no":
        return REFUSED
    return RESOLVES if standing.works is NOT_RUN else standing.works


def resolved(row: Row, standing: Standing) -> str:
    """Return what was resolved beyond what is named, in short: ``torch 2.5.1, 64 packages``."""
    named = row.environment.packages
    number = len(standing.packages) + standing.others
    shown = [
        f"{name} {version}"
        for name, version in sorted(standing.packages.items())
        if named.get(name) != version
    ]
    return ", ".join([*shown, f"{number} packages"]) if number else ""


def remarks(standing: Standing) -> list[str]:
    """Return what else is to be said of one resolution, each in a line."""
    lines = []
    if standing.works is not RunVerdict.WORKS and standing.stage:
        lines.append(
            f"{standing.stage}: {standing.message}" if standing.message else standing.stage
        )
    if standing.same_as:
        lines.append(f"same packages as {standing.same_as}")
    return lines
