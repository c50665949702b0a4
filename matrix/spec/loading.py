"""The matrix as data: what a spec may say, read and checked before anything is built.

The files in ``project/`` are both the default spec and the commented example of every key. A wrong
spec raises :class:`SpecError`, one message with the file, the key and the remedy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

import msgspec
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from matrix.spec.axes import MOST_ENVIRONMENTS, Combination, Spelling, requirement_problem
from matrix.spec.dating import Dating
from matrix.spec.files import Place, folder_of, spec_error
from matrix.spec.reading import read_spec
from matrix.spec.repeats import hint
from matrix.spec.schemes import check_schemes
from matrix.spec.selecting import check_facts, chosen, in_words, matches, selected
from matrix.spec.snapshot import EMPTY, SNAPSHOT, Snapshot, read_snapshot
from matrix.spec.tables import (
    Environment,
    Facts,
    PartTable,
    ProfileTable,
    Resolution,
    RoleTable,
    Spec,
    SpecError,
)
from matrix.spec.usable import spec_faults

PACKAGE = Path(__file__).parents[1]
DEFAULT_SPEC = PACKAGE / "spec" / "project"
DEFAULT_PROFILE = "cpu"
ADAPTER_BYTES = 1_000_000
"""No adapter is larger: one has a few KB."""
FLOAT_MODEL = "none"
"""The quantizer that is the float model itself."""


class LoadedSpec(msgspec.Struct, frozen=True):
    """A spec that was read and found right, with what must be known of its files."""

    file: Path
    """The file, or the folder of files."""
    spec: Spec
    snapshot: Snapshot
    environments: dict[str, Environment]
    rows: dict[str, tuple[int, Combination]] = {}
    """Environment -> the index of its table, and what tells it apart there."""
    places: dict[str, Place] = {}
    """Key -> the file where it stands."""

    @property
    def folder(self) -> Path:
        """Return the folder in which locks, the snapshot and adapters lie."""
        return folder_of(self.file)

    def error(self, key: str, problem: str, remedy: str) -> SpecError:
        """Return the error for a key; it names the file where the key stands."""
        return spec_error(self.file, self.places, key, problem, remedy)

    def at(self, name: str, resolution: Resolution) -> Environment:
        """Return an environment in a resolution; raise :class:`SpecError` where it has no date."""
        index, combination = self.rows[name]
        key, table = f"environments[{index}]", self.spec.environments[index]
        spelling = Spelling(self.spec, self.snapshot, self.error)
        dating = Dating(self.spec, self.snapshot, self.error)
        return dating.dated(key, spelling.environment(key, table, combination, resolution))

    def resolutions(self, name: str) -> list[Environment]:
        """Return an environment in every resolution that it has.

        One that is not pinned has no pins to be resolved with, and one that names no release whose
        date is known was never released.
        """
        own = self.environments[name]
        spelled_out = [own] if own.resolution == "pinned" else []
        for resolution in ("released", "today"):
            try:
                spelled_out.append(self.at(name, resolution))
            except SpecError:
                if own.resolution == resolution:
                    raise
        return spelled_out

    def adapter(self, role: Literal["models", "quantizers", "engines"], name: str) -> Path:
        """Return the file of an adapter: a name of ours, or a path beside the spec."""
        if name.endswith(".py"):
            return (self.folder / name).resolve()
        return PACKAGE / "probe" / role / f"{name}.py"


def load(path: Path = DEFAULT_SPEC, snapshot: Snapshot | None = None) -> LoadedSpec:
    """Read and check a spec, a file or a folder of files, with its own snapshot or another.

    Raises :class:`SpecError` with the first thing that is wrong.
    """
    spec, places = read_spec(path)
    loaded = LoadedSpec(
        path, spec, snapshot_of(path) if snapshot is None else snapshot, {}, places=places
    )
    if fault := next(spec_faults(spec), None):
        raise loaded.error(*fault)
    check_schemes(loaded.error, spec.schemes)
    loaded = _spelled_out(loaded)
    _check_roles(loaded)
    _check_refusals(loaded)
    return loaded


def snapshot_of(path: Path) -> Snapshot:
    """Read what the index held: from beside the spec, or else the snapshot that is ours."""
    place = folder_of(path) / SNAPSHOT
    if not place.exists():
        place = DEFAULT_SPEC / SNAPSHOT
    if not place.exists():
        return EMPTY
    try:
        return read_snapshot(place)
    except ValueError as error:
        option = "" if path == DEFAULT_SPEC else f" --spec {path}"
        remedy = f"Delete it, then make it anew: matrix releases --take{option}"
        raise SpecError(place, "snapshot", str(error), remedy) from None


def _spelled_out(loaded: LoadedSpec) -> LoadedSpec:
    """Return a spec with its environments."""
    spelling = Spelling(loaded.spec, loaded.snapshot, loaded.error)
    dating = Dating(loaded.spec, loaded.snapshot, loaded.error)
    environments: dict[str, Environment] = {}
    rows: dict[str, tuple[int, Combination]] = {}
    for index, table in enumerate(loaded.spec.environments):
        key = f"environments[{index}]"
        for combination in spelling.combinations(key, table):
            environment = spelling.environment(key, table, combination, None)
            if environment.name in environments:
                raise loaded.error(
                    f"{key}.name", f"{environment.name!r} is defined twice",
                    "Put the axis that differs into the name, as {axis}",
                )  # fmt: skip
            _check_environment(loaded, key, environment)
            environments[environment.name] = dating.dated(key, environment)
            rows[environment.name] = (index, combination)
        if len(environments) > MOST_ENVIRONMENTS:
            raise loaded.error(
                key, f"with this table there are over {MOST_ENVIRONMENTS:,} environments",
                "Name fewer versions",
            )  # fmt: skip
    return msgspec.structs.replace(loaded, environments=environments, rows=rows)


def _check_environment(loaded: LoadedSpec, key: str, environment: Environment) -> None:
    if not re.fullmatch(r"3\.[0-9]{1,2}(\.[0-9]{1,2})?", environment.python):
        raise loaded.error(
            f"{key}.python", f"{environment.python!r} is no version of Python 3",
            "Write it as 3.11 or 3.11.9",
        )  # fmt: skip
    items = {name: getattr(environment, name) for name in ("requirements", "constraints")}
    items["overrides"] = environment.overrides
    for package, needed in environment.build_requirements.items():
        items[f"build_requirements.{package}"] = needed
    for field, item in ((field, item) for field, listed in items.items() for item in listed):
        if problem := requirement_problem(item):
            raise loaded.error(
                f"{key}.{field}", f"{item[:200]!r} is no requirement ({problem})",
                "Write it as pip does, name==version",
            )  # fmt: skip
    if environment.overrides and not environment.departures:
        raise loaded.error(
            f"{key}.overrides", "an override is a departure and must be declared",
            "Name it in this table's departures and describe it under [departures]",
        )  # fmt: skip
    departures = loaded.spec.departures
    _check_names(loaded, f"{key}.departures", environment.departures, departures, "departure")


def _check_names(
    loaded: LoadedSpec,
    key: str,
    names: Iterable[str],
    defined: Iterable[str],
    noun: str,
    *,
    patterns: bool = False,
) -> None:
    """Raise :class:`SpecError` where a name is none of those that are defined."""
    defined = set(defined)
    for name in names:
        pattern = name.removeprefix("!") if patterns else name
        if name in defined or (patterns and any(fnmatchcase(other, pattern) for other in defined)):
            continue
        raise loaded.error(key, f"no {noun} {name!r} is defined", hint(name, defined))


def _check_roles(loaded: LoadedSpec) -> None:
    environments, departures = loaded.environments, loaded.spec.departures
    for role in ("quantizers", "engines"):
        for index, table in enumerate(getattr(loaded.spec, role)):
            key = f"{role}[{index}]"
            _check_choice(loaded, f"{key}.environments", table)
            _check_names(loaded, f"{key}.departures", table.departures, departures, "departure")
            _check_adapter(loaded, f"{key}.adapter", role, table.adapter)
            if table.repairs and role != "quantizers":
                raise loaded.error(
                    f"{key}.repairs", "an engine repairs nothing",
                    "Write it in a table of [[quantizers]]",
                )  # fmt: skip
    for name, model in loaded.spec.models.items():
        key = f"models.{name}"
        _check_names(loaded, f"{key}.environment", [model.environment], environments, "environment")
        _check_adapter(loaded, f"{key}.adapter", "models", model.adapter)


def _check_choice(loaded: LoadedSpec, key: str, table: RoleTable) -> None:
    """Raise :class:`SpecError` where a role is for no environment."""
    choice = table.environments
    if isinstance(choice, str):
        _check_names(loaded, key, [choice], loaded.environments, "environment", patterns=True)
        return
    check_facts(loaded.error, key, choice)
    if not any(
        environment.device == table.device and selected(environment, choice)
        for environment in loaded.environments.values()
    ):
        raise _selects_nothing(loaded, key, "environment", choice)


def _selects_nothing(loaded: LoadedSpec, key: str, noun: str, facts: Facts) -> SpecError:
    remedy = "Leave out what is not so of those that you mean"
    return loaded.error(key, f"no {noun} is so: {in_words(facts)}", remedy)


def _check_refusals(loaded: LoadedSpec) -> None:
    for name, rule in (loaded.spec.refusals or {}).items():
        try:
            SpecifierSet(rule.versions)
        except InvalidSpecifier:
            raise loaded.error(
                f"refusals.{name}.versions", f"{rule.versions!r} is no specifier",
                "Write it as pip does, >=0.20,<0.33",
            ) from None  # fmt: skip


def _check_adapter(
    loaded: LoadedSpec, key: str, role: Literal["models", "quantizers", "engines"], name: str
) -> None:
    file = loaded.adapter(role, name)
    if not file.is_file():
        ours = sorted(file.stem for file in (PACKAGE / "probe" / role).glob("*.py"))
        raise loaded.error(
            key, f"there is no adapter {name!r}",
            f"Ours: {', '.join(ours)}; one of your own is a path such as './mine.py'",
        )  # fmt: skip
    if file.stat().st_size > ADAPTER_BYTES:
        problem = f"{name!r} has more than {ADAPTER_BYTES:,} bytes"
        raise loaded.error(key, problem, "Give a file of Python")


Roles = Mapping[str, tuple[str, RoleTable]]
"""Name of a role -> (name of its environment, its table)."""


def check_profile(loaded: LoadedSpec, name: str) -> None:
    """Raise :class:`SpecError` where a profile names what does not exist.

    Each when it is opened: a release that the index took back is one profile's trouble.
    """
    spec = loaded.spec
    quantizers = role_names(loaded, spec.quantizers)
    engines = role_names(loaded, spec.engines)
    for role, (environment, table) in quantizers.items():
        _check_repairs(loaded, role, table, quantizers.get(repaired_role(environment, table)))
    for key, part in parts_of(name, spec.profiles[name]):
        _check_names(loaded, f"{key}.models", part.models, spec.models, "model", patterns=True)
        _check_names(loaded, f"{key}.schemes", part.schemes, spec.schemes, "scheme", patterns=True)
        _check_choices(loaded, f"{key}.quantizers", part.quantizers, quantizers, "quantizer")
        _check_choices(loaded, f"{key}.engines", part.engines, engines, "engine")
        if not matches(FLOAT_MODEL, [name for name in part.quantizers if isinstance(name, str)]):
            raise loaded.error(
                f"{key}.quantizers", f"{FLOAT_MODEL!r}, the float model, is not among them",
                "Add it: every answer is compared with the float model's in the same engine",
            )  # fmt: skip


def _check_choices(
    loaded: LoadedSpec, key: str, choices: Sequence[str | Facts], roles: Roles, noun: str
) -> None:
    """Raise :class:`SpecError` where a choice takes in no role."""
    defined = [*roles, FLOAT_MODEL] if noun == "quantizer" else list(roles)
    for number, choice in enumerate(choices):
        if isinstance(choice, str):
            _check_names(loaded, key, [choice], defined, noun, patterns=True)
            continue
        check_facts(loaded.error, f"{key}[{number}]", choice)
        if not chosen_roles(loaded, roles, [choice]):
            raise _selects_nothing(loaded, f"{key}[{number}]", noun, choice)


def parts_of(name: str, profile: ProfileTable) -> Iterator[tuple[str, PartTable]]:
    """Give the parts of a profile, each with its key; its own choices are the first."""
    yield f"profiles.{name}", profile
    for index, part in enumerate(profile.parts):
        yield f"profiles.{name}.parts[{index}]", part


REPAIRED = "repaired"
"""How the suffix of a role ends that repairs the checkpoints of another."""


def repaired_role(environment: str, table: RoleTable) -> str:
    """Return the name of the role whose checkpoints a role repairs; empty where it repairs none."""
    if not table.repairs:
        return ""
    suffix = table.suffix.removesuffix(REPAIRED).removesuffix("+")
    return f"{environment}+{suffix}" if suffix else environment


def _check_repairs(
    loaded: LoadedSpec, role: str, table: RoleTable, maker: tuple[str, RoleTable] | None
) -> None:
    """Raise :class:`SpecError` where a role repairs, and nothing makes just what it repairs."""
    if not table.repairs:
        return
    key = f"quantizers.{role}"
    if f"+{table.suffix}".removesuffix(REPAIRED)[-1:] != "+":
        raise loaded.error(
            key, f"it has repairs, and the suffix {table.suffix!r}",
            f"End the suffix in {REPAIRED!r}, so that its cells are known by their names",
        )  # fmt: skip
    same = ("adapter", "options", "environ", "departures", "needs_hardware")
    if maker is None or any(getattr(maker[1], name) != getattr(table, name) for name in same):
        raise loaded.error(
            key, "no role makes the checkpoints that it repairs",
            f"Repeat a table without repairs and without {REPAIRED!r}, its {', '.join(same)}",
        )  # fmt: skip


def role_names(loaded: LoadedSpec, tables: Iterable[RoleTable]) -> dict[str, tuple[str, RoleTable]]:
    """Return role name -> (environment name, its table), one for each selected environment.

    Raises :class:`SpecError` where two tables give the same name.
    """
    roles: dict[str, tuple[str, RoleTable]] = {}
    for table in tables:
        for name, environment in loaded.environments.items():
            if environment.device != table.device or not selected(environment, table.environments):
                continue
            role = f"{name}+{table.suffix}" if table.suffix else name
            if role in roles:
                raise loaded.error(
                    "environments", f"{role!r} gets two roles of the same kind",
                    "Give one of them a suffix",
                )  # fmt: skip
            roles[role] = (name, table)
    return roles


def chosen_roles(loaded: LoadedSpec, roles: Roles, choices: Sequence[str | Facts]) -> set[str]:
    """Return the names of the roles that a part of a profile takes in.

    One that repairs has the facts of the one whose checkpoints it repairs: it is taken in by its
    name, or by facts that name its suffix.
    """
    of_repairs = [c for c in choices if isinstance(c, str) or c.suffix is not None]
    return {
        role
        for role, (name, table) in roles.items()
        if chosen(
            role,
            loaded.environments[name],
            table.suffix,
            of_repairs if table.repairs else choices,
        )
    }
