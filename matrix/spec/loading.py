"""The matrix as data: what ``spec.toml`` may say, read and checked before anything is built.

``project/spec.toml`` is both the default spec and the commented example of every key. A wrong spec
raises :class:`SpecError`, one message with the file, the key and the remedy.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import msgspec
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from matrix.spec.axes import Spelling, Values, requirement_problem
from matrix.spec.releases import EMPTY, SNAPSHOT, Snapshot, read_snapshot
from matrix.spec.tables import (
    CutoffException,
    Departure,
    DevicePredictions,
    Environment,
    EnvironmentTable,
    ExclusionTable,
    Limits,
    MetadataTable,
    ModelTable,
    PartTable,
    PredictionsTable,
    ProfileTable,
    RangeTable,
    RefusalTable,
    ReleasedTable,
    Resolution,
    RoleTable,
    SchemeTable,
    Spec,
    SpecError,
    StageLimits,
)

PACKAGE = Path(__file__).parents[1]
DEFAULT_SPEC = PACKAGE / "spec" / "project" / "spec.toml"
DEFAULT_PROFILE = "cpu"
SHOWN = 20
"""How many names an error lists."""
FLOAT_MODEL = "none"
"""The quantizer that is the float model itself."""


class LoadedSpec(msgspec.Struct, frozen=True):
    """A spec that was read and found right, with what must be known of its file."""

    file: Path
    spec: Spec
    snapshot: Snapshot
    environments: dict[str, Environment]
    rows: dict[str, tuple[int, Values]] = {}
    """Environment -> the index of its table, and the values of its axes there."""

    def at(self, name: str, resolution: Resolution) -> Environment:
        """Return an environment in a resolution; raise :class:`SpecError` where it has no date."""
        index, values = self.rows[name]
        key, table = f"environments[{index}]", self.spec.environments[index]
        spelling = Spelling(self.file, self.spec, self.snapshot)
        return spelling.dated(key, spelling.environment(key, table, values, resolution))

    def resolutions(self, name: str) -> list[Environment]:
        """Return an environment in every resolution that it has.

        One that is not pinned has no pins to be resolved with, and one that names no release whose
        date is known was never released.
        """
        own = self.environments[name]
        found = [own] if own.resolution == "pinned" else []
        for resolution in ("released", "today"):
            try:
                found.append(self.at(name, resolution))
            except SpecError:
                if own.resolution == resolution:
                    raise
        return found

    def adapter(self, role: Literal["models", "quantizers", "engines"], name: str) -> Path:
        """Return the file of an adapter: a name of ours, or a path beside the spec."""
        if name.endswith(".py"):
            return (self.file.parent / name).resolve()
        return PACKAGE / "probe" / role / f"{name}.py"


def load(file: Path = DEFAULT_SPEC, snapshot: Snapshot | None = None) -> LoadedSpec:
    """Read and check a spec, with its own snapshot or another.

    Raises :class:`SpecError` with the first thing that is wrong.
    """
    spec = read_tables(file)
    loaded = _spelled_out(file, spec, snapshot_of(file) if snapshot is None else snapshot)
    _check_roles(loaded)
    _check_refusals(loaded)
    return loaded


def read_tables(file: Path) -> Spec:
    """Read what a spec's file says, nothing spelled out; raise :class:`SpecError`."""
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(
            file, "file", f"cannot be read ({error.strerror})", "Check --spec"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(file, "file", f"is not TOML: {error}", "Mend that place") from None
    try:
        return msgspec.convert(document, Spec)
    except msgspec.ValidationError as error:
        raise _explained(file, str(error), document) from None


_FIELDS = {
    field.encode_name
    for table in (
        *(Spec, StageLimits, Limits, Departure, EnvironmentTable, RangeTable, ModelTable),
        *(SchemeTable, ReleasedTable, CutoffException, MetadataTable),
        *(PredictionsTable, DevicePredictions),
        *(RoleTable, PartTable, ProfileTable, ExclusionTable, RefusalTable),
    )
    for field in msgspec.structs.fields(table)
}


_NAMED = {
    "departures": Departure,
    "models": ModelTable,
    "schemes": SchemeTable,
    "profiles": ProfileTable,
    "refusals": RefusalTable,
    "thresholds": float,
}


def _explained(file: Path, text: str, document: dict[str, Any]) -> SpecError:
    """Turn msgspec's message into one that names key and remedy."""
    problem, _, where = text.partition(" - at `$")
    key = where.rstrip("`").lstrip(".") or "top level"
    section, _, rest = key.partition("[...]")
    if rest or key.endswith("[...]"):
        key = f"{section}.{_wrong_entry(section, document)}{rest}"
    remedy = "See the commented example of every key in matrix/spec/project/spec.toml"
    if unknown := re.search(r"unknown field `(.*)`", problem):
        key = f"{key}.{unknown[1]}" if where else unknown[1]
        problem = "no such key"
        if close := get_close_matches(unknown[1], _FIELDS, 1):
            remedy = f"Did you mean {close[0]!r}? {remedy}"
    return SpecError(file, key, problem, remedy)


def _wrong_entry(section: str, document: dict[str, Any]) -> str:
    """Return the name that msgspec leaves out: the first entry of a section that is wrong."""
    for name, entry in document.get(section, {}).items():
        try:
            msgspec.convert(entry, _NAMED[section])
        except msgspec.ValidationError:
            return str(name)
    return "..."


def snapshot_of(file: Path) -> Snapshot:
    """Read what the index held: from beside the spec, or else the snapshot that is ours."""
    place = file.parent / SNAPSHOT
    if not place.exists():
        place = DEFAULT_SPEC.parent / SNAPSHOT
    if not place.exists():
        return EMPTY
    try:
        return read_snapshot(place)
    except ValueError as error:
        option = "" if file == DEFAULT_SPEC else f" --spec {file}"
        remedy = f"Delete it, then make it anew: matrix releases --take{option}"
        raise SpecError(place, "snapshot", str(error), remedy) from None


def _spelled_out(file: Path, spec: Spec, snapshot: Snapshot) -> LoadedSpec:
    spelling = Spelling(file, spec, snapshot)
    found: dict[str, Environment] = {}
    rows: dict[str, tuple[int, Values]] = {}
    for index, table in enumerate(spec.environments):
        key = f"environments[{index}]"
        for values in spelling.rows(key, table):
            environment = spelling.environment(key, table, values, None)
            if environment.name in found:
                raise SpecError(
                    file, f"{key}.name", f"{environment.name!r} is defined twice",
                    "Put the axis that differs into the name, as {axis}",
                )  # fmt: skip
            _check_environment(file, key, spec, environment)
            found[environment.name] = spelling.dated(key, environment)
            rows[environment.name] = (index, values)
    return LoadedSpec(file, spec, snapshot, found, rows)


def _check_environment(file: Path, key: str, spec: Spec, environment: Environment) -> None:
    if not re.fullmatch(r"3\.\d+(\.\d+)?", environment.python):
        raise SpecError(
            file, f"{key}.python", f"{environment.python!r} is no version of Python 3",
            "Write it as 3.11 or 3.11.9",
        )  # fmt: skip
    items = {name: getattr(environment, name) for name in ("requirements", "constraints")}
    items["overrides"] = environment.overrides
    for package, needed in environment.build_requirements.items():
        items[f"build_requirements.{package}"] = needed
    for field, item in ((field, item) for field, found in items.items() for item in found):
        if problem := requirement_problem(item):
            raise SpecError(
                file, f"{key}.{field}", f"{item!r} is no requirement ({problem})",
                "Write it as pip does, name==version",
            )  # fmt: skip
    if environment.overrides and not environment.departures:
        raise SpecError(
            file, f"{key}.overrides", "an override is a departure and must be declared",
            "Name it in this table's departures and describe it under [departures]",
        )  # fmt: skip
    _known(file, f"{key}.departures", environment.departures, spec.departures, "departure")


def _known(
    file: Path,
    key: str,
    names: Iterable[str],
    defined: Iterable[str],
    noun: str,
    *,
    patterns: bool = False,
) -> None:
    defined = sorted(defined)
    for name in names:
        pattern = name.removeprefix("!") if patterns else name
        found = patterns and any(fnmatchcase(other, pattern) for other in defined)
        if name not in defined and not found:
            close = get_close_matches(name, defined, 1)
            some = ", ".join(defined[:SHOWN]) + (", ..." if len(defined) > SHOWN else "")
            hint = f"Did you mean {close[0]!r}?" if close else f"Defined: {some}"
            raise SpecError(file, key, f"no {noun} {name!r} is defined", hint)


def _check_roles(loaded: LoadedSpec) -> None:
    file, spec = loaded.file, loaded.spec
    for role in ("quantizers", "engines"):
        for index, table in enumerate(getattr(spec, role)):
            key = f"{role}[{index}]"
            _known(file, f"{key}.environments", [table.environments], loaded.environments,
                   "environment", patterns=True)  # fmt: skip
            _known(file, f"{key}.departures", table.departures, spec.departures, "departure")
            _check_adapter(loaded, f"{key}.adapter", role, table.adapter)
    for name, model in spec.models.items():
        key = f"models.{name}"
        _known(file, f"{key}.environment", [model.environment], loaded.environments, "environment")
        _check_adapter(loaded, f"{key}.adapter", "models", model.adapter)


def _check_refusals(loaded: LoadedSpec) -> None:
    for name, rule in (loaded.spec.refusals or {}).items():
        try:
            SpecifierSet(rule.versions)
        except InvalidSpecifier:
            raise SpecError(
                loaded.file, f"refusals.{name}.versions", f"{rule.versions!r} is no specifier",
                "Write it as pip does, >=0.20,<0.33",
            ) from None  # fmt: skip


def _check_adapter(
    loaded: LoadedSpec, key: str, role: Literal["models", "quantizers", "engines"], name: str
) -> None:
    if not loaded.adapter(role, name).is_file():
        ours = sorted(file.stem for file in (PACKAGE / "probe" / role).glob("*.py"))
        raise SpecError(
            loaded.file, key, f"there is no adapter {name!r}",
            f"Ours: {', '.join(ours)}; one of your own is a path such as './mine.py'",
        )  # fmt: skip


def check_profile(loaded: LoadedSpec, name: str) -> None:
    """Raise :class:`SpecError` where a profile names what does not exist.

    Each when it is opened: a release that the index took back is one profile's trouble.
    """
    file, spec = loaded.file, loaded.spec
    quantizers = [FLOAT_MODEL, *role_names(loaded, spec.quantizers)]
    engines = role_names(loaded, spec.engines)
    choices = (
        ("models", "model", spec.models),
        ("schemes", "scheme", spec.schemes),
        ("quantizers", "quantizer", quantizers),
        ("engines", "engine", engines),
    )
    for key, part in _parts(name, spec.profiles[name]):
        for field, noun, defined in choices:
            _known(file, f"{key}.{field}", getattr(part, field), defined, noun, patterns=True)
        if not matches(FLOAT_MODEL, part.quantizers):
            raise SpecError(
                file, f"{key}.quantizers", f"{FLOAT_MODEL!r}, the float model, is not among them",
                "Add it: every answer is compared with the float model's in the same engine",
            )  # fmt: skip


def matches(name: str, patterns: list[str]) -> bool:
    """Whether a pattern takes a name in and none, written with a "!" before it, leaves it out."""
    taken_out = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    taken_in = [pattern for pattern in patterns if not pattern.startswith("!")]
    return any(fnmatchcase(name, pattern) for pattern in taken_in) and not any(
        fnmatchcase(name, pattern) for pattern in taken_out
    )


def _parts(name: str, profile: ProfileTable) -> Iterator[tuple[str, PartTable]]:
    yield f"profiles.{name}", profile
    for index, part in enumerate(profile.parts):
        yield f"profiles.{name}.parts[{index}]", part


def role_names(loaded: LoadedSpec, tables: Iterable[RoleTable]) -> dict[str, tuple[str, RoleTable]]:
    """Return role name -> (environment name, its table), one for each matching environment.

    Raises :class:`SpecError` where two tables give the same name.
    """
    found: dict[str, tuple[str, RoleTable]] = {}
    for table in tables:
        for environment, spelled_out in loaded.environments.items():
            if spelled_out.device != table.device:
                continue
            if not fnmatchcase(environment, table.environments):
                continue
            name = f"{environment}+{table.suffix}" if table.suffix else environment
            if name in found:
                raise SpecError(
                    loaded.file, "environments", f"{name!r} gets two roles of the same kind",
                    "Give one of them a suffix",
                )  # fmt: skip
            found[name] = (environment, table)
    return found
