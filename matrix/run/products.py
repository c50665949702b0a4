"""What steps make that takes room: models and checkpoints, where they lie and how they appear."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from matrix.checks.evidence import MAX_REFERENCE_BYTES, Reference, read_reference
from matrix.pipeline.steps import Stage
from matrix.plan.cell_steps import PlannedStep, build_of, by_stage, steps_of_checkpoint
from matrix.plan.cells import Cell, Checkpoint, Model
from matrix.plan.keys import Key
from matrix.plan.needs import most_output
from matrix.run.workspace import Workspace
from matrix.store.sealing import seal
from matrix.store.store import FILES, REFERENCE, reference_in, write_atomically, write_json
from matrix.store.taking import take_over
from matrix.untrusted.reading import hold, read_file


class Provenance(msgspec.Struct, frozen=True):
    """What a checkpoint was made of, for who looks at its folder."""

    id: str
    key: str
    inputs: dict[str, Any]
    departures: list[str]
    run: str


def is_there(workspace: Workspace, key: Key | None) -> bool:
    """Whether the files that a step made are there and whole, where it makes any.

    Damaged ones are named and removed, so that they are made again.
    """
    if key is None or not workspace.store.has_product(key.step, key.value):
        return False
    damage = workspace.store.product_damage(key.step, key.value)
    if damage:
        workspace.tell(f"{key.step} {key.subject}: {damage}, so its files are made again")
        workspace.store.drop_product(key.step, key.value)
    return not damage


def are_there(workspace: Workspace, steps: Iterable[PlannedStep]) -> bool:
    """Whether all files are there that some steps made."""
    return all(is_there(workspace, workspace.keys.of(step)) for step in steps)


def is_done(workspace: Workspace, key: Key, cells: Iterable[Cell]) -> bool:
    """Whether a model or checkpoint need not be made: it was observed, and is there or none of
    the cells that stand on it has anything left to do (it failed, or ``clean`` took it back).
    """
    if not workspace.keys.settled(key):
        return False
    is_wanted = any(
        workspace.keys.unfinished(cell)
        for cell in cells
        if key.subject in (cell.checkpoint.model.name, cell.checkpoint.unrepaired.id)
    )
    return not is_wanted or is_there(workspace, key)


def model_folder(workspace: Workspace, model: Model) -> Path:
    """Return the folder of a float model and of its own answers."""
    key = workspace.keys.of(build_of(model))
    return workspace.store.model(key.value if key else "")


def checkpoint_folder(workspace: Workspace, checkpoint: Checkpoint) -> Path:
    """Return the files that an engine is given."""
    if checkpoint.scheme is None:
        return model_folder(workspace, checkpoint.model) / "model"
    key = _maker(workspace, checkpoint)
    return workspace.store.checkpoint(key.value if key else "") / "checkpoint"


def is_checkpoint_there(workspace: Workspace, checkpoint: Checkpoint) -> bool:
    """Whether the files that an engine is given are there and whole."""
    return is_there(workspace, _maker(workspace, checkpoint))


def _maker(workspace: Workspace, checkpoint: Checkpoint) -> Key | None:
    """Return the key of the step that makes the files of a checkpoint."""
    if checkpoint.scheme is None:
        return workspace.keys.of(build_of(checkpoint.model))
    stage = Stage.REPAIR if checkpoint.quantizer.repairs else Stage.QUANTIZE
    return workspace.keys.of(by_stage(steps_of_checkpoint(checkpoint))[stage])


def reference(workspace: Workspace, model: Model) -> Reference:
    """Return the float model's own answers; one whose build passed has some."""
    return reference_in(model_folder(workspace, model))


def publish_model(workspace: Workspace, key: Key, output: Path, model: Model) -> dict[str, Any]:
    """Make a built model visible; return what its observation says of it.

    Raises:
        EvidenceError: Its reference says nothing.
        UnreadableError: It left something that is not taken over.
        OSError: A file is missing, or the system does not give or take it.
    """
    with workspace.work("taken") as whole, hold(output) as inside:
        reference = read_file(inside / REFERENCE, MAX_REFERENCE_BYTES)
        answers = read_reference(reference)
        files = take_over(inside / "model", whole / "model", most_output(model))
        write_json(whole / FILES, files)
        write_atomically(whole / REFERENCE, seal(reference.strip()))
        workspace.store.publish(whole, "models", key.value)
    return {"tensors_sha256": answers.tensors_sha256}


def publish_checkpoint(
    workspace: Workspace, key: Key, output: Path, model: Model
) -> dict[str, Any]:
    """Make a checkpoint of a model visible, with its provenance beside it.

    Raises as :func:`publish_model`.
    """
    provenance = Provenance(key.subject, key.value, key.inputs, key.departures, workspace.store.run)
    with workspace.work("taken") as whole:
        files = take_over(output, whole / "checkpoint", most_output(model))
        write_json(whole / FILES, files)
        write_json(whole / "provenance.json", provenance)
        workspace.store.publish(whole, "checkpoints", key.value)
    return {}
