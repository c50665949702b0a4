"""The two ends of a search, as a user names them: two cells, or two locks and a cell."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from matrix.cli.blame import cell_of
from matrix.cli.options import fail
from matrix.environments.locks import Lock
from matrix.plan.cells import Cell
from matrix.run.context import Context
from matrix.search.made_up import SIDES, Side, locked_to, role_of, with_environments
from matrix.spec.requirements import named_releases
from matrix.spec.tables import Environment
from matrix.untrusted.reading import UnreadableError, read_file

LOCK_BYTES = 1_000_000
_OF_ROLES = ("adapter", "options", "environ", "departures")
_OF_ENVIRONMENTS = ("python", "device", "environ")


class SearchEnds(NamedTuple):
    """Two cells of one model and scheme, with the environments of their sides."""

    good: Cell
    bad: Cell
    sides: dict[Side, tuple[Environment, Environment]]


def ends_of(context: Context, good: str, bad: str, cell: str | None) -> SearchEnds:
    """Return what a user names as good and bad; end where that cannot be compared."""
    if cell is not None:
        return _of_locks(context, Path(good), Path(bad), cell_of(context, cell))
    cells = cell_of(context, good), cell_of(context, bad)
    models = {(end.checkpoint.model.name, end.checkpoint.scheme_name) for end in cells}
    if len(models) > 1:
        fail("GOOD and BAD are of different models or schemes. Name two of one model and scheme")
    environments = context.plan.environments
    sides: dict[Side, tuple[Environment, Environment]] = {}
    for side in SIDES:
        roles = role_of(cells[0], side), role_of(cells[1], side)
        ours, theirs = environments[roles[0].environment], environments[roles[1].environment]
        differ = [name for name in _OF_ROLES if getattr(roles[0], name) != getattr(roles[1], name)]
        differ += [
            name for name in _OF_ENVIRONMENTS if getattr(ours, name) != getattr(theirs, name)
        ]
        if differ:
            what = ", ".join(dict.fromkeys(differ))
            fail(
                f"as {side}s, {roles[0].name} and {roles[1].name} differ in more than packages "
                f"({what}). Name two cells that have these in common"
            )
        sides[side] = ours, theirs
    if all(ours.name == theirs.name for ours, theirs in sides.values()):
        fail("GOOD and BAD stand on the same environments. Name two cells that differ in these")
    return SearchEnds(*cells, sides)


def _of_locks(context: Context, good: Path, bad: Path, cell: Cell) -> SearchEnds:
    """Return a cell with the environment of one of its sides as two lock files have it."""
    pins = [_read(file) for file in (good, bad)]
    environments = {
        side: context.plan.environments[role_of(cell, side).environment] for side in SIDES
    }
    side = _side_of(environments, pins)
    ours, theirs = (locked_to(environments[side], lock) for lock in pins)
    good_cell, bad_cell = (with_environments(cell, {side: e.name})[0] for e in (ours, theirs))
    sides = {other: (environment, environment) for other, environment in environments.items()}
    return SearchEnds(good_cell, bad_cell, {**sides, side: (ours, theirs)})


def _side_of(environments: Mapping[Side, Environment], pins: list[dict[str, str]]) -> Side:
    """Return the side whose named packages both locks pin; that which names more, where both do."""
    names = {side: named_releases(e) for side, e in environments.items()}
    counts = {
        side: len(named) if all(named.keys() <= lock.keys() for lock in pins) else 0
        for side, named in names.items()
    }
    side = max(counts, key=lambda side: counts[side])
    if not counts[side] or len(set(counts.values())) == 1:
        wanted = " or all of ".join(", ".join(sorted(named)) for named in names.values())
        fail(f"the locks must both pin all of {wanted}, so that it is clear whose they are")
    return side


def _read(file: Path) -> dict[str, str]:
    try:
        lock = Lock(read_file(file, LOCK_BYTES).decode())
        pins = lock.pins
    except (OSError, UnreadableError, ValueError) as error:
        fail(f"{file}: no lock can be read ({error}). Give two lock files, or leave --cell out")
    if not pins:
        fail(f"{file}: pins no package as name==version. Give a lock file")
    return pins


def opened_for(context: Context, ends: SearchEnds) -> Context:
    """Return a profile opened for both cells of the ends and their float models."""
    cells = {cell.id: cell for end in ends[:2] for cell in with_environments(end, {})}
    made = {e.name: e for pair in ends.sides.values() for e in pair}
    return context.with_cells(list(cells.values()), context.loaded.environments | made)
