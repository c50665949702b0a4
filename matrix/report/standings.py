"""How environments stand, as a reader sees it: one row each, grouped by release, and an overview.

Pure functions of a ``MatrixResult``, like those of :mod:`matrix.report.table`.
"""

from __future__ import annotations

from typing import NamedTuple

from matrix.judge.results import (
    NOT_RUN,
    EnvironmentResult,
    MatrixResult,
    RunVerdict,
    Standing,
)
from matrix.judge.standings import MOVED
from matrix.report.table import SYMBOLS, group_and_label
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
    group: str
    """The release that names it."""
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


class Overview(NamedTuple):
    """Releases down, versions of transformers across."""

    columns: list[str]
    resolutions: dict[Resolution, str]
    """Those in which anything was asked."""
    rows: dict[str, dict[str, list[Row]]]
    """Release (with what else tells it apart) -> version -> its environments."""


def rows(result: MatrixResult) -> list[Row]:
    """Return the environments whose standing is known, under the release that names them."""
    stand = (environment for environment in result.environments if environment.standings)
    return sorted(map(_row, stand), key=lambda row: natural(row.group))


def _row(environment: EnvironmentResult) -> Row:
    at = {standing.resolution: standing for standing in environment.standings}
    declared_by: dict[str, dict[str, None]] = {}
    for standing in environment.standings:
        # With our pins more is named, of which more is said; told once.
        declared_by.setdefault(standing.declared, {}).update(
            dict.fromkeys(standing.declared_by.split("; "))
        )
    declared = [(word, "; ".join(filter(None, by))) for word, by in declared_by.items()]
    at_each = {resolution: at.get(resolution) for resolution in RESOLUTIONS}
    return Row(environment, *group_and_label(environment.name, environment.axes), declared, at_each)


def resolutions(listed: list[Row]) -> dict[Resolution, str]:
    """Return the resolutions that any environment has, in the order of the columns."""
    return {key: when for key, when in RESOLUTIONS.items() if any(row.at[key] for row in listed)}


def overview(listed: list[Row]) -> Overview:
    """Return the rows laid out by the transformers beside them."""
    by_name: dict[str, dict[str, list[Row]]] = {}
    for row in listed:
        column = row.environment.axes.get(PARTNER, BY_ITSELF)
        key = _without_partner(row.environment.name, column)
        by_name.setdefault(key, {}).setdefault(column, []).append(row)
    columns = {column for slots in by_name.values() for column in slots}
    asked = {
        resolution: when
        for resolution, when in RESOLUTIONS.items()
        if any(state(row.at[resolution]) not in (NOT_ASKED, ABSENT) for row in listed)
    }
    return Overview(sorted(columns, key=natural), asked, by_name)


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
