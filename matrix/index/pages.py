"""An index's page of one package, as the simple API gives it, to releases.

The JSON form (PEP 691, with dates and sizes by PEP 700) or the HTML form (PEP 503), both read by
pypi-simple. A page is believed only as far as it can be checked: what it holds of other projects,
and files whose names nobody can parse, are passed over; a page that is none raises.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

import msgspec
from bs4 import ParserRejectedMarkup
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name, parse_sdist_filename
from packaging.version import InvalidVersion, Version
from pydantic import ValidationError
from pypi_simple import DistributionPackage, ProjectPage, UnsupportedRepoVersionError

from matrix.index.fetching import Fetched, FetchError
from matrix.index.settings import shown
from matrix.index.source_metadata import Sdist
from matrix.index.wheel_metadata import Wheel
from matrix.spec.picking import fits, for_linux
from matrix.spec.snapshot import Release
from matrix.spec.versions import parsed
from matrix.untrusted.text import visible

MOST_FILES = 10_000
"""The packages here have up to 507."""
TAG_BYTES = 4_000
NAME_CHARS = 200
REASON_CHARS = 200
BYTES_OF_A_FILE = 10**13
_JSON = ("application/vnd.pypi.simple.v1+json", "application/json")
_HTML = ("application/vnd.pypi.simple.v1+html", "text/html")
_UNSPOKEN = "speaks no version of the simple API that is known here"
_ATTRIBUTES = rb"""\s(?:[^<>"']++|"[^"<]*+"|'[^'<]*+')*+>"""
_TAG = re.compile(
    rb"<(?:a%b[^<>]*+</a\s*+>|(?:base|meta)%b)" % (_ATTRIBUTES, _ATTRIBUTES), re.IGNORECASE
)
"""All that matters of a page in HTML. Of links within each other, comments and the like, its parser
takes time by the square."""
_WHEEL = re.compile(
    r"(?P<project>[A-Za-z0-9._]+)-(?P<version>[A-Za-z0-9._!+]+)(?:-[0-9][A-Za-z0-9._]*)?"
    r"-(?P<tags>[A-Za-z0-9._]+-[A-Za-z0-9._]+-[A-Za-z0-9._]+)\.whl"
)


class Page(msgspec.Struct, frozen=True):
    """The releases of one package, and of each the file that says what it requires."""

    releases: list[Release]
    address: str
    """Where it came from in the end."""
    files: dict[str, Wheel | Sdist]
    """By version: a wheel for Linux on x86_64, else the source archive; else it is not there."""


class _File(msgspec.Struct, frozen=True):
    version: Version
    tags: str
    """Empty for a source archive."""
    listed: DistributionPackage


def read_page(package: str, answer: Fetched) -> Page:
    """Return what a page holds; raise :class:`FetchError` where it is no page of the package."""
    by_version: dict[Version, list[_File]] = {}
    listed_files = _listed(package, answer)
    _check_number(len(listed_files), 1)
    for listed in listed_files:
        if file := _parsed_file(package, listed):
            by_version.setdefault(file.version, []).append(file)
    if not by_version:
        raise FetchError(f"lists no release of {package}")
    releases = [_release(version, files) for version, files in sorted(by_version.items())]
    readable = {str(version): _readable(files) for version, files in by_version.items()}
    return Page(
        releases, answer.address, {version: file for version, file in readable.items() if file}
    )


def _listed(package: str, answer: Fetched) -> list[DistributionPackage]:
    kind = answer.content_type.partition(";")[0].strip().lower() or "text/html"
    body = answer.body
    if kind in _JSON:
        _check_number(body.count(b"{") + body.count(b"["), 5)
        return _from_json(package, answer)
    if kind in _HTML:
        _check_number(body.count(b"<"), 4)
        short = (tag for tag in _TAG.findall(body) if len(tag) <= TAG_BYTES)
        tags = b"".join(short).decode(errors="replace")
        try:
            return ProjectPage.from_html(package, tags, answer.address).packages
        except (UnsupportedRepoVersionError, InvalidVersion):
            raise FetchError(_UNSPOKEN) from None
        except (ParserRejectedMarkup, ValueError):  # the latter of addresses in it, by urllib
            raise FetchError("sends what it calls HTML and is none") from None
    raise FetchError(f"answers with {visible(kind, 60)!r}, which is no page of an index")


def _check_number(openings: int, a_file: int) -> None:
    if openings > MOST_FILES * a_file:
        raise FetchError(f"lists more than {MOST_FILES} files")


def _from_json(package: str, answer: Fetched) -> list[DistributionPackage]:
    try:
        data = msgspec.json.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise FetchError("sends what it calls JSON and is none") from None
    try:
        page = ProjectPage.from_json_data(data, answer.address)
    except (UnsupportedRepoVersionError, InvalidVersion):
        raise FetchError(_UNSPOKEN) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "(the whole)"
        raise FetchError(f"has a wrong field {visible(where, 60)}: {first['msg']}") from None
    if canonicalize_name(page.project) != package:
        raise FetchError(f"answers for another project, {visible(page.project, 60)!r}")
    return page.packages


def _parsed_file(package: str, listed: DistributionPackage) -> _File | None:
    name = listed.filename
    if len(name) > NAME_CHARS or not name.isascii():
        return None
    try:
        if wheel := _WHEEL.fullmatch(name):
            project, text, tags = wheel["project"], wheel["version"], wheel["tags"]
        else:
            project, text, tags = *map(str, parse_sdist_filename(name)), ""
    except ValueError:
        return None
    version = parsed(text)
    if version is None or canonicalize_name(project) != package:
        return None
    return _File(version, tags, listed)


def _release(version: Version, files: list[_File]) -> Release:
    usable = [file for file in files if not file.tags or for_linux(file.tags)]
    wheels = [file for file in usable if file.tags]
    dates = [date for file in files if (date := _date(file.listed.upload_time))]
    yanked = [file.listed for file in usable or files]
    return Release(
        version=str(version),
        uploaded=min(dates, default=""),
        requires_python=next(filter(None, map(_requires_python, usable or files)), ""),
        yanked=_reason(yanked[0].yanked_reason) if all(y.is_yanked for y in yanked) else None,
        wheels=sorted({file.tags for file in wheels}),
        sdist=any(not file.tags for file in usable),
        size=max((_size(file.listed) for file in wheels or usable), default=0),
    )


def _date(time: datetime | None) -> str:
    """Return a date as ISO, UTC, in seconds; empty where there is none that can be."""
    if time is None:
        return ""
    aware = time if time.tzinfo else time.replace(tzinfo=UTC)
    try:
        return f"{aware.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    except OverflowError:
        return ""


def _reason(reason: str | None) -> str:
    return visible((reason or "").strip(), REASON_CHARS)


def _requires_python(file: _File) -> str:
    text = file.listed.requires_python or ""
    if len(text) > REASON_CHARS or not (text.isascii() and text.isprintable()):
        return ""
    try:
        SpecifierSet(text)
    except InvalidSpecifier:
        return ""  # as installers have it
    return text


def _size(listed: DistributionPackage) -> int:
    size = listed.size or 0
    return size if 0 <= size <= BYTES_OF_A_FILE else 0


def _readable(files: list[_File]) -> Wheel | Sdist | None:
    """Return the file to read: a wheel, for today's default Python if there is one, or an sdist."""
    wheels = sorted(
        (file for file in files if file.tags and for_linux(file.tags)),
        key=lambda file: (not fits(file.tags, "3.11"), file.listed.filename),
    )
    sdists = [f for f in files if not f.tags and f.listed.filename.endswith(".tar.gz")]
    if not wheels and not sdists:
        return None
    listed = (wheels or sdists)[0].listed
    identity = listed.digests.get("sha256") or shown(listed.url)
    if not wheels:
        return Sdist(listed.url, identity)
    metadata = listed.metadata_url or "" if listed.has_metadata else ""
    return Wheel(listed.url, identity, metadata, (listed.metadata_digests or {}).get("sha256", ""))
