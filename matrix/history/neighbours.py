"""What a new cell is compared with: the same one with the release before. Pure."""

from __future__ import annotations

from typing import NamedTuple

from packaging.version import InvalidVersion, Version

from matrix.history.inputs import Side, versions_of
from matrix.history.states import CellState, Snapshot
from matrix.pipeline.outcomes import NO_ANSWER, Verdict
from matrix.untrusted.text import visible

_TEXT_CHARS = 200


class _Place(NamedTuple):
    """Where a cell stands but for the release of one side."""

    side: Side
    rest: tuple[str, ...]
    package: str
    """What that environment is named for: the first package that the spec names."""


class Neighbours:
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
        lines, before = [], None
        for place, version in _places(cell):
            environment = getattr(cell, f"{place.side}_environment")
            if environment in self._old:
                continue
            earlier = _release_before(version, self._releases[place])
            if earlier:
                answer = self._releases[place][earlier].verdict
                before = before or (None if answer in NO_ANSWER else answer)
                line = f"{place.side}: {place.package} {earlier} -> {version}"
            else:
                line = f"{place.side}: {environment} is new"
            lines.append(visible(line, _TEXT_CHARS))
        return lines, before

    def gone(self, cell: CellState) -> list[str]:
        """Return which environments of a cell are in the newer run no more."""
        return [
            visible(f"{place.side}: {environment} is gone", _TEXT_CHARS)
            for place, _ in _places(cell)
            if (environment := getattr(cell, f"{place.side}_environment")) not in self._new
        ]


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
        package, version = next(
            iter(versions_of(getattr(cell, f"{side}_packages")).items()), ("", "")
        )
        if package and version and name != "none":
            places.append((_Place(side, (*rest, name.replace(version, "")), package), version))
    return places


def _release_before(version: str, others: dict[str, CellState]) -> str:
    """Return the newest release that is older; empty where there is none."""
    try:
        older = [other for other in others if Version(other) < Version(version)]
        return max(older, key=Version, default="")
    except InvalidVersion:
        return ""
