"""A run: everything of a selection that has not been observed yet, environment by environment.

What is finished stays finished: a step whose key has a final observation is never begun again, so
a run that was killed goes on where it was, and one with nothing to do starts no process.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from filelock import FileLock, Timeout

from matrix.environments.virtualenvs import python_of
from matrix.machine.hardware import Gpu, processes_on
from matrix.machine.leases import ProcessesOn, lease, leases_folder, strangers
from matrix.outcomes import Outcome, Reason
from matrix.plan.cells import Cell, Checkpoint, Model, Plan, Role, Selection
from matrix.plan.keys import Key, builder
from matrix.plan.needs import (
    Needs,
    fitting,
    of_build,
    of_evaluation,
    of_quantization,
    with_room,
)
from matrix.run.probes import Answer, Probe
from matrix.run.steps import Steps
from matrix.spec.tables import Environment, Limits
from matrix.store.observations import (
    Judged,
    Observation,
    Step,
    judge_company,
    judge_device,
)

REPEATED = (Reason.CRASH, Reason.TIMEOUT, Reason.SILENCE, Reason.OOM, Reason.NO_RESULT)
"""Ends of a forked child that count only when a fresh process ends so as well."""


PASSED = Judged(Outcome.PASSED)


class Task(msgspec.Struct, frozen=True):
    """One job for a probe: its steps, their keys, and what to do with what it makes."""

    label: str
    steps: dict[Step, Key]
    job: dict[str, Any]
    needs: Needs
    limits: dict[Step, Limits]
    publish: Callable[[Key, Path], dict[str, Any]] | None = None


class Run:
    """Performs a selection of a plan.

    Args:
        plan: The whole plan that selections are parts of.
        steps: Performs and keeps.
        tell: Is given a line for each thing that happens.
        verdict: Says in a word what a cell is, by its id, after it was run.
        fork: Whether a job runs in a child forked from the process that has imported the package;
            a fresh process for each job otherwise, as always on a GPU: a fork cannot use CUDA.
        processes_on: Says who computes on a GPU, by its UUID.
        leases: Where the files of leases lie that all runs on the machine share.
    """

    def __init__(
        self,
        plan: Plan,
        steps: Steps,
        tell: Callable[[str], None],
        verdict: Callable[[str], str],
        *,
        fork: bool,
        processes_on: ProcessesOn = processes_on,
        leases: Path | None = None,
    ) -> None:
        self._plan = plan
        self._steps = steps
        self._keys = steps.keys
        self._tell = tell
        self._verdict = verdict
        self._fork = fork
        self._processes_on = processes_on
        self._leases = leases or leases_folder()
        limits = steps.limits
        self._limits: dict[Step, Limits] = {
            "import": limits.importing,
            "build": limits.build,
            "quantize": limits.quantize,
            "load": limits.load,
            "generate": limits.generate,
        }

    def perform(self, selection: Selection) -> None:
        """Do all that a selection still needs."""
        self._steps.store.sweep()
        for name in selection.environments:
            with FileLock(self._lock(name)):
                self._environment(self._plan.environments[name], selection)

    def install(self, selection: Selection) -> None:
        """Resolve and install what a selection needs, but for what somebody else works on."""
        self._steps.store.sweep()
        for name in selection.environments:
            with suppress(Timeout), FileLock(self._lock(name), blocking=False):
                self._install(self._plan.environments[name])

    def _lock(self, name: str) -> Path:
        return self._steps.store.path("environments", f"{name}.lock")

    def _install(self, environment: Environment) -> None:
        name = environment.name
        if not self._keys.settled(self._keys.resolve(name)):
            self._say(name, "resolve", self._steps.resolve(environment))
        if not self._keys.settled(self._keys.install(name)):
            installed = self._steps.install(environment)
            if installed is not None:
                self._say(name, "install", installed)

    def _environment(self, environment: Environment, selection: Selection) -> None:
        name = environment.name
        self._install(environment)
        for role, tasks in self._makers(name, selection):
            self._role(environment, role, tasks)
        for checkpoint in selection.checkpoints:
            if checkpoint.quantizer.environment == name:
                self._inspect(checkpoint)
        for role in {c.engine.name: c.engine for c in selection.cells}.values():
            if role.environment == name:
                cells = [c for c in selection.cells if c.engine == role]
                self._role(environment, role, partial(self._evaluations, cells))

    def _makers(
        self, name: str, selection: Selection
    ) -> Iterator[tuple[Role, Callable[[], list[Task]]]]:
        """Give each role in which an environment makes models or checkpoints, with its tasks."""
        models = {c.model.name: c.model for c in selection.checkpoints}.values()
        here = [model for model in models if model.environment == name]
        for adapter in dict.fromkeys(model.adapter for model in here):
            mine = [model for model in here if model.adapter == adapter]
            yield builder(mine[0]), partial(self._builds, mine)
        quantizers = {c.quantizer.name: c.quantizer for c in selection.checkpoints if c.scheme}
        for role in quantizers.values():
            if role.environment == name:
                made = [c for c in selection.checkpoints if c.quantizer == role]
                yield role, partial(self._quantizations, made)

    def _builds(self, models: list[Model]) -> list[Task]:
        tasks = []
        for model in models:
            key = self._keys.build(model)
            if key is None or self._steps.is_done(key, self._plan.cells):
                continue
            label = f"build {model.name}"
            if unsettled := self._steps.unsettled(model.recipe, key):
                self._say(model.environment, label, unsettled)
                continue
            key = self._keys.build(model)  # of the commit, which may be known only now
            if key is None or self._steps.is_done(key, self._plan.cells):
                continue
            recipe = {**self._steps.revisions.held(model.recipe), "tie_word_embeddings": model.tied}
            job = {"options": {}, "departures": [], "recipe": recipe}
            publish = self._steps.publish_model
            needs = of_build(model, self._plan.environments[model.environment])
            limits = self._with_room(model)
            tasks.append(Task(label, {"build": key}, job, needs, limits, publish))
        return tasks

    def _quantizations(self, checkpoints: list[Checkpoint]) -> list[Task]:
        tasks = []
        for checkpoint in checkpoints:
            key = self._keys.quantize(checkpoint)
            if key is None or self._steps.is_done(key, self._plan.cells):
                continue
            if not self._steps.is_there(self._keys.build(checkpoint.model)):
                continue  # it could not be made again; the next run tries it
            label = f"quantize {checkpoint.id}"
            if refused := self._steps.refuse(checkpoint, key):
                self._say(checkpoint.quantizer.environment, label, refused)
                continue
            options = checkpoint.quantizer.options
            if unsettled := self._steps.unsettled(options, key):
                self._say(checkpoint.quantizer.environment, label, unsettled)
                continue
            key = self._keys.quantize(checkpoint)
            if key is None or self._steps.is_done(key, self._plan.cells):
                continue
            job = {
                "options": self._steps.revisions.held(options),
                "departures": checkpoint.quantizer.departures,
                "model": str(self._steps.model_folder(checkpoint) / "model"),
                "scheme": msgspec.to_builtins(checkpoint.scheme),
                "calibration": self._steps.reference(checkpoint).calibration,
            }
            publish = self._steps.publish_checkpoint
            environment = self._plan.environments[checkpoint.quantizer.environment]
            needs = of_quantization(checkpoint, environment)
            limits = self._with_room(checkpoint.model)
            tasks.append(Task(label, {"quantize": key}, job, needs, limits, publish))
        return tasks

    def _evaluations(self, cells: list[Cell]) -> list[Task]:
        tasks = []
        for cell in cells:
            load, generate = (self._keys.evaluate(cell, step) for step in ("load", "generate"))
            if load is None or generate is None:
                continue
            if self._keys.settled(load) and (
                self._keys.settled(generate) or not self._keys.passed(load)
            ):
                continue
            if not self._steps.is_there(self._keys.quantize(cell.checkpoint)):
                continue  # it could not be made again; the next run tries it
            reference = self._steps.reference(cell.checkpoint)
            job = {
                "options": cell.engine.options,
                "departures": cell.engine.departures,
                "checkpoint": str(self._steps.checkpoint_folder(cell.checkpoint)),
                "prompts": [{"text": p.text, "ids": p.ids} for p in reference.prompts],
                "held_out": [{"ids": text.ids} for text in reference.held_out],
                "max_new_tokens": reference.max_new_tokens,
            }
            steps: dict[Step, Key] = {"load": load, "generate": generate}
            needs = of_evaluation(cell, self._plan.environments[cell.engine.environment])
            tasks.append(Task(cell.id, steps, job, needs, self._with_room(cell.checkpoint.model)))
        return tasks

    def _with_room(self, model: Model) -> dict[Step, Limits]:
        return {step: with_room(limits, model) for step, limits in self._limits.items()}

    def _role(self, environment: Environment, role: Role, tasks: Callable[[], list[Task]]) -> None:
        """Import, and do the tasks where that passed."""
        importing = self._keys.importing(role)
        if importing is None:
            return
        known = self._keys.settled(importing)
        if known and not (self._keys.passed(importing) and tasks()):
            return
        installed = self._steps.install(environment)  # it may have been removed since
        if installed is None or installed.outcome is not Outcome.PASSED:
            if installed is not None:
                self._say(environment.name, "install", installed)
            return
        if environment.device == "cuda":
            self._on_gpus(environment, role, importing, tasks)
        else:
            self._on_cpu(environment, role, importing, tasks)

    def _on_gpus(
        self, environment: Environment, role: Role, importing: Key, tasks: Callable[[], list[Task]]
    ) -> None:
        """Do each task in a probe of its own, which has the GPUs that it needs to itself."""
        if not self._keys.settled(importing):
            needs = Needs(gpus=1, capability=role.capability)
            with self._leased(environment, needs) as gpus, ExitStack() as stack:
                self._start(environment, role, importing, stack, gpus)
        if not self._keys.passed(importing):
            return
        for task in tasks():
            with self._leased(environment, task.needs) as gpus, ExitStack() as stack:
                probe = self._start(environment, role, importing, stack, gpus)
                if not probe.alive:
                    self._tell(f"{environment.name}: did not import again; the next run tries it")
                    return
                review = partial(self._in_company, stack, gpus)
                self._task(probe, role, task, attempt=1, fork=False, review=review)

    def _in_company(self, probe: ExitStack, gpus: Sequence[Gpu], judged: Judged) -> Judged:
        """Judge a failure anew: the probe is ended, and who computes on its cards is a stranger."""
        probe.close()
        return judge_company(judged, strangers(gpus, self._processes_on))

    def _leased(self, environment: Environment, needs: Needs) -> AbstractContextManager[list[Gpu]]:
        fit = fitting(needs, self._steps.machine.gpus)
        return lease(
            fit, needs.gpus, self._leases, self._processes_on,
            lambda line: self._tell(f"{environment.name}: {line}"),
        )  # fmt: skip

    def _on_cpu(
        self, environment: Environment, role: Role, importing: Key, tasks: Callable[[], list[Task]]
    ) -> None:
        """Import once, then do each task in a child of its own, forked from that."""
        with ExitStack() as stack:
            probe = self._start(environment, role, importing, stack)
            if not self._keys.passed(importing):
                return
            for task in tasks():
                if not probe.alive:
                    stack.close()
                    probe = self._start(environment, role, importing, stack)
                if not probe.alive:
                    self._tell(f"{environment.name}: did not import again; the next run tries it")
                    return
                ended = self._task(probe, role, task, attempt=1, fork=self._fork)
                if self._fork and any(answer.reason in REPEATED for answer in ended):
                    stack.close()
                    probe = self._start(environment, role, importing, stack)
                    if probe.alive:
                        self._task(probe, role, task, attempt=2, fork=False)

    def _start(
        self,
        environment: Environment,
        role: Role,
        importing: Key,
        stack: ExitStack,
        gpus: Sequence[Gpu] = (),
    ) -> Probe:
        """Start a probe's server and keep how its import ended, where that is news."""
        work = stack.enter_context(self._steps.work("probe"))
        folder = self._steps.folder(environment)
        probe = stack.enter_context(
            Probe(
                python_of(folder),
                role.adapter,
                environ={**environment.environ, **role.environ},
                departures=role.departures,
                home=folder / "home",
                work=work,
                gpus=[gpu.uuid for gpu in gpus],
            )
        )
        answer = probe.importing(self._limits["import"])
        # An import that passed before may find another device this time.
        probe.alive = probe.alive and self._of_device(PASSED, role, answer) is PASSED
        if not self._keys.settled(importing):
            observation = self._steps.imported(importing, answer, role)
            self._say(environment.name, "import", observation)
        return probe

    def _of_device(self, judged: Judged, role: Role, answer: Answer) -> Judged:
        if answer.step == "build":
            return judged  # wherever that runs: its key names no device
        facts = answer.result.facts if answer.result else {}
        return judge_device(judged, facts, self._plan.environments[role.environment].device)

    def _task(
        self, probe: Probe, role: Role, task: Task, attempt: int, *, fork: bool,
        review: Callable[[Judged], Judged] = lambda judged: judged,
    ) -> list[Judged]:  # fmt: skip
        """Have a job done and keep each step's answer, a failure as ``review`` judges it.

        A first attempt that ended in a way that is repeated keeps nothing of the step at fault.
        """
        judged: list[Judged] = []
        with self._steps.work("job") as work:
            output = work / "output"
            job = {**task.job, "output": str(output)}
            for answer in probe.perform(job, list(task.steps), task.limits, work, fork=fork):
                end = self._steps.judge_answer(answer, role)
                judged.append(self._of_device(end, role, answer))
                if fork and judged[-1].reason in REPEATED:
                    self._tell(f"{task.label}: {judged[-1].message}; again in a fresh process")
                    continue
                if judged[-1].outcome is Outcome.FAILED:
                    judged[-1] = review(judged[-1])
                self._keep(task, role, answer, judged[-1], output, attempt)
                if judged[-1].outcome is not Outcome.PASSED and not fork:
                    break  # a load on another device, say: what comes after it is no evidence
        return judged

    def _keep(
        self, task: Task, role: Role, answer: Answer, judged: Judged, output: Path, attempt: int
    ) -> None:
        key = task.steps[answer.step]
        if task.publish is None and self._keys.settled(key):
            return
        if judged.outcome is not Outcome.PASSED:
            shutil.rmtree(output, ignore_errors=True)  # it may be what fills the disk
            if task.publish is not None and self._keys.passed(key):
                # It was made before, and cells were judged by it: how it went now is no news.
                self._tell(f"{task.label}: not made again: {judged.message}")
                return
        if task.publish is not None:
            observation = self._steps.made(key, answer, judged, output, task.publish, attempt)
            self._say(role.environment, task.label, observation)
            return
        facts = answer.result.facts if answer.result else {}
        observation = self._steps.keep(
            key, judged, answer.end, result=answer.result, facts=facts, log=answer.log,
            attempt=attempt,
        )  # fmt: skip
        if answer.step == "generate" or observation.outcome is not Outcome.PASSED:
            self._tell(f"{task.label}: {self._verdict(task.label)} [{observation.seconds:.1f} s]")

    def _inspect(self, checkpoint: Checkpoint) -> None:
        key = self._keys.inspect(checkpoint)
        if key is None or self._keys.settled(key):
            return
        read = (self._keys.build(checkpoint.model), self._keys.quantize(checkpoint))
        if all(map(self._steps.is_there, read)):
            observation = self._steps.inspect(checkpoint, key)
            self._say(checkpoint.quantizer.environment, f"inspect {checkpoint.id}", observation)

    def _say(self, where: str, what: str, observation: Observation) -> None:
        end = str(observation.outcome)
        if observation.outcome is not Outcome.PASSED:
            first_line = observation.message.strip().splitlines()[:1]
            end += f" ({observation.reason}) {first_line[0][:160] if first_line else ''}"
        self._tell(f"{where}: {what}: {end} [{observation.seconds:.1f} s]")
