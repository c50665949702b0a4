"""Versions and Requires-Python, as an index or a package writes them: untrusted text. Pure."""

from __future__ import annotations

from functools import lru_cache

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

VERSION_CHARS = 64
PATCHES = 50
"""Python 3.11 is one of 3.11.0 to 3.11.49; no minor had as many."""


@lru_cache(maxsize=10_000)
def parsed(version: str) -> Version | None:
    """Return a version as one that can be compared, ``None`` where it is none."""
    if len(version) > VERSION_CHARS or not version.isascii():
        return None
    try:
        return Version(version)
    except InvalidVersion:
        return None


def major_of(version: Version) -> str:
    """Return the major that a version belongs to, with its epoch where it has one."""
    epoch = f"{version.epoch}!" if version.epoch else ""
    return f"{epoch}{version.major}"


def minor_of(version: Version) -> str:
    """Return the minor that a version belongs to: ``4.57`` of 4.57.6."""
    return f"{major_of(version)}.{version.minor}"


def next_minor(version: Version) -> str:
    """Return the minor after a version's own: ``4.58`` of 4.57.6."""
    return f"{major_of(version)}.{version.minor + 1}"


@lru_cache(maxsize=1000)
def bounds_against(requires_python: str, python: str) -> str:
    """Return the bounds of a Requires-Python that forbid a Python; empty where it is admitted.

    A minor (``3.11``) is admitted where any of its patches is. What cannot be read forbids nothing,
    as installers have it.
    """
    try:
        bounds = SpecifierSet(requires_python)
    except InvalidSpecifier:
        return ""
    minor = python.count(".") == 1
    patches = [f"{python}.{patch}" for patch in range(PATCHES)] if minor else [python]
    if any(bounds.contains(patch, prereleases=True) for patch in patches):
        return ""
    against = [bound for bound in bounds if not any(map(bound.contains, patches))]
    return ",".join(sorted(str(bound) for bound in against or bounds))
