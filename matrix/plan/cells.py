"""From a spec and a profile to the environments, checkpoints and cells of a run. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from fnmatch import fnmatchcase
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from matrix.checkpoint.formats import Format
from matrix.pipeline.outcomes import Verdict
from matrix.repair.names import RepairName
from matrix.spec.loading import (
    FLOAT_MODEL,
    LoadedSpec,
    Roles,
    check_profile,
    chosen_roles,
    parts_of,
    repaired_role,
    role_names,
)
from matrix.spec.repeats import hint
from matrix.spec.selecting import matches
from matrix.spec.tables import (
    Environment,
    ExclusionTable,
    InstructionSet,
    ModelTable,
    Option,
    PartTable,
    SchemeTable,
)

FLOAT_SCHEME = "float"
MOST_CELLS = 100_000
"""Of a profile. A page of 20,000 can still be read; millions would fill the memory."""


class Model(msgspec.Struct, frozen=True):
    """A model to build, with where and how."""

    name: str
    environment: str
    adapter: Path
    tied: bool
    recipe: dict[str, object]
    config: dict[str, object] = {}
    about: str = ""


class Role(msgspec.Struct, frozen=True):
    """An environment as a quantizer or an engine."""

    name: str
    environment: str
    adapter: Path
    formats: list[Format] = []
    options: dict[str, Option] = {}
    environ: dict[str, str] = {}
    departures: list[str] = []
    """The adapter's own; the environment's stand with the environment."""
    capability: str = ""
    instruction_set: InstructionSet | Literal[""] = ""
    needs_hardware: list[str] = []
    repairs: list[RepairName] = []
    """Of a quantizer: what is repaired in the checkpoints of another role."""
    repaired_role: str = ""
    """The name of that other role."""


class Checkpoint(msgspec.Struct, frozen=True):
    """What a quantizer makes of a model under a scheme; the float one has no ``scheme``."""

    model: Model
    scheme_name: str
    scheme: SchemeTable | None
    quantizer: Role

    @property
    def id(self) -> str:
        """``model/scheme/quantizer``."""
        return f"{self.model.name}/{self.scheme_name}/{self.quantizer.name}"

    @property
    def unrepaired(self) -> Checkpoint:
        """The checkpoint as it is made, before its repairs; itself, where it has none."""
        if not self.quantizer.repairs:
            return self
        maker = msgspec.structs.replace(
            self.quantizer, name=self.quantizer.repaired_role, repairs=[], repaired_role=""
        )
        return msgspec.structs.replace(self, quantizer=maker)


class Cell(msgspec.Struct, frozen=True):
    """The unit of the table."""

    checkpoint: Checkpoint
    engine: Role
    parts: list[str]
    """Titles of the parts of the profile that name it."""
    canary: Verdict | None = None
    exclusion: ExclusionTable | None = None
    unmet: str = ""
    """What it needs that this machine lacks, in words."""

    @property
    def runs(self) -> bool:
        """Whether it is to be run, and can be here."""
        return self.exclusion is None and not self.unmet

    @property
    def id(self) -> str:
        """``model/scheme/quantizer/engine``."""
        return f"{self.checkpoint.id}/{self.engine.name}"


class Plan(msgspec.Struct, frozen=True):
    """All of one profile. Lists keep the order in which the spec names things."""

    profile: str
    title: str
    parts: list[str]
    """Titles, each of one table."""
    environments: dict[str, Environment]
    models: list[Model]
    checkpoints: list[Checkpoint]
    cells: list[Cell]


Unmet = Callable[[Checkpoint, Role], str]
"""From a checkpoint and an engine to what they need that this machine lacks; empty for nothing."""


def make_plan(loaded: LoadedSpec, profile_name: str, unmet: Unmet = lambda *_: "") -> Plan:
    """Return the plan of a profile; raise :class:`SpecError` where it names nothing that exists."""
    spec = loaded.spec
    profile = spec.profiles.get(profile_name)
    if profile is None:
        raise loaded.error(
            f"profiles.{profile_name}", "there is no such profile",
            hint(profile_name, spec.profiles),
        )  # fmt: skip
    check_profile(loaded, profile_name)
    parts = dict(parts_of(profile_name, profile))
    makers, readers = role_names(loaded, spec.quantizers), role_names(loaded, spec.engines)
    quantizers = _roles(loaded, "quantizers", makers)
    engines = _roles(loaded, "engines", readers)
    cells: dict[str, Cell] = {}
    for key, part in parts.items():
        of_part = chosen_roles(loaded, makers, part.quantizers)
        in_part = chosen_roles(loaded, readers, part.engines)
        made_by = [role for role in quantizers if role.name in of_part]
        read_by = [role for role in engines if role.name in in_part]
        _check_schemes(loaded, f"{key}.schemes", part, made_by, read_by)
        for checkpoint, engine in _part(loaded, part, made_by, read_by):
            cell = f"{checkpoint.id}/{engine.name}"
            titles = [*cells[cell].parts, part.title] if cell in cells else [part.title]
            cells[cell] = Cell(
                checkpoint,
                engine,
                titles,
                profile.canaries.get(cell),
                _exclusion(spec.exclusions, cell),
                unmet(checkpoint, engine),
            )
            if len(cells) > MOST_CELLS:
                raise loaded.error(
                    f"profiles.{profile_name}", f"has more than {MOST_CELLS:,} cells",
                    "Choose fewer models, schemes, quantizers or engines",
                )  # fmt: skip
    if unknown := profile.canaries.keys() - cells.keys():
        raise loaded.error(
            f"profiles.{profile_name}.canaries", f"{min(unknown)!r} is no cell of it",
            f"See `matrix plan --profile {profile_name} --cells` for the ids",
        )  # fmt: skip
    titles = list(dict.fromkeys(part.title for part in parts.values()))
    plan = plan_of(list(cells.values()), profile_name, profile.title, titles, loaded.environments)
    _check_order(loaded, plan)
    return plan


def plan_of(
    cells: list[Cell],
    profile: str,
    title: str,
    parts: list[str],
    environments: dict[str, Environment],
) -> Plan:
    """Return the plan of some cells, with all that they stand on."""
    checkpoints = _checkpoints(cells)
    used = {checkpoint.model.environment for checkpoint in checkpoints}
    used |= {checkpoint.quantizer.environment for checkpoint in checkpoints}
    used |= {cell.engine.environment for cell in cells}
    return Plan(
        profile=profile,
        title=title,
        parts=parts,
        environments={name: table for name, table in environments.items() if name in used},
        models=list({c.model.name: c.model for c in checkpoints}.values()),
        checkpoints=checkpoints,
        cells=cells,
    )


def _check_order(loaded: LoadedSpec, plan: Plan) -> None:
    try:
        TopologicalSorter(requirements_of(plan)).prepare()
    except CycleError as error:
        raise loaded.error(
            f"profiles.{plan.profile}",
            f"environments wait for each other ({', '.join(sorted(set(error.args[1])))})",
            "Give one of them a second [[environments]] table for one of its roles",
        ) from None  # fmt: skip


def _model(loaded: LoadedSpec, name: str, table: ModelTable) -> Model:
    adapter = loaded.adapter("models", table.adapter)
    return Model(
        name, table.environment, adapter, table.tied, table.recipe, table.config, table.about
    )


def _roles(loaded: LoadedSpec, kind: Literal["quantizers", "engines"], tables: Roles) -> list[Role]:
    return [
        Role(
            name=name,
            environment=environment,
            adapter=loaded.adapter(kind, table.adapter),
            formats=table.formats,
            options=table.options,
            environ=table.environ,
            departures=table.departures,
            capability=table.capability,
            instruction_set=table.instruction_set,
            needs_hardware=table.needs_hardware,
            repairs=table.repairs,
            repaired_role=repaired_role(environment, table),
        )
        for name, (environment, table) in tables.items()
    ]


def _part(
    loaded: LoadedSpec, part: PartTable, quantizers: list[Role], engines: list[Role]
) -> Iterator[tuple[Checkpoint, Role]]:
    """Give what one part puts together of its quantizers and engines: each model's checkpoints
    with each engine."""
    schemes = {n: s for n, s in loaded.spec.schemes.items() if matches(n, part.schemes)}
    formats = {scheme.format for scheme in schemes.values()}
    # One that reads none of the schemes has nothing to be compared with its float model.
    engines = [engine for engine in engines if not formats or formats.intersection(engine.formats)]
    for name, table in loaded.spec.models.items():
        if not matches(name, part.models):
            continue
        model = _model(loaded, name, table)
        itself = Role(FLOAT_MODEL, model.environment, model.adapter)
        for engine in engines:
            yield Checkpoint(model, FLOAT_SCHEME, None, itself), engine
        for scheme_name, scheme in schemes.items():
            for role in (role for role in quantizers if scheme.format in role.formats):
                checkpoint = Checkpoint(model, scheme_name, scheme, role)
                for engine in (engine for engine in engines if scheme.format in engine.formats):
                    yield checkpoint, engine


def _check_schemes(
    loaded: LoadedSpec, key: str, part: PartTable, quantizers: list[Role], engines: list[Role]
) -> None:
    """Raise :class:`SpecError` where a part names schemes of which it has no cell.

    Beside the float model alone, schemes only say which engines are meant.
    """
    sides = {"quantizer that makes": quantizers} if quantizers else {}
    sides["engine that reads"] = engines
    for choice in part.schemes:
        formats = {s.format for n, s in loaded.spec.schemes.items() if matches(n, [choice])}
        left = formats
        for noun, roles in sides.items():
            left = left.intersection(form for role in roles for form in role.formats)
            if formats and not left:
                raise loaded.error(
                    key, f"the part {part.title!r} has no {noun} {choice!r}",
                    f"Add one whose formats name {', '.join(sorted(formats))}, or leave it out",
                )  # fmt: skip


def _exclusion(exclusions: list[ExclusionTable], cell: str) -> ExclusionTable | None:
    return next((table for table in exclusions if fnmatchcase(cell, table.cells)), None)


class Selection(NamedTuple):
    """The part of a plan that is asked for."""

    checkpoints: list[Checkpoint]
    cells: list[Cell]

    @property
    def environments(self) -> list[str]:
        """Names of the environments the part needs, each before those that wait for it."""
        models = [checkpoint.model.environment for checkpoint in self.checkpoints]
        quantizers = [checkpoint.quantizer.environment for checkpoint in self.checkpoints]
        engines = [cell.engine.environment for cell in self.cells]
        return list(dict.fromkeys([*models, *quantizers, *engines]))


def select(
    plan: Plan, environments: Collection[str] | None = None, cells: Collection[str] | None = None
) -> Selection:
    """Return the whole plan, what some environments do, or what some cells need, by their ids.

    A cell brings its float twin in the same engine along: without it nothing can be compared.
    What only cells need that do not run is left out. Raises ``KeyError`` with an unknown id.
    """
    running = [cell for cell in plan.cells if cell.runs]
    if cells is not None:
        by_id = {cell.id: cell for cell in plan.cells}
        wanted = {name: float_id(by_id[name]) for name in cells}
        needed = {*wanted, *wanted.values()}
        running = [cell for cell in running if cell.id in needed]
    elif environments is not None:
        if unknown := set(environments) - plan.environments.keys():
            raise KeyError(min(unknown))
        made = [c for c in _checkpoints(running) if c.quantizer.environment in environments]
        return Selection(made, [c for c in running if c.engine.environment in environments])
    return Selection(_checkpoints(running), running)


def _checkpoints(cells: list[Cell]) -> list[Checkpoint]:
    return list({cell.checkpoint.id: cell.checkpoint for cell in cells}.values())


def float_id(cell: Cell) -> str:
    """Return the id of the cell of the float model in the same engine."""
    return f"{cell.checkpoint.model.name}/{FLOAT_SCHEME}/{FLOAT_MODEL}/{cell.engine.name}"


def requirements_of(plan: Plan) -> dict[str, list[str]]:
    """Return environment -> the environments whose work must be done before its own."""
    needs: dict[str, list[str]] = {name: [] for name in plan.environments}
    for checkpoint in plan.checkpoints:
        needs[checkpoint.quantizer.environment].append(checkpoint.model.environment)
    for cell in plan.cells:
        needs[cell.engine.environment].append(cell.checkpoint.model.environment)
        needs[cell.engine.environment].append(cell.checkpoint.quantizer.environment)
    return {name: [n for n in dict.fromkeys(names) if n != name] for name, names in needs.items()}
