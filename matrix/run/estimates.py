"""What an opened profile costs here, and which of its cells a budget buys.

``plan/predictions.py`` and ``plan/budget.py`` do the reckoning; this reads what they reckon
with from the store, the locks and the index's snapshot. Light to import, as the noxfile does.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from glob import escape
from pathlib import Path

import msgspec

from matrix.environments.uv import link_mode, uv_settings
from matrix.environments.virtualenvs import is_built
from matrix.machine.sandbox import Sandbox
from matrix.pipeline.steps import Step, SubjectKind
from matrix.plan.budget import Choice, candidates, choose
from matrix.plan.cell_steps import PlannedStep, steps_of_plan
from matrix.plan.cells import Cell, requirements_of
from matrix.plan.keys import Key
from matrix.plan.predictions import (
    WHEELS,
    Cost,
    Prediction,
    Timings,
    name_of,
    predict,
)
from matrix.run.context import Context
from matrix.spec.loading import load
from matrix.spec.requirements import named_releases
from matrix.spec.tables import Environment, PredictionsTable, SpecError
from matrix.store.store import Record, write_atomically


class Estimate(msgspec.Struct, frozen=True):
    """What a profile costs, and how much of it is done."""

    prediction: Prediction
    paid: frozenset[str]
    """Names of the costs of what is there."""
    unfinished: frozenset[str]
    """Ids of the cells that can run here and of which something is still to be done."""
    records: list[Record]
    constants: PredictionsTable
    linked: bool
    """Whether uv links an environment's files to its cache."""


def estimate(context: Context, host: Mapping[str, str] = os.environ) -> Estimate:
    """Return what an opened profile costs on this machine."""
    records = context.store.records()
    constants, settings = _constants(context, host), uv_settings(host, installing=True)
    linked = _linked(context.settings.store, settings, context.sandbox)
    prediction = predict(
        context.plan,
        constants,
        Timings(records),
        context.loaded.snapshot,
        lambda environment: lock.pins if (lock := context.lock(environment)) else {},
        linked=linked,
    )
    at_hand = dict(_at_hand(prediction, settings, constants))
    prediction = msgspec.structs.replace(prediction, costs=prediction.costs | at_hand)
    cells = [cell for cell in context.plan.cells if cell.runs]
    unfinished = frozenset(cell.id for cell in context.keys.unfinished_of(cells))
    cached = _cached(prediction, Path(settings["UV_CACHE_DIR"]), context.store.root / "wheels")
    paid = frozenset([*_paid(context, prediction), *cached])
    return Estimate(prediction, paid, unfinished, records, constants, linked)


def longest_first(context: Context, environments: Iterable[str], expected: Estimate) -> list[str]:
    """Return environments in the order in which to begin them, so that cores are busy to the end:
    those first behind which most work is left, by the longest chain of others that wait for it.
    """
    places = {name_of(step): step.environment for step in steps_of_plan(context.plan)}
    seconds = dict.fromkeys(context.plan.environments, 0.0)
    prediction = expected.prediction
    for name in prediction.names(expected.unfinished, expected.paid):
        if name in places:  # wheels are of no one environment
            seconds[places[name]] += prediction.costs[name].seconds
    waiting: dict[str, list[str]] = {name: [] for name in seconds}
    for name, needed in requirements_of(context.plan).items():
        for other in needed:
            waiting[other].append(name)

    @cache
    def chain(name: str) -> float:
        return seconds[name] + max(map(chain, waiting[name]), default=0.0)

    return sorted(environments, key=chain, reverse=True)


def choice_of(
    context: Context,
    estimated: Estimate,
    *,
    minutes: float | None,
    disk_gb: float | None,
    elsewhere: bool = False,
) -> Choice:
    """Return the cells that a budget of minutes and of 10^9 bytes buys.

    With ``elsewhere``, those that it would buy on a machine that lacks nothing and has nothing.
    """
    cells, paid = context.plan.cells, estimated.paid
    if elsewhere:
        cells = [msgspec.structs.replace(cell, unmet="") for cell in cells]
        paid = frozenset()
    dates = {
        name: _dates(context, environment)
        for name, environment in context.plan.environments.items()
    }

    def released(cell: Cell) -> str:
        released_at = dates[cell.engine.environment]
        if cell.checkpoint.scheme is not None:  # what builds a float model is not under test
            released_at = released_at + dates[cell.checkpoint.quantizer.environment]
        return " ".join(sorted(released_at, reverse=True))

    worths = candidates(
        cells,
        estimated.records,
        lambda cell: elsewhere or cell.id in estimated.unfinished,
        released,
    )
    chosen = choose(cells, worths, estimated.prediction, paid, minutes=minutes, disk_gb=disk_gb)
    before = {cell: str(context.judge.cell(cell).verdict) for cell in sorted(chosen.again)}
    return msgspec.structs.replace(chosen, profile=context.plan.profile, before=before)


def choose_for_nox(context: Context, host: Mapping[str, str] = os.environ) -> Path | None:
    """Choose once for all sessions, by ``MATRIX_MINUTES`` and ``MATRIX_DISK`` (10^9 bytes).

    Returns the file that holds the choice, in the store; ``None`` where there is no budget.
    Raises :class:`SpecError` where one of the two is no amount.
    """
    minutes, disk_gb = (_amount(host, name) for name in ("MATRIX_MINUTES", "MATRIX_DISK"))
    if minutes is None and disk_gb is None:
        return None
    chosen = choice_of(context, estimate(context, host), minutes=minutes, disk_gb=disk_gb)
    file = context.store.path("work", f"cells-{os.getpid()}.json")
    write_atomically(file, msgspec.json.encode(chosen))
    return file


def _amount(host: Mapping[str, str], name: str) -> float | None:
    text = host.get(name)
    if not text:
        return None
    try:
        amount = float(text)
    except ValueError:
        amount = -1.0
    if not (math.isfinite(amount) and amount >= 0):
        raise SpecError(Path("environment"), name, f"{text!r} is no amount", "Write one such as 30")
    return amount


def _dates(context: Context, environment: Environment) -> list[str]:
    """Return when an environment's releases came out, as ISO times, as far as that is known."""
    named = named_releases(environment).items()
    releases = [context.loaded.snapshot.release(*release) for release in named]
    return [release.uploaded for release in releases if release and release.uploaded]


def _constants(context: Context, host: Mapping[str, str]) -> PredictionsTable:
    constants = context.loaded.spec.predictions or load().spec.predictions
    assert constants is not None, "the default spec has them"
    if host.get("UV_TORCH_BACKEND") == "cpu":
        return msgspec.structs.replace(constants, torch_mb=constants.torch_cpu_mb)
    return constants


def _cached(prediction: Prediction, cache: Path, wheels: Path) -> Iterator[str]:
    """Yield the costs of wheels that uv has in its cache, unpacked or built from source, as far as
    its folders say so, and of those that the store has built.

    Their names are no interface of uv's: where they are others, nothing counts as cached.
    """
    for name, package, version in _wheels(prediction):
        unpacked = cache.glob(f"wheels-v*/*/{package}/{version}-*.http")
        built = cache.glob(f"sdists-v*/*/{package}/{version}/*/*.whl")
        ours = wheels.glob(f"*/{package.replace('-', '_')}-{version}[-+]*.whl")
        if any(unpacked) or any(built) or any(ours):
            yield name


def _at_hand(
    prediction: Prediction, settings: Mapping[str, str], constants: PredictionsTable
) -> Iterator[tuple[str, Cost]]:
    """Yield the costs of wheels that lie in a folder which uv is shown, without a download."""
    folders = [Path(place) for place in settings.get("UV_FIND_LINKS", "").split(",") if place]
    for name, package, version in _wheels(prediction):
        pattern = f"{package.replace('-', '_')}-{version}[-+]*.whl"
        sizes = [file.stat().st_size for folder in folders for file in folder.glob(pattern)]
        if sizes:
            yield name, Cost(disk=int(max(sizes) * constants.unpacked))


def _wheels(prediction: Prediction) -> Iterator[tuple[str, str, str]]:
    """Yield the names of wheels' costs with package and version, as patterns of file names."""
    for name in prediction.costs:
        if name.startswith(WHEELS):
            package, _, version = name.removeprefix(WHEELS).partition(" ")
            yield name, escape(package), escape(version)


def _paid(context: Context, prediction: Prediction) -> Iterator[str]:
    """Yield the costs of what is there, with an environment the wheels that it shares with others.

    What models and checkpoints stand on may have been removed since they were made.
    """
    keys = context.keys.fixed()
    is_paid: dict[str, bool] = {}
    for step in steps_of_plan(context.plan):
        # Each run imports anew, and a re-check repeats a cell's own steps.
        if step.step is not Step.IMPORT and step.definition.subject is not SubjectKind.CELL:
            name = name_of(step)
            is_paid[name] = is_paid.get(name, True) and _is_done(context, step, keys.of(step))
    for name in (name for name, paid in is_paid.items() if paid):
        yield name
        yield from (need for need in prediction.needs.get(name, ()) if need.startswith(WHEELS))


def _is_done(context: Context, step: PlannedStep, key: Key | None) -> bool:
    """Whether a step need not be done: it was seen to fail, or what it made is still there."""
    if key is None or not context.keys.settled(key):
        return False
    if not context.keys.passed(key):
        return True
    if step.step is Step.INSTALL:
        folder = context.store.root / "environments" / step.environment
        return is_built(folder, key.value)
    return context.store.has_product(key.step, key.value)


def _linked(store: Path, settings: Mapping[str, str], sandbox: Sandbox) -> bool:
    """Whether uv links files to its cache: on one file system, where it is not to copy."""
    if link_mode(settings, sandbox) == "copy":
        return False
    devices = {existing(place).stat().st_dev for place in (store, Path(settings["UV_CACHE_DIR"]))}
    return len(devices) == 1


def existing(path: Path) -> Path:
    """Return the nearest folder above a path that exists, or the path itself."""
    return next(place for place in (path, *path.absolute().parents) if place.exists())
