"""From the environment tables of a spec to its environments: axes, ranges, resolutions. Pure.

An axis is a list of versions, or a range of a package's releases of which the snapshot of the
index says what there is. Each environment can be spelled out in three resolutions; the later two
know no pins and no constraints of ours, only departures.
"""

from __future__ import annotations

import math
import re
import string
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import product

import msgspec
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from matrix.spec.picking import pick
from matrix.spec.snapshot import Snapshot
from matrix.spec.tables import (
    Environment,
    EnvironmentTable,
    ErrorAt,
    RangeTable,
    Resolution,
    Row,
    Spec,
)
from matrix.spec.versions import parsed

Values = dict[str, str]
"""Axis or key of a row -> its value in one environment."""
PYTHON = "3.11"
"""For what a spec names no Python."""
MOST_ENVIRONMENTS = 2_000
"""Of one table; the project has 130 of all together."""
REQUIREMENT_CHARS = 1_000
EXTENDED = ("requirements", "pins", "constraints", "overrides", "departures")
"""The lists of an environment table to which a row may add."""


class Combination(msgspec.Struct, frozen=True):
    """What tells one environment of a table from the others."""

    values: Values
    more: dict[str, list[str]] = {}
    """Name of a list of the table -> what is added to it."""


def combinations(
    axes: Mapping[str, Sequence[str]], variants: Iterable[Combination]
) -> list[Combination]:
    """Return every variant with every combination of the axes, in the order they are written."""
    return [
        Combination({**variant.values, **dict(zip(axes, versions, strict=True))}, variant.more)
        for variant in list(variants) or [Combination({})]
        for versions in product(*axes.values())
    ]


def ranges(table: EnvironmentTable) -> list[tuple[str, RangeTable]]:
    """Return (axis, range) of all ranges of a table: its axes' first, then its rows'."""
    rows: list[Mapping[str, object]] = [table.axes, *table.variants, *table.rows]
    return [
        (axis, rule) for row in rows for axis, rule in row.items() if isinstance(rule, RangeTable)
    ]


def all_ranges(spec: Spec) -> list[tuple[str, RangeTable, str]]:
    """Return (axis, range, Python) of all ranges of a spec: its environments', then its pairs'."""
    of_environments = [
        (axis, rule, table.python) for table in spec.environments for axis, rule in ranges(table)
    ]
    return of_environments + [(axis, rule, PYTHON) for axis, rule in spec.pairs.items()]


def package_of(axis: str, rule: RangeTable) -> str:
    """Return the package whose releases a range takes."""
    return canonicalize_name(rule.package or axis)


class Spelling:
    """Spells environments out. Raises :class:`SpecError` where a table cannot be."""

    def __init__(self, spec: Spec, snapshot: Snapshot, error: ErrorAt) -> None:
        self._spec = spec
        self._snapshot = snapshot
        self._error = error

    def combinations(self, key: str, table: EnvironmentTable) -> list[Combination]:
        """Return what tells each of a table's environments from the others."""
        axes = {
            axis: self._versions(f"{key}.{axis}", axis, rule, table.python)
            if isinstance(rule, RangeTable)
            else rule
            for axis, rule in table.axes.items()
        }
        variants = self._of_rows(key, "variants", table)
        rows = self._of_rows(key, "rows", table)
        several = bool(axes or variants) or not rows
        if several:
            self._check_number(key, [variants or [Combination({})], *axes.values()])
        together = [*(combinations(axes, variants) if several else []), *rows]
        self._check_number(key, [together])
        for combination in together:
            for axis, version in combination.values.items():
                if axis != "resolution" and parsed(version) is None:
                    raise self._error(
                        f"{key}.{axis}", f"{version!r} is no version",
                        "Write a release such as 0.2.7.post3",
                    )  # fmt: skip
        return together

    def _of_rows(self, key: str, field: str, table: EnvironmentTable) -> list[Combination]:
        rows: list[Row] = getattr(table, field)
        return [
            combination
            for number, row in enumerate(rows)
            for combination in self._of_row(f"{key}.{field}[{number}]", row, table.python)
        ]

    def _of_row(self, key: str, row: Row, python: str) -> list[Combination]:
        """Return what one row stands for: several environments where it has a range."""
        versions: dict[str, list[str]] = {}
        more: dict[str, list[str]] = {}
        for name, value in row.items():
            match value:
                case str():
                    versions[name] = [value]
                case RangeTable():
                    versions[name] = self._versions(f"{key}.{name}", name, value, python)
                case _ if name in EXTENDED:
                    more[name] = value
                case _:
                    raise self._error(
                        f"{key}.{name}", "a row adds to no such list",
                        f"It may add to {', '.join(EXTENDED)}. A version is a text",
                    )  # fmt: skip
        self._check_number(key, versions.values())
        return combinations(versions, [Combination({}, more)])

    def _check_number(self, key: str, choices: Iterable[Sequence[object]]) -> None:
        """Raise :class:`SpecError` where choices multiply to more environments than there may be.

        To be asked before they are multiplied: five axes of 40 versions are 100,000,000.
        """
        number = math.prod(map(len, choices))
        if number > MOST_ENVIRONMENTS:
            raise self._error(
                key, f"gives {number:,} environments; a table may give {MOST_ENVIRONMENTS:,}",
                "Name fewer versions, or pair them in rows",
            )  # fmt: skip

    def _versions(self, key: str, axis: str, rule: RangeTable, python: str) -> list[str]:
        package = package_of(axis, rule)
        releases = self._snapshot.packages.get(package)
        if releases is None:
            raise self._error(
                key, f"the snapshot of the index has no package {package!r}",
                "Make one beside the spec: matrix releases --take",
            )  # fmt: skip
        try:
            return pick(releases, rule, python).versions
        except ValueError as error:
            remedy = (
                "since and until are versions such as 0.3.3; pick is `all`, "
                "`latest patch per minor` or `newest 3`"
            )
            raise self._error(key, str(error), remedy) from None

    def environment(
        self,
        key: str,
        table: EnvironmentTable,
        combination: Combination,
        resolution: Resolution | None,
    ) -> Environment:
        """Return one environment, in a resolution or else in its own."""
        values = combination.values
        chosen = resolution or self._own_resolution(key, table, values)
        pinned = chosen == "pinned"
        all_keys = {*table.axes, *(name for row in (*table.variants, *table.rows) for name in row)}

        def fill(items: Iterable[str], field: str) -> list[str]:
            # An item that names a key which only other rows have is theirs.
            return [
                self._filled(f"{key}.{field}", item, values)
                for item in items
                if not (_named(item) - values.keys()) & all_keys
            ]

        def fill_list(field: str) -> list[str]:
            return fill([*getattr(table, field), *combination.more.get(field, [])], field)

        name = self._filled(f"{key}.name", table.name, values)
        if not re.fullmatch(r"[a-z0-9][a-z0-9._+-]*", name):
            raise self._error(
                f"{key}.name", f"{name!r} cannot name a folder and a session",
                "Use lower-case letters, digits, '.', '_', '+' and '-'",
            )  # fmt: skip
        return Environment(
            name=name,
            group=table.group,
            axes=values,
            python=table.python,
            device=table.device,
            resolution=chosen,
            requirements=fill_list("requirements") + (fill_list("pins") if pinned else []),
            constraints=fill_list("constraints") if pinned else [],
            overrides=fill_list("overrides"),
            build_requirements={
                package: fill(items, "build_requirements")
                for package, items in table.build_requirements.items()
            },
            build_environ=table.build_environ,
            environ=table.environ,
            departures=[*table.departures, *combination.more.get("departures", [])],
        )

    def _own_resolution(self, key: str, table: EnvironmentTable, values: Values) -> Resolution:
        named = values.get("resolution", table.resolution)
        try:
            own: Resolution = msgspec.convert(named, Resolution)
        except msgspec.ValidationError:
            raise self._error(
                f"{key}.resolution", f"{named!r} is no resolution",
                "Write pinned, released or today, or make it an axis",
            ) from None  # fmt: skip
        return own

    def _filled(self, key: str, template: str, values: Values) -> str:
        try:
            if not all(map(_is_plain, string.Formatter().parse(template))):
                raise ValueError  # a width of 10^9, say
            return template.format_map(values)
        except KeyError as missing:
            raise self._error(
                key, f"{{{missing.args[0]}}} is no axis and no key of a row",
                f"Known here: {', '.join(values) or 'none'}",
            ) from None  # fmt: skip
        except (ValueError, IndexError, AttributeError, TypeError):
            raise self._error(
                key, f"{template!r} has braces that name no axis",
                "Write {axis} for its value, {{ and }} for braces",
            ) from None  # fmt: skip


def _is_plain(part: tuple[str, str | None, str | None, str | None]) -> bool:
    """Whether a part of a template is text alone, or with a name that nothing is made of."""
    _, name, width, conversion = part
    return name is None or not (set(name) & set(".[") or width or conversion)


def _named(template: str) -> set[str]:
    """Return the keys that a text names in braces; none where its braces are wrong."""
    try:
        return {name for _, name, _, _ in string.Formatter().parse(template) if name}
    except ValueError:
        return set()


@cache
def requirement_problem(text: str) -> str:
    """Return what is wrong with a requirement, in a line; empty where nothing is."""
    if len(text) > REQUIREMENT_CHARS:
        return f"it has {len(text)} characters, and may have {REQUIREMENT_CHARS}"
    try:
        Requirement(text)
    except InvalidRequirement as error:
        return str(error).splitlines()[0]
    return ""
