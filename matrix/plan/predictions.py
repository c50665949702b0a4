"""What a plan will cost: bytes to download and to keep, and seconds. Pure.

Each cost has a name and is paid once, however many cells stand on it: the wheels of one torch, an
environment, a model, a checkpoint. Seconds come from what this store has measured of the same step
where it has, and otherwise from the constants of the spec, each with its source there.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache
from statistics import median
from typing import assert_never

import msgspec

from matrix.checkpoint.files import Config
from matrix.checkpoint.inspection import ConfigFacts, Quantization
from matrix.checkpoint.shapes import expected_bytes, float_shapes
from matrix.pipeline.outcomes import Outcome
from matrix.pipeline.steps import Device, Performer, RoleKind, Step
from matrix.plan.cell_steps import PlannedStep, steps_of_plan
from matrix.plan.cells import Cell, Checkpoint, Model, Plan, Role
from matrix.spec.requirements import named_releases
from matrix.spec.snapshot import Snapshot
from matrix.spec.tables import DevicePredictions, Environment, PredictionsTable
from matrix.store.store import Record

MB, GB = 10**6, 10**9
WHEELS = "wheels of "
"""What the names of costs begin with that wheels have: package and version follow."""
BYTES = 2
"""Of one parameter of a float model, which lies in 16 bits."""
_TORCH = re.compile(r"torch\s*\(?==\s*([0-9][0-9.]*)")

Pins = Callable[[Environment], Mapping[str, str]]
"""From an environment to what its lock pins; empty while it has none."""


class Cost(msgspec.Struct, frozen=True):
    """What something takes."""

    download: int = 0
    """Bytes."""
    disk: int = 0
    """Bytes that stay, those in uv's cache among them."""
    seconds: float = 0.0
    measured: float = 0.0
    """Of the seconds, those that this store's own timings say."""

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.download + other.download,
            self.disk + other.disk,
            self.seconds + other.seconds,
            self.measured + other.measured,
        )


class Prediction(msgspec.Struct, frozen=True):
    """The costs of a plan by name, and what each stands on."""

    costs: dict[str, Cost]
    needs: dict[str, tuple[str, ...]]
    """Name of a cost -> names of those that must have been paid before it."""

    def names(self, cells: Iterable[str], paid: Collection[str] = ()) -> list[str]:
        """Return the costs of cells, by id, that are not paid for, nor all behind what is."""
        names: dict[str, None] = {}
        left = [name_of_cell(cell) for cell in cells]
        while left:
            name = left.pop()
            if name not in names and name not in paid:
                names[name] = None
                left += self.needs.get(name, ())
        return list(names)

    def of_cells(self, cells: Iterable[str], paid: Collection[str] = ()) -> Cost:
        """Return what cells take together beyond what is paid for."""
        return sum((self.costs[name] for name in self.names(cells, paid)), Cost())


def name_of_cell(cell: str) -> str:
    """Return the name of a cell's own cost: its load and its answers."""
    return f"cell {cell}"


def name_of_checkpoint(checkpoint: Checkpoint) -> str:
    """Return the name of the cost of making a checkpoint, that of the model for the float one."""
    if checkpoint.scheme is None:
        return name_of_model(checkpoint.model)
    return f"checkpoint {checkpoint.id}"


def name_of_model(model: Model) -> str:
    """Return the name of the cost of building a model."""
    return f"model {model.name}"


def name_of_environment(environment: str) -> str:
    """Return the name of the cost of building an environment, without wheels that others share."""
    return f"environment {environment}"


def name_of(step: PlannedStep) -> str:
    """Return the name of the cost that a step is part of, by what it is of."""
    match step.subject:
        case Role() if step.step is Step.IMPORT:
            return f"import of {' '.join(map(str, step.id[1:]))}"
        case Role():
            return name_of_environment(step.environment)
        case Model():
            return name_of_model(step.subject)
        case Checkpoint():
            return name_of_checkpoint(step.subject)
        case Cell():
            return name_of_cell(step.name)


class Timings:
    """What steps took here before: the same step of the same subject, or of the like."""

    def __init__(self, records: Iterable[Record]) -> None:
        timed: dict[tuple[str, ...], list[float]] = defaultdict(list)
        for record in records:
            if record.outcome == Outcome.INFRA:
                continue
            device = "cuda" if record.device.startswith("cuda") else "cpu"
            for like in _likenesses(record.step, record.subject):
                timed[record.step, device, *like].append(record.seconds)
        self._medians = {like: median(seconds) for like, seconds in timed.items()}

    def include(self, step: str, subject: str, device: Device) -> bool:
        """Whether the very same step was timed."""
        return (step, device, subject) in self._medians

    def seconds(self, step: str, subject: str, device: Device) -> float | None:
        """Return the median of the nearest likeness; ``None`` where nothing like it was timed."""
        likes = ((step, device, *like) for like in _likenesses(step, subject))
        return next((self._medians[like] for like in likes if like in self._medians), None)


def _likenesses(step: str, subject: str) -> list[tuple[str, ...]]:
    """Return what else a timing of a subject speaks for, the nearest first.

    Of a checkpoint or cell: the same role with the same model, then the same model. A model tells
    nothing of another, but an environment is installed and imported much like any other.
    """
    match step:
        case "quantize" | "inspect" | "load" | "generate" if "/" in subject:
            model, *_, role = subject.split("/")
            return [(subject,), (model, role), (model,)]
        case "install" | "import":
            return [(subject,), ()]
        case _:
            return [(subject,)]


def _facts(model: Model) -> ConfigFacts:
    try:
        return msgspec.convert(model.config, Config).facts
    except msgspec.ValidationError:
        return ConfigFacts()  # a model whose shapes are not known


def parameters(model: Model) -> int:
    """Return how many parameters a model has; 0 for a twin, whose config tells next to nothing."""
    return sum(math.prod(shape) for shape in float_shapes(_facts(model), model.tied).values())


def checkpoint_bytes(checkpoint: Checkpoint) -> int:
    """Return the size of a checkpoint's tensors by the model's config and the scheme."""
    model, scheme = checkpoint.model, checkpoint.scheme
    packed = None
    if scheme is not None:
        sizes, form = (scheme.bits, scheme.group_size), scheme.format
        packed = Quantization(scheme.method, *sizes, sym=scheme.sym, checkpoint_format=form)
    return expected_bytes(_facts(model), model.tied, packed) or 0


def torch_of(environment: Environment, pins: Mapping[str, str], snapshot: Snapshot) -> str:
    """Return which torch an environment will take: by its lock, or else by what its releases
    declare. Those that name none take the newest of their time. Empty where a lock has none."""
    if pins:
        return pins.get("torch", "")
    required = [*environment.requirements, *environment.overrides]
    for package, version in named_releases(environment).items():
        required += snapshot.declares(package, version, environment.metadata) or []
    exact_torch = next((match[1] for text in required if (match := _TORCH.match(text))), None)
    return exact_torch or f"of {environment.cutoff[:7] or 'today'}"


def predict(
    plan: Plan,
    constants: PredictionsTable,
    timings: Timings,
    snapshot: Snapshot,
    pins: Pins,
    *,
    linked: bool = True,
) -> Prediction:
    """Return what a plan's cells cost, as if nothing of it had been done.

    Args:
        plan: Whose cells.
        constants: Those of the spec.
        timings: What was measured here.
        snapshot: What the index held, with the sizes of wheels.
        pins: What the locks that there are pin.
        linked: Whether an environment's files are links to uv's cache, as they are on one file
            system; where they are copies, each takes all its disk again.
    """
    costs = _Costs(plan, constants, timings, snapshot, pins, linked)
    for step in steps_of_plan(plan):
        costs.add(step)
    return Prediction(costs.costs, {name: tuple(names) for name, names in costs.needs.items()})


class _Costs:
    """Adds up what steps cost, under the name of what they are of."""

    def __init__(
        self,
        plan: Plan,
        constants: PredictionsTable,
        timings: Timings,
        snapshot: Snapshot,
        pins: Pins,
        linked: bool,
    ) -> None:
        self.costs: dict[str, Cost] = {}
        self.needs: dict[str, dict[str, None]] = {}
        self._environments = plan.environments
        self._constants = constants
        self._timings = timings
        self._snapshot = snapshot
        self._release = cache(snapshot.release)
        self._pins = pins
        self._linked = linked
        self._parameters = {model.name: parameters(model) for model in plan.models}

    def add(self, step: PlannedStep) -> None:
        """Add a step's cost to that of what it is of, which stands on all that the step does."""
        name = name_of(step)
        cost = self._of(step)
        if step.definition.performer is Performer.PROBE and step.step is not Step.IMPORT:
            cost += self._per_job(step)
        self.costs[name] = self.costs.get(name, Cost()) + cost
        stands_on = self.needs.setdefault(name, {})
        stands_on.update({name_of(earlier): None for earlier in step.after})
        stands_on.pop(name, None)

    def _of(self, step: PlannedStep) -> Cost:
        """Return what a step takes: as timed here, else as the constants say."""
        match step.subject:
            case Role():
                return self._of_environment(step)
            case Model():
                size = BYTES * self._parameters[step.subject.name]
                fetched = self._fetched(size) if "repository" in step.subject.recipe else Cost()
                seconds = self._constants.build_seconds + fetched.seconds
                return self._timed(step, seconds) + Cost(fetched.download, size)
            case Checkpoint() if step.step is Step.QUANTIZE:
                return self._of_quantization(step, step.subject)
            case Checkpoint() if step.step in (Step.REPAIR, Step.INSPECT):
                size = BYTES * self._parameters[step.subject.model.name]
                copied = checkpoint_bytes(step.subject) if step.step is Step.REPAIR else 0
                reading = size / GB * self._constants.inspect_seconds_per_gb
                return self._timed(step, reading) + Cost(disk=copied)
            case Cell() if step.step is Step.LOAD:
                speed, billions = self._speed(step), self._billions(step.subject.checkpoint)
                load = speed.load_seconds + billions * speed.load_seconds_per_billion
                return self._timed(step, load)
            case Cell() if step.step is Step.GENERATE:
                return self._timed(step, self._speed(step).generate_seconds)
            case Checkpoint() | Cell():
                return self._timed(step, 0)

    def _of_environment(self, step: PlannedStep) -> Cost:
        match step.step:
            case Step.INSTALL:
                return self._of_install(step)
            case Step.IMPORT:
                return self._timed(step, self._speed(step).import_seconds) + self._first_job(step)
            case _:
                return Cost()  # resolving is counted with installing: it is as quick as it is rare

    def _first_job(self, step: PlannedStep) -> Cost:
        """Return what packages compile or look into at a role's first job in an environment."""
        if self._timings.include(step.step, step.name, self._device(step)):
            return Cost()  # which is over
        match step.definition.role:
            case RoleKind.BUILDER:
                return Cost()
            case RoleKind.QUANTIZER:
                by_package = self._constants.first_quantize_seconds
            case RoleKind.ENGINE:
                by_package = self._constants.first_load_seconds
            case _:
                assert_never(step.definition.role)
        packages = named_releases(self._environments[step.environment])
        return Cost(seconds=sum(by_package.get(package, 0) for package in packages))

    def _of_quantization(self, step: PlannedStep, checkpoint: Checkpoint) -> Cost:
        size, speed = checkpoint_bytes(checkpoint), self._speed(step)
        if "repository" in step.role.options:
            fetched = self._fetched(size)
            return self._timed(step, fetched.seconds) + Cost(fetched.download, size)
        assert checkpoint.scheme is not None
        slope = speed.quantize_seconds_per_billion[checkpoint.scheme.method]
        seconds = speed.quantize_seconds + self._billions(checkpoint) * slope
        return self._timed(step, seconds) + Cost(disk=size)

    def _of_install(self, step: PlannedStep) -> Cost:
        """Return what an environment takes alone; wheels that others share have their own names."""
        environment, constants = self._environments[step.environment], self._constants
        torch = torch_of(environment, self._pins(environment), self._snapshot)
        wheels = {f"torch {torch}": constants.torch_mb * MB} if torch else {}
        seconds = constants.resolve_seconds + constants.install_seconds
        built_from_source = set()
        for package, version in named_releases(environment).items():
            if release := self._release(package, version):
                brought = constants.brings_mb.get(package, 0) * MB
                wheels[f"{package} {version}"] = release.size + brought
                if not release.wheels:
                    built_from_source.add(f"{package} {version}")
        own = constants.packages_mb * MB
        copied = 0 if self._linked else sum(wheels.values())
        for wheel, size in wheels.items():
            built = constants.source_build_seconds if wheel in built_from_source else 0
            kept = Cost(disk=int(size * constants.unpacked), seconds=built)
            self.costs[WHEELS + wheel] = self._fetched(size) + kept
            self.needs.setdefault(name_of(step), {})[WHEELS + wheel] = None
        disk = own * constants.packages_unpacked + constants.bytecode_mb * MB
        kept = Cost(disk=int(disk + copied * constants.unpacked))
        return self._fetched(own) + self._timed(step, seconds) + kept

    def _billions(self, checkpoint: Checkpoint) -> float:
        return self._parameters[checkpoint.model.name] / GB

    def _device(self, step: PlannedStep) -> Device:
        """Return what a step runs on: its environment's device, or the CPU where we perform it."""
        inside = step.definition.performer is Performer.PROBE
        return self._environments[step.environment].device if inside else "cpu"

    def _speed(self, step: PlannedStep) -> DevicePredictions:
        constants = self._constants
        return constants.cuda if self._device(step) == "cuda" else constants.cpu

    def _timed(self, step: PlannedStep, predicted: float) -> Cost:
        seconds = self._timings.seconds(step.step, step.name, self._device(step))
        if seconds is None:
            return Cost(seconds=predicted)
        return Cost(seconds=seconds, measured=seconds)

    def _per_job(self, step: PlannedStep) -> Cost:
        """Return what each job takes besides its steps: on a GPU it is a process of its own."""
        if self._device(step) != "cuda" or step.definition.continues:
            return Cost()
        seconds = self._timings.seconds(Step.IMPORT, step.environment, "cuda")
        if seconds is None:
            return Cost(seconds=self._constants.cuda.import_seconds)
        return Cost(seconds=seconds, measured=seconds)

    def _fetched(self, size: float) -> Cost:
        speed = self._constants.download_mb_per_second * MB
        return Cost(download=int(size), seconds=size / speed)
