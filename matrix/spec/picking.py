"""Which releases a range of the spec takes of a snapshot, and why it passes the others by. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

import msgspec
from packaging.tags import compatible_tags, cpython_tags
from packaging.version import Version

from matrix.spec.snapshot import Release
from matrix.spec.tables import RangeTable
from matrix.spec.versions import bounds_against, minor_of, parsed

LATEST_PATCH = "latest patch per minor"
_NEWEST = re.compile(r"newest ([1-9][0-9]{0,3})")
_NO_WHEEL_FOR_LINUX = re.compile(r"(?:macosx|win|musllinux|ios|android|pyodide|emscripten).*")


class Picked(msgspec.Struct, frozen=True):
    """Which releases a range takes, oldest first, and why it takes none of the others."""

    versions: list[str]
    passed_over: dict[str, str]


def pick(releases: Iterable[Release], rule: RangeTable, python: str) -> Picked:
    """Return which releases a range takes and why it passes the others by.

    ``until`` takes in all that is below it: 4.57 takes 4.57.6, 0.2.7 takes 0.2.7.post3. Of
    ``always``, only what the index never held is passed over. Raises :class:`ValueError`
    that says what is wrong where the rule is.
    """
    by_version = {v: release for release in releases if (v := parsed(release.version))}
    always = {_version(text, "always"): text for text in rule.always}
    never = {_version(text, "never"): reason for text, reason in rule.never.items()}
    since, until = _version(rule.since, "since"), rule.until and _version(rule.until, "until")
    reasons: dict[Version, str] = {}
    usable: list[Version] = []
    for version, release in sorted(by_version.items()):
        if version < since or (until and not _up_to(version, until)):
            continue
        if reason := never.get(version) or _obstacle(version, release, python):
            reasons[version] = reason
        else:
            usable.append(version)
    reasons |= _left_by(rule.pick, usable)
    versions = {*usable, *(version for version in always if version in by_version)} - (
        reasons.keys() - always.keys()
    )
    passed_over = {by_version[v].version: reasons[v] for v in sorted(reasons) if v not in versions}
    passed_over |= {text: "not on the index" for v, text in always.items() if v not in by_version}
    return Picked([by_version[version].version for version in sorted(versions)], passed_over)


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
    if version.epoch:
        return "has an epoch, which names no environment"
    if bounds := bounds_against(release.requires_python, python):
        return f"needs Python {bounds}"
    if not release.sdist and not any(fits(tags, python) for tags in release.wheels):
        return f"no file for Python {python} on Linux x86_64"
    return ""


def _left_by(rule: str, usable: list[Version]) -> dict[Version, str]:
    """Return what a way to pick leaves out of the usable versions (oldest first), and why."""
    if rule == "all":
        return {}
    if rule == LATEST_PATCH:
        newest = {minor_of(version): version for version in usable}
        return {
            version: f"not the newest patch of {minor_of(version)}"
            for version in usable
            if newest[minor_of(version)] != version
        }
    if number := _NEWEST.fullmatch(rule):
        return dict.fromkeys(usable[: -int(number[1])], f"not among the {rule}")
    raise ValueError(f"pick: {rule!r} is no way to pick")


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
