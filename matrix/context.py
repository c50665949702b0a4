"""A profile opened for work: its spec, plan, store, keys and judge, put together in one place.

Light to import: the noxfile opens one at every start.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from matrix.checks.evidence import EvidenceError, Reference, read_reference
from matrix.environments import find_lock, install_source
from matrix.identity import code_digest, digest, file_digest
from matrix.judge import Judge
from matrix.keys import Keys
from matrix.outcomes import Stage
from matrix.plan import Cell, Plan, make_plan
from matrix.spec import DEFAULT_PROFILE, DEFAULT_SPEC, LoadedSpec, load
from matrix.store import Store, write_atomically
from matrix.subjects import CELL, subjects

REPOSITORY = Path(__file__).parent.parent


class Settings(msgspec.Struct, frozen=True):
    """Where things are, from options or the environment variables of the same names."""

    spec: Path
    profile: str
    store: Path
    reports: Path
    run: str

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
            store=store or Path(host.get("MATRIX_STORE", REPOSITORY / ".matrix")),
            reports=reports or Path(host.get("MATRIX_REPORTS", REPOSITORY / "reports")),
            run=host.get("MATRIX_RUN", fresh),
        )


class Context:
    """What a command works on. Raises :class:`matrix.spec.SpecError` where the spec is wrong."""

    def __init__(self, settings: Settings, host: Mapping[str, str] = os.environ) -> None:
        self.settings = settings
        self.loaded: LoadedSpec = load(settings.spec)
        self.plan: Plan = make_plan(self.loaded, settings.profile)
        self.store = Store(settings.store, settings.run)
        self._locks: dict[str, str] = {}
        self.keys = Keys(
            self.plan.environments,
            self.store.observation,
            self._lock_digest,
            install_source(host),
            devices={"cpu": "cpu", "cuda": "cuda"},
        )
        self.judge = self.fresh_judge()

    def fresh_judge(self) -> Judge:
        """Return a judge that knows nothing yet: one keeps what it has once read."""
        return Judge(self.loaded, self.plan, self.keys, self._read_reference)

    def _lock_digest(self, environment: str) -> str:
        """Return the digest of an environment's lock, empty while there is none; read once."""
        if environment not in self._locks:
            folder, own = self.settings.spec.parent / "locks", self.settings.store / "locks"
            lock = find_lock(folder, own, self.plan.environments[environment])
            if lock is None:
                return ""
            self._locks[environment] = lock.digest
        return self._locks[environment]

    def _read_reference(self, key: str) -> Reference | None:
        try:
            return read_reference((self.store.model(key) / "reference.json").read_bytes())
        except (OSError, EvidenceError):
            return None

    def cells_of(self, environment: str) -> list[Cell]:
        """Return the cells that stand on an environment."""
        return [
            cell
            for cell in self.plan.cells
            if environment in (cell.checkpoint.quantizer.environment, cell.engine.environment)
        ]

    def unfinished(self, environment: str) -> bool:
        """Whether anything of an environment's cells can still be done."""
        return any(self.keys.unfinished(cell) for cell in self.cells_of(environment))

    def suite_is_current(self, environment: str) -> bool:
        """Whether the suite has judged just these observations, with these checks."""
        try:
            return self._suite(environment).read_text() == self._suite_digest(environment)
        except OSError:
            return False

    def suite_has_run(self, environment: str) -> None:
        """Note that the suite has judged what there is of an environment."""
        write_atomically(self._suite(environment), self._suite_digest(environment).encode())

    def _suite(self, environment: str) -> Path:
        return self.store.path("suites", environment)

    def _suite_digest(self, environment: str) -> str:
        judge = self.fresh_judge()
        observed = []
        for subject in subjects(self.plan, environment):
            keys = judge.keys_of(subject.cell)
            # What a cell is depends on all that was before; the other subjects stand alone.
            stages = tuple(Stage) if subject.stages == CELL else subject.stages
            found = [self.keys.observed(keys[stage]) for stage in stages]
            observed.append([(one.key, one.outcome) if one else None for one in found])
        package = REPOSITORY / "matrix"
        code = [code_digest(package / "checks"), file_digest(package / "verdict.py")]
        return digest([observed, code, self.loaded.spec.thresholds])
