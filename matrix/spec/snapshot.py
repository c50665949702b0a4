"""Releases of packages as an index held them when it was asked, and which of them a range takes.

Pure data and functions. ``index.py`` asks an index; the answer is kept beside the spec as
``releases.json``, the snapshot, so that a plan is the same everywhere until somebody takes newer
releases in. Whatever an index says is untrusted: a version nobody can parse is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Literal

import msgspec
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.tags import compatible_tags, cpython_tags
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from matrix.spec.tables import MetadataTable, RangeTable
from matrix.untrusted.reading import UnreadableError, decode

SCHEMA: Literal[1] = 1
SNAPSHOT = "releases.json"
"""Its name, beside the spec."""
SNAPSHOT_BYTES = 16_000_000
"""No snapshot is larger: ours, of six packages, has 0.2 MB."""
VERSION_CHARS = 64

GONE_AT_ONCE, GONE_SHARE = 3, 0.1
"""What an index may drop of a package at once and be believed: so many releases, or such a share.
Projects delete a release now and then; a page that lost its tail lacks most of them."""
PATCHES = 31
"""Python 3.11 is one of 3.11.0 to 3.11.30; no minor had more."""

LATEST_PATCH = "latest patch per minor"
_NEWEST = re.compile(r"newest ([1-9][0-9]{0,3})")
_NO_WHEEL_FOR_LINUX = re.compile(r"(?:macosx|win|musllinux|ios|android|pyodide|emscripten).*")


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
    """What it requires of packages that matter here, without extras; ``None``: not known."""


class Snapshot(msgspec.Struct, frozen=True):
    """What an index held when it was asked; the releases of each package by version."""

    schema: Literal[1]
    asked: str
    """ISO time, UTC, in seconds: the ``today`` of environments that are resolved as of today."""
    packages: dict[str, list[Release]]

    def release(self, package: str, version: str) -> Release | None:
        """Return one release, whichever way its version is written."""
        found = self.packages.get(canonicalize_name(package), [])
        for one in found:
            if one.version == version:
                return one
        wanted = parsed(version) if found else None
        return next((one for one in found if wanted and parsed(one.version) == wanted), None)

    def declares(
        self, package: str, version: str, metadata: Iterable[MetadataTable] = ()
    ) -> list[str] | None:
        """Return what a release requires: as the spec has it, else as its wheel says."""
        name = canonicalize_name(package)
        for table in metadata:
            same = canonicalize_name(table.package) == name
            if same and parsed(table.version) == parsed(version):
                return table.requires_dist
        found = self.release(package, version)
        return found.declares if found else None


EMPTY = Snapshot(SCHEMA, "", {})
"""The snapshot of a spec that has none: no range takes anything."""


class Picked(msgspec.Struct, frozen=True):
    """Which releases a range takes, oldest first, and why it takes none of the others."""

    versions: list[str]
    passed_over: dict[str, str]


class Change(msgspec.Struct, frozen=True):
    """What an index says otherwise than the snapshot."""

    package: str
    version: str
    kind: Literal["new", "gone", "back", "yanked", "unyanked", "redated"]
    detail: str = ""


@lru_cache(maxsize=10_000)
def parsed(version: str) -> Version | None:
    """Return a version as one that can be compared, ``None`` where it is none."""
    if len(version) > VERSION_CHARS or not version.isascii():
        return None
    try:
        return Version(version)
    except InvalidVersion:
        return None


def for_linux(tags: str) -> bool:
    """Whether a wheel of such tags (``cp311-cp311-manylinux1_x86_64``) is for Linux on x86_64."""
    return any(_platform_fits(name) for name in tags.rpartition("-")[2].split("."))


def _platform_fits(name: str) -> bool:
    if name == "any":
        return True
    return name.endswith("x86_64") and not _NO_WHEEL_FOR_LINUX.fullmatch(name)


def fits(tags: str, python: str) -> bool:
    """Whether CPython of a version (``3.11``) on Linux x86_64 can use a wheel of such tags."""
    interpreters, _, rest = tags.partition("-")
    abis = rest.partition("-")[0].split(".")
    pairs = {(name, abi) for name in interpreters.split(".") for abi in abis}
    return for_linux(tags) and not pairs.isdisjoint(_supported(python))


@cache
def _supported(python: str) -> frozenset[tuple[str, str]]:
    """Return the pairs of interpreter and ABI that a CPython takes."""
    version = tuple(int(part) for part in python.split(".")[:2])
    name = f"cp{version[0]}{version[1]}"
    tags = [
        *cpython_tags(version, abis=[name], platforms=["any"]),
        *compatible_tags(version, name, platforms=["any"]),
    ]
    return frozenset((tag.interpreter, tag.abi) for tag in tags)


def pick(releases: Iterable[Release], rule: RangeTable, python: str) -> Picked:
    """Return which releases a range takes and why it passes the others by.

    ``until`` takes in all that is below it: 4.57 takes 4.57.6, 0.2.7 takes 0.2.7.post3. Of
    ``always``, only what the index never held is passed over. Raises :class:`ValueError`
    that says what is wrong where the rule is.
    """
    found = {version: one for one in releases if (version := parsed(one.version))}
    always = {_version(text, "always"): text for text in rule.always}
    never = {_version(text, "never"): reason for text, reason in rule.never.items()}
    since, until = _version(rule.since, "since"), rule.until and _version(rule.until, "until")
    reasons: dict[Version, str] = {}
    usable: list[Version] = []
    for version, release in sorted(found.items()):
        if version < since or (until and not _up_to(version, until)):
            continue
        if reason := never.get(version) or _obstacle(version, release, python):
            reasons[version] = reason
        else:
            usable.append(version)
    reasons |= _left_by(rule.pick, usable)
    versions = {*usable, *(version for version in always if version in found)} - (
        reasons.keys() - always.keys()
    )
    passed_over = {found[v].version: reasons[v] for v in sorted(reasons) if v not in versions}
    passed_over |= {text: "not on the index" for v, text in always.items() if v not in found}
    return Picked([found[version].version for version in sorted(versions)], passed_over)


def _version(text: str, key: str) -> Version:
    version = parsed(text)
    if version is None:
        raise ValueError(f"{key}: {text!r} is no version")
    return version


def _up_to(version: Version, until: Version) -> bool:
    if version <= until or until.is_prerelease or until.is_postrelease:
        return version <= until
    same_beginning = version.release[: len(until.release)] == until.release
    return same_beginning and version.epoch == until.epoch


def _obstacle(version: Version, release: Release, python: str) -> str:
    """Return what stands against a release, whatever the rule; empty where nothing does."""
    if release.gone:
        return f"gone from the index (found so on {release.gone})"
    if release.yanked is not None:
        return f"yanked ({release.yanked})" if release.yanked else "yanked"
    if version.is_prerelease:
        return "a pre-release"
    if bounds := _bounds_against(release.requires_python, python):
        return f"needs Python {bounds}"
    if not release.sdist and not any(fits(tags, python) for tags in release.wheels):
        return f"no file for Python {python} on Linux x86_64"
    return ""


@lru_cache(maxsize=1000)
def _bounds_against(requires_python: str, python: str) -> str:
    """Return those of the bounds that forbid a Python: all patches of a minor (``3.11``)."""
    try:
        bounds = SpecifierSet(requires_python)
    except InvalidSpecifier:
        return ""  # installers ignore it as well
    minor = python.count(".") == 1
    patches = [f"{python}.{patch}" for patch in range(PATCHES)] if minor else [python]
    if any(bounds.contains(patch) for patch in patches):
        return ""
    against = [bound for bound in bounds if not any(map(bound.contains, patches))]
    return ",".join(sorted(str(bound) for bound in against or bounds))


def _left_by(rule: str, usable: list[Version]) -> dict[Version, str]:
    """Return what a way to pick leaves out of the usable versions (oldest first), and why."""
    if rule == "all":
        return {}
    if rule == LATEST_PATCH:
        newest = {_minor(version): version for version in usable}
        return {
            version: f"not the newest patch of {_minor(version)}"
            for version in usable
            if newest[_minor(version)] != version
        }
    if number := _NEWEST.fullmatch(rule):
        return dict.fromkeys(usable[: -int(number[1])], f"not among the {rule}")
    raise ValueError(f"pick: {rule!r} is no way to pick")


def _minor(version: Version) -> str:
    epoch = f"{version.epoch}!" if version.epoch else ""
    return f"{epoch}{version.major}.{version.minor}"


def news(old: Snapshot, heard: Mapping[str, list[Release]]) -> list[Change]:
    """Return what an index's answers say otherwise than a snapshot, by package and version.

    A package that was not asked for is no news. A date that changed is a lie: an index takes no
    second file of the same name, and a release's first file stays its first.
    """
    changes: list[Change] = []
    for package, releases in sorted(heard.items()):
        before = {one.version: one for one in old.packages.get(package, [])}
        now = {one.version: one for one in releases}
        for version in sorted({*before, *now}, key=_order):
            changes += _changed(package, before.get(version), now.get(version))
    return changes


def _changed(package: str, before: Release | None, now: Release | None) -> list[Change]:
    if before is None:
        yanked = "" if now is None or now.yanked is None else f" (yanked: {now.yanked})"
        return [Change(package, now.version, "new", now.uploaded[:10] + yanked)] if now else []
    if now is None:
        # What was found gone once is no news any more.
        return [] if before.gone else [Change(package, before.version, "gone")]
    changes = []
    if before.gone:
        changes.append(Change(package, now.version, "back", f"gone since {before.gone}"))
    if before.yanked is None and now.yanked is not None:
        changes.append(Change(package, now.version, "yanked", now.yanked))
    if before.yanked is not None and now.yanked is None:
        changes.append(Change(package, now.version, "unyanked"))
    if before.uploaded and now.uploaded and before.uploaded != now.uploaded:
        detail = f"was uploaded on {before.uploaded}, the index now says {now.uploaded}"
        changes.append(Change(package, now.version, "redated", detail))
    return changes


def dropped(before: Iterable[Release], now: Iterable[Release]) -> list[str]:
    """Return the releases that an index lacks now, where they are too many to be believed.

    Too many are more than three that are also more than a tenth of what was there.
    """
    there = [one.version for one in before if not one.gone]
    listed = {one.version for one in now}
    lacking = [version for version in there if version not in listed]
    few = len(lacking) <= max(GONE_AT_ONCE, GONE_SHARE * len(there))
    return [] if few else lacking


def merge(old: Snapshot, heard: Mapping[str, list[Release]], asked: str) -> Snapshot:
    """Return a snapshot with an index's answers taken in, and nothing dropped.

    What is gone from the index stays, marked; a date, once known, stays; what a release declares
    is kept where it could not be read again. ``asked`` (ISO, UTC) never goes back.
    """
    packages = dict(old.packages)
    for package, releases in heard.items():
        merged = {one.version: _marked(one, asked) for one in packages.get(package, [])}
        for now in releases:
            merged[now.version] = _taken(merged.get(now.version), now, asked)
        packages[package] = sorted(merged.values(), key=lambda one: _order(one.version))
    return Snapshot(SCHEMA, max(old.asked, asked), dict(sorted(packages.items())))


def _marked(before: Release, asked: str) -> Release:
    return msgspec.structs.replace(before, gone=before.gone or asked[:10])


def _taken(before: Release | None, now: Release, asked: str) -> Release:
    if before is None:
        return msgspec.structs.replace(now, seen=asked[:10])
    declares = before.declares if now.declares is None else now.declares
    return msgspec.structs.replace(
        now, uploaded=before.uploaded or now.uploaded, seen=before.seen, declares=declares
    )


def _order(version: str) -> tuple[Version, str]:
    return parsed(version) or Version("0"), version


def read_snapshot(file: Path) -> Snapshot:
    """Read ``releases.json``; raise :class:`ValueError` that says what is wrong with it."""
    try:
        with file.open("rb") as opened:
            raw = opened.read(SNAPSHOT_BYTES + 1)
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from None
    if len(raw) > SNAPSHOT_BYTES:
        raise ValueError(f"has over {SNAPSHOT_BYTES} bytes, as no snapshot has")
    try:
        found = decode(raw, Snapshot)
    except UnreadableError as error:
        raise ValueError(f"is no snapshot of releases: {error}") from None
    for package, releases in found.packages.items():
        for one in releases:
            if parsed(one.version) is None:
                raise ValueError(f"{package}: {one.version!r} is no version")
    return found


def encode(snapshot: Snapshot) -> bytes:
    """Return a snapshot as JSON with a line for each release, so that changes can be read."""
    packages = []
    for package, releases in sorted(snapshot.packages.items()):
        lines = ",\n".join(f"  {msgspec.json.encode(one).decode()}" for one in releases)
        packages.append(f" {msgspec.json.encode(package).decode()}: [\n{lines}\n ]")
    asked = msgspec.json.encode(snapshot.asked).decode()
    body = ",\n".join(packages)
    text = f'{{"schema": {SCHEMA}, "asked": {asked}, "packages": {{\n{body}\n}}}}\n'
    return text.encode()
