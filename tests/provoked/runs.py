"""A run of the made-up matrix, within the test's own process."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from matrix.context import Context, Settings
from matrix.hardware import Machine
from matrix.plan import select
from matrix.results import CellResult
from matrix.run import Run
from matrix.steps import Steps

SPEC = Path(__file__).parent / "made_up" / "spec.toml"


class Finished(msgspec.Struct):
    """A run that is over: what it told, and how its cells are judged."""

    told: list[str]
    cells: dict[str, CellResult]

    def cell(self, name: str) -> CellResult:
        return self.cells[name]


def perform(
    profile: str, store: Path, cell: str | None = None, machine: Machine | None = None
) -> Finished:
    """Run a profile of the made-up spec, or one cell of it, as if on a machine."""
    settings = Settings.of({}, spec=SPEC, profile=profile, store=store)
    context = Context(settings, machine=machine)
    now = lambda: datetime.now(UTC)  # noqa: E731
    steps = Steps(
        context.loaded, context.store, context.keys, os.environ, now, machine=context.machine
    )
    told: list[str] = []
    Run(context.plan, steps, told.append, str, fork=True).perform(select(context.plan, cell=cell))
    whole = Context(settings, machine=machine).table()
    return Finished(told, {one.id: one for one in whole.cells})
