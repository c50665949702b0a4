"""A run: everything of a selection that has not been observed yet, environment by environment.

What is finished stays finished: a step whose key has a final observation is never begun again, so
a run that was killed goes on where it was, and one with nothing to do starts no process.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import assert_never

from filelock import FileLock, Timeout

from matrix.machine.hardware import processes_on
from matrix.machine.leases import ProcessesOn, leases_folder
from matrix.pipeline.steps import PIPELINE, Performer, Step
from matrix.plan.cell_steps import PlannedStep, distinct, steps_of_selection
from matrix.plan.cells import Selection
from matrix.plan.keys import Key
from matrix.run.guarding import guarded, passed_over
from matrix.run.jobs import Job
from matrix.run.messages import Messages
from matrix.run.performers import HARNESS, PROBE
from matrix.run.products import are_there, is_there
from matrix.run.roles import MakeJobs, RoleRun
from matrix.run.workspace import Workspace
from matrix.store.observations import Observation


class Run:
    """Performs selections of a plan.

    Args:
        workspace: What steps are performed with.
        tell: Is given a line for each thing that happens.
        verdict: Says in a word what a cell is, by its id, after it was run.
        fork, processes_on, leases: See :class:`RoleRun`.
    """

    def __init__(
        self,
        workspace: Workspace,
        tell: Callable[[str], None],
        verdict: Callable[[str], str],
        *,
        fork: bool,
        processes_on: ProcessesOn = processes_on,
        leases: Path | None = None,
    ) -> None:
        self._workspace = workspace
        self._keys = workspace.keys
        self._messages = Messages(tell, verdict)
        self._roles = RoleRun(
            workspace, self._messages, fork=fork, processes_on=processes_on,
            leases=leases or leases_folder(),
        )  # fmt: skip

    def perform(self, selection: Selection) -> None:
        """Do all that a selection still needs, each environment's steps in the pipeline's order."""
        store = self._workspace.store
        store.sweep()
        steps = steps_of_selection(selection)
        for name in selection.environments:
            with FileLock(store.path("environments", f"{name}.lock")):
                self._environment([step for step in steps if step.environment == name])

    def install(self, selection: Selection) -> None:
        """Resolve and install what a selection needs, but for what somebody else works on."""
        store = self._workspace.store
        store.sweep()
        steps = [s for s in steps_of_selection(selection) if s.step in (Step.RESOLVE, Step.INSTALL)]
        for name in selection.environments:
            lock = FileLock(store.path("environments", f"{name}.lock"))
            try:
                lock.acquire(blocking=False)
            except Timeout:
                continue
            try:
                self._environment([step for step in steps if step.environment == name])
            finally:
                lock.release()

    def _environment(self, steps: list[PlannedStep]) -> None:
        lines = groupby(PIPELINE, key=lambda line: (line.role, line.performer))
        for (_, performer), group in lines:
            due = [step for line in group for step in steps if step.definition is line]
            match performer:
                case Performer.HARNESS:
                    for step in due:
                        self._by_ourselves(step)
                case Performer.PROBE:
                    self._by_probes(due)
                case _:
                    assert_never(performer)

    def _by_ourselves(self, step: PlannedStep) -> None:
        key = self._keys.of(step)
        if key is None or (self._keys.settled(key) and not self._is_gone(key)):
            return
        if are_there(self._workspace, step.after):
            self._messages.of_step(step, self._guarded(step, key))

    def _guarded(self, step: PlannedStep, key: Key) -> Observation:
        """Perform a step, unless it ended the harness before; return what came of it."""
        if observation := passed_over(self._workspace, key, key):
            return observation
        with self._workspace.store.begun.noting(key.step, key.value):
            perform = partial(HARNESS[step.step], self._workspace, step, key)
            return guarded(self._workspace, lambda: key, perform)

    def _is_gone(self, key: Key) -> bool:
        """Whether the files that a step made are not there any more."""
        return self._keys.passed(key) is not None and not is_there(self._workspace, key)

    def _by_probes(self, steps: list[PlannedStep]) -> None:
        """Have each role's import and jobs done, one role after another."""
        work = [step for step in steps if step.step is not Step.IMPORT]
        for imports in distinct(step.imports for step in steps):
            importing = self._keys.of(imports)
            if importing is None:
                continue
            if observation := passed_over(self._workspace, importing, importing):
                self._messages.of_environment(imports.environment, Step.IMPORT, observation)
            else:
                jobs = jobs_of([step for step in work if step.imports.id == imports.id])
                self._by_role(imports, importing, partial(self._jobs, jobs))

    def _by_role(self, imports: PlannedStep, importing: Key, make_jobs: MakeJobs) -> None:
        perform = partial(self._roles.perform, imports.role, importing, make_jobs)
        observation = guarded(self._workspace, lambda: importing, perform)
        if observation is not None:
            self._messages.of_environment(imports.environment, Step.IMPORT, observation)

    def _jobs(self, groups: list[tuple[PlannedStep, ...]]) -> list[Job]:
        """Return the jobs that are still to be done; say of those that cannot be, why."""
        jobs = []
        for steps in groups:
            job = self._job(steps)
            if isinstance(job, Job):
                job = passed_over(self._workspace, job.noted, job.due(self._keys)) or job
            if isinstance(job, Job):
                jobs.append(job)
            elif job is not None:
                self._messages.of_step(steps[0], job)
        return jobs

    def _job(self, steps: tuple[PlannedStep, ...]) -> Job | Observation | None:
        key, make = self._keys.of(steps[0]), partial(PROBE[steps[0].step], self._workspace, steps)
        return guarded(self._workspace, lambda: key, make) if key else None


def jobs_of(steps: list[PlannedStep]) -> list[tuple[PlannedStep, ...]]:
    """Return the steps of each job: those that go on in the same process stand together."""
    jobs: list[list[PlannedStep]] = []
    latest: dict[str, list[PlannedStep]] = {}
    for step in steps:
        if step.definition.continues:
            latest[step.name].append(step)
        else:
            latest[step.name] = [step]
            jobs.append(latest[step.name])
    return [tuple(job) for job in jobs]
