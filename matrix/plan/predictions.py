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

import msgspec

from matrix.checkpoint.files import Config
from matrix.checkpoint.inspection import ConfigFacts, Quantization
from matrix.checkpoint.shapes import expected_bytes, float_shapes
from matrix.outcomes import Outcome
from matrix.plan.cells import FLOAT_SCHEME, Cell, Checkpoint, Model, Plan
from matrix.spec.axes import exact
from matrix.spec.loading import FLOAT_MODEL
from matrix.spec.releases import Snapshot
from matrix.spec.tables import Device, DevicePredictions, Environment, PredictionsTable
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
        found: dict[str, None] = {}
        left = [name_of_cell(cell) for cell in cells]
        while left:
            name = left.pop()
            if name not in found and name not in paid:
                found[name] = None
                left += self.needs.get(name, ())
        return list(found)

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


def name_of_import(environment: str, role: str) -> str:
    """Return the name of the cost of importing for all that a role does."""
    return f"import of {environment} as {role}"


class Timings:
    """What steps took here before: the same step of the same subject, or of the like."""

    def __init__(self, records: Iterable[Record]) -> None:
        found: dict[tuple[str, ...], list[float]] = defaultdict(list)
        for record in records:
            if record.outcome == Outcome.INFRA:
                continue
            device = "cuda" if record.device.startswith("cuda") else "cpu"
            for like in _likenesses(record.step, record.subject):
                found[record.step, device, *like].append(record.seconds)
        self._medians = {like: median(seconds) for like, seconds in found.items()}

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
    packed = Quantization(scheme.method, scheme.bits, scheme.group_size) if scheme else None
    return expected_bytes(_facts(model), model.tied, packed) or 0


def torch_of(environment: Environment, pins: Mapping[str, str], snapshot: Snapshot) -> str:
    """Return which torch an environment will take: by its lock, or else by what its releases
    declare. Those that name none take the newest of their time. Empty where a lock has none."""
    if pins:
        return pins.get("torch", "")
    asked = [*environment.requirements, *environment.overrides]
    for package, version in exact(environment):
        asked += snapshot.declares(package, version, environment.metadata) or []
    found = next((match[1] for text in asked if (match := _TORCH.match(text))), None)
    return found or f"of {environment.cutoff[:7] or 'today'}"


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
    for cell in plan.cells:
        costs.add_cell(cell)
    return Prediction(costs.found, costs.needs)


class _Costs:
    """Finds each cost, and what it stands on, once; the methods return its name."""

    def __init__(
        self,
        plan: Plan,
        constants: PredictionsTable,
        timings: Timings,
        snapshot: Snapshot,
        pins: Pins,
        linked: bool,
    ) -> None:
        self.found: dict[str, Cost] = {}
        self.needs: dict[str, tuple[str, ...]] = {}
        self._environments = plan.environments
        self._constants = constants
        self._timings = timings
        self._snapshot = snapshot
        self._release = cache(snapshot.release)
        self._pins = pins
        self._linked = linked
        self._parameters = {model.name: parameters(model) for model in plan.models}
        self._quantizing = {c.quantizer.environment for c in plan.checkpoints if c.scheme}
        self._loading = {cell.engine.environment for cell in plan.cells}

    def add_cell(self, cell: Cell) -> None:
        checkpoint, engine = cell.checkpoint, cell.engine
        device, speed = self._device(engine.environment)
        billions = self._parameters[checkpoint.model.name] / GB
        load = speed.load_seconds + billions * speed.load_seconds_per_billion
        name = name_of_cell(cell.id)
        self.found[name] = (
            self._timed("load", cell.id, device, load)
            + self._timed("generate", cell.id, device, speed.generate_seconds)
            + self._per_job(engine.environment)
        )
        self.needs[name] = (
            self._checkpoint(checkpoint), self._import(engine.environment, engine.name),
        )  # fmt: skip

    def _checkpoint(self, checkpoint: Checkpoint) -> str:
        name, role = name_of_checkpoint(checkpoint), checkpoint.quantizer
        if checkpoint.scheme is None:
            return self._model(checkpoint.model)
        if name in self.found:
            return name
        size = checkpoint_bytes(checkpoint)
        billions = self._parameters[checkpoint.model.name] / GB
        device, speed = self._device(role.environment)
        if "repository" in role.options:
            made = self._fetched(size)
            seconds = made.seconds
        else:
            made = Cost()
            slope = speed.quantize_seconds_per_billion[checkpoint.scheme.method]
            seconds = speed.quantize_seconds + billions * slope
        self.found[name] = (
            self._timed("quantize", checkpoint.id, device, seconds)
            + Cost(download=made.download, disk=size)
            + self._inspected(checkpoint.id, billions * BYTES * GB)
            + self._per_job(role.environment)
        )
        imported = self._import(role.environment, role.name)
        self.needs[name] = (self._model(checkpoint.model), imported)
        return name

    def _model(self, model: Model) -> str:
        name = name_of_model(model)
        if name in self.found:
            return name
        size = BYTES * self._parameters[model.name]
        device, _ = self._device(model.environment)
        fetched = self._fetched(size) if "repository" in model.recipe else Cost()
        seconds = self._constants.build_seconds + fetched.seconds
        self.found[name] = (
            self._timed("build", model.name, device, seconds)
            + Cost(download=fetched.download, disk=size)
            + self._inspected(f"{model.name}/{FLOAT_SCHEME}/{FLOAT_MODEL}", size)
            + self._per_job(model.environment)
        )
        self.needs[name] = (self._import(model.environment, FLOAT_MODEL),)
        return name

    def _import(self, environment: str, role: str) -> str:
        """A run imports once for all that a role does; without a GPU, at least."""
        name = name_of_import(environment, role)
        if name not in self.found:
            self.found[name] = self._imported(environment)
            self.needs[name] = (self._environment(environment),)
        return name

    def _environment(self, name: str) -> str:
        """All that an environment takes: its own packages, and wheels that others share."""
        named = name_of_environment(name)
        if named in self.found:
            return named
        environment, constants = self._environments[name], self._constants
        device, _ = self._device(name)
        torch = torch_of(environment, self._pins(environment), self._snapshot)
        wheels = {f"torch {torch}": constants.torch_mb * MB} if torch else {}
        seconds = constants.resolve_seconds + constants.install_seconds
        built_from_source = set()
        for package, version in exact(environment):
            if release := self._release(package, version):
                brought = constants.brings_mb.get(package, 0) * MB
                wheels[f"{package} {version}"] = release.size + brought
                if not release.wheels:
                    built_from_source.add(f"{package} {version}")
        own = constants.packages_mb * MB
        copied = 0 if self._linked else sum(wheels.values())
        kept = Cost(disk=int(own * constants.packages_unpacked + copied * constants.unpacked))
        built = self._timed("install", name, device, seconds) + self._first_time(environment)
        self.found[named] = self._fetched(own) + built + kept
        for wheel, size in wheels.items():
            made = constants.source_build_seconds if wheel in built_from_source else 0
            kept = Cost(disk=int(size * constants.unpacked), seconds=made)
            self.found[WHEELS + wheel] = self._fetched(size) + kept
        self.needs[named] = tuple(WHEELS + wheel for wheel in wheels)
        return named

    def _first_time(self, environment: Environment) -> Cost:
        """Return what packages compile or look into once in each environment."""
        packages, seconds = [package for package, _ in exact(environment)], 0.0
        if environment.name in self._quantizing:
            seconds += sum(self._constants.first_quantize_seconds.get(p, 0) for p in packages)
        if environment.name in self._loading:
            seconds += sum(self._constants.first_load_seconds.get(p, 0) for p in packages)
        return Cost(seconds=seconds)

    def _device(self, environment: str) -> tuple[Device, DevicePredictions]:
        device = self._environments[environment].device
        return device, self._constants.cuda if device == "cuda" else self._constants.cpu

    def _timed(self, step: str, subject: str, device: Device, predicted: float) -> Cost:
        known = self._timings.seconds(step, subject, device)
        if known is None:
            return Cost(seconds=predicted)
        return Cost(seconds=known, measured=known)

    def _imported(self, environment: str) -> Cost:
        device, speed = self._device(environment)
        return self._timed("import", environment, device, speed.import_seconds)

    def _per_job(self, environment: str) -> Cost:
        """Return what each job takes besides its steps: on a GPU it is a process of its own."""
        is_cuda = self._environments[environment].device == "cuda"
        return self._imported(environment) if is_cuda else Cost()

    def _fetched(self, size: float) -> Cost:
        speed = self._constants.download_mb_per_second * MB
        return Cost(download=int(size), seconds=size / speed)

    def _inspected(self, subject: str, size: float) -> Cost:
        seconds = size / GB * self._constants.inspect_seconds_per_gb
        return self._timed("inspect", subject, "cpu", seconds)
