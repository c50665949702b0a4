"""Under which key each step's observation stands: a digest of everything that went in.

Keys are chained: what was really installed is known from the install's observation, so the keys of
an environment's probes exist only once it was installed. ``None`` says that an earlier step has
not been observed yet or did not pass. Pure but for reading the files that are part of a key.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from typing import Any, Self

import msgspec

from matrix.pipeline.outcomes import Outcome
from matrix.pipeline.steps import STEPS, Device, Step
from matrix.plan.cell_steps import Identity, PlannedStep, steps_of
from matrix.plan.cells import Cell, Checkpoint, Model
from matrix.spec.loading import PACKAGE
from matrix.spec.tables import Environment
from matrix.store.facts import BuildFacts, InstallFacts, ResolveFacts, read_facts
from matrix.store.identity import adapter_digest, code_digest, file_digest, key_of
from matrix.store.observations import Observation

CHILD = PACKAGE / "probe" / "child.py"

Lookup = Callable[[Step, str], Observation | None]


class Key(msgspec.Struct, frozen=True):
    """The name of one observation, and what it stands for."""

    step: Step
    subject: str
    inputs: dict[str, Any]
    departures: list[str]
    value: str

    @classmethod
    def of(cls, step: Step, subject: str, inputs: dict[str, Any], departures: list[str]) -> Key:
        """Make the key of a step from its inputs."""
        return cls(step, subject, inputs, departures, key_of(step, inputs, departures))


class Keys:
    """The keys of steps, as far as the observations at hand reach.

    Args:
        environments: Those of the plan, by name.
        lookup: Gives the observation under a step's key, or ``None``.
        lock_of: Gives the digest of an environment's lock, empty while there is none.
        install_from: What may stand in for the wheels of the index.
        devices: The word for what the probes of each device run on here.
        held: Gives a recipe or options at the commit that is held to.
    """

    def __init__(
        self,
        environments: dict[str, Environment],
        lookup: Lookup,
        lock_of: Callable[[str], str],
        install_from: str,
        devices: Mapping[Device, str],
        held: Callable[[Mapping[str, Any]], dict[str, Any]] = dict,
    ) -> None:
        self.environments = environments
        self.lock_of = lock_of
        self.install_from = install_from
        self.held = held
        self._lookup = lookup
        self._devices = devices
        self._made: dict[Identity, Key | None] | None = None

    def device(self, name: str) -> str:
        """Return the word for what an environment's probes run on, as in ``cpu x86-64-v3``."""
        return self._devices[self.environments[name].device]

    def fixed(self) -> Self:
        """Return the keys as they are now, each made once: for who wants thousands of them
        while nothing is observed."""
        keys = copy(self)
        keys._made = {}
        return keys

    def of(self, step: PlannedStep) -> Key | None:
        """Return the key of a step; ``None`` while what it stands on has not been seen to pass."""
        if self._made is None:
            return self._make(step)
        if step.id not in self._made:
            self._made[step.id] = self._make(step)
        return self._made[step.id]

    def _make(self, step: PlannedStep) -> Key | None:
        if isinstance(step.subject, Cell) and step.subject.exclusion is not None:
            return None
        passed: dict[Step, Observation] = {}
        for earlier in step.after:
            observation = self.passed(self.of(earlier))
            if observation is None:
                return None
            passed[earlier.step] = observation
        inputs, departures = _INPUTS.get(step.step, _of_code)(self, step, passed)
        return Key.of(step.step, step.name, inputs, departures)

    def observed(self, key: Key | None) -> Observation | None:
        """Return the observation under a key, or ``None`` where there is none yet."""
        return self._lookup(key.step, key.value) if key else None

    def settled(self, key: Key | None) -> bool:
        """Whether a step has an observation that need not be made again."""
        observation = self.observed(key)
        return observation is not None and observation.final

    def passed(self, key: Key | None) -> Observation | None:
        """Return the observation under a key where the step passed."""
        observation = self.observed(key)
        return observation if observation and observation.outcome is Outcome.PASSED else None

    def unfinished(self, cell: Cell) -> bool:
        """Whether something that can be done for a cell is still to be done.

        A step that was observed not to pass decides: what comes after it is not waited for.
        """
        if not cell.runs:
            return False
        for step in steps_of(cell):
            observation = self.observed(self.of(step))
            if observation is None or not observation.final:
                return True
            if observation.outcome is not Outcome.PASSED:
                return False
        return False

    def unfinished_of(self, cells: Iterable[Cell]) -> list[Cell]:
        """Return those cells of which something is still to be done."""
        keys = self.fixed()
        return [cell for cell in cells if keys.unfinished(cell)]


Inputs = tuple[dict[str, Any], list[str]]
"""What goes into a key, and the departures that the step has."""
Passed = Mapping[Step, Observation]
"""The observations of the steps that one stands on."""


def _of_resolve(keys: Keys, step: PlannedStep, _: Passed) -> Inputs:
    """All that uv is asked, and the lock, so that one that was made anew is not passed over."""
    environment = keys.environments[step.environment]
    inputs = {**lock_inputs(environment), "lock": keys.lock_of(environment.name)}
    return inputs, environment.departures


def _of_install(keys: Keys, step: PlannedStep, passed: Passed) -> Inputs:
    """The lock, and what may stand in for what it names."""
    inputs = {
        "lock": read_facts(passed[Step.RESOLVE], ResolveFacts).lock,
        "from": keys.install_from,
    }
    return inputs, keys.environments[step.environment].departures


def _of_import(keys: Keys, step: PlannedStep, passed: Passed) -> Inputs:
    """What was really installed, how the process is started, and the adapter."""
    installed, environment = passed[Step.INSTALL], keys.environments[step.environment]
    facts = read_facts(installed, InstallFacts)
    inputs = {
        "lock": installed.inputs.get("lock"),
        "python": facts.python,
        "torch": facts.torch,
        "environ": {**environment.environ, **step.role.environ},
        "device": keys.device(environment.name),
        "child": file_digest(CHILD),
        "adapter": adapter_digest(step.role.adapter),
        "needs_hardware": step.role.needs_hardware,
    }
    return inputs, [*environment.departures, *step.role.departures]


def _of_build(keys: Keys, step: PlannedStep, _: Passed) -> Inputs:
    """The recipe and the builder, wherever that runs."""
    assert isinstance(step.subject, Model)
    model = step.subject
    inputs = {
        "recipe": keys.held(model.recipe),
        "tied": model.tied,
        "adapter": adapter_digest(model.adapter),
        **_contents(model.recipe),
    }
    return inputs, []


def _of_quantize(keys: Keys, step: PlannedStep, passed: Passed) -> Inputs:
    assert isinstance(step.subject, Checkpoint)
    checkpoint, imported = step.subject, passed[Step.IMPORT]
    inputs = {
        **imported.inputs,
        "options": keys.held(checkpoint.quantizer.options),
        **_model(passed, "model"),
        "scheme": checkpoint.scheme and checkpoint.scheme.request,
        **_contents(checkpoint.quantizer.options),
    }
    return msgspec.to_builtins(inputs), imported.departures


def _of_repair(_: Keys, step: PlannedStep, passed: Passed) -> Inputs:
    """The files, which repairs, and the code that makes them; not where they were proven."""
    inputs = {
        "checkpoint": passed[Step.QUANTIZE].key,
        "repairs": step.role.repairs,
        "code": code_digest(PACKAGE / step.definition.code),
        "reader": code_digest(PACKAGE / STEPS[Step.INSPECT].code),
    }
    return msgspec.to_builtins(inputs), passed[Step.QUANTIZE].departures


def _of_inspect(_: Keys, step: PlannedStep, passed: Passed) -> Inputs:
    made = _made(passed)
    inputs = {
        "checkpoint": made.key,
        **_model(passed, "original"),
        "reader": code_digest(PACKAGE / step.definition.code),
    }
    return inputs, made.departures


def _of_evaluation(_: Keys, step: PlannedStep, passed: Passed) -> Inputs:
    imported = passed[Step.IMPORT]
    inputs = {
        **imported.inputs,
        "options": step.role.options,
        "checkpoint": _made(passed).key,
        **_model(passed, "reference"),
    }
    return inputs, imported.departures


def _of_code(_: Keys, step: PlannedStep, passed: Passed) -> Inputs:
    """Of a step that has nothing of its own: all that it stands on, and the code that does it."""
    inputs = {
        "stands_on": {name.value: observation.key for name, observation in passed.items()},
        "code": code_digest(PACKAGE / step.definition.code),
    }
    return inputs, _made(passed).departures


_INPUTS: dict[Step, Callable[[Keys, PlannedStep, Passed], Inputs]] = {
    Step.RESOLVE: _of_resolve,
    Step.INSTALL: _of_install,
    Step.IMPORT: _of_import,
    Step.BUILD: _of_build,
    Step.QUANTIZE: _of_quantize,
    Step.REPAIR: _of_repair,
    Step.INSPECT: _of_inspect,
    Step.LOAD: _of_evaluation,
    Step.GENERATE: _of_evaluation,
}


def _made(passed: Passed) -> Observation:
    """Return the observation of the step that made the files: the last of those that make any."""
    makers = (Step.REPAIR, Step.QUANTIZE, Step.BUILD)
    return next(passed[step] for step in makers if step in passed)


def _model(passed: Passed, name: str) -> dict[str, Any]:
    built = passed[Step.BUILD]
    return {name: built.key, "tensors": read_facts(built, BuildFacts).tensors_sha256}


def lock_inputs(environment: Environment) -> dict[str, Any]:
    """Return what uv is asked when an environment is resolved.

    The date of ``today`` is not part of it: an answer that stays the same is the same evidence.
    """
    inputs: dict[str, Any] = {
        "python": environment.python,
        "requirements": environment.requirements,
        "constraints": environment.constraints,
        "overrides": environment.overrides,
        "build_requirements": environment.build_requirements,
    }
    if environment.build_environ:  # only then, so that the keys of all others stay what they are
        inputs["build_environ"] = environment.build_environ
    if environment.resolution == "pinned":
        return inputs
    inputs |= {
        "resolution": environment.resolution,
        "cutoffs": environment.cutoffs,
        "metadata": [msgspec.to_builtins(table) for table in environment.metadata],
    }
    return inputs | ({"cutoff": environment.cutoff} if environment.resolution == "released" else {})


def _contents(options: Mapping[str, object]) -> dict[str, Any]:
    """Return what lies in the folder that options name: files replaced there are other files."""
    if not isinstance(folder := options.get("directory"), str):
        return {}
    try:
        entries = [(entry.name, entry.stat()) for entry in os.scandir(folder)]
    except OSError:
        return {"contents": []}  # the adapter says what is wrong with it
    return {"contents": sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in entries)}
