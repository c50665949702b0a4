"""The jobs of one role, done by probes inside its environment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path

from matrix.environments import bytecode
from matrix.environments.virtualenvs import python_of
from matrix.machine.hardware import Gpu
from matrix.machine.leases import ProcessesOn, lease, strangers
from matrix.pipeline.ends import allow_for_strangers
from matrix.pipeline.outcomes import Conclusion, Outcome, Reason
from matrix.pipeline.steps import Step
from matrix.plan.cells import Role
from matrix.plan.keys import Key
from matrix.plan.needs import Needs, fitting
from matrix.run.answers import classify_answer, keep_answer, keep_import
from matrix.run.building import make_ready
from matrix.run.guarding import guarded
from matrix.run.jobs import Job
from matrix.run.messages import Messages
from matrix.run.probes import Probe
from matrix.run.views import view_of
from matrix.run.workspace import Workspace
from matrix.spec.tables import Environment

REPEATED = (Reason.CRASH, Reason.TIMEOUT, Reason.SILENCE, Reason.OOM, Reason.NO_RESULT)
"""Ends of a forked child that count only when a fresh process ends so as well."""

MakeJobs = Callable[[], list[Job]]
"""Gives the jobs that are still to be done."""
Review = Callable[[Conclusion], Conclusion]
"""Judges a failure anew."""


class RoleRun:
    """Does the jobs of roles.

    Args:
        workspace: What steps are performed with.
        messages: Is given a line for each thing that happens.
        fork: Whether a job runs in a child forked from the process that has imported the package;
            a fresh process for each job otherwise, as always on a GPU: a fork cannot use CUDA.
        processes_on: Says who computes on a GPU, by its UUID.
        leases: Where the files of leases lie that all runs on the machine share.
    """

    def __init__(
        self,
        workspace: Workspace,
        messages: Messages,
        *,
        fork: bool,
        processes_on: ProcessesOn,
        leases: Path,
    ) -> None:
        self._workspace = workspace
        self._keys = workspace.keys
        self._messages = messages
        self._fork = fork
        self._processes_on = processes_on
        self._leases = leases

    def perform(self, role: Role, importing: Key, make_jobs: MakeJobs) -> None:
        """Import, and do the jobs where that passed."""
        environment = self._workspace.plan.environments[role.environment]
        imported = self._keys.settled(importing)
        if imported and not (self._keys.passed(importing) and make_jobs()):
            return
        installed = make_ready(self._workspace, role, self._messages.tell)
        if installed is None or installed.outcome is not Outcome.PASSED:
            if installed is not None:
                self._messages.of_environment(environment.name, Step.INSTALL, installed)
            return
        on_device = self._on_gpus if environment.device == "cuda" else self._on_cpu
        on_device(environment, role, importing, make_jobs)

    def _on_gpus(
        self, environment: Environment, role: Role, importing: Key, make_jobs: MakeJobs
    ) -> None:
        """Do each job in a probe of its own, which has the GPUs that it needs to itself."""
        if not self._keys.settled(importing):
            needs = Needs(gpus=1, capability=role.capability)
            with self._leased(environment, needs) as gpus, ExitStack() as stack:
                self._start(environment, role, importing, stack, gpus)
        if not self._keys.passed(importing):
            return
        for job in make_jobs():
            with self._leased(environment, job.needs) as gpus, ExitStack() as stack:
                probe = self._start(environment, role, importing, stack, gpus)
                if not probe.alive:
                    self._messages.not_imported_again(environment.name)
                    return
                review = partial(_in_company, self._processes_on, stack, gpus)
                self._attempt(probe, role, job, attempt=1, fork=False, review=review)

    def _leased(self, environment: Environment, needs: Needs) -> AbstractContextManager[list[Gpu]]:
        fit = fitting(needs, self._workspace.machine.gpus)
        return lease(
            fit, needs.gpus, self._leases, self._processes_on,
            lambda line: self._messages.tell(f"{environment.name}: {line}"),
        )  # fmt: skip

    def _on_cpu(
        self, environment: Environment, role: Role, importing: Key, make_jobs: MakeJobs
    ) -> None:
        """Import once, then do each job in a child of its own, forked from that."""
        with ExitStack() as stack:
            probe = self._start(environment, role, importing, stack)
            if not self._keys.passed(importing):
                return
            for job in make_jobs():
                if not probe.alive:
                    stack.close()
                    probe = self._start(environment, role, importing, stack)
                if not probe.alive:
                    self._messages.not_imported_again(environment.name)
                    return
                ends = self._attempt(probe, role, job, attempt=1, fork=self._fork)
                if self._fork and any(end.reason in REPEATED for end in ends):
                    stack.close()
                    probe = self._start(environment, role, importing, stack)
                    if probe.alive:
                        self._attempt(probe, role, job, attempt=2, fork=False)

    def _start(
        self,
        environment: Environment,
        role: Role,
        importing: Key,
        stack: ExitStack,
        gpus: Sequence[Gpu] = (),
    ) -> Probe:
        """Start a probe's server and keep how its import ended, where that is news."""
        work = stack.enter_context(self._workspace.work("probe"))
        with self._workspace.store.begun.noting(importing.step, importing.value):
            probe = stack.enter_context(_probe(self._workspace, environment, role, work, gpus))
            answer = probe.importing(self._workspace.limits.importing)
            # An import that passed before may find another device this time.
            conclusion = classify_answer(self._workspace, answer, role)
            probe.alive = probe.alive and conclusion.outcome is Outcome.PASSED
            if not self._keys.settled(importing):
                observation = keep_import(self._workspace, importing, answer, role, conclusion)
                self._messages.of_environment(environment.name, Step.IMPORT, observation)
        return probe

    def _attempt(
        self,
        probe: Probe,
        role: Role,
        job: Job,
        attempt: int,
        *,
        fork: bool,
        review: Review = lambda conclusion: conclusion,
    ) -> list[Conclusion]:
        """Have a job done and keep each step's answer, a failure as ``review`` judges it.

        A first attempt that ended in a way that is repeated keeps nothing of the step at fault.
        """
        with self._workspace.store.begun.noting(job.noted.step, job.noted.value):
            ends = guarded(
                self._workspace, partial(job.due, self._keys),
                partial(self._answers, probe, role, job, attempt, fork, review),
            )  # fmt: skip
        if isinstance(ends, list):
            return ends
        probe.alive = False  # nobody knows what it still does
        self._messages.of_step(job.steps[0], ends)
        return [ends]

    def _answers(
        self, probe: Probe, role: Role, job: Job, attempt: int, fork: bool, review: Review
    ) -> list[Conclusion]:
        ends: list[Conclusion] = []
        with probe.job_folder() as work:
            output = probe.inside / "output"
            fields = {**job.fields, "output": str(work / "output")}
            for answer in probe.perform(fields, list(job.keys), job.limits, work, fork=fork):
                end = classify_answer(self._workspace, answer, role)
                ends.append(end)
                if fork and end.reason in REPEATED:
                    self._messages.tell(f"{job.label}: {end.message}; again in a fresh process")
                    continue
                if end.outcome is Outcome.FAILED:
                    ends[-1] = end = review(end)
                observation = keep_answer(
                    self._workspace, job, answer, end, output,
                    attempt=attempt, tell=self._messages.tell,
                )  # fmt: skip
                if observation is not None:
                    self._messages.of_step(job.planned(answer.step), observation)
                if end.outcome is not Outcome.PASSED and not fork:
                    break  # a load on another device, say: what comes after it is no evidence
        return ends


def _in_company(
    processes_on: ProcessesOn, probe: ExitStack, gpus: Sequence[Gpu], conclusion: Conclusion
) -> Conclusion:
    """Judge a failure anew: the probe is ended, and who computes on its cards is a stranger."""
    probe.close()
    return allow_for_strangers(conclusion, strangers(gpus, processes_on))


def _probe(
    workspace: Workspace, environment: Environment, role: Role, work: Path, gpus: Sequence[Gpu]
) -> Probe:
    """Return a server for a role, in the environment's own home."""
    folder = workspace.folder(environment)
    environ = {**environment.environ, **role.environ}
    return Probe(
        python_of(folder),
        role.adapter,
        environ=environ | {"PYTHONPYCACHEPREFIX": str(folder / bytecode.OWN)},
        departures=role.departures,
        home=folder / "home",
        work=work,
        gpus=[gpu.uuid for gpu in gpus],
        sandbox=workspace.sandbox,
        view=view_of(workspace, role, environ, gpus),
    )
