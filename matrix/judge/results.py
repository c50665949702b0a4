"""Judged cells as plain data: what the table shows and what a report holds.

Nothing here is measured or decided; :mod:`matrix.judge.verdict` fills these from observations and
findings, :mod:`matrix.report` shows them, :mod:`matrix.judge.document` writes and reads them.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import msgspec

from matrix.checkpoint.formats import Method
from matrix.diagnose.catalogue import Confidence, Effect
from matrix.pipeline.outcomes import Finding, Reason, StageResult, Verdict
from matrix.pipeline.steps import Blame, Stage
from matrix.spec.tables import Resolution

PAGE = "index.html"
"""The file of a report to look at."""
SCHEMA_FILE = "matrix.schema.json"
"""The file of a report that says what ``matrix.json`` may hold."""

Declared = Literal["allowed", "forbidden", "not said", "unknown"]
"""What the metadata of the releases that an environment names says of each other."""


class RunVerdict(StrEnum):
    """The best verdict of what was run in an environment, or that nothing was."""

    WORKS = "works"
    DEGRADED = "degraded"
    GARBAGE = "garbage"
    BROKEN = "broken"
    UNSUPPORTED = "unsupported"
    NOT_RUN = "not run"


NOT_RUN = RunVerdict.NOT_RUN


class CanaryState(StrEnum):
    """Whether a run may be believed, by its cells whose verdict is known beforehand."""

    NONE = ""
    """The profile has none."""
    ESTABLISHED = "established"
    """All came out as known."""
    NOT_ESTABLISHED = "not established"
    """None came out otherwise, but one was stopped by infrastructure or missing hardware."""
    VOID = "void"
    """One came out otherwise."""


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What of a model decides which packages can quantize and load it."""

    tied: bool
    """Whether input and output embeddings are one tensor."""
    about: str = ""
    """What it is, in one sentence; empty where the spec does not say."""
    repository: str = ""
    """Its name on the Hub; empty where it is not from there."""
    revision: str = ""
    """Which commit there, as the spec has it: ``first seen`` too."""
    model_type: str = ""
    """As config.json has it, such as ``qwen2``; empty where it is not known."""
    hidden_size: int | None = None
    intermediate_size: int | None = None


class SchemeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A method with its parameters; what is ``None`` or empty is not of the method, or not said."""

    method: Method
    bits: int | None = None
    group_size: int | None = None
    zero_point: bool | None = None
    sym: bool | None = None
    desc_act: bool | None = None
    format: str = ""
    """AWQ: the layout, such as ``gemm``. Others: how the weights are stored, such as
    ``gptq_v2`` or ``pack-quantized``."""


class Side(msgspec.Struct, frozen=True, omit_defaults=True):
    """One of the two environments of a cell, spelled out."""

    name: str
    environment: str
    packages: dict[str, str] = {}
    """Top-level distribution name -> version as installed, or as asked for where nothing was."""
    torch: str = ""
    """Torch as installed, local tag and all (``2.13.0+cpu``); empty where nothing was installed."""
    python: str = ""
    options: dict[str, str | int | float | bool] = {}
    environ: dict[str, str] = {}
    """Variables of this role's processes, beside those of its environment."""
    axes: dict[str, str] = {}
    """The values of the environment's axes, as the spec has them."""
    adapter: str = ""
    """The adapter that drives it, named like the package that does the work: ``auto_gptq``."""
    repairs: list[str] = []
    """Of a quantizer: what ``matrix repair`` mends in its checkpoints before they are loaded."""


class Measures(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was measured of a cell that loaded; ``None`` and empty where it was not."""

    kernel: str = ""
    """What really multiplies, in the adapter's words (untrusted text)."""
    tokens_per_second: float | None = None
    peak_bytes: int | None = None
    """Most memory that loading took."""
    perplexity: float | None = None
    """On the held-out text."""
    nats: float | None = None
    """Mean absolute difference of log-probabilities from the float model's."""
    divergence: float | None = None
    """Mean divergence of the next token's distribution from the float model's, in nats, by its
    likeliest tokens: at least so much."""
    high_divergence: float | None = None
    """What it is at most at 99.9 % of the places."""
    same_top: float | None = None
    """Share of the places at which the likeliest token is the float model's."""


class CellFacts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What of one row of the table is its own: no other row says it."""

    id: str
    model: str
    scheme: str
    verdict: Verdict
    blame: Blame
    stage: Stage | None
    """Stage at which the cause lies: that which ended it, or of the check whose finding explains
    it; ``None`` where all passed."""
    reason: Reason
    message: str
    """The cause first, then what came of it, then what else is wrong."""
    issue: str = ""
    """Id of the known issue that explains it, in ``MatrixResult.issues``."""
    looks_like: str = ""
    """Id of a known issue of other versions or models that shows in the same words."""
    group: str = ""
    """What it has in common with other cells that no known issue explains: the exception's type,
    and where it was raised."""
    explained_by: str = ""
    """Id of the check whose finding explains it; empty where there is but the stage's own end."""
    departures: list[str] = []
    timings: dict[str, float] = {}
    """Stage -> seconds."""
    at: str = ""
    """ISO time, UTC, of the newest observation of it; empty where there is none."""
    attempts: int = 0
    """How often the step of it was tried that was tried most often; 0 where none was."""
    elsewhere: dict[str, str] = {}
    """Device of another machine -> the verdict of what was observed there."""
    output: str = ""
    """What the engine answered to the first prompt (untrusted text)."""
    measures: Measures = Measures()
    flaky: bool = False
    """Whether good and bad answers were observed under one key."""
    canary: Verdict | None = None
    """The verdict this cell must have for the run to count, where it is a canary."""


class CellResult(CellFacts, frozen=True, kw_only=True):
    """One row of the table."""

    quantizer: Side
    engine: Side
    stages: list[StageResult]
    findings: list[Finding]
    parts: list[str] = []
    """Titles of the tables in which it stands."""
    device: str = "cpu"
    """Such as ``cpu x86-64-v4, avx512_bf16``, ``cpu`` where no more was recorded, ``cuda 8.9``."""
    made_on: str = ""
    """The same of its quantizer; empty where it made no checkpoint."""
    runs: list[str] = []
    """Ids of the runs that its observations are from, oldest first."""
    expected: str = ""
    """What the float model answered to the first prompt."""
    command: str = ""
    """The command that runs this cell alone."""


class Standing(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How an environment stands in one resolution: declared, resolves, works."""

    resolution: Resolution
    cutoff: str = ""
    """ISO time after which nothing exists; empty where it is pinned."""
    declared: Declared = "unknown"
    declared_by: str = ""
    """Who says so, in words: ``autoawq 0.2.8 wants transformers<=4.47.1, not 4.51.3``."""
    resolves: Literal["yes", "no", "not asked"] = "not asked"
    refusal: str = ""
    """What the resolver said where it found no set of packages (untrusted text)."""
    packages: dict[str, str] = {}
    """Of what was resolved: the packages that it names, transformers and torch."""
    others: int = 0
    """How many more packages were resolved."""
    works: RunVerdict = NOT_RUN
    stage: str = ""
    """First stage that did not pass where it does not work."""
    message: str = ""
    same_as: str = ""
    """The environment or resolution with the same set of packages whose evidence this is."""
    yanked: dict[str, str] = {}
    """``package version`` -> reason, of releases that it names or that were resolved."""


class Specifier(msgspec.Struct, frozen=True, kw_only=True):
    """Which versions of a partner a release really works with, beside what it declares."""

    package: str
    release: str
    partner: str
    holds: str
    """A PEP 440 specifier; empty where no version worked."""
    declared: str | None
    """What its metadata says; empty where that names no bound, ``None`` where it is not known."""
    differs: list[str] = []
    worked: list[str] = []
    """Versions of the partner, oldest first; so are the next two."""
    failed: list[str] = []
    unknown: list[str] = []
    """Tried without an answer: needs other hardware, was stopped by the machine, or is flaky."""
    untried: list[str] = []
    """Minors beside one that worked of which nothing is known: inside of ``holds`` only where what
    was tried on both sides of them worked."""
    devices: list[str] = []


class Install(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How to install an environment again, and how it was installed here."""

    works: bool = True
    """Whether a cell that stands on it works; else it is here to repeat a failure."""
    python: str
    """The Python that it needs, such as ``3.11``."""
    pins: dict[str, str]
    """Canonical name -> version of all its packages, as they are locked."""
    overrides: list[str] = []
    """Requirements that took the place of what packages declare."""
    build_requirements: dict[str, list[str]] = {}
    """Package that is built from source -> what its build needs beside what it declares."""
    build_environ: dict[str, dict[str, str]] = {}
    """Package that is built from source -> variables that its build gets."""
    environ: dict[str, str] = {}
    """Variables with which its processes ran."""
    instead: dict[str, str] = {}
    """Package -> version that was installed here instead of the locked one, such as torch
    ``2.13.0+cpu`` for ``2.13.0``, or that is not locked at all."""
    left_out: list[str] = []
    """Locked packages that nothing asked for here, such as those of CUDA."""


class KnownIssue(msgspec.Struct, frozen=True, kw_only=True):
    """A known issue that cells of the table have, or look like."""

    title: str
    effect: Effect
    cause: str
    fix: str
    repair: str = ""
    """What to change in the files of a checkpoint that has it."""
    sources: list[str]
    confidence: Confidence
    cells: int
    """How many cells it explains."""


class EnvironmentResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One environment, and the one cause counted where it is broken by itself."""

    name: str
    role: Literal["quantizer", "engine"]
    packages: dict[str, str]
    stages: list[StageResult]
    """Its resolve, install and import stages."""
    cells: int
    """How many cells of the table stand on it."""
    departures: list[str] = []
    command: str = ""
    standings: list[Standing] = []
    differences: list[str] = []
    """Where its standings differ, in words."""
    axes: dict[str, str] = {}
    """The values of its axes, as the spec has them."""
    install: Install | None = None
    """``None`` where it has no lock, or nothing says what it does."""


class TableFacts(msgspec.Struct, frozen=True, kw_only=True):
    """All of a table but its cells."""

    profile: str
    parts: list[str] = []
    """Titles of the tables, in order."""
    runs: list[str]
    """Ids of the runs the evidence comes from, oldest first."""
    finished: str
    """ISO time of the newest record used; empty where there is none."""
    machine: dict[str, str]
    """What the evidence was made on (device, processor, memory, system)."""
    departures: dict[str, str]
    """Departure -> what it changes and why."""
    canaries: CanaryState
    canary_troubles: list[str] = []
    """A line for each canary that came out otherwise: what came, and what differs from before."""
    environments: list[EnvironmentResult]
    models: dict[str, ModelFacts] = {}
    """The models that cells name; so are the schemes."""
    schemes: dict[str, SchemeFacts] = {}
    specifiers: list[Specifier] = []
    """The specifiers that really hold, by package, release and partner."""
    issues: dict[str, KnownIssue] = {}
    """The known issues that cells name, by id."""
    issue_troubles: list[str] = []
    """A line for each known issue that this run contradicts: cells that it is about, and that
    pass."""
    new_releases: dict[str, str] = {}
    """``package version`` -> date, of releases in it that the last take of the snapshot took in."""
    budget: list[str] = []
    """Lines on what a budget bought and left out this time; empty where there was none."""
    going_on: str = ""
    """How much was done when this was written, where the run was not over; empty where it was."""


class MatrixResult(TableFacts, frozen=True, kw_only=True):
    """The whole table. The same records give the same value, hence the same bytes in a report."""

    cells: list[CellResult]
