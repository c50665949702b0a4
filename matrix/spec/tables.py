"""The tables of a spec as typed data. The files in ``project/`` show each key in use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from matrix.checkpoint.formats import Format, Method
from matrix.pipeline.outcomes import Verdict
from matrix.pipeline.steps import STEPS, Device, Stage, Step
from matrix.repair.names import RepairName
from matrix.untrusted.text import visible

Option = str | int | float | bool
Activations = Literal["", "int8", "fp8", "fp4"]
"""What a layer's inputs are rounded to before it multiplies; empty where they are not."""
InstructionSet = Literal["AVX2", "AVX-512", "AVX-512 BF16", "AMX"]
"""What kernels for CPUs are built for, as people write it."""
Resolution = Literal["pinned", "released", "today"]
"""With our pins; with what there was when its releases came out; with what there is today."""
SandboxUse = Literal["auto", "required", "off"]
Positive = Annotated[float, msgspec.Meta(gt=0, le=1e9)]
"""Seconds (a billion are 30 years) or megabytes; NaN and infinity are none."""
Amount = Annotated[float, msgspec.Meta(ge=0, le=1e12)]
Names = Annotated[list[str], msgspec.Meta(min_length=1)]


class SpecError(Exception):
    """The spec is wrong. The text names the file, the key and what to do."""

    def __init__(self, file: Path, key: str, problem: str, remedy: str) -> None:
        key, problem, remedy = visible(key, 200), visible(problem, 1000), visible(remedy, 1000)
        super().__init__(f"{file}: {key}: {problem}. {remedy}")


ErrorAt = Callable[[str, str, str], SpecError]
"""From key, problem and remedy to the error that names the file where the key stands."""


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A TOML table in which a key that nobody knows is an error."""


class Limits(Table, frozen=True, kw_only=True):
    """What one stage may use before its processes are ended."""

    seconds: Positive
    """Wall-clock seconds from its start to its end."""
    silence: Positive
    """Seconds without a line of log or a sign of progress."""
    memory_mb: Annotated[int, msgspec.Meta(gt=0, le=10**9)]
    """Megabytes (10^6 bytes) of memory of the whole process group, shared pages counted once."""
    log_mb: Positive
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

    def of(self, step: Step) -> Limits:
        """Return the limits of a step; those of the step that its definition names otherwise."""
        limited = STEPS[step].limits or step
        limits: Limits = getattr(self, "importing" if limited is Step.IMPORT else limited.value)
        return limits


class Departure(Table, frozen=True, kw_only=True):
    """A declared difference from stock packages."""

    what: str
    why: str
    source: str = ""
    only_where_used: bool = False
    """Whether a cell departs only where its adapter says so, in the fact ``departures``."""


class RangeTable(Table, frozen=True, kw_only=True):
    """An axis as a range of a package's releases, and which of them to take."""

    package: str = ""
    """The axis's name, with "-" for "_", where it is left out."""
    since: str
    until: str = ""
    pick: str = "all"
    """``all``, ``latest patch per minor`` or ``newest N``."""
    always: dict[str, str] | list[str] = {}
    """Version -> why it is taken whatever ``pick`` says; or versions alone, whose reasons stand
    under ``[reasons.<package>]``."""
    never: dict[str, str] = {}
    """Version -> why it is left out."""


Row = dict[str, str | list[str] | RangeTable]
"""Key -> its version, or a range of versions; or name of a list of the environment table (such as
``pins``) -> what the row adds to it."""


class EnvironmentTable(Table, frozen=True, kw_only=True):
    """Environments of one kind: one for each variant and each combination of the axes, and rows."""

    base: str = ""
    """Name of the base that has what this table does not say itself."""
    name: str
    group: str = ""
    """A word by which selections tell these environments from others of the same facts."""
    python: str = "3.11"
    device: Device = "cpu"
    resolution: Resolution | Literal["{resolution}"] = "pinned"
    axes: dict[str, list[str] | RangeTable] = {}
    variants: list[Row] = []
    """Keys that belong together. Each variant meets every combination of the axes."""
    rows: list[Row] = []
    """Environments one by one, beside what axes and variants give."""
    requirements: list[str]
    pins: list[str] = []
    """Further packages of our own choice; like the constraints, only where it is ``pinned``."""
    constraints: list[str] = []
    overrides: list[str] = []
    build_requirements: dict[str, list[str]] = {}
    """Package that is built from source -> what its build needs beside what it declares."""
    build_environ: dict[str, dict[str, str]] = {}
    """Package that is built from source -> variables that its build gets."""
    environ: dict[str, str] = {}
    """Variables of every process that runs in the environment."""
    departures: list[str] = []


class Facts(Table, frozen=True, kw_only=True):
    """What environments, or roles of environments, have in common that are selected.

    What is left out may be anything; what is given must all hold.
    """

    package: str = ""
    """The release that it requires first, as a requirement: ``transformers>=5``."""
    beside: list[str] = []
    """Others that it requires, in the same way."""
    without: list[str] = []
    """Packages that it does not require."""
    device: Device | None = None
    resolution: Resolution | None = None
    """Its own, in which it is run."""
    group: str | None = None
    axes: dict[str, str] = {}
    """Axis -> a specifier that its value fulfils: ``torch = ">=2.8"``."""
    suffix: list[str] | None = None
    """Suffixes of roles; an empty one is that of a role without."""


class ModelTable(Table, frozen=True, kw_only=True):
    """A model that the project builds."""

    base: str = ""
    environment: str
    adapter: str
    tied: bool
    about: str = ""
    """What it is, in one sentence for a person; in no key."""
    recipe: dict[str, object] = {}
    config: dict[str, object] = {}
    """Facts of its ``config.json``, from which sizes are predicted before there is a file."""


class SchemeTable(Table, frozen=True, kw_only=True):
    """What is computed with which parameters, and the one format in which it is stored."""

    format: Format
    bits: int
    group_size: int
    """-1 stands for one group a row."""
    zero_point: bool = True
    """AWQ: zero points are stored, so that a group need not be symmetric about zero."""
    version: str = "GEMM"
    """AWQ: the layout."""
    sym: bool = True
    """Groups are symmetric about zero. Of AWQ, ``zero_point`` says it."""
    desc_act: bool = False
    """GPTQ: columns are quantized in the order of their activations, and groups follow it."""
    activations: Activations = ""
    capability: str = ""
    """Lowest CUDA compute capability that multiplies so, as in ``8.9``; in no key."""

    @property
    def method(self) -> Method:
        """What config.json calls the format."""
        return self.format.method

    @property
    def is_symmetric(self) -> bool:
        """Whether each group is symmetric about zero."""
        return not self.zero_point if self.format is Format.AWQ else self.sym

    @property
    def request(self) -> dict[str, Option]:
        """What a quantizer is asked for, as jobs and keys have it.

        What only newer schemes say is left out elsewhere, so that the keys of others stay.
        """
        request: dict[str, Option] = {
            "method": self.method,
            "bits": self.bits,
            "group_size": self.group_size,
            "zero_point": self.zero_point,
            "version": self.version,
            "sym": self.sym,
            "desc_act": self.desc_act,
        }
        if self.format.value != self.method:
            request["format"] = self.format.value
        if self.activations:
            request["activations"] = self.activations
        return request


class RoleTable(Table, frozen=True, kw_only=True):
    """Environments in the role of quantizers or engines."""

    base: str = ""
    environments: str | Facts
    """A name, a pattern of names, or what they have in common."""
    device: Device = "cpu"
    """Environments for another device do not get the role."""
    adapter: str
    suffix: str = ""
    formats: list[Format] = msgspec.field(default_factory=lambda: list(Format))
    """What a quantizer makes or an engine reads; every engine reads the float model."""
    repairs: list[RepairName] = []
    """Of a quantizer: what is repaired in the checkpoints that the same table without ``repairs``
    and without ``repaired`` at the end of its suffix makes."""
    options: dict[str, Option] = {}
    environ: dict[str, str] = {}
    """Variables of this role's processes, over the environment's."""
    departures: list[str] = []
    capability: str = ""
    """Lowest CUDA compute capability on which it runs, as in ``7.5``."""
    instruction_set: InstructionSet | Literal[""] = ""
    """What a CPU must have for it to run, where that is known beforehand."""
    needs_hardware: list[str] = []
    """Texts of exceptions by which a package says that it wants hardware, or a library of the
    system, that this machine lacks."""


Choices = Annotated[list[str | Facts], msgspec.Meta(min_length=1)]
"""Names, patterns of names ("!" before one leaves out what it matches), and facts."""


class PartTable(Table, frozen=True, kw_only=True):
    """Cells that make one table: every combination of four choices that goes together."""

    title: str
    models: Names
    schemes: list[str]
    quantizers: Choices
    engines: Choices


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


class RefusalTable(Table, frozen=True, kw_only=True):
    """An exception by which a package says that it does not support something, by design."""

    packages: Names
    """Distributions of the package; one of them must be installed where the step ran."""
    versions: str = ""
    """Of which versions, as a specifier; of all where it is left out."""
    stages: Annotated[list[Stage], msgspec.Meta(min_length=1)]
    exception: str
    """Name of the exception's type, without its module."""
    raised_in: str
    """The file that raises it, or a folder with a "/" after it, below ``site-packages``."""
    text: Annotated[str, msgspec.Meta(min_length=16)]
    """How its message begins; ``*`` stands for one word."""
    source: str
    """Where upstream says so."""


class CutoffException(Table, frozen=True, kw_only=True):
    """A package for which another cut-off date holds when environments are resolved as released."""

    package: str
    environments: str = "*"
    until: Annotated[str, msgspec.Meta(pattern=r"^(none|\d{4}-\d\d-\d\d(T[\d:]{8}Z)?)$")]
    """A date (``2024-11-30``), or ``none`` for no cut-off."""
    reason: str


class ReleasedTable(Table, frozen=True, kw_only=True):
    """What ``released`` means: the newest upload among an environment's releases, plus a grace."""

    grace_days: Annotated[int, msgspec.Meta(ge=0, le=40_000)] = 7
    exceptions: list[CutoffException] = []


class MetadataTable(Table, frozen=True, kw_only=True):
    """What a release requires that has no wheel to read it from."""

    package: str
    version: str
    environments: str = ""
    """Environments that get it without naming the release; those that name it do in any case."""
    requires_dist: list[str]
    requires_python: str = ""
    source: str


class DevicePredictions(Table, frozen=True, kw_only=True):
    """What steps are predicted to take on one kind of device, until they have been timed."""

    import_seconds: Amount
    quantize_seconds: Amount
    """Of a model of next to no size."""
    quantize_seconds_per_billion: dict[Method, Amount]
    """And for each 10^9 parameters besides."""
    load_seconds: Amount
    load_seconds_per_billion: Amount
    generate_seconds: Amount


class PredictionsTable(Table, frozen=True, kw_only=True):
    """The constants from which downloads, disk and time are predicted."""

    download_mb_per_second: Positive
    unpacked: Amount
    """Bytes on disk for each byte of a wheel."""
    torch_mb: Amount
    """Megabytes (10^6 bytes) of one torch's wheels with those of CUDA that it asks for."""
    torch_cpu_mb: Amount = 192
    """The same of a build without CUDA, where uv is told to take those (``UV_TORCH_BACKEND``)."""
    packages_mb: Amount
    """Megabytes of wheels that an environment shares with no other."""
    packages_unpacked: Amount = 3.5
    """Bytes on disk for each byte of these."""
    bytecode_mb: Amount = 0
    """Megabytes on disk of the compiled files that an environment has for itself."""
    brings_mb: dict[str, Amount] = {}
    """Package -> megabytes of wheels that each of its releases brings along."""
    resolve_seconds: Amount
    install_seconds: Amount
    source_build_seconds: Amount
    """More for each release that has no wheel, once for all environments."""
    first_quantize_seconds: dict[str, Amount] = {}
    """Package -> what the first quantization in an environment takes more."""
    first_load_seconds: dict[str, Amount] = {}
    """Package -> what the first import and load in an environment take more."""
    build_seconds: Amount
    """Of a model, without its download."""
    inspect_seconds_per_gb: Amount
    """For each 10^9 bytes of the float model."""
    cpu: DevicePredictions
    cuda: DevicePredictions


class Spec(Table, frozen=True, kw_only=True):
    """Everything that the files of a spec say."""

    schema: Literal[1]
    sandbox: SandboxUse = "auto"
    """Whether packages' code runs shut in: where bubblewrap is there, or nowhere else, or never."""
    bases: dict[str, dict[str, object]] = {}
    """Name -> keys of tables that build on it (environments, models, quantizers, engines)."""
    sets: dict[str, list[str | Facts]] = {}
    """Name -> items that lists of environments and profiles name together, as ``"@name"``."""
    reasons: dict[str, dict[str, str]] = {}
    """Package -> version -> why ranges take it always."""
    limits: StageLimits
    thresholds: dict[str, float]
    predictions: PredictionsTable | None = None
    """Those of the default spec where it is left out."""
    departures: dict[str, Departure] = {}
    released: ReleasedTable = ReleasedTable()
    metadata: list[MetadataTable] = []
    environments: list[EnvironmentTable]
    pairs: dict[str, RangeTable] = {}
    """Package -> its releases that are resolved beside those of the other packages here."""
    models: dict[str, ModelTable]
    schemes: dict[str, SchemeTable]
    quantizers: list[RoleTable]
    engines: list[RoleTable]
    profiles: dict[str, ProfileTable]
    exclusions: list[ExclusionTable] = []
    refusals: dict[str, RefusalTable] | None = None
    """Name -> rule. Those of the default spec where it is left out."""


class Environment(Table, frozen=True, kw_only=True):
    """One environment in one resolution, its name and requirements spelled out."""

    name: str
    group: str = ""
    axes: dict[str, str] = {}
    """Axis or key of its variant -> its value here. Part of no key: what they fill in is."""
    python: str
    device: Device = "cpu"
    resolution: Resolution = "pinned"
    cutoff: str = ""
    """ISO time, UTC: what was uploaded later does not exist. Empty where it is pinned."""
    cutoffs: dict[str, str] = {}
    """Package -> its own cut-off, or ``none``."""
    metadata: list[MetadataTable] = []
    """Of releases that it names and that have no wheel."""
    requirements: list[str]
    constraints: list[str]
    overrides: list[str]
    build_requirements: dict[str, list[str]]
    build_environ: dict[str, dict[str, str]] = {}
    environ: dict[str, str]
    departures: list[str]
