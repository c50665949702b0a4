"""Under which key each step's observation stands: a digest of everything that went in.

Keys are chained: what was really installed is known from the install's observation, so the keys of
an environment's probes exist only once it was installed. ``None`` says that an earlier step has
not been observed yet or did not pass. Pure but for reading the files that are part of a key.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterator, Mapping
from copy import copy
from functools import wraps
from operator import attrgetter
from typing import Any, Self

import msgspec

from matrix.pipeline.outcomes import Outcome
from matrix.pipeline.steps import Step
from matrix.plan.cells import Cell, Checkpoint, Model, Role
from matrix.spec.loading import PACKAGE
from matrix.spec.tables import Device, Environment
from matrix.store.identity import adapter_digest, code_digest, digest, file_digest
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
        return cls(step, subject, inputs, departures, digest([step, inputs, departures]))


class Keys:
    """The keys of a plan's steps, as far as the observations at hand reach."""

    def __init__(
        self,
        environments: dict[str, Environment],
        lookup: Lookup,
        lock_of: Callable[[str], str],
        install_from: str,
        devices: Mapping[Device, str],
        held: Callable[[Mapping[str, Any]], dict[str, Any]] = dict,
    ) -> None:
        self._environments = environments
        self._lookup = lookup
        self._lock_of = lock_of
        self._install_from = install_from
        self._devices = devices
        self.held = held
        """Gives a recipe or options at the commit that is held to."""

    def device(self, name: str) -> str:
        """Return the word for what an environment's probes run on, as in ``cpu x86-64-v3``."""
        return self._devices[self._environments[name].device]

    def fixed(self) -> Self:
        """Return the keys as they are now, each made once: for who asks for thousands of them
        while nothing is observed."""
        keys = copy(self)
        for make, name_of in (
            (keys.resolve, str),
            (keys.install, str),
            (keys._built, str),
            (keys.importing, _name_of_role),
            (keys.build, attrgetter("name")),
            (keys.quantize, attrgetter("id")),
            (keys.inspect, attrgetter("id")),
            (keys.evaluate, attrgetter("id")),
        ):
            setattr(keys, make.__name__, _once(make, name_of))
        return keys

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

    def resolve(self, name: str) -> Key:
        """Return the key of an environment's resolution: all that uv is asked, and its lock.

        The lock is part of it, so that one that was made anew is not passed over.
        """
        environment = self._environments[name]
        inputs = {**lock_inputs(environment), "lock": self._lock_of(name)}
        return Key.of("resolve", name, inputs, environment.departures)

    def install(self, name: str) -> Key | None:
        """Return the key of an environment's installation: its lock, and what may stand in."""
        resolved = self.passed(self.resolve(name))
        if resolved is None:
            return None
        environment = self._environments[name]
        inputs = {"lock": resolved.facts.get("lock"), "from": self._install_from}
        return Key.of("install", name, inputs, environment.departures)

    def _built(self, name: str) -> dict[str, Any] | None:
        installed = self.passed(self.install(name))
        if installed is None:
            return None
        facts = installed.facts
        environment = self._environments[name]
        return {
            "lock": installed.inputs.get("lock"),
            "python": facts.get("python"),
            "torch": facts.get("torch"),
            "environ": environment.environ,
            "device": self.device(name),
            "child": file_digest(CHILD),
        }

    def importing(self, role: Role) -> Key | None:
        """Return the key of the import of a role's package in its environment."""
        built = self._built(role.environment)
        if built is None:
            return None
        inputs = {
            **built,
            "environ": {**built["environ"], **role.environ},
            "adapter": adapter_digest(role.adapter),
            "needs_hardware": role.needs_hardware,
        }
        return Key.of("import", role.environment, inputs, self._departures(role))

    def _departures(self, role: Role) -> list[str]:
        return [*self._environments[role.environment].departures, *role.departures]

    def build(self, model: Model) -> Key | None:
        """Return the key of a model: its recipe and its builder, wherever that runs."""
        if self.passed(self.importing(builder(model))) is None:
            return None
        inputs = {
            "recipe": self.held(model.recipe),
            "tied": model.tied,
            "adapter": adapter_digest(model.adapter),
            **_contents(model.recipe),
        }
        return Key.of("build", model.name, inputs, [])

    def quantize(self, checkpoint: Checkpoint) -> Key | None:
        """Return the key of a checkpoint. That of the float model is its build's."""
        model = self.build(checkpoint.model)
        if checkpoint.scheme is None:
            return model
        built, imported = self.passed(model), self.passed(self.importing(checkpoint.quantizer))
        if built is None or imported is None:
            return None
        inputs = {
            **imported.inputs,
            "options": self.held(checkpoint.quantizer.options),
            "model": built.key,
            "tensors": built.facts.get("tensors_sha256"),
            "scheme": checkpoint.scheme,
            **_contents(checkpoint.quantizer.options),
        }
        return Key.of("quantize", checkpoint.id, msgspec.to_builtins(inputs), imported.departures)

    def inspect(self, checkpoint: Checkpoint) -> Key | None:
        """Return the key of the independent reading of a checkpoint."""
        made = self.passed(self.quantize(checkpoint))
        if made is None:
            return None
        model = self.passed(self.build(checkpoint.model))
        inputs = {
            "checkpoint": made.key,
            "original": model.key if model else None,
            "tensors": model.facts.get("tensors_sha256") if model else None,
            "reader": code_digest(PACKAGE / "checkpoint"),
        }
        return Key.of("inspect", checkpoint.id, inputs, made.departures)

    def evaluate(self, cell: Cell, step: Step) -> Key | None:
        """Return the key of a cell's ``load`` or ``generate``."""
        made = self.passed(self.quantize(cell.checkpoint))
        imported = self.passed(self.importing(cell.engine))
        readable = self.passed(self.inspect(cell.checkpoint))
        if made is None or imported is None or readable is None or cell.exclusion is not None:
            return None
        model = self.passed(self.build(cell.checkpoint.model))
        inputs = {
            **imported.inputs,
            "options": cell.engine.options,
            "checkpoint": made.key,
            "reference": model.key if model else None,
            "tensors": model.facts.get("tensors_sha256") if model else None,
        }
        return Key.of(step, cell.id, inputs, imported.departures)

    def unfinished(self, cell: Cell) -> bool:
        """Whether something that can be done for a cell is still to be done.

        A step that was observed not to pass decides: what comes after it is not waited for.
        """
        for key in self.chain(cell):
            observation = self.observed(key)
            if observation is None or not observation.final:
                return True
            if observation.outcome is not Outcome.PASSED:
                return False
        return False

    def chain(self, cell: Cell) -> Iterator[Key | None]:
        """Give the keys of a cell's steps in order, each made when those before it are known."""
        checkpoint, engine = cell.checkpoint, cell.engine
        if not cell.runs:
            return
        yield from self._of_role(builder(checkpoint.model))
        yield self.build(checkpoint.model)
        if checkpoint.scheme is not None:
            yield from self._of_role(checkpoint.quantizer)
            yield self.quantize(checkpoint)
        yield self.inspect(checkpoint)
        yield from self._of_role(engine)
        yield self.evaluate(cell, "load")
        yield self.evaluate(cell, "generate")

    def _of_role(self, role: Role) -> Iterator[Key | None]:
        yield self.resolve(role.environment)
        yield self.install(role.environment)
        yield self.importing(role)


def _name_of_role(role: Role) -> Hashable:
    """Return all of a role that goes into the key of its import."""
    lists = (*role.environ.items(),), (*role.departures,), (*role.needs_hardware,)
    return role.environment, role.adapter, lists


def _once(make: Callable[..., Any], name_of: Callable[[Any], Hashable]) -> Callable[..., Any]:
    """Return a function that keeps what it once made of a subject, by the subject's name."""
    made: dict[Hashable, Any] = {}

    @wraps(make)
    def once(subject: Any, *more: Hashable) -> Any:
        place = name_of(subject), *more
        if place not in made:
            made[place] = make(subject, *more)
        return made[place]

    return once


def builder(model: Model) -> Role:
    """Return the environment of a model as the role that builds it."""
    return Role("none", model.environment, model.adapter)


def lock_inputs(environment: Environment) -> dict[str, Any]:
    """Return what uv is asked when an environment is resolved.

    The date of ``today`` is not part of it: an answer that stays the same is the same evidence.
    """
    asked: dict[str, Any] = {
        "python": environment.python,
        "requirements": environment.requirements,
        "constraints": environment.constraints,
        "overrides": environment.overrides,
        "build_requirements": environment.build_requirements,
    }
    if environment.build_environ:  # only then, so that the keys of all others stay what they are
        asked["build_environ"] = environment.build_environ
    if environment.resolution == "pinned":
        return asked
    asked |= {
        "resolution": environment.resolution,
        "cutoffs": environment.cutoffs,
        "metadata": [msgspec.to_builtins(table) for table in environment.metadata],
    }
    return asked | ({"cutoff": environment.cutoff} if environment.resolution == "released" else {})


def _contents(options: Mapping[str, object]) -> dict[str, Any]:
    """Return what lies in the folder that options name: files replaced there are other files."""
    if not isinstance(folder := options.get("directory"), str):
        return {}
    try:
        entries = [(entry.name, entry.stat()) for entry in os.scandir(folder)]
    except OSError:
        return {"contents": []}  # the adapter says what is wrong with it
    return {"contents": sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in entries)}
