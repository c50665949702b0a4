"""Which releases can share an environment: what uv is asked, and its answers as they are kept.

Each release of a package of ``[pairs]`` is asked for beside the newest of every other, and where
that is refused, beside older ones. Answers are plain data beside the spec, as ``pairs.json``;
``matrix pairs --take`` asks uv.
"""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from matrix.spec.axes import PYTHON, package_of
from matrix.spec.dating import Dating
from matrix.spec.files import folder_of
from matrix.spec.loading import LoadedSpec
from matrix.spec.picking import pick
from matrix.spec.tables import Environment, MetadataTable, RangeTable, SpecError
from matrix.spec.versions import parsed
from matrix.untrusted.reading import decode, read_file

SCHEMA: Literal[1] = 1
PAIRS = "pairs.json"
"""Its name, beside the spec."""
PAIRS_BYTES = 4_000_000
"""No such file is larger: ours, of six packages, has 0.1 MB."""


class Pair(msgspec.Struct, frozen=True, omit_defaults=True):
    """What uv answered of one release beside another package."""

    package: str
    release: str
    partner: str
    newest: str
    """The partner's newest release, which was asked for."""
    refusal: str = ""
    """Why not, in a line (untrusted text); empty where the two resolve together."""
    instead: str = ""
    """The newest release of the partner that does resolve; empty where none since the oldest does.
    A pre-release where uv takes none but that."""


class Pairs(msgspec.Struct, frozen=True):
    """All that was answered."""

    schema: Literal[1]
    as_of: str
    """ISO time, UTC: what was uploaded later did not exist for uv. Empty where none was asked."""
    since: dict[str, str]
    """Package, in the order of the spec -> the oldest release of it that uv could take."""
    pairs: list[Pair]


Subject = tuple[str, str, str]
"""A package, a release of it, and its partner."""


class Question(NamedTuple):
    """A release beside a partner, and the environment that uv is to resolve."""

    package: str
    release: str
    partner: str
    newest: str
    environment: Environment

    @property
    def subject(self) -> Subject:
        """Return what it is about, whichever releases of the partner it is asked of."""
        return self.package, self.release, self.partner


class Questions:
    """What uv is asked of the pairs of a spec. Raises :class:`SpecError` for a wrong range."""

    def __init__(self, loaded: LoadedSpec) -> None:
        self._loaded = loaded
        self._dating = Dating(loaded.spec, loaded.snapshot, loaded.error)
        ranges = {package_of(axis, rule): rule for axis, rule in loaded.spec.pairs.items()}
        self._releases = {name: self._picked(name, rule) for name, rule in ranges.items()}

    def _picked(self, package: str, rule: RangeTable) -> list[str]:
        """Return the releases that a range takes, oldest first; at least one."""
        key, releases = f"pairs.{package}", self._loaded.snapshot.packages.get(package, [])
        try:
            versions = pick(releases, rule, PYTHON).versions
        except ValueError as error:
            remedy = "See matrix/spec/project/pairs.toml"
            raise self._loaded.error(key, str(error), remedy) from None
        if not versions:
            raise self._loaded.error(
                key, f"the snapshot of the index has no release of {package!r} that it takes",
                "Ask the index: matrix releases --take",
            )  # fmt: skip
        return versions

    @property
    def since(self) -> dict[str, str]:
        """Return package -> its oldest release."""
        return {package: versions[0] for package, versions in self._releases.items()}

    def newest(self) -> list[Question]:
        """Return every release beside the newest of each partner: those of the newest releases
        first, then the others, newer before older."""
        questions = [
            self._question(package, release, partner, f"=={self._releases[partner][-1]}")
            for package, partner in permutations(self._releases, 2)
            for release in reversed(self._releases[package])
        ]
        return sorted(questions, key=lambda question: question.release != self._newest(question))

    def any_newer(self, question: Question, version: str = "") -> Question:
        """Return the same release beside any of the partner's that is newer than a version; beside
        any since the oldest, where none is given."""
        # ">1.0" would leave 1.0.post1 out.
        bound = f">={version},!={version}" if version else f">={self.since[question.partner]}"
        return self._question(question.package, question.release, question.partner, bound)

    def _newest(self, question: Question) -> str:
        return self._releases[question.package][-1]

    def _question(self, package: str, release: str, partner: str, bound: str) -> Question:
        """Return a question; which of the two is written first makes no difference to uv."""
        named = {package: f"=={release}", partner: bound}
        parts = [name + named[name].partition("==")[2].join(("-", "")) for name in sorted(named)]
        environment = Environment(
            name="+".join(part.rstrip("-") for part in parts),
            group="pairs",
            python=PYTHON,
            device="cuda",
            resolution="today",
            requirements=[name + named[name] for name in sorted(named)],
            constraints=[],
            overrides=[],
            build_requirements={},
            environ={},
            departures=[],
        )
        dated = self._dating.dated(f"pairs.{package}", environment)
        if not bound.startswith("=="):
            metadata = [*dated.metadata, *self._metadata(partner)]
            dated = msgspec.structs.replace(dated, metadata=metadata)
        return Question(package, release, partner, self._releases[partner][-1], dated)

    def _metadata(self, package: str) -> list[MetadataTable]:
        """Return what uv is to be told of a package's releases that have no wheel."""
        oldest = parsed(self.since[package])
        in_spec = [table for table in self._loaded.spec.metadata if table.package == package]
        versions = {table.version for table in in_spec}
        releases = self._loaded.snapshot.packages[package]
        read = [
            self._loaded.snapshot.source_metadata(package, release.version)
            for release in releases
            if release.version not in versions
            and (version := parsed(release.version)) is not None
            and oldest is not None
            and version >= oldest
        ]
        return [*in_spec, *(table for table in read if table)]


def pairs_of(path: Path) -> Pairs | None:
    """Return what is kept beside a spec; ``None`` where nothing is."""
    place = folder_of(path) / PAIRS
    if not place.exists():
        return None
    try:
        return decode(read_file(place, PAIRS_BYTES), Pairs)
    except (OSError, ValueError) as error:
        remedy = "Delete it, then make it anew: matrix pairs --take"
        raise SpecError(place, "pairs", str(error), remedy) from None


def encode(pairs: Pairs) -> bytes:
    """Return it as JSON with a line for each pair, so that changes can be read."""
    lines = ",\n".join(f" {msgspec.json.encode(pair).decode()}" for pair in pairs.pairs)
    as_of = msgspec.json.encode(pairs.as_of).decode()
    since = msgspec.json.encode(pairs.since).decode()
    head = f'{{"schema": {SCHEMA}, "as_of": {as_of}, "since": {since}, "pairs": ['
    return f"{head}\n{lines}\n]}}\n".encode()
