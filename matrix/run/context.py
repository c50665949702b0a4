"""A profile opened for work: its spec, plan, store, keys and judge, put together in one place.

Light to import: the noxfile opens one at every start.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import copy
from datetime import UTC, datetime
from functools import cache, cached_property, partial
from pathlib import Path
from typing import get_args

import msgspec

from matrix.diagnose.catalogue import load_issues
from matrix.environments.locks import Lock, Locks
from matrix.environments.uv import install_source
from matrix.index.hub import revisions_of
from matrix.judge import canaries
from matrix.judge.cells import CellJudge
from matrix.judge.flaky import flaky_keys
from matrix.judge.results import CanaryState, CellResult, MatrixResult
from matrix.judge.standings import Solution
from matrix.judge.stories import CellStory, story_of
from matrix.judge.table import TableJudge
from matrix.machine.hardware import Machine, detect, device_of
from matrix.machine.sandbox import OPEN, Isolation, Sandbox, find_sandbox
from matrix.pipeline.outcomes import Verdict
from matrix.pipeline.steps import Device
from matrix.plan.budget import Choice, ignoring, narrowed, read_choice
from matrix.plan.cells import Cell, Plan, make_plan, plan_of
from matrix.plan.keys import Keys, Lookup
from matrix.plan.needs import cuda_of, unmet_by
from matrix.spec.loading import DEFAULT_PROFILE, DEFAULT_SPEC, LoadedSpec, load
from matrix.spec.tables import Environment, SandboxUse, SpecError
from matrix.store.store import Record, Store


def unreachable(error: OSError) -> str:
    """Say that a place of the settings cannot be used, for whoever named it; no traceback."""
    return (
        f"{error.filename}: {error.strerror}. Give places that can be read and written: "
        "--spec, --store and --reports, or MATRIX_SPEC, MATRIX_STORE, MATRIX_REPORTS and "
        "MATRIX_LEASES"
    )


class Settings(msgspec.Struct, frozen=True):
    """Where things are, from options or the environment variables of the same names.

    Store and reports lie in the working directory where nothing else is said.
    """

    spec: Path
    profile: str
    store: Path
    reports: Path
    run: str
    cells: Path | None = None
    """A file with the cells that a budget bought, where only those are worked on."""
    sandbox: str = ""
    """In place of what the spec says of it, where it is given."""

    @classmethod
    def of(
        cls,
        host: Mapping[str, str] = os.environ,
        *,
        spec: Path | None = None,
        profile: str | None = None,
        store: Path | None = None,
        reports: Path | None = None,
    ) -> Settings:
        """Return settings: an option, else ``MATRIX_...``, else the default."""
        fresh = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"
        return cls(
            spec=spec or Path(host.get("MATRIX_SPEC", DEFAULT_SPEC)),
            profile=profile or host.get("MATRIX_PROFILE", DEFAULT_PROFILE),
            store=store or Path(host.get("MATRIX_STORE", ".matrix")),
            reports=reports or Path(host.get("MATRIX_REPORTS", "reports")),
            run=host.get("MATRIX_RUN", fresh),
            cells=Path(host["MATRIX_CELLS"]) if host.get("MATRIX_CELLS") else None,
            sandbox=host.get("MATRIX_SANDBOX", ""),
        )


class Context:
    """What a command works on. Raises ``SpecError`` where the spec is wrong.

    Where there is a ``choice``, or the settings name one, the plan is of the chosen cells alone,
    and those of them that are checked again count as not loaded until this run has done so.
    """

    def __init__(
        self,
        settings: Settings,
        host: Mapping[str, str] = os.environ,
        machine: Machine | None = None,
        choice: Choice | None = None,
        install_from: str = "",
    ) -> None:
        self.settings = settings
        self.choice = choice or (read_choice(settings.cells) if settings.cells else None)
        self.machine = machine or detect()
        self.loaded: LoadedSpec = load(settings.spec)
        self.store = Store(settings.store, settings.run)
        self._locks = Locks(self.loaded.folder / "locks", settings.store / "locks")
        environments = self.loaded.environments
        cuda = cache(lambda name: cuda_of(self._text(environments[name])))  # thousands of cells ask
        unmet = unmet_by(environments, self.machine, cuda)
        self.plan: Plan = make_plan(self.loaded, settings.profile, unmet)
        lookup: Lookup = self.store.observation
        if self.choice is not None:
            _check_profile(self.choice, settings)
            self.plan = narrowed(self.plan, self.choice.cells)
            lookup = ignoring(lookup, self.choice.again, settings.run)
        self._lookup = lookup
        self._host = host
        self.install_from = install_from or install_source(host)
        self._devices = {device: device_of(device, self.machine) for device in get_args(Device)}
        self.keys = self._keys_on(self._devices)
        self.judge = self.fresh_judge()

    def _keys_on(self, devices: Mapping[Device, str]) -> Keys:
        return Keys(
            self.plan.environments,
            self._lookup,
            self._lock_digest,
            self.install_from,
            devices=devices,
            held=revisions_of(self.loaded.folder, self.store, self._host).held,
        )

    def with_cells(
        self, cells: list[Cell], environments: dict[str, Environment], again: str = ""
    ) -> Context:
        """Return the same for other cells, some of whose environments the spec may not have.

        The first of them counts as not loaded before the run ``again``, where that is given.
        """
        other, plan = copy(self), self.plan
        other.__dict__.pop("cells_of", None)
        other.plan = plan_of(cells, plan.profile, plan.title, plan.parts, environments)
        if again:
            other.store = Store(self.store.root, again)
            other._lookup = ignoring(other.store.observation, {cells[0].id}, again)
        other.keys = other._keys_on(self._devices)
        other.judge = other.fresh_judge()
        return other

    def fresh_judge(self) -> CellJudge:
        """Return a judge that knows nothing yet: one keeps what it has once read."""
        return self._judge_by(self.keys)

    def _judge_by(self, keys: Keys) -> CellJudge:
        return CellJudge(self.loaded, self.plan, keys, self.store.reference, load_issues)

    def table_judge(self) -> TableJudge:
        """Return a judge of the whole table, by the evidence of this machine alone."""
        return self._table_judge(self.store.records())

    def _table_judge(self, records: list[Record]) -> TableJudge:
        return TableJudge(self.fresh_judge(), self._solution, flaky_keys(records))

    def table(self) -> MatrixResult:
        """Return the judged table, with what other machines' evidence in the store says beside it.

        Where its canaries are established, what went into them is kept for a run that is void.
        """
        profile, records = self.plan.profile, self.store.records()
        judge = self._table_judge(records)
        table, inputs = judge.table(), judge.inputs_of_canaries()
        lines: list[str] = []
        if table.canaries is CanaryState.ESTABLISHED and self.choice is None:
            with suppress(OSError):  # what cannot be kept keeps no report back
                canaries.keep_established(
                    self.store, profile, canaries.Established(table.finished, inputs)
                )
        elif table.canaries:
            last = canaries.read_established(self.store, profile)
            lines = list(canaries.troubles(table.cells, inputs, last))
        cells = self._with_elsewhere(table.cells, records)
        return msgspec.structs.replace(table, canary_troubles=lines, cells=cells)

    def _with_elsewhere(self, cells: list[CellResult], records: list[Record]) -> list[CellResult]:
        """Add to each cell what it is by the evidence of other CPUs that the store holds."""
        own = self._devices["cpu"]
        others = {record.device for record in records} - {own}
        verdicts: dict[str, dict[str, str]] = {}
        for device in sorted(other for other in others if other.startswith("cpu")):
            judge = self._judge_by(self._keys_on({**self._devices, "cpu": device}))
            for cell in self.plan.cells:
                result = judge.cell(cell.id)
                if result.device == device and result.verdict not in (
                    Verdict.INFRA,
                    Verdict.NOT_RUN,
                ):
                    verdicts.setdefault(cell.id, {})[device] = result.verdict.value
        return [
            msgspec.structs.replace(cell, elsewhere=verdicts.get(cell.id, {})) for cell in cells
        ]

    def stories(self) -> Callable[[str], CellStory]:
        """Return what gives the story of a cell by its id, of what the store holds now."""
        judge = self.fresh_judge()
        return lambda cell: story_of(judge.observations(cell))

    def lock(self, environment: Environment) -> Lock | None:
        """Return an environment's lock, in the resolution it is spelled out in."""
        return self._locks.find(environment)

    def _text(self, environment: Environment) -> str:
        lock = self.lock(environment)
        return lock.text if lock else ""

    def _lock_digest(self, name: str) -> str:
        """Return the digest of an environment's lock, empty while there is none."""
        lock = self.lock(self.plan.environments[name])
        return lock.digest if lock else ""

    def _solution(self, environment: Environment) -> Solution | None:
        lock = self.lock(environment)
        return Solution(lock.pins, lock.refusal) if lock else None

    @cached_property
    def sandbox(self) -> Sandbox:
        """How packages' code is shut in here. Raises ``SpecError`` where it must be and cannot."""
        return sandbox_of(self.loaded, self.settings)

    @cached_property
    def cells_of(self) -> dict[str, list[Cell]]:
        """The cells that stand on each environment: read once, there may be thousands of both."""
        cells: dict[str, list[Cell]] = {name: [] for name in self.plan.environments}
        for cell in self.plan.cells:
            checkpoint = cell.checkpoint
            makers = {checkpoint.model.environment, checkpoint.quantizer.environment}
            for name in makers | {cell.engine.environment}:
                cells[name].append(cell)
        return cells

    def runs(self, environment: str) -> bool:
        """Whether any of an environment's cells is to be run, and can be on this machine."""
        return any(cell.runs for cell in self.cells_of[environment])

    def unfinished(self, environment: str) -> bool:
        """Whether anything of an environment's cells can still be done."""
        return any(self.keys.unfinished(cell) for cell in self.cells_of[environment])


def sandbox_of(loaded: LoadedSpec, settings: Settings) -> Sandbox:
    """Return how packages' code is shut in, by the spec and the settings.

    Raises ``SpecError`` where it must be and cannot.
    """
    named = settings.sandbox
    error = partial(SpecError, Path("MATRIX_SANDBOX")) if named else loaded.error
    if named not in ("", *get_args(SandboxUse)):
        problem = f"{named!r} is no use of the sandbox"
        raise error("value", problem, f"Give one of {', '.join(get_args(SandboxUse))}")
    use = named or loaded.spec.sandbox
    if use == "off":
        return OPEN._replace(lack="it is off")
    sandbox = find_sandbox()
    if use == "required" and sandbox.isolation is Isolation.NONE:
        raise error("sandbox", f"it is required, and {sandbox.lack}", "Mend that, or use auto")
    return sandbox


def _check_profile(choice: Choice, settings: Settings) -> None:
    if choice.profile != settings.profile:
        raise SpecError(
            settings.cells or settings.spec, "profile",
            f"cells were chosen of {choice.profile!r}, and {settings.profile!r} is asked for",
            "Unset MATRIX_CELLS",
        )  # fmt: skip
