"""What a source archive says that its release requires: read from its text, never built.

Believed is, in this order, the first that names a requirement which is of no extra:

1. ``Requires-Dist`` of ``PKG-INFO``, be it static (Metadata 2.2) or what the build worked out on
   the machine of whoever uploaded it;
2. ``requires.txt`` of an ``egg-info``: the same list, by setuptools that did not copy it yet;
3. ``dependencies`` of ``pyproject.toml``, where they are not dynamic. There, and only there, an
   empty list is believed: that of PKG-INFO may be a setup.py's that names more when it is run, as
   in gptqmodel 2.0.0 to 4.2.5 with Metadata 2.2 and 2.4.

``setup.py`` and ``requirements.txt`` are not read: what one does, and whether anybody reads the
other, only running would tell. A tar.gz has no directory, so it is read from its beginning, by
parts, and no further than needed; nothing is unpacked to disk, and no link is followed.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator
from gzip import BadGzipFile, GzipFile
from importlib.metadata import Distribution
from tarfile import (
    BLKTYPE,
    BLOCKSIZE,
    CHRTYPE,
    DIRTYPE,
    FIFOTYPE,
    LNKTYPE,
    SYMTYPE,
    HeaderError,
    TarInfo,
)
from typing import NoReturn

import msgspec
from packaging.requirements import InvalidRequirement, Requirement

from matrix.index.byte_ranges import METADATA_BYTES, Get, Parts
from matrix.index.fetching import FetchError
from matrix.index.wheel_metadata import metadata_of
from matrix.spec.requirements import of_an_extra
from matrix.spec.snapshot import SourceMetadata
from matrix.untrusted.reading import decode_toml

UNPACKED_BYTES = 32_000_000
"""Of one archive; the largest here (gptqmodel 7.7.0) has 8 MB."""
MEMBERS = 20_000
"""Of one archive; gptqmodel 7.7.0 has 731."""
REQUIREMENTS = 500
REQUIREMENT_CHARS = 500
_BLOCK = 65_536
_WANTED = re.compile(r"[^/]+/(?:PKG-INFO|pyproject\.toml|(?:src/)?[^/]+\.egg-info/requires\.txt)")
_WITHOUT_DATA = (LNKTYPE, SYMTYPE, DIRTYPE, FIFOTYPE, CHRTYPE, BLKTYPE)


class Sdist(msgspec.Struct, frozen=True):
    """A source archive on an index, a tar.gz."""

    address: str
    """It may hold a password."""
    identity: str
    """Its hash, else its address without a password: it names what never changes."""


def source_metadata(sdist: Sdist, get: Get, package: str, version: str) -> SourceMetadata:
    """Return what a source archive requires.

    Raises :class:`FetchError` where it says nothing that can be believed. Reading ends with a
    PKG-INFO that is.
    """
    texts: dict[str, bytes] = {}
    for name, raw in _files(sdist, get):
        texts.setdefault(name, raw)
        if name == "PKG-INFO":
            fields = metadata_of(raw, name, package, version)
            if own := _own(fields.get("requires_dist", [])):
                return SourceMetadata(own, name)
    if "PKG-INFO" not in texts:
        raise FetchError("has a source archive without PKG-INFO")
    for name, raw in texts.items():
        if name.endswith("requires.txt") and (own := _own(_EggInfo(raw).requires or [])):
            return SourceMetadata(own, name)
    static = _static_dependencies(texts.get("pyproject.toml", b""))
    if static is None:
        raise FetchError("has a source archive that names no requirements to be believed")
    return SourceMetadata(_own(static), "pyproject.toml")


def _own(requirements: Iterable[str]) -> list[str]:
    """Return requirements but those of extras, as they are written.

    Raises :class:`FetchError` where uv could not be given one as it is.
    """
    own = []
    for text in requirements:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            raise FetchError("has a source archive with a requirement that is none") from None
        fit = len(text) <= REQUIREMENT_CHARS and text.isascii() and text.isprintable()
        if not fit or requirement.url:
            raise FetchError("has a source archive with a requirement that is not fit to be used")
        if not of_an_extra(requirement):
            own.append(text)
    if len(own) > REQUIREMENTS:
        raise FetchError(f"has a source archive with more than {REQUIREMENTS} requirements")
    return own


class _EggInfo(Distribution):
    """``requires.txt`` of an egg-info; :mod:`importlib.metadata` makes markers of its sections."""

    def __init__(self, raw: bytes) -> None:
        self._text = raw.decode(errors="replace")

    def read_text(self, filename: str) -> str:
        """Return the one file that there is; the others are empty."""
        return self._text if filename == "requires.txt" else ""

    def locate_file(self, path: object) -> NoReturn:
        """There is no file: only the text was read."""
        raise FileNotFoundError(path)


def _static_dependencies(raw: bytes) -> list[str] | None:
    """Return the dependencies of a pyproject.toml, ``None`` where they are not static."""
    try:
        project = decode_toml(raw).get("project")
        if not isinstance(project, dict) or "dependencies" in project.get("dynamic", []):
            return None
        return msgspec.convert(project.get("dependencies", []), list[str])
    except (ValueError, TypeError):  # no TOML, of another shape
        return None


def _files(sdist: Sdist, get: Get) -> Iterator[tuple[str, bytes]]:
    """Yield the files that may say what is required, named as below the archive's one folder.

    Raises :class:`FetchError` where the archive is none, or larger than any that is wanted.
    """
    try:
        with GzipFile(fileobj=Parts(sdist.address, get, _BLOCK, _BLOCK)) as packed:
            for name, raw in _members(_Unpacked(packed)):
                yield name.partition("/")[2], raw
    except (HeaderError, BadGzipFile, EOFError, zlib.error):
        raise FetchError("has a source archive that is no tar.gz") from None


class _Unpacked:
    """What comes out of a gzip file, up to a limit."""

    def __init__(self, packed: GzipFile) -> None:
        self._packed = packed
        self._left = UNPACKED_BYTES

    def read(self, size: int) -> bytes:
        """Return exactly ``size`` bytes; raise :class:`EOFError` where the file ends before."""
        self._left -= size
        if self._left < 0:
            raise FetchError(f"has a source archive of more than {UNPACKED_BYTES} bytes")
        data = self._packed.read(size)
        if len(data) < size:
            raise EOFError
        return data


def _members(file: _Unpacked) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of the wanted files of a tar.

    :mod:`tarfile` reads one header at a time here, since it would read extended ones whatever their
    size (CVE-2024-6232): these are passed over, as the names that are wanted are short.
    """
    for _ in range(MEMBERS):
        block = file.read(BLOCKSIZE)
        if not any(block):
            return
        header = TarInfo.frombuf(block, "utf-8", "replace")
        size = 0 if header.type in _WITHOUT_DATA else header.size
        if size < 0:
            raise FetchError("has a source archive with a file of less than nothing")
        data = file.read(size + -size % BLOCKSIZE)
        if not (_WANTED.fullmatch(header.name) and header.isreg()):
            continue
        if size > METADATA_BYTES:
            name = header.name.rpartition("/")[2]
            raise FetchError(f"has a source archive with a {name} of {size} bytes")
        yield header.name, data[:size]
    raise FetchError(f"has a source archive with more than {MEMBERS} files")
