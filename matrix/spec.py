"""The matrix as data: what ``spec.toml`` may say, read and checked before anything is built.

``matrix/spec.toml`` is both the default spec and the commented example of every key. A wrong spec
raises :class:`SpecError`, one message with the file, the key and the remedy.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import msgspec
from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import InvalidVersion, Version

from matrix.tables import (
    Departure,
    Environment,
    EnvironmentTable,
    ExclusionTable,
    Limits,
    ModelTable,
    PartTable,
    ProfileTable,
    RoleTable,
    SchemeTable,
    Spec,
    StageLimits,
)

DEFAULT_SPEC = Path(__file__).with_name("spec.toml")
DEFAULT_PROFILE = "cpu"
FLOAT_MODEL = "none"
"""The quantizer that is the float model itself."""


class SpecError(Exception):
    """The spec is wrong. The text names the file, the key and what to do."""

    def __init__(self, file: Path, key: str, problem: str, remedy: str) -> None:
        super().__init__(f"{file}: {key}: {problem}. {remedy}")


class LoadedSpec(msgspec.Struct, frozen=True):
    """A spec that was read and found right, with what must be known of its file."""

    file: Path
    spec: Spec
    environments: dict[str, Environment]

    def adapter(self, role: Literal["models", "quantizers", "engines"], name: str) -> Path:
        """Return the file of an adapter: a name of ours, or a path beside the spec."""
        if name.endswith(".py"):
            return (self.file.parent / name).resolve()
        return Path(__file__).parent / "probe" / role / f"{name}.py"


def load(file: Path = DEFAULT_SPEC) -> LoadedSpec:
    """Read and check a spec; raise :class:`SpecError` with the first thing that is wrong."""
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(
            file, "file", f"cannot be read ({error.strerror})", "Check --spec"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(file, "file", f"is not TOML: {error}", "Mend that place") from None
    try:
        spec = msgspec.convert(document, Spec)
    except msgspec.ValidationError as error:
        raise _explained(file, str(error), document) from None
    loaded = LoadedSpec(file, spec, _environments(file, spec))
    _check_roles(loaded)
    _check_profiles(loaded)
    return loaded


_FIELDS = {
    field.encode_name
    for table in (
        *(Spec, StageLimits, Limits, Departure, EnvironmentTable, ModelTable, SchemeTable),
        *(RoleTable, PartTable, ProfileTable, ExclusionTable),
    )
    for field in msgspec.structs.fields(table)
}


_NAMED = {
    "departures": Departure,
    "models": ModelTable,
    "schemes": SchemeTable,
    "profiles": ProfileTable,
    "thresholds": float,
}


def _explained(file: Path, text: str, document: dict[str, Any]) -> SpecError:
    """Turn msgspec's message into one that names key and remedy."""
    problem, _, where = text.partition(" - at `$")
    key = where.rstrip("`").lstrip(".") or "top level"
    section, _, rest = key.partition("[...]")
    if rest or key.endswith("[...]"):
        key = f"{section}.{_wrong_entry(section, document)}{rest}"
    remedy = "See the commented example of every key in matrix/spec.toml"
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


def _environments(file: Path, spec: Spec) -> dict[str, Environment]:
    found: dict[str, Environment] = {}
    for index, table in enumerate(spec.environments):
        key = f"environments[{index}]"
        for values in combinations(table.axes, table.variants):
            environment = _spelled_out(file, key, table, values)
            if environment.name in found:
                raise SpecError(
                    file, f"{key}.name", f"{environment.name!r} is defined twice",
                    "Put the axis that differs into the name, as {axis}",
                )  # fmt: skip
            _check_environment(file, key, spec, environment)
            found[environment.name] = environment
    return found


def combinations(
    axes: Mapping[str, list[str]], variants: Iterable[Mapping[str, str]]
) -> list[dict[str, str]]:
    """Return every variant with every combination of the axes, in the order they are written."""
    rows = [dict(variant) for variant in variants] or [{}]
    for axis, versions in axes.items():
        rows = [{**row, axis: version} for row in rows for version in versions]
    return rows


def _spelled_out(
    file: Path, key: str, table: EnvironmentTable, values: dict[str, str]
) -> Environment:
    def fill(template: str, field: str) -> str:
        try:
            return template.format_map(values)
        except KeyError as missing:
            raise SpecError(
                file, f"{key}.{field}", f"{{{missing.args[0]}}} is no axis and no variant's key",
                f"Known here: {', '.join(values) or 'none'}",
            ) from None  # fmt: skip
        except (ValueError, IndexError, AttributeError, TypeError):
            raise SpecError(
                file, f"{key}.{field}", f"{template!r} has braces that name no axis",
                "Write {axis} for its value, {{ and }} for braces",
            ) from None  # fmt: skip

    for axis, version in values.items():
        try:
            Version(version)
        except InvalidVersion:
            raise SpecError(
                file, f"{key}.{axis}", f"{version!r} is no version",
                "Write a release such as 0.2.7.post3",
            ) from None  # fmt: skip
    name = fill(table.name, "name")
    if not re.fullmatch(r"[a-z0-9][a-z0-9._+-]*", name):
        raise SpecError(
            file, f"{key}.name", f"{name!r} cannot name a folder and a session",
            "Use lower-case letters, digits, '.', '_', '+' and '-'",
        )  # fmt: skip
    return Environment(
        name=name,
        python=table.python,
        requirements=[fill(item, "requirements") for item in table.requirements],
        constraints=[fill(item, "constraints") for item in table.constraints],
        overrides=[fill(item, "overrides") for item in table.overrides],
        build_requirements={
            package: [fill(item, "build_requirements") for item in items]
            for package, items in table.build_requirements.items()
        },
        environ=table.environ,
        departures=table.departures,
    )


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
        try:
            Requirement(item)
        except InvalidRequirement as error:
            problem = str(error).splitlines()[0]
            raise SpecError(
                file, f"{key}.{field}", f"{item!r} is no requirement ({problem})",
                "Write it as pip does, name==version",
            ) from None  # fmt: skip
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
            hint = f"Did you mean {close[0]!r}?" if close else f"Defined: {', '.join(defined)}"
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


def _check_adapter(
    loaded: LoadedSpec, key: str, role: Literal["models", "quantizers", "engines"], name: str
) -> None:
    if not loaded.adapter(role, name).is_file():
        ours = sorted(file.stem for file in (Path(__file__).parent / "probe" / role).glob("*.py"))
        raise SpecError(
            loaded.file, key, f"there is no adapter {name!r}",
            f"Ours: {', '.join(ours)}; one of your own is a path such as './mine.py'",
        )  # fmt: skip


def _check_profiles(loaded: LoadedSpec) -> None:
    file, spec = loaded.file, loaded.spec
    quantizers = [FLOAT_MODEL, *role_names(loaded, spec.quantizers)]
    engines = role_names(loaded, spec.engines)
    choices = (
        ("models", "model", spec.models),
        ("schemes", "scheme", spec.schemes),
        ("quantizers", "quantizer", quantizers),
        ("engines", "engine", engines),
    )
    for key, part in _parts(spec):
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


def _parts(spec: Spec) -> Iterator[tuple[str, PartTable]]:
    for name, profile in spec.profiles.items():
        yield f"profiles.{name}", profile
        for index, part in enumerate(profile.parts):
            yield f"profiles.{name}.parts[{index}]", part


def role_names(loaded: LoadedSpec, tables: Iterable[RoleTable]) -> dict[str, tuple[str, RoleTable]]:
    """Return role name -> (environment name, its table), one for each matching environment.

    Raises :class:`SpecError` where two tables give the same name.
    """
    found: dict[str, tuple[str, RoleTable]] = {}
    for table in tables:
        for environment in loaded.environments:
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
