"""Judged cells as plain data: what the table shows and what ``reports/matrix.json`` holds.

Nothing here is measured or decided; :mod:`matrix.verdict` fills these from observations and
findings, :mod:`matrix.report` shows them.
"""

from __future__ import annotations

import msgspec

from matrix.outcomes import Blame, Finding, Stage, StageResult, Verdict

SCHEMA_VERSION = 1


class Side(msgspec.Struct, frozen=True):
    """One of the two environments of a cell, spelled out."""

    name: str
    environment: str
    packages: dict[str, str] = {}
    """Top-level distribution name -> version as installed, or as asked for where nothing was."""
    torch: str = ""
    """Torch as installed, local tag and all (``2.13.0+cpu``); empty where nothing was installed."""
    python: str = ""
    options: dict[str, str | int | float | bool] = {}


class CellResult(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table."""

    id: str
    model: str
    scheme: str
    quantizer: Side
    engine: Side
    parts: list[str] = []
    """Titles of the tables in which it stands."""
    verdict: Verdict
    blame: Blame
    stage: Stage | None
    """First stage that did not pass; ``None`` where all did."""
    reason: str
    message: str
    stages: list[StageResult]
    findings: list[Finding]
    departures: list[str] = []
    timings: dict[str, float] = {}
    """Stage -> seconds."""
    device: str = "cpu"
    output: str = ""
    """What the engine answered to the first prompt (untrusted text)."""
    expected: str = ""
    canary: Verdict | None = None
    """The verdict this cell must have for the run to count, where it is a canary."""
    command: str = ""
    """The command that runs this cell alone."""


class EnvironmentResult(msgspec.Struct, frozen=True, kw_only=True):
    """One environment, and the one cause counted where it is broken by itself."""

    name: str
    role: str
    packages: dict[str, str]
    stages: list[StageResult]
    """Its resolve, install and import stages."""
    cells: int
    """How many cells of the table stand on it."""
    departures: list[str] = []
    command: str = ""


class MatrixResult(msgspec.Struct, frozen=True, kw_only=True):
    """The whole table. The same records give the same value, hence the same bytes in a report."""

    schema: int = SCHEMA_VERSION
    profile: str
    parts: list[str] = []
    """Titles of the tables, in order."""
    runs: list[str]
    """Ids of the runs the evidence comes from, oldest first."""
    finished: str
    """ISO time of the newest record used; empty where there is none."""
    machine: dict[str, str]
    """What the evidence was made on (device, processor, memory, system)."""
    departures: dict[str, str]
    """Departure -> what it changes and why."""
    canaries: str
    """``established``, ``void`` or ``not established``, or empty where the profile has none."""
    environments: list[EnvironmentResult]
    cells: list[CellResult]
