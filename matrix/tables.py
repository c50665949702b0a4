"""The tables of ``spec.toml`` as typed data. ``matrix/spec.toml`` shows each key in use."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from matrix.outcomes import Verdict

Option = str | int | float | bool
Names = Annotated[list[str], msgspec.Meta(min_length=1)]


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A TOML table in which a key that nobody knows is an error."""


class Limits(Table, frozen=True, kw_only=True):
    """What one stage may use before its processes are ended."""

    seconds: float
    """Wall-clock seconds from its start to its end."""
    silence: float
    """Seconds without a line of log or a sign of progress."""
    memory_mb: int
    """Megabytes (10^6 bytes) of memory of the whole process group, shared pages counted once."""
    log_mb: float
    """Megabytes (10^6 bytes) of output."""


class StageLimits(Table, frozen=True, kw_only=True):
    """The limits of every kind of stage."""

    resolve: Limits
    install: Limits
    importing: Limits = msgspec.field(name="import")
    build: Limits
    quantize: Limits
    inspect: Limits
    load: Limits
    generate: Limits


class Departure(Table, frozen=True, kw_only=True):
    """A declared difference from stock packages."""

    what: str
    why: str
    source: str = ""


class EnvironmentTable(Table, frozen=True, kw_only=True):
    """Environments of one kind: one for each variant and each combination of the axes."""

    name: str
    python: str = "3.11"
    axes: dict[str, list[str]] = {}
    variants: list[dict[str, str]] = []
    requirements: list[str]
    constraints: list[str] = []
    overrides: list[str] = []
    build_requirements: dict[str, list[str]] = {}
    environ: dict[str, str] = {}
    departures: list[str] = []


class ModelTable(Table, frozen=True, kw_only=True):
    """A model that the project builds."""

    environment: str
    adapter: str
    tied: bool
    recipe: dict[str, object] = {}


class SchemeTable(Table, frozen=True, kw_only=True):
    """A quantization method with its parameters."""

    method: Literal["awq"]
    bits: int
    group_size: int
    zero_point: bool = True
    version: str = "GEMM"


class RoleTable(Table, frozen=True, kw_only=True):
    """Environments in the role of quantizers or engines."""

    environments: str
    adapter: str
    suffix: str = ""
    options: dict[str, Option] = {}
    departures: list[str] = []
    needs_hardware: list[str] = []
    """Texts of exceptions by which the package says that it wants hardware this run lacks."""


class ProfileTable(Table, frozen=True, kw_only=True):
    """Which models, schemes, quantizers and engines make a table."""

    title: str
    models: Names
    schemes: list[str]
    quantizers: Names
    engines: Names
    canaries: dict[str, Verdict] = {}


class ExclusionTable(Table, frozen=True, kw_only=True):
    """Cells that are not run, and why."""

    cells: str
    outcome: Literal["unsupported", "needs-hardware"]
    reason: str
    source: str


class Spec(Table, frozen=True, kw_only=True):
    """Everything ``spec.toml`` says."""

    schema: Literal[1]
    limits: StageLimits
    thresholds: dict[str, float]
    departures: dict[str, Departure] = {}
    environments: list[EnvironmentTable]
    models: dict[str, ModelTable]
    schemes: dict[str, SchemeTable]
    quantizers: list[RoleTable]
    engines: list[RoleTable]
    profiles: dict[str, ProfileTable]
    exclusions: list[ExclusionTable] = []


class Environment(Table, frozen=True, kw_only=True):
    """One environment, its name and requirements spelled out."""

    name: str
    python: str
    requirements: list[str]
    constraints: list[str]
    overrides: list[str]
    build_requirements: dict[str, list[str]]
    environ: dict[str, str]
    departures: list[str]
