"""Single files of a wheel, and what it says that it requires, read without downloading it.

An index that follows PEP 658 offers ``METADATA`` as a file of its own. Of the others, the end of
the wheel is asked for (a zip's directory is there), then the one file within. Only text comes of
it; nothing is unpacked to disk.
"""

from __future__ import annotations

import hashlib
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Set
from fnmatch import fnmatchcase

import msgspec
from packaging.metadata import RawMetadata, parse_email
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from matrix.index.byte_ranges import METADATA_BYTES, Get, Parts
from matrix.index.fetching import FetchError, NotFoundError
from matrix.spec.axes import REQUIREMENT_CHARS
from matrix.spec.requirements import of_an_extra
from matrix.spec.versions import parsed

_BLOCK = 16_384
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_METADATA = "*.dist-info/METADATA"
_NOT_A_ZIP = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError,
    OverflowError, KeyError,
)  # fmt: skip


class Wheel(msgspec.Struct, frozen=True):
    """A wheel on an index."""

    address: str
    """It may hold a password."""
    identity: str
    """Its hash, else its address without a password: it names what never changes."""
    metadata: str = ""
    """Address of its METADATA, where the index offers it."""
    metadata_digest: str = ""
    """Its SHA-256 in hex digits, where the index says it."""


def wheel_requirements(wheel: Wheel, get: Get, package: str, version: str) -> list[str]:
    """Return all that a wheel requires; raise :class:`FetchError` where it cannot be read."""
    raw = _offered(wheel, get)
    if raw is None:
        raw = file_within(wheel, get, _METADATA)
    return metadata_of(raw, "METADATA", package, version).get("requires_dist", [])


def metadata_of(raw: bytes, name: str, package: str, version: str) -> RawMetadata:
    """Return the fields of METADATA or PKG-INFO, where they are those of a release.

    Raises :class:`FetchError` where they are another's, or too large.
    """
    if len(raw) > METADATA_BYTES:
        raise FetchError(f"sends {name} of more than {METADATA_BYTES} bytes")
    fields, _ = parse_email(raw)
    named = canonicalize_name(fields.get("name", ""))
    if named != package or parsed(fields.get("version", "")) != parsed(version):
        raise FetchError(f"sends {name} of another release")
    return fields


def _offered(wheel: Wheel, get: Get) -> bytes | None:
    if not wheel.metadata:
        return None
    try:
        raw = get(wheel.metadata, "").body
    except NotFoundError:
        return None  # offered, but not there; the wheel itself is
    if wheel.metadata_digest and hashlib.sha256(raw).hexdigest() != wheel.metadata_digest.lower():
        raise FetchError("sends METADATA of another digest than its page says")
    return raw


def file_within(wheel: Wheel, get: Get, name: str) -> bytes:
    """Return the one file of a wheel of this name, its first ``METADATA_BYTES`` + 1 bytes.

    A ``*`` in the name stands for any letters but a slash. Raises :class:`FetchError` where the
    wheel has none or several, or cannot be read.
    """
    try:
        with zipfile.ZipFile(Parts(wheel.address, get, -_BLOCK, _BLOCK)) as archive:
            names = [entry for entry in archive.namelist() if _is_named(entry, name)]
            if len(names) != 1:
                number = f"{len(names)} files" if names else "no file"
                raise FetchError(f"has a wheel with {number} {name}")
            with archive.open(names[0]) as file:
                return file.read(METADATA_BYTES + 1)
    except _NOT_A_ZIP:
        raise FetchError("has a wheel that is no zip file") from None


def _is_named(entry: str, name: str) -> bool:
    return fnmatchcase(entry, name) and entry.count("/") == name.count("/")


def declared(requirements: Iterable[str], names: Set[str]) -> list[str]:
    """Return those requirements that are on packages of these names, without the extras'.

    An entry that is no requirement is passed over, as installers refuse it anyway.
    """
    kept = []
    for text in requirements:
        name = _NAME.match(text)  # most are on other packages; to parse them all takes seconds
        if not name or canonicalize_name(name[0]) not in names or len(text) > REQUIREMENT_CHARS:
            continue
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        shown = str(requirement)
        if not of_an_extra(requirement) and shown.isascii() and shown.isprintable():
            kept.append(shown)
    return sorted(kept)
