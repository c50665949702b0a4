"""What a new cell is compared with: the same one with the release before. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from matrix.history.inputs import Side, versions_of
from matrix.history.states import CellState, Snapshot
from matrix.pipeline.outcomes import NO_ANSWER, Verdict
from matrix.spec.versions import parsed
from matrix.untrusted.text import visible

_TEXT_CHARS = 200
_NAMED = 5
"""How many packages of an environment its name may tell: those that the spec names stand first."""


class _Place(NamedTuple):
    """Where a cell stands but for the release of one side."""

    side: Side
    rest: tuple[str, ...]
    package: str
    """Whose release is meant, of those that the side's name tells."""


class Releases:
    """The cells of two snapshots, by what they have in common but for a release."""

    def __init__(self, old: Snapshot, new: Snapshot) -> None:
        self._old = _environments(old)
        self._new = _environments(new)
        self._releases: dict[_Place, dict[str, CellState]] = {}
        for cell in [*old.cells.values(), *new.cells.values()]:
            for place, version in _places(cell):
                self._releases.setdefault(place, {})[version] = cell

    def new(self, cell: CellState) -> tuple[list[str], Verdict | None]:
        """Return what is new of a cell, and what it is with the release before."""
        lines: dict[Side, list[str]] = {side: [] for side, _ in _missing(cell, self._old)}
        before = None
        for place, version in _places(cell):
            earlier = _release_before(version, self._releases[place])
            if place.side in lines and earlier:
                answer = self._releases[place][earlier].verdict
                before = before or (None if answer in NO_ANSWER else answer)
                lines[place.side].append(f"{place.side}: {place.package} {earlier} -> {version}")
        for side, name in _missing(cell, self._old):
            lines[side] = lines[side] or [f"{side}: {name} is new"]
        return [visible(line, _TEXT_CHARS) for own in lines.values() for line in own], before

    def gone(self, cell: CellState) -> list[str]:
        """Return which environments of a cell are in the newer run no more."""
        lines = (f"{side}: {name} is gone" for side, name in _missing(cell, self._new))
        return [visible(line, _TEXT_CHARS) for line in lines]


def _missing(cell: CellState, environments: set[str]) -> Iterator[tuple[Side, str]]:
    """Yield the sides of a cell whose environments are none of some, with their names."""
    sides: tuple[tuple[Side, str], ...] = (
        ("quantizer", cell.quantizer_environment), ("engine", cell.engine_environment),
    )  # fmt: skip
    yield from ((side, name) for side, name in sides if name and name not in environments)


def _environments(snapshot: Snapshot) -> set[str]:
    cells = snapshot.cells.values()
    return {name for c in cells for name in (c.quantizer_environment, c.engine_environment)}


def _places(cell: CellState) -> list[tuple[_Place, str]]:
    """Return where a cell stands, by each of its sides, and the release that it has there."""
    checkpoint, _, engine = cell.id.rpartition("/")
    model_and_scheme, _, quantizer = checkpoint.rpartition("/")
    places = []
    sides: list[tuple[Side, str, tuple[str, ...]]] = [
        ("quantizer", quantizer, (model_and_scheme, engine)), ("engine", engine, (checkpoint,)),
    ]  # fmt: skip
    for side, name, rest in sides:
        packages = versions_of(cell.quantizer_packages if side == "quantizer" else
                               cell.engine_packages)  # fmt: skip
        for package, version in islice(packages.items(), _NAMED):
            if version not in name:
                continue
            pattern = rf"(?<![0-9.]){re.escape(version)}(?![0-9.])"
            masked, times = re.subn(pattern, "*", name, count=1)
            if times:
                places.append((_Place(side, (*rest, masked), package), version))
    return places


def _release_before(version: str, others: dict[str, CellState]) -> str:
    """Return the newest release that is older; empty where there is none.

    What is no version is passed over.
    """
    release = parsed(version)
    versions = {other: before for other in others if (before := parsed(other))}
    older = [other for other, before in versions.items() if release and before < release]
    return max(older, key=versions.__getitem__, default="")
