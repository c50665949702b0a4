"""A snapshot taken of a judged table, with what went into each cell. Pure over what it may read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from matrix.history.project import Project
from matrix.history.states import MESSAGE_CHARS, CellState, Head, Snapshot
from matrix.judge.cells import CellJudge
from matrix.judge.results import CellResult, MatrixResult, Side
from matrix.pipeline.steps import Stage
from matrix.plan.cell_steps import build_of
from matrix.plan.cells import Cell, Role, float_id
from matrix.spec.loading import PACKAGE
from matrix.store.facts import BuildFacts, read_facts
from matrix.store.identity import code_digest, digest
from matrix.store.observations import Observation

JUDGING = ("checks", "judge", "diagnose", "checkpoint")
"""Packages of ours by which observations are judged."""
RUNS = 50
"""How many runs a snapshot names."""


def take(
    day: str,
    run: str,
    result: MatrixResult,
    judge: CellJudge | None = None,
    project: Project = Project(),  # noqa: B008 - frozen
) -> Snapshot:
    """Return the snapshot of a table; without its judge, only what a published table says."""
    cells = {cell.id: cell for cell in judge.plan.cells} if judge else {}
    states = {
        cell.id: _state(cell, _inputs(judge, cells, cell) if judge else _published_inputs(cell))
        for cell in result.cells
    }
    head = Head(
        profile=result.profile,
        runs=result.runs[-RUNS:],
        finished=result.finished,
        canaries=result.canaries,
        machine=result.machine,
        judging=_judging(judge) if judge else "",
        version=project.version,
        commit=project.commit,
        unfinished=bool(result.going_on),
        alarms=result.issue_troubles,
    )
    return Snapshot(day, run, head, states)


def _state(cell: CellResult, inputs: Mapping[str, Any]) -> CellState:
    return CellState(
        id=cell.id,
        verdict=cell.verdict,
        blame=cell.blame,
        stage=cell.stage or "",
        reason=cell.reason,
        message=cell.message[:MESSAGE_CHARS].encode(errors="replace").decode(),
        explained_by=cell.explained_by,
        issue=cell.issue,
        group=cell.group,
        device=cell.device,
        made_on=cell.made_on,
        seconds=round(sum(cell.timings.values()), 3),
        attempts=cell.attempts,
        flaky=cell.flaky,
        at=cell.at,
        **msgspec.structs.asdict(cell.measures),
        **inputs,
    )


def _published_inputs(cell: CellResult) -> dict[str, str]:
    sides = {"quantizer": cell.quantizer, "engine": cell.engine}
    inputs: dict[str, str] = {}
    for name, side in sides.items():
        inputs |= _of_side(name, side, side.packages)
    return inputs


def _inputs(judge: CellJudge, cells: Mapping[str, Cell], result: CellResult) -> dict[str, str]:
    """Return what went into a cell, by columns; of a step that was not observed, nothing."""
    cell = cells[result.id]
    observed = judge.observations(cell.id)
    build = judge.keys.passed(judge.keys.of(build_of(cell.checkpoint.model)))
    sides = {
        "quantizer": (cell.checkpoint.quantizer, result.quantizer, Stage.QUANTIZE),
        "engine": (cell.engine, result.engine, Stage.LOAD),
    }
    inputs = {
        "evidence": _evidence(judge, [cell.id, float_id(cell)], cells),
        "model": read_facts(build, BuildFacts).tensors_sha256[:16] if build else "",
        "scheme": digest(cell.checkpoint.scheme),
    }
    for name, (role, side, stage) in sides.items():
        all_packages = judge.sides.installed(role.environment)
        named = {package: all_packages.get(package, "") for package in side.packages}
        packages = {**named, **all_packages} if all_packages else dict(side.packages)
        inputs |= _of_side(name, side, packages)
        inputs |= {
            f"{name}_lock": judge.keys.lock_of(role.environment),
            f"{name}_adapter": _adapter(observed, name),
            f"{name}_setup": _setup(role, observed.get(stage)),
            f"{name}_resolution": judge.plan.environments[role.environment].resolution,
        }
    return inputs


def _of_side(name: str, side: Side, packages: Mapping[str, str]) -> dict[str, str]:
    versions = {**packages, "torch": side.torch or packages.get("torch", "")}
    return {
        f"{name}_environment": side.environment,
        f"{name}_packages": json.dumps({n: v for n, v in versions.items() if v}),
        f"{name}_python": side.python,
    }


def _adapter(observed: Mapping[Stage, Observation], side: str) -> str:
    stage = Stage.QUANTIZER_IMPORT if side == "quantizer" else Stage.ENGINE_IMPORT
    observation = observed.get(stage)
    if observation is None:
        return ""
    return digest([observation.inputs.get("adapter"), observation.inputs.get("child")])


def _setup(role: Role, observation: Observation | None) -> str:
    if observation is None:
        return ""
    return digest([role.options, observation.inputs.get("environ"), observation.departures])


def _evidence(judge: CellJudge, ids: list[str], cells: Mapping[str, Cell]) -> str:
    """Return a digest of what packages left: of a cell, and of the float model in its engine.

    What our own reader of checkpoints made of the files is left out: that is judging.
    """
    marks = [
        (cell, stage, observation.key, observation.at)
        for cell in dict.fromkeys(ids)
        if cell in cells
        for stage, observation in judge.observations(cell).items()
        if stage is not Stage.INSPECT
    ]
    return digest(marks) if marks else ""


def _judging(judge: CellJudge) -> str:
    code = [code_digest(PACKAGE / name) for name in JUDGING]
    return digest([code, judge.loaded.spec.thresholds])
