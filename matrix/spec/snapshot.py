"""The snapshot: releases of packages as an index held them when it was asked.

Plain data, kept beside the spec as ``releases.json``, so that a plan is the same everywhere until
somebody takes newer releases in (``matrix/index/``). Whatever an index says is untrusted: a version
nobody can parse is passed over.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import msgspec
from packaging.utils import canonicalize_name

from matrix.spec.tables import MetadataTable
from matrix.spec.versions import parsed
from matrix.untrusted.reading import UnreadableError, decode, read_file

SCHEMA: Literal[1] = 1
SNAPSHOT = "releases.json"
"""Its name, beside the spec."""
SNAPSHOT_BYTES = 16_000_000
"""No snapshot is larger: ours, of ten packages, has 0.2 MB."""


class SourceMetadata(msgspec.Struct, frozen=True):
    """All that a source archive says its release requires, but for what extras do."""

    requires_dist: list[str]
    read_in: str
    """The file of the archive that says so, as in ``PKG-INFO``."""


class Release(msgspec.Struct, frozen=True, omit_defaults=True):
    """One version of one package on an index."""

    version: str
    uploaded: str = ""
    """When its first file came, ISO, UTC, in seconds; empty where the index does not say."""
    requires_python: str = ""
    yanked: str | None = None
    """The reason, empty where none is given; ``None`` where it is not yanked."""
    wheels: list[str] = []
    """Tags of its wheels that Linux on x86_64 can use, as in ``cp311-cp311-manylinux1_x86_64``."""
    sdist: bool = False
    size: int = 0
    """Bytes of the largest of those wheels; of the source archive where there is none."""
    seen: str = ""
    """Date on which the snapshot took it in."""
    gone: str = ""
    """Date on which the index was found not to hold it any more."""
    declares: list[str] | None = None
    """What its wheel requires of packages that matter here, without extras; ``None``: not known."""
    source: SourceMetadata | None = None
    """Of a release without a wheel, where its source archive could be believed."""

    @property
    def requires(self) -> list[str] | None:
        """Return what its wheel or its source archive requires, ``None`` where it is not known."""
        return self.source.requires_dist if self.source else self.declares


class Snapshot(msgspec.Struct, frozen=True):
    """What an index held when it was asked; the releases of each package by version."""

    schema: Literal[1]
    asked: str
    """ISO time, UTC, in seconds: the ``today`` of environments that are resolved as of today."""
    packages: dict[str, list[Release]]

    def release(self, package: str, version: str) -> Release | None:
        """Return one release, whichever way its version is written."""
        releases = self.packages.get(canonicalize_name(package), [])
        for release in releases:
            if release.version == version:
                return release
        wanted = parsed(version) if releases else None
        return next((r for r in releases if wanted and parsed(r.version) == wanted), None)

    def declares(
        self, package: str, version: str, metadata: Iterable[MetadataTable] = ()
    ) -> list[str] | None:
        """Return what a release requires: as the spec has it, else as its own file says."""
        name = canonicalize_name(package)
        for table in metadata:
            same = canonicalize_name(table.package) == name
            if same and parsed(table.version) == parsed(version):
                return table.requires_dist
        release = self.release(package, version)
        return release.requires if release else None

    def source_metadata(self, package: str, version: str) -> MetadataTable | None:
        """Return what uv is to be told of a release without a wheel, where that could be read."""
        release = self.release(package, version)
        if release is None or release.source is None:
            return None
        return MetadataTable(
            package=package,
            version=version,
            requires_dist=release.source.requires_dist,
            requires_python=release.requires_python,
            source=f"{release.source.read_in} in "
            f"https://pypi.org/project/{package}/{version}/#files",
        )


EMPTY = Snapshot(SCHEMA, "", {})
"""The snapshot of a spec that has none: no range takes anything."""


def read_snapshot(file: Path) -> Snapshot:
    """Read ``releases.json``; raise :class:`ValueError` that says what is wrong with it."""
    try:
        raw = read_file(file, SNAPSHOT_BYTES)
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from None
    try:
        snapshot = decode(raw, Snapshot)
    except UnreadableError as error:
        raise ValueError(f"is no snapshot of releases: {error}") from None
    for package, releases in snapshot.packages.items():
        for release in releases:
            if parsed(release.version) is None:
                raise ValueError(f"{package}: {release.version!r} is no version")
    return snapshot


def encode(snapshot: Snapshot) -> bytes:
    """Return a snapshot as JSON with a line for each release, so that changes can be read."""
    packages = []
    for package, releases in sorted(snapshot.packages.items()):
        lines = ",\n".join(f"  {msgspec.json.encode(release).decode()}" for release in releases)
        packages.append(f" {msgspec.json.encode(package).decode()}: [\n{lines}\n ]")
    asked = msgspec.json.encode(snapshot.asked).decode()
    body = ",\n".join(packages)
    text = f'{{"schema": {SCHEMA}, "asked": {asked}, "packages": {{\n{body}\n}}}}\n'
    return text.encode()
