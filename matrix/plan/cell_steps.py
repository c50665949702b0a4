"""The steps of a cell: the pipeline's lines, filled in with a model, a checkpoint and an engine.

Pure. All that does something with steps (keys, needs, costs, runs, verdicts) folds over these.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path

import msgspec

from matrix.pipeline.steps import (
    PIPELINE,
    STEPS,
    Definition,
    RoleKind,
    Stage,
    Step,
    SubjectKind,
)
from matrix.plan.cells import Cell, Checkpoint, Model, Plan, Role, Selection

Identity = tuple[object, ...]
Subjects = Mapping[SubjectKind, "Model | Checkpoint | Cell"]


class PlannedStep(msgspec.Struct, frozen=True, eq=False):
    """One step of a cell: what is done, of what, by which role, and after which others."""

    definition: Definition
    """The line of the pipeline, at whose place it stands in the cell."""
    step: Step
    """What is performed: for the float model, its build stands in the place of a quantization."""
    role: Role
    subject: Role | Model | Checkpoint | Cell
    after: tuple[PlannedStep, ...]
    """The steps that it stands on: all must have passed before it can be done."""

    @property
    def environment(self) -> str:
        """Name of the environment that it belongs to."""
        return self.role.environment

    @property
    def stage(self) -> Stage | None:
        """As which stage the cell's result shows it, if it does."""
        return self.definition.stage

    @property
    def name(self) -> str:
        """The subject's name: of an environment, a model, a checkpoint or a cell."""
        match self.subject:
            case Role():
                return self.subject.environment
            case Model():
                return self.subject.name
            case Checkpoint() | Cell():
                return self.subject.id

    @property
    def imports(self) -> PlannedStep:
        """The import in whose process a probe performs it; of an import, itself."""
        return self if self.step is Step.IMPORT else self.after[-1]

    @property
    def label(self) -> str:
        """What a person is told that it is: a cell goes by its own name."""
        match self.subject:
            case Role():
                return self.step.value
            case Model() | Checkpoint():
                return f"{self.step.value} {self.name}"
            case Cell():
                return self.name

    @property
    def id(self) -> Identity:
        """What tells it from all other steps: two cells share those that have the same."""
        if self.step is not Step.IMPORT:
            return (self.step, self.name)
        role = self.role
        lists = (*role.departures,), (*role.needs_hardware,), (*role.environ.items(),)
        return (self.step, self.name, str(role.adapter), *lists)


def builder(model: Model) -> Role:
    """Return the environment of a model as the role that builds it."""
    return Role("none", model.environment, model.adapter)


def steps_of(cell: Cell) -> tuple[PlannedStep, ...]:
    """Return all steps of a cell in their order."""
    made = steps_of_checkpoint(cell.checkpoint)
    return (*made, *steps_of_engine(cell, made))


def steps_of_checkpoint(checkpoint: Checkpoint) -> tuple[PlannedStep, ...]:
    """Return the steps by which a checkpoint is made and looked at, its model's among them."""
    roles = {RoleKind.BUILDER: builder(checkpoint.model), RoleKind.QUANTIZER: checkpoint.quantizer}
    subjects: Subjects = {
        SubjectKind.MODEL: checkpoint.model,
        SubjectKind.CHECKPOINT: checkpoint,
    }
    return tuple(_steps(roles, subjects, [], is_float=checkpoint.scheme is None))


def steps_of_engine(cell: Cell, made: Iterable[PlannedStep]) -> tuple[PlannedStep, ...]:
    """Return the steps of a cell's engine, which stand on those that ``made`` its checkpoint."""
    work = [
        step
        for step in made
        if step.definition.subject is not SubjectKind.ENVIRONMENT
        and step.step is step.definition.step
    ]
    roles = {RoleKind.ENGINE: cell.engine}
    return tuple(_steps(roles, {SubjectKind.CELL: cell}, work))


def steps_of_role(role: Role, kind: RoleKind = RoleKind.ENGINE) -> tuple[PlannedStep, ...]:
    """Return the steps by which an environment comes to be and imports what a role needs."""
    steps: list[PlannedStep] = []
    for line in PIPELINE:
        if line.role is kind and line.subject is SubjectKind.ENVIRONMENT:
            steps.append(PlannedStep(line, line.step, role, role, tuple(steps[-1:])))
    return tuple(steps)


def install_of(environment: str) -> PlannedStep:
    """Return the step by which an environment is installed, in whatever role it is needed."""
    _, install, _ = steps_of_role(Role("none", environment, Path()))
    return install


def build_of(model: Model) -> PlannedStep:
    """Return the step by which a model is built."""
    role = builder(model)
    imported = steps_of_role(role, RoleKind.BUILDER)[-1]
    return PlannedStep(STEPS[Step.BUILD], Step.BUILD, role, model, (imported,))


def by_stage(steps: Iterable[PlannedStep]) -> dict[Stage, PlannedStep]:
    """Return those of a cell's or checkpoint's steps that its result shows, by their stage."""
    return {step.stage: step for step in steps if step.stage is not None}


def _steps(
    roles: Mapping[RoleKind, Role],
    subjects: Subjects,
    made: list[PlannedStep],
    *,
    is_float: bool = False,
) -> Iterator[PlannedStep]:
    """Yield the pipeline's lines of some roles, filled in.

    ``made`` is what is done to model and checkpoint so far: all that comes after stands on it.
    """
    of_roles = {
        kind: {step.step: step for step in steps_of_role(role, kind)}
        for kind, role in roles.items()
    }
    after: tuple[PlannedStep, ...] = ()
    for line in PIPELINE:
        if line.role not in roles:
            continue
        if line.subject is SubjectKind.ENVIRONMENT:
            yield of_roles[line.role][line.step]
            continue
        if line.step is Step.QUANTIZE and is_float:
            # The float model is its own checkpoint: to build it is to make it.
            yield msgspec.structs.replace(made[-1], definition=line)
            continue
        if not line.continues:
            after = (*made, of_roles[line.role][Step.IMPORT])
        subject = subjects[line.subject]
        if isinstance(subject, Checkpoint):
            if line.step is Step.REPAIR and not subject.quantizer.repairs:
                continue
            # What is repaired is made once, under its own name.
            subject = subject.unrepaired if line.step is Step.QUANTIZE else subject
        step = PlannedStep(line, line.step, roles[line.role], subject, after)
        if line.subject is not SubjectKind.CELL:
            made.append(step)
        yield step


def steps_of_selection(selection: Selection) -> list[PlannedStep]:
    """Return the steps of what a run is to do, each once: of checkpoints, then of cells."""
    made: dict[str, tuple[PlannedStep, ...]] = {}
    for checkpoint in (*selection.checkpoints, *(cell.checkpoint for cell in selection.cells)):
        if checkpoint.id not in made:
            made[checkpoint.id] = steps_of_checkpoint(checkpoint)
    of_checkpoints = (made[checkpoint.id] for checkpoint in selection.checkpoints)
    of_engines = (steps_of_engine(cell, made[cell.checkpoint.id]) for cell in selection.cells)
    return distinct(chain.from_iterable((*of_checkpoints, *of_engines)))


def steps_of_plan(plan: Plan) -> list[PlannedStep]:
    """Return the steps of all cells of a plan, each once, each after what it stands on."""
    return steps_of_selection(Selection(plan.checkpoints, plan.cells))


def distinct(steps: Iterable[PlannedStep]) -> list[PlannedStep]:
    """Return steps without those that stand there already: what several cells share comes once."""
    first: dict[Identity, PlannedStep] = {}
    for step in steps:
        first.setdefault(step.id, step)
    return list(first.values())
