"""What steps make that takes room: models and checkpoints, where they lie and how they appear."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from matrix.checks.evidence import Reference
from matrix.pipeline.steps import Stage
from matrix.plan.cell_steps import PlannedStep, build_of, by_stage, steps_of_checkpoint
from matrix.plan.cells import Cell, Checkpoint, Model
from matrix.plan.keys import Key
from matrix.run.workspace import Workspace
from matrix.store.store import reference_in


def is_there(workspace: Workspace, key: Key | None) -> bool:
    """Whether the files that a step made are there, where it makes any."""
    return key is not None and workspace.store.has_product(key.step, key.value)


def are_there(workspace: Workspace, steps: Iterable[PlannedStep]) -> bool:
    """Whether all files are there that some steps made."""
    return all(is_there(workspace, workspace.keys.of(step)) for step in steps)


def is_done(workspace: Workspace, key: Key, cells: Iterable[Cell]) -> bool:
    """Whether a model or checkpoint need not be made: it was observed, and is there or none of
    the cells that stand on it has anything left to do (it failed, or ``clean`` took it back).
    """
    if not workspace.keys.settled(key):
        return False
    return is_there(workspace, key) or not any(
        workspace.keys.unfinished(cell)
        for cell in cells
        if key.subject in (cell.checkpoint.model.name, cell.checkpoint.unrepaired.id)
    )


def model_folder(workspace: Workspace, model: Model) -> Path:
    """Return the folder of a float model and of its own answers."""
    key = workspace.keys.of(build_of(model))
    return workspace.store.model(key.value if key else "")


def checkpoint_folder(workspace: Workspace, checkpoint: Checkpoint) -> Path:
    """Return the files that an engine is given."""
    if checkpoint.scheme is None:
        return model_folder(workspace, checkpoint.model) / "model"
    stage = Stage.REPAIR if checkpoint.quantizer.repairs else Stage.QUANTIZE
    key = workspace.keys.of(by_stage(steps_of_checkpoint(checkpoint))[stage])
    return workspace.store.checkpoint(key.value if key else "") / "checkpoint"


def reference(workspace: Workspace, model: Model) -> Reference:
    """Return the float model's own answers; one whose build passed has some."""
    return reference_in(model_folder(workspace, model))


def publish_model(workspace: Workspace, key: Key, output: Path) -> dict[str, Any]:
    """Make a built model visible; return what its observation says of it.

    Raises :class:`EvidenceError` where its reference cannot be read.
    """
    answers = reference_in(output)
    workspace.store.publish(output, "models", key.value)
    return {"tensors_sha256": answers.tensors_sha256}


def publish_checkpoint(workspace: Workspace, key: Key, output: Path) -> dict[str, Any]:
    """Make a checkpoint visible, with its provenance beside it."""
    whole = output.parent / "whole"
    whole.mkdir()
    output.replace(whole / "checkpoint")
    provenance = {"id": key.subject, "key": key.value, "inputs": key.inputs,
                  "departures": key.departures, "run": workspace.store.run}  # fmt: skip
    (whole / "provenance.json").write_text(json.dumps(provenance, indent=1, sort_keys=True))
    workspace.store.publish(whole, "checkpoints", key.value)
    return {}
