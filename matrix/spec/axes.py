"""From the environment tables of a spec to its environments: axes, ranges, resolutions. Pure.

An axis is a list of versions, or a range of a package's releases of which the snapshot of the
index says what there is. Each environment can be spelled out in three resolutions; the later two
know no pins and no constraints of ours, only departures.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import msgspec
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from matrix.spec.releases import Snapshot, pick
from matrix.spec.tables import (
    Environment,
    EnvironmentTable,
    RangeTable,
    Resolution,
    Spec,
    SpecError,
)

Values = dict[str, str]
"""Axis or variant's key -> its value in one environment."""


def combinations(
    axes: Mapping[str, list[str]], variants: Iterable[Mapping[str, str]]
) -> list[Values]:
    """Return every variant with every combination of the axes, in the order they are written."""
    rows = [dict(variant) for variant in variants] or [{}]
    for axis, versions in axes.items():
        rows = [{**row, axis: version} for row in rows for version in versions]
    return rows


def ranges(table: EnvironmentTable) -> dict[str, RangeTable]:
    """Return the axes of a table that are ranges."""
    return {axis: asked for axis, asked in table.axes.items() if isinstance(asked, RangeTable)}


def package_of(axis: str, asked: RangeTable) -> str:
    """Return the package whose releases a range takes."""
    return canonicalize_name(asked.package or axis)


class Spelling:
    """Spells environments out. Raises :class:`SpecError` where a table cannot be."""

    def __init__(self, file: Path, spec: Spec, snapshot: Snapshot) -> None:
        self._file = file
        self._spec = spec
        self._snapshot = snapshot

    def rows(self, key: str, table: EnvironmentTable) -> list[Values]:
        """Return the values of each of a table's environments."""
        taken = {
            axis: self._versions(f"{key}.{axis}", axis, asked, table.python)
            if isinstance(asked, RangeTable)
            else asked
            for axis, asked in table.axes.items()
        }
        found = combinations(taken, table.variants)
        for axis, version in ((axis, version) for row in found for axis, version in row.items()):
            if axis != "resolution" and not _is_version(version):
                raise SpecError(
                    self._file, f"{key}.{axis}", f"{version!r} is no version",
                    "Write a release such as 0.2.7.post3",
                )  # fmt: skip
        return found

    def _versions(self, key: str, axis: str, asked: RangeTable, python: str) -> list[str]:
        package = package_of(axis, asked)
        releases = self._snapshot.packages.get(package)
        if releases is None:
            raise SpecError(
                self._file, key, f"the snapshot of the index has no package {package!r}",
                "Make one beside the spec: matrix releases --take",
            )  # fmt: skip
        try:
            return pick(releases, asked, python).versions
        except ValueError as error:
            remedy = (
                "since and until are versions such as 0.3.3; pick is `all`, "
                "`latest patch per minor` or `newest 3`"
            )
            raise SpecError(self._file, key, str(error), remedy) from None

    def environment(
        self, key: str, table: EnvironmentTable, values: Values, resolution: Resolution | None
    ) -> Environment:
        """Return one environment, in a resolution or else in its own."""
        named = values.get("resolution", table.resolution)
        try:
            own: Resolution = msgspec.convert(named, Resolution)
        except msgspec.ValidationError:
            raise SpecError(
                self._file, f"{key}.resolution", f"{named!r} is no resolution",
                "Write pinned, released or today, or make it an axis",
            ) from None  # fmt: skip
        chosen = resolution or own
        pinned = chosen == "pinned"

        def fill(items: Iterable[str], field: str) -> list[str]:
            return [self._filled(f"{key}.{field}", item, values) for item in items]

        (name,) = fill([table.name], "name")
        if not re.fullmatch(r"[a-z0-9][a-z0-9._+-]*", name):
            raise SpecError(
                self._file, f"{key}.name", f"{name!r} cannot name a folder and a session",
                "Use lower-case letters, digits, '.', '_', '+' and '-'",
            )  # fmt: skip
        requirements = fill(table.requirements, "requirements")
        return Environment(
            name=name,
            axes=values,
            python=table.python,
            device=table.device,
            resolution=chosen,
            requirements=requirements + (fill(table.pins, "pins") if pinned else []),
            constraints=fill(table.constraints, "constraints") if pinned else [],
            overrides=fill(table.overrides, "overrides"),
            build_requirements={
                package: fill(items, "build_requirements")
                for package, items in table.build_requirements.items()
            },
            environ=table.environ,
            departures=table.departures,
        )

    def _filled(self, key: str, template: str, values: Values) -> str:
        try:
            return template.format_map(values)
        except KeyError as missing:
            raise SpecError(
                self._file, key, f"{{{missing.args[0]}}} is no axis and no variant's key",
                f"Known here: {', '.join(values) or 'none'}",
            ) from None  # fmt: skip
        except (ValueError, IndexError, AttributeError, TypeError):
            raise SpecError(
                self._file, key, f"{template!r} has braces that name no axis",
                "Write {axis} for its value, {{ and }} for braces",
            ) from None  # fmt: skip

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
        named = exact(environment)
        return msgspec.structs.replace(
            environment,
            cutoff=self._released(key, environment) if released else self._today(key),
            cutoffs=exceptions if released else {},
            metadata=[
                table
                for table in self._spec.metadata
                if (canonicalize_name(table.package), table.version) in named
                or fnmatchcase(environment.name, table.environments)
            ],
        )

    def _today(self, key: str) -> str:
        if not self._snapshot.asked:
            raise self._undated(key, "the index was never asked")
        return self._snapshot.asked

    def _released(self, key: str, environment: Environment) -> str:
        found = [self._snapshot.release(*each) for each in exact(environment)]
        dates = [release.uploaded for release in found if release and release.uploaded]
        if not dates:
            raise self._undated(key, f"{environment.name} names no release whose date is known")
        grace = timedelta(days=self._spec.released.grace_days)
        graced = f"{datetime.fromisoformat(max(dates)) + grace:%Y-%m-%dT%H:%M:%SZ}"
        # While the grace lasts there is no more than today; it ends with a later snapshot.
        return min(graced, self._snapshot.asked or graced)

    def _undated(self, key: str, problem: str) -> SpecError:
        remedy = "Ask the index: matrix releases --take"
        return SpecError(self._file, f"{key}.resolution", problem, remedy)


@cache
def _is_version(text: str) -> bool:
    try:
        Version(text)
    except InvalidVersion:
        return False
    return True


@cache
def requirement_problem(text: str) -> str:
    """Return what is wrong with a requirement, in a line; empty where nothing is."""
    try:
        Requirement(text)
    except InvalidRequirement as error:
        return str(error).splitlines()[0]
    return ""


def exact(environment: Environment) -> list[tuple[str, str]]:
    """Return (package, version) of each release that an environment names by ``==``."""
    return [found for item in environment.requirements if (found := _exact(item))]


@cache
def _exact(text: str) -> tuple[str, str] | None:
    requirement = Requirement(text)
    specifiers = list(requirement.specifier)
    if len(specifiers) != 1 or specifiers[0].operator != "==" or "*" in specifiers[0].version:
        return None
    return canonicalize_name(requirement.name), specifiers[0].version
