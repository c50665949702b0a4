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

from matrix.axes import exact
from matrix.checkpoint.files import Config
from matrix.checkpoint.inspection import Quantization
from matrix.checkpoint.shapes import expected_bytes, float_shapes
from matrix.outcomes import Outcome
from matrix.plan import Cell, Checkpoint, Model, Plan
from matrix.releases import Snapshot
from matrix.store import Record
from matrix.tables import Device, DevicePredictions, Environment, PredictionsTable

MB, GB = 10**6, 10**9
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
    """The costs of a plan by name, and the names of those that each cell stands on."""

    costs: dict[str, Cost]
    cells: dict[str, tuple[str, ...]]

    def total(self, names: Iterable[str]) -> Cost:
        """Return the sum of some costs, each counted once."""
        return sum((self.costs[name] for name in dict.fromkeys(names)), Cost())

    def of_cells(self, cells: Iterable[str], paid: Collection[str] = ()) -> Cost:
        """Return what cells take together beyond what is paid for."""
        names = (name for cell in cells for name in self.cells[cell])
        return self.total(name for name in names if name not in paid)


class Timings:
    """What steps took here before: the same step of the same subject, or of the like."""

    def __init__(self, records: Iterable[Record]) -> None:
        found: dict[tuple[str, ...], list[float]] = defaultdict(list)
        for record in records:
            if record.step == "check" or record.outcome == Outcome.INFRA:
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
        case "quantize" | "inspect" | "load" | "generate":
            model, *_, role = subject.split("/")
            return [(subject,), (model, role), (model,)]
        case "install" | "import":
            return [(subject,), ()]
        case _:
            return [(subject,)]


@cache
def _config(config: bytes) -> Config:
    return msgspec.json.decode(config, type=Config)


def parameters(model: Model) -> int:
    """Return how many parameters a model has by its config; 0 for a twin, which has next to none.

    Raises ``msgspec.ValidationError`` where the config's facts are of the wrong type.
    """
    config = _config(msgspec.json.encode(model.config))
    return sum(math.prod(shape) for shape in float_shapes(config.facts, model.tied).values())


def checkpoint_bytes(checkpoint: Checkpoint) -> int:
    """Return the size of a checkpoint's tensors by the model's config and the scheme."""
    config = _config(msgspec.json.encode(checkpoint.model.config))
    scheme = checkpoint.scheme
    packed = Quantization(scheme.method, scheme.bits, scheme.group_size) if scheme else None
    return expected_bytes(config.facts, checkpoint.model.tied, packed) or 0


def torch_of(environment: Environment, pins: Mapping[str, str], snapshot: Snapshot) -> str:
    """Return which torch an environment will take: by its lock, or else by what its releases
    declare. Those that name none take the newest of their time."""
    if version := pins.get("torch"):
        return version
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
    cells = {cell.id: tuple(dict.fromkeys(costs.of_cell(cell))) for cell in plan.cells}
    return Prediction(costs.found, cells)


class _Costs:
    """Finds each cost once; every method gives the names of those that something stands on."""

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
        self._plan = plan
        self._constants = constants
        self._timings = timings
        self._snapshot = snapshot
        self._pins = pins
        self._linked = linked
        self._parameters = cache(lambda name: parameters(self._models[name]))
        self._models = {model.name: model for model in plan.models}
        self._environment = cache(self._of_environment)
        self._checkpoints: dict[str, list[str]] = {}

    def of_cell(self, cell: Cell) -> list[str]:
        checkpoint, where = cell.checkpoint, cell.engine.environment
        names = [
            *self._of_model(checkpoint.model),
            *self._of_checkpoint(checkpoint),
            *self._environment(where),
        ]
        device, speed = self._device(where)
        billions = self._parameters(checkpoint.model.name) / GB
        predicted = speed.load_seconds + billions * speed.load_seconds_per_billion
        evaluation = self._timed("load", cell.id, device, predicted)
        evaluation += self._timed("generate", cell.id, device, speed.generate_seconds)
        name = f"cell {cell.id}"
        self.found[name] = evaluation + self._per_job(where)
        return [*names, *self._import(where, cell.engine.name), name]

    def _device(self, name: str) -> tuple[Device, DevicePredictions]:
        device = self._plan.environments[name].device
        return device, self._constants.cuda if device == "cuda" else self._constants.cpu

    def _timed(self, step: str, subject: str, device: Device, predicted: float) -> Cost:
        known = self._timings.seconds(step, subject, device)
        if known is None:
            return Cost(seconds=predicted)
        return Cost(seconds=known, measured=known)

    def _importing(self, name: str) -> Cost:
        device, speed = self._device(name)
        return self._timed("import", name, device, speed.import_seconds)

    def _per_job(self, environment: str) -> Cost:
        """Return what each job takes besides its steps: on a GPU it is a process of its own."""
        is_cuda = self._plan.environments[environment].device == "cuda"
        return self._importing(environment) if is_cuda else Cost()

    def _import(self, environment: str, role: str) -> list[str]:
        name = f"import {role}"
        self.found[name] = self._importing(environment)
        return [name]

    def _fetched(self, size: float) -> Cost:
        speed = self._constants.download_mb_per_second * MB
        return Cost(download=int(size), seconds=size / speed)

    def _of_environment(self, name: str) -> list[str]:
        """The wheels of its torch and of the releases it names, and all else that it takes."""
        environment = self._plan.environments[name]
        constants = self._constants
        wheels = {f"torch {torch_of(environment, self._pins(environment), self._snapshot)}":
                  constants.torch_mb * MB}  # fmt: skip
        seconds = constants.resolve_seconds + constants.install_seconds
        for package, version in exact(environment):
            release = self._snapshot.release(package, version)
            if release is not None:
                wheels[f"{package} {version}"] = release.size
                seconds += 0 if release.wheels else constants.source_build_seconds
        own = self._device(name)[1].packages_mb * MB
        copied = 0 if self._linked else sum(wheels.values())
        for wheel, size in wheels.items():
            kept = Cost(disk=int(size * constants.unpacked))
            self.found[f"wheels of {wheel}"] = self._fetched(size) + kept
        built = self._timed("install", name, environment.device, seconds)
        kept = Cost(disk=int((own + copied) * constants.unpacked))
        self.found[f"environment {name}"] = self._fetched(own) + built + kept
        return [*(f"wheels of {wheel}" for wheel in wheels), f"environment {name}"]

    def _of_model(self, model: Model) -> list[str]:
        name = f"model {model.name}"
        names = [*self._environment(model.environment), f"import {model.environment}", name]
        if name not in self.found:
            self._import(model.environment, model.environment)
            size = BYTES * self._parameters(model.name)
            device, _ = self._device(model.environment)
            fetched = self._fetched(size if "repository" in model.recipe else 0)
            predicted = self._constants.build_seconds + fetched.seconds
            built = self._timed("build", model.name, device, predicted)
            self.found[name] = (
                built
                + Cost(download=fetched.download, disk=size)
                + self._inspected(f"{model.name}/float/none", size)
                + self._per_job(model.environment)
            )
        return names

    def _inspected(self, subject: str, size: float) -> Cost:
        return self._timed(
            "inspect", subject, "cpu", 1 + size / GB * self._constants.inspect_seconds_per_gb
        )

    def _of_checkpoint(self, checkpoint: Checkpoint) -> list[str]:
        scheme, role = checkpoint.scheme, checkpoint.quantizer
        if scheme is None:
            return []
        if checkpoint.id in self._checkpoints:
            return self._checkpoints[checkpoint.id]
        name = f"checkpoint {checkpoint.id}"
        size = checkpoint_bytes(checkpoint)
        device, speed = self._device(role.environment)
        billions = self._parameters(checkpoint.model.name) / GB
        fetched = self._fetched(size if "repository" in role.options else 0)
        predicted = fetched.seconds
        if "repository" not in role.options:
            slope = speed.quantize_seconds_per_billion[scheme.method]
            predicted = speed.quantize_seconds + billions * slope
        self.found[name] = (
            self._timed("quantize", checkpoint.id, device, predicted)
            + Cost(download=fetched.download, disk=size)
            + self._inspected(checkpoint.id, billions * BYTES * GB)
            + self._per_job(role.environment)
        )
        imported = self._import(role.environment, role.name)
        names = [*self._environment(role.environment), *imported, name]
        self._checkpoints[checkpoint.id] = names
        return names
