"""The tables of ``spec.toml`` as typed data. ``matrix/spec.toml`` shows each key in use."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import msgspec

from matrix.outcomes import Verdict

Option = str | int | float | bool
Method = Literal["awq", "gptq"]
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

    method: Method
    bits: int
    group_size: int
    zero_point: bool = True
    """AWQ: zero points are stored, so that a group need not be symmetric about zero."""
    version: str = "GEMM"
    """AWQ: the layout."""
    sym: bool = True
    """GPTQ: groups are symmetric about zero."""
    desc_act: bool = False
    """GPTQ: columns are quantized in the order of their activations, and groups follow it."""


class RoleTable(Table, frozen=True, kw_only=True):
    """Environments in the role of quantizers or engines."""

    environments: str
    adapter: str
    suffix: str = ""
    methods: list[Method] = msgspec.field(default_factory=lambda: list(get_args(Method)))
    """What a quantizer makes or an engine reads; every engine reads the float model."""
    options: dict[str, Option] = {}
    environ: dict[str, str] = {}
    """Variables of this role's processes, over the environment's."""
    departures: list[str] = []
    needs_hardware: list[str] = []
    """Texts of exceptions by which a package says that it wants hardware, or a library of the
    system, that this machine lacks."""


class PartTable(Table, frozen=True, kw_only=True):
    """Cells that make one table: every combination of four choices that goes together."""

    title: str
    models: Names
    schemes: list[str]
    quantizers: Names
    engines: Names


class ProfileTable(PartTable, frozen=True, kw_only=True):
    """What is run together: its own choices are the first part."""

    parts: list[PartTable] = []
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
