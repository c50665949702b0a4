"""What a wheel says that it requires, read without downloading the wheel.

An index that follows PEP 658 offers ``METADATA`` as a file of its own. Of the others, the end of
the wheel is asked for (a zip's directory is there), then the one file within. Only text comes of
it; nothing is unpacked to disk.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable

import msgspec
from packaging.metadata import parse_email
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from matrix.index.fetching import Fetched, FetchError, NotFoundError
from matrix.spec.releases import parsed

METADATA_BYTES = 1_000_000
"""The largest seen here (transformers') has 0.05 MB."""
READ_BYTES = 6_000_000
"""Of one wheel; a directory of 10,000 files has 1 MB."""
_TAIL = 16_384
_BLOCK = 16_384
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_ENTRY = re.compile(r"[^/]+\.dist-info/METADATA")
_NOT_A_ZIP = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError,
    OverflowError, KeyError,
)  # fmt: skip

Get = Callable[[str, str], Fetched]
"""Address and part (``0-99``; empty for the whole) -> the answer, or :class:`FetchError`."""


class Wheel(msgspec.Struct, frozen=True):
    """A wheel on an index."""

    address: str
    """It may hold a password."""
    identity: str
    """Its hash, else its address without a password: it names what never changes."""
    metadata: str = ""
    """Address of its METADATA, where the index offers it."""


def requirements_of(wheel: Wheel, get: Get, package: str, version: str) -> list[str]:
    """Return all that a wheel requires; raise :class:`FetchError` where it cannot be read."""
    raw = _offered(wheel, get)
    if raw is None:
        raw = _within(wheel, get)
    if len(raw) > METADATA_BYTES:
        raise FetchError(f"sends METADATA of more than {METADATA_BYTES} bytes")
    fields, _ = parse_email(raw)
    named = canonicalize_name(fields.get("name", ""))
    if named != package or parsed(fields.get("version", "")) != parsed(version):
        raise FetchError("sends METADATA of another release")
    return fields.get("requires_dist", [])


def _offered(wheel: Wheel, get: Get) -> bytes | None:
    if not wheel.metadata:
        return None
    try:
        return get(wheel.metadata, "").body
    except NotFoundError:
        return None  # offered, but not there; the wheel itself is


def _within(wheel: Wheel, get: Get) -> bytes:
    try:
        with zipfile.ZipFile(_Parts(wheel.address, get)) as archive:
            names = [name for name in archive.namelist() if _ENTRY.fullmatch(name)]
            if len(names) != 1:
                raise FetchError(f"has a wheel with {len(names)} files METADATA")
            with archive.open(names[0]) as file:
                return file.read(METADATA_BYTES + 1)
    except _NOT_A_ZIP:
        raise FetchError("has a wheel that is no zip file") from None


class _Parts(io.RawIOBase):
    """A file on a server, read in parts as they are asked for; each part once."""

    def __init__(self, address: str, get: Get) -> None:
        self._address = address
        self._get = get
        tail = get(address, f"-{_TAIL}")
        if tail.total is None or len(tail.body) != min(_TAIL, tail.total):
            raise FetchError("sends other parts of a file than were asked for")
        self._size = tail.total
        self._parts = [(tail.total - len(tail.body), tail.body)]
        self._read = len(tail.body)
        self._at = 0

    def readable(self) -> bool:
        """Return that it is."""
        return True

    def seekable(self) -> bool:
        """Return that it is."""
        return True

    def tell(self) -> int:
        """Return where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to where the next read begins."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError("before the beginning of the file")
        self._at = base + offset
        return self._at

    def read(self, size: int = -1) -> bytes:
        """Return exactly ``size`` bytes, fewer only at the end of the file."""
        end = self._size if size < 0 else min(self._at + size, self._size)
        if end <= self._at:
            return b""
        start, part = next(
            (each for each in self._parts if each[0] <= self._at and end <= each[0] + len(each[1])),
            None,
        ) or self._fetched(end)
        found = part[self._at - start : end - start]
        self._at = end
        return found

    def _fetched(self, end: int) -> tuple[int, bytes]:
        start, end = self._at, min(max(end, self._at + _BLOCK), self._size)
        self._read += end - start
        if self._read > READ_BYTES:
            raise FetchError("has a wheel whose directory is too large to be read")
        part = self._get(self._address, f"{start}-{end - 1}")
        if len(part.body) != end - start or part.total != self._size:
            raise FetchError("sends other parts of a file than were asked for")
        self._parts.append((start, part.body))
        return start, part.body


def declared(requirements: Iterable[str], names: frozenset[str]) -> list[str]:
    """Return those requirements that are on packages of these names, without the extras'.

    An entry that is no requirement is passed over, as installers refuse it anyway.
    """
    found = []
    for text in requirements:
        named = _NAME.match(text)  # most are on other packages; to parse them all takes seconds
        if not named or canonicalize_name(named[0]) not in names:
            continue
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        shown = str(requirement)
        of_an_extra = re.search(r"\bextra\b", str(requirement.marker or ""))
        if not of_an_extra and shown.isascii() and shown.isprintable():
            found.append(shown)
    return sorted(found)
