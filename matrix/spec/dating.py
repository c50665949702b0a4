"""When an environment is resolved: the cut-offs and metadata of one that is not pinned. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from fnmatch import fnmatchcase

import msgspec
from packaging.utils import canonicalize_name

from matrix.spec.requirements import named_releases
from matrix.spec.snapshot import Snapshot
from matrix.spec.tables import Environment, ErrorAt, MetadataTable, Spec, SpecError


class Dating:
    """Gives environments their dates. Raises :class:`SpecError` where none is known."""

    def __init__(self, spec: Spec, snapshot: Snapshot, error: ErrorAt) -> None:
        self._spec = spec
        self._snapshot = snapshot
        self._error = error

    def dated(self, key: str, environment: Environment) -> Environment:
        """Return an environment that is not pinned with its cut-off, exceptions and metadata."""
        if environment.resolution == "pinned":
            return environment
        exceptions = {
            canonicalize_name(table.package): table.until
            for table in self._spec.released.exceptions
            if fnmatchcase(environment.name, table.environments)
        }
        released = environment.resolution == "released"
        return msgspec.structs.replace(
            environment,
            cutoff=self._released(key, environment) if released else self._today(key),
            cutoffs=exceptions if released else {},
            metadata=self._metadata(environment),
        )

    def _metadata(self, environment: Environment) -> list[MetadataTable]:
        """Return what uv is to be told of releases: as the spec has it, else as the snapshot."""
        named = named_releases(environment)
        tables = [
            table
            for table in self._spec.metadata
            if named.get(canonicalize_name(table.package)) == table.version
            or fnmatchcase(environment.name, table.environments)
        ]
        in_spec = {canonicalize_name(table.package) for table in tables}
        read = [
            self._snapshot.source_metadata(package, version)
            for package, version in named.items()
            if package not in in_spec
        ]
        return [*tables, *(table for table in read if table)]

    def _today(self, key: str) -> str:
        if not self._snapshot.asked:
            raise self._undated(key, "the index was never asked")
        return self._snapshot.asked

    def _released(self, key: str, environment: Environment) -> str:
        named = named_releases(environment).items()
        releases = [self._snapshot.release(package, version) for package, version in named]
        dates = [release.uploaded for release in releases if release and release.uploaded]
        if not dates:
            raise self._undated(key, f"{environment.name} names no release whose date is known")
        grace = timedelta(days=self._spec.released.grace_days)
        graced = f"{datetime.fromisoformat(max(dates)) + grace:%Y-%m-%dT%H:%M:%SZ}"
        # While the grace lasts there is no more than today; it ends with a later snapshot.
        return min(graced, self._snapshot.asked or graced)

    def _undated(self, key: str, problem: str) -> SpecError:
        remedy = "Ask the index: matrix releases --take"
        return self._error(f"{key}.resolution", problem, remedy)
