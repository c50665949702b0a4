"""A run of the made-up matrix, within the test's own process."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import msgspec

from matrix.judge.results import CellResult
from matrix.machine.hardware import Machine
from matrix.plan.cells import select
from matrix.run.context import Context, Settings
from matrix.run.run import Run
from matrix.run.workspace import Workspace

SPEC = Path(__file__).parent / "made_up" / "spec.toml"


class Finished(msgspec.Struct):
    """A run that is over: what it told, and how its cells are judged."""

    told: list[str]
    cells: dict[str, CellResult]

    def cell(self, name: str) -> CellResult:
        return self.cells[name]


def impatient(spec: Path, folder: Path, *, seconds: int = 600, silence: int = 600) -> Path:
    """Return a copy of a made-up spec that gives quantizations, loads and answers less time.

    Limits are in no key, so that what was observed with others counts.
    """
    copied = shutil.copytree(spec.parent, folder / f"{seconds}-{silence}") / spec.name
    patient = r"(?m)^((?:quantize|load|generate) *= \{) seconds = 600, silence = 600,"
    text, count = re.subn(
        patient, rf"\1 seconds = {seconds}, silence = {silence},", spec.read_text()
    )
    assert count == 3
    copied.write_text(text)
    return copied


def in_the_open(spec: Path, folder: Path) -> Path:
    """Return a copy of a made-up spec whose packages run without a sandbox."""
    copied = shutil.copytree(spec.parent, folder / "open") / spec.name
    text = spec.read_text()
    assert text.count("\nschema = 1\n") == 1
    copied.write_text(text.replace("\nschema = 1\n", '\nschema = 1\nsandbox = "off"\n'))
    return copied


def perform(
    profile: str,
    store: Path,
    cell: str | None = None,
    machine: Machine | None = None,
    spec: Path = SPEC,
) -> Finished:
    """Run a profile of the made-up spec, or one cell of it, as if on a machine."""
    settings = Settings.of({}, spec=spec, profile=profile, store=store)
    context = Context(settings, machine=machine)
    lines: list[str] = []
    run = Run(Workspace(context, tell=lines.append), lines.append, str, fork=True)
    run.perform(select(context.plan, cells=None if cell is None else [cell]))
    whole = Context(settings, machine=machine).table()
    return Finished(lines, {result.id: result for result in whole.cells})
