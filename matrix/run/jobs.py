"""The jobs that probes are given: what a step needs, and what becomes of the files it makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from matrix.checkpoint.files import CheckpointFiles
from matrix.checkpoint.inspection import CheckpointError
from matrix.checkpoint.shapes import indivisible, linear_shapes
from matrix.index.hub import RevisionError
from matrix.pipeline.ends import End
from matrix.pipeline.outcomes import Conclusion, Outcome, Reason
from matrix.pipeline.steps import Step
from matrix.plan.cell_steps import PlannedStep
from matrix.plan.cells import Cell, Checkpoint, Model
from matrix.plan.keys import Key, Keys
from matrix.plan.needs import Needs, needs_of, with_room
from matrix.run.products import (
    are_there,
    checkpoint_folder,
    is_checkpoint_there,
    is_done,
    model_folder,
    publish_checkpoint,
    publish_model,
    reference,
)
from matrix.run.workspace import Workspace
from matrix.spec.tables import Limits
from matrix.store.observations import Observation

Publish = Callable[[Workspace, Key, Path], dict[str, Any]]
"""Makes what a job wrote visible; returns what the observation says of it."""


class Job(msgspec.Struct, frozen=True):
    """What a probe is given to do: its steps with their keys, and what is made of its output."""

    steps: tuple[PlannedStep, ...]
    keys: dict[Step, Key]
    fields: dict[str, Any]
    """Of the job's file, beside what every job has."""
    needs: Needs
    limits: dict[Step, Limits]
    publish: Publish | None = None

    @property
    def label(self) -> str:
        """What a person is told that it is."""
        return self.steps[0].label

    @property
    def noted(self) -> Key:
        """The key by which the store notes that it is done now: its last."""
        return list(self.keys.values())[-1]

    def due(self, keys: Keys) -> Key:
        """Return the key of the first of its steps that is still to be observed."""
        return next((key for key in self.keys.values() if not keys.settled(key)), self.noted)

    def planned(self, step: Step) -> PlannedStep:
        """Return the step of it that is meant."""
        return next(planned for planned in self.steps if planned.step is step)


def build(workspace: Workspace, steps: tuple[PlannedStep, ...]) -> Job | Observation | None:
    """Return the job that builds a model; an observation where there can be none; ``None`` where
    nothing is to be done."""
    (step,) = steps
    assert isinstance(step.subject, Model)
    model = step.subject
    key = _due(workspace, step)
    if key is None:
        return None
    if unsettled := _unsettled(workspace, model.recipe, key):
        return unsettled
    key = _due(workspace, step)  # of the commit, which may be known only now
    if key is None:
        return None
    recipe = {**workspace.revisions.held(model.recipe), "tie_word_embeddings": model.tied}
    fields = {"options": {}, "departures": [], "recipe": recipe}
    return _job(
        workspace, steps, {step.step: key}, fields, model, partial(publish_model, model=model)
    )


def quantize(workspace: Workspace, steps: tuple[PlannedStep, ...]) -> Job | Observation | None:
    """Return the job that makes a checkpoint; else as :func:`build`."""
    (step,) = steps
    assert isinstance(step.subject, Checkpoint)
    checkpoint, options = step.subject, step.subject.quantizer.options
    key = _due(workspace, step)
    if key is None or not are_there(workspace, step.after):
        return None  # a model that could not be made again is tried by the next run
    refused = _indivisible(workspace, checkpoint, key) or _unsettled(workspace, options, key)
    if refused is not None:
        return refused
    key = _due(workspace, step)
    if key is None:
        return None
    fields = {
        "options": workspace.revisions.held(options),
        "departures": checkpoint.quantizer.departures,
        "model": str(model_folder(workspace, checkpoint.model) / "model"),
        "scheme": checkpoint.scheme and checkpoint.scheme.request,
        "calibration": reference(workspace, checkpoint.model).calibration,
    }
    keys = {step.step: key}
    publish = partial(publish_checkpoint, model=checkpoint.model)
    return _job(workspace, steps, keys, fields, checkpoint.model, publish)


def evaluate(workspace: Workspace, steps: tuple[PlannedStep, ...]) -> Job | Observation | None:
    """Return the job that loads a checkpoint and generates with it; else as :func:`build`."""
    load, generate = steps
    assert isinstance(load.subject, Cell)
    engine, checkpoint, keys = load.role, load.subject.checkpoint, workspace.keys
    load_key, generate_key = keys.of(load), keys.of(generate)
    if load_key is None or generate_key is None:
        return None
    loaded = keys.settled(load_key)
    if loaded and (keys.settled(generate_key) or not keys.passed(load_key)):
        return None
    if not is_checkpoint_there(workspace, checkpoint):
        return None  # it could not be made again; the next run tries it
    answers = reference(workspace, checkpoint.model)
    fields = {
        "options": engine.options,
        "departures": engine.departures,
        "checkpoint": str(checkpoint_folder(workspace, checkpoint)),
        "prompts": [{"text": prompt.text, "ids": prompt.ids} for prompt in answers.prompts],
        "held_out": [{"ids": text.ids} for text in answers.held_out],
        "max_new_tokens": answers.max_new_tokens,
    }
    both = {load.step: load_key, generate.step: generate_key}
    return _job(workspace, steps, both, fields, checkpoint.model)


def _job(
    workspace: Workspace,
    steps: tuple[PlannedStep, ...],
    keys: dict[Step, Key],
    fields: dict[str, Any],
    model: Model,
    publish: Publish | None = None,
) -> Job:
    environment = workspace.plan.environments[steps[0].environment]
    needs, limits = needs_of(steps[0], environment), workspace.limits
    with_space = {step.step: with_room(limits.of(step.step), model) for step in steps}
    return Job(steps, keys, fields, needs, with_space, publish)


def _due(workspace: Workspace, step: PlannedStep) -> Key | None:
    """Return the key of a step that is still to be done, if it can be."""
    key = workspace.keys.of(step)
    return None if key is None or is_done(workspace, key, workspace.plan.cells) else key


def _unsettled(workspace: Workspace, options: Mapping[str, Any], key: Key) -> Observation | None:
    """Keep, instead of a download, that the Hub does not give the commit that is meant.

    ``None`` where it does, or where nothing of the Hub is meant. It says nothing of packages,
    so the next run asks again.
    """
    try:
        workspace.revisions.settle(options)
    except RevisionError as error:
        conclusion = Conclusion(Outcome.INFRA, Reason.NETWORK, str(error))
        return workspace.keep(key, conclusion, End())
    return None


def _indivisible(workspace: Workspace, checkpoint: Checkpoint, key: Key) -> Observation | None:
    """Keep, instead of a quantization, that the scheme does not fit the model's shapes.

    ``None`` where it does, or where the shapes of such a model are not known. Some quantizers
    stop at such a layer and some write a file that no engine reads (awq-group-size-multiple).
    """
    assert checkpoint.scheme is not None
    size = checkpoint.scheme.group_size
    try:
        config = CheckpointFiles(model_folder(workspace, checkpoint.model) / "model").config()
    except CheckpointError:
        return None  # not one whose shapes are known; the quantizer will say what it thinks
    shapes = linear_shapes(config.facts)
    wrong = indivisible(shapes, size)
    if not wrong:
        return None
    message = (
        f"groups of {size} do not divide the {shapes[wrong[0]][1]} inputs of {wrong[0]} "
        f"({len(wrong)} such layers): choose a smaller group size, or pad the model"
    )
    return workspace.keep(key, Conclusion(Outcome.UNSUPPORTED, Reason.GROUP_SIZE, message), End())
