"""The pipeline: which steps a cell goes through, in which order, and what each of them is.

This table is the only place that enumerates them. ``plan/cell_steps.py`` makes the steps of a cell
from it; keys, needs, predictions, runs and verdicts follow. A new step is a new line here, a
performer in ``run/performers.py`` and, where it leaves something to judge, a check.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, NamedTuple

Device = Literal["cpu", "cuda"]
"""What an environment's steps run on."""


class Step(StrEnum):
    """What is performed. One step may be two stages of a cell, as one install serves two roles."""

    RESOLVE = "resolve"
    INSTALL = "install"
    IMPORT = "import"
    BUILD = "build"
    QUANTIZE = "quantize"
    REPAIR = "repair"
    INSPECT = "inspect"
    LOAD = "load"
    GENERATE = "generate"


class Stage(StrEnum):
    """A step at its place in a cell, as results show it, in the order in which they happen."""

    QUANTIZER_RESOLVE = "quantizer-resolve"
    QUANTIZER_INSTALL = "quantizer-install"
    QUANTIZER_IMPORT = "quantizer-import"
    QUANTIZE = "quantize"
    REPAIR = "repair"
    INSPECT = "inspect"
    ENGINE_RESOLVE = "engine-resolve"
    ENGINE_INSTALL = "engine-install"
    ENGINE_IMPORT = "engine-import"
    LOAD = "load"
    GENERATE = "generate"


class Blame(StrEnum):
    """Whose fault a verdict is."""

    NOBODY = "nobody"
    QUANTIZER = "quantizer"
    ENGINE = "engine"
    CHECKPOINT = "checkpoint"
    PAIR = "pair"


class RoleKind(StrEnum):
    """As what an environment takes part in a cell."""

    BUILDER = "builder"
    QUANTIZER = "quantizer"
    ENGINE = "engine"


class SubjectKind(StrEnum):
    """Of what a step is: what it is done once for."""

    ENVIRONMENT = "environment"
    MODEL = "model"
    CHECKPOINT = "checkpoint"
    CELL = "cell"


class Performer(StrEnum):
    """Who performs a step: the harness itself, or a probe inside the environment."""

    HARNESS = "harness"
    PROBE = "probe"


class Definition(NamedTuple):
    """One line of the pipeline."""

    step: Step
    role: RoleKind
    """In whose environment it is performed."""
    subject: SubjectKind
    performer: Performer
    stage: Stage | None = None
    """As which stage a cell's result shows it; ``None`` for what comes before the quantizer."""
    blame: Blame = Blame.NOBODY
    """Who is at fault where it fails and nothing else explains that."""
    continues: bool = False
    """Whether it goes on in the process of the step before, and stands on the same steps."""
    limits: Step | None = None
    """The step whose limits hold for it, where it has none of its own in the spec."""
    product: tuple[str, str] | None = None
    """Where its files lie in the store: ``<first>/<key>/<second>``."""
    optional: bool = False
    """Whether only those cells have it that ask for it."""
    code: str = ""
    """The package of ours whose code makes its answer, and is part of its key."""


def _environment(
    role: RoleKind, blame: Blame, stages: tuple[Stage, Stage, Stage] | tuple[None, None, None]
) -> tuple[Definition, ...]:
    """Return the three lines by which an environment comes to be."""
    environment, harness = SubjectKind.ENVIRONMENT, Performer.HARNESS
    return (
        Definition(Step.RESOLVE, role, environment, harness, stages[0], blame),
        Definition(Step.INSTALL, role, environment, harness, stages[1], blame),
        Definition(Step.IMPORT, role, environment, Performer.PROBE, stages[2], blame),
    )


PIPELINE: tuple[Definition, ...] = (
    *_environment(RoleKind.BUILDER, Blame.NOBODY, (None, None, None)),
    Definition(
        Step.BUILD, RoleKind.BUILDER, SubjectKind.MODEL, Performer.PROBE,
        product=("models", "model"),
    ),
    *_environment(
        RoleKind.QUANTIZER, Blame.QUANTIZER,
        (Stage.QUANTIZER_RESOLVE, Stage.QUANTIZER_INSTALL, Stage.QUANTIZER_IMPORT),
    ),
    Definition(
        Step.QUANTIZE, RoleKind.QUANTIZER, SubjectKind.CHECKPOINT, Performer.PROBE,
        Stage.QUANTIZE, Blame.QUANTIZER, product=("checkpoints", "checkpoint"),
    ),
    Definition(
        Step.REPAIR, RoleKind.QUANTIZER, SubjectKind.CHECKPOINT, Performer.HARNESS,
        Stage.REPAIR, Blame.CHECKPOINT, optional=True, limits=Step.INSPECT,
        product=("checkpoints", "checkpoint"), code="repair",
    ),
    Definition(
        Step.INSPECT, RoleKind.QUANTIZER, SubjectKind.CHECKPOINT, Performer.HARNESS,
        Stage.INSPECT, Blame.CHECKPOINT, code="checkpoint",
    ),
    *_environment(
        RoleKind.ENGINE, Blame.ENGINE,
        (Stage.ENGINE_RESOLVE, Stage.ENGINE_INSTALL, Stage.ENGINE_IMPORT),
    ),
    Definition(
        Step.LOAD, RoleKind.ENGINE, SubjectKind.CELL, Performer.PROBE,
        Stage.LOAD, Blame.PAIR,
    ),
    Definition(
        Step.GENERATE, RoleKind.ENGINE, SubjectKind.CELL, Performer.PROBE,
        Stage.GENERATE, Blame.PAIR, continues=True,
    ),
)  # fmt: skip
"""All steps of a cell, in the order in which they happen."""

STAGES: dict[Stage, Definition] = {line.stage: line for line in PIPELINE if line.stage is not None}
"""The lines that a cell's result shows."""

ALWAYS: tuple[Stage, ...] = tuple(stage for stage in STAGES if not STAGES[stage].optional)
"""The stages that every cell has."""

STEPS: dict[Step, Definition] = {line.step: line for line in PIPELINE}
"""A line of each step, for what is the same in all of its lines."""
