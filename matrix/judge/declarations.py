"""Declared: what the metadata of releases says of each other and of a Python. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

from matrix.judge.results import Declared
from matrix.spec.requirements import applying, named_releases
from matrix.spec.snapshot import Snapshot
from matrix.spec.tables import Environment, MetadataTable
from matrix.spec.versions import bounds_against, parsed

Declares = Callable[[str, str], list[str] | None]
"""From a package and a version to its Requires-Dist, ``None`` where that is not known."""

_LOCAL = re.compile(r"\+[A-Za-z0-9._-]+")


class PackageMetadata(NamedTuple):
    """What is known of releases before anything is run: by the snapshot, and by the spec."""

    snapshot: Snapshot
    in_spec: Sequence[MetadataTable] = ()

    def declares(self, package: str, version: str) -> list[str] | None:
        """Return a release's Requires-Dist, ``None`` where it is not known."""
        return self.snapshot.declares(package, version, self.in_spec)

    def versions(self, package: str) -> list[str]:
        """Return the versions of a package that can be had: neither yanked nor pre-releases."""
        return [
            release.version
            for release in self.snapshot.packages.get(package, [])
            if release.yanked is None and not release.gone
            if (version := parsed(release.version)) and not version.is_prerelease
        ]

    def requires_python(self, package: str, version: str) -> str:
        """Return a release's Requires-Python, empty where it is not known."""
        release = self.snapshot.release(package, version)
        return release.requires_python if release else ""

    def yanked(self, packages: Mapping[str, str]) -> dict[str, str]:
        """Return those of some packages that are known to be yanked, with the reasons."""
        return {
            f"{name} {version}": release.yanked
            for name, version in sorted(packages.items())
            if (release := self.snapshot.release(name, version)) and release.yanked is not None
        }


def declared(environment: Environment, metadata: PackageMetadata) -> tuple[Declared, str]:
    """Return what the named releases say of each other and of the Python, and who says it."""
    releases = named_releases(environment, overrides=True)
    allows, forbids, unknown = [], [], []
    for package, version in releases.items():
        python = metadata.requires_python(package, version)
        if bounds_against(python, environment.python):
            forbids.append(f"{package} {version} wants Python {python}, not {environment.python}")
        requires = metadata.declares(package, version)
        if requires is None:
            unknown.append(f"{package} {version}")
            continue
        for other in applying(requires, environment.python):
            name = canonicalize_name(other.name)
            if name not in releases or not other.specifier:
                continue
            wish = f"{package} {version} wants {name}{other.specifier}"
            # A local label, as in ``==2.13.0+cpu``, names a build of that version.
            if _contains(_LOCAL.sub("", str(other.specifier)), releases[name]):
                allows.append(wish)
            else:
                forbids.append(f"{wish}, not {releases[name]}")
    if forbids:
        return "forbidden", "; ".join(forbids)
    if allows:
        return "allowed", "; ".join(allows)
    if unknown:
        return "unknown", f"no metadata of {', '.join(unknown)}"
    return "not said", ""


def _contains(specifier: str, version: str) -> bool:
    try:
        return SpecifierSet(specifier).contains(version, prereleases=True)
    except InvalidSpecifier:
        return True  # installers ignore it as well
