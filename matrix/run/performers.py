"""Who performs which step: a function of the harness, or one that makes a job for a probe."""

from __future__ import annotations

from collections.abc import Callable

from matrix.pipeline.steps import Step
from matrix.plan.cell_steps import PlannedStep
from matrix.plan.keys import Key
from matrix.run import building, inspecting, jobs, repairing
from matrix.run.jobs import Job
from matrix.run.workspace import Workspace
from matrix.store.observations import Observation

HARNESS: dict[Step, Callable[[Workspace, PlannedStep, Key], Observation]] = {
    Step.RESOLVE: building.resolve,
    Step.INSTALL: building.install,
    Step.REPAIR: repairing.repair,
    Step.INSPECT: inspecting.inspect,
}
"""Performs a step under its key."""

PROBE: dict[Step, Callable[[Workspace, tuple[PlannedStep, ...]], Job | Observation | None]] = {
    Step.BUILD: jobs.build,
    Step.QUANTIZE: jobs.quantize,
    Step.LOAD: jobs.evaluate,
}
"""By the first step of a job: makes it, or the observation that there can be none, or nothing."""
