"""From what worked to the specifiers that really hold, set against the declared ones. Pure.

A release (``autoawq 0.2.7``) was tried beside versions of a partner (``transformers``). What holds
is one PEP 440 specifier that contains every version that worked and none that did not. Bounds go
by minors, ``>=4.45,<4.48``; a minor in which both happened is bounded by its versions. A minor
that was not tried is inside only where both of its tried neighbours worked, and is named all the
same; nothing is claimed below the oldest version that worked, nor above the newest.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, get_args

import msgspec
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from matrix.judge.declarations import Declares
from matrix.judge.results import CellResult, MatrixResult, Side, Specifier
from matrix.judge.standings import StandsAs, own_cells
from matrix.pipeline.outcomes import Verdict
from matrix.plan.cells import FLOAT_SCHEME
from matrix.spec.requirements import applying
from matrix.spec.versions import major_of, minor_of, next_minor, parsed
from matrix.untrusted.text import natural

PARTNER = "transformers"
"""Whose versions a release is tried beside; a torch that differs differs in much else as well."""
_WORKED = {Verdict.WORKS, Verdict.DEGRADED}
_DID_NOT = {Verdict.GARBAGE, Verdict.BROKEN}


class Trial(msgspec.Struct, frozen=True):
    """One try of a release beside a version of its partner."""

    package: str
    release: str
    partner: str
    version: str
    worked: bool | None
    """``None``: tried without an answer, or flaky."""
    device: str = "cpu"
    """What the evidence was made on; empty where there is none."""


class Bounds(NamedTuple):
    """A specifier, and the minors beside those that worked of which nothing is known."""

    holds: str
    untried: list[str]
    """Inside of it where both tried neighbours worked, else outside."""


def compute(
    worked: Iterable[Version], failed: Iterable[Version], released: Iterable[Version]
) -> Bounds:
    """Return the specifier that contains all that worked and nothing that failed.

    The versions are public ones (no local part), none on both sides. ``released`` is what there
    is: a specifier can leave out only minors that it spells, so one that comes out later, in the
    middle, is claimed unless its whole major is left out.
    """
    good, bad = sorted(worked), sorted(failed)
    if not good:
        return Bounds("", [])
    beside = _untried(good, bad, sorted(released))
    untried = list(dict.fromkeys(minor_of(version) for version, worked in beside if any(worked)))
    if len(good) == 1 and not bad:
        return Bounds(f"=={good[0]}", untried)
    outside = [*bad, *(version for version, worked in beside if not all(worked))]
    between = sorted(version for version in outside if good[0] < version < good[-1])
    clauses = [_lower(good[0], bad), _upper(good[-1], bad), *_exclusions(good, between)]
    return Bounds(",".join(clauses), untried)


def _lower(oldest: Version, bad: Sequence[Version]) -> str:
    minor = minor_of(oldest)
    shares = any(version < oldest and minor_of(version) == minor for version in bad)
    # A pre-release is no part of the minor that it leads to.
    return f">={oldest if shares or oldest < Version(minor) else minor}"


def _upper(newest: Version, bad: Sequence[Version]) -> str:
    shares = any(version > newest and minor_of(version) == minor_of(newest) for version in bad)
    return f"<={newest}" if shares else f"<{next_minor(newest)}"


def _exclusions(good: Sequence[Version], between: Sequence[Version]) -> list[str]:
    """Return clauses without what lies between; a major in which nothing worked is one clause."""
    minors, majors = set(map(minor_of, good)), set(map(major_of, good))

    def clause(version: Version) -> str:
        if minor_of(version) in minors:
            return f"!={version}"
        of_major = major_of(version) not in majors
        return f"!={major_of(version) if of_major else minor_of(version)}.*"

    return list(dict.fromkeys(map(clause, between)))


def _untried(
    good: list[Version], bad: list[Version], released: list[Version]
) -> list[tuple[Version, tuple[bool, bool]]]:
    """Return what was released between two that were tried, in minors of which nothing was.

    With each comes whether its tried neighbours worked, the older one and the newer one.
    """
    worked = {**dict.fromkeys(good, True), **dict.fromkeys(bad, False)}
    tried, minors = sorted(worked), set(map(minor_of, worked))
    places = ((version, bisect(tried, version)) for version in released)
    return [
        (version, (worked[tried[place - 1]], worked[tried[place]]))
        for version, place in places
        if 0 < place < len(tried) and minor_of(version) not in minors
    ]


def trials(
    result: MatrixResult, packages: Collection[str], made_on: Mapping[str, str]
) -> list[Trial]:
    """Return what the cells of a result say of releases of some packages beside their partner.

    ``made_on`` is what the quantizers of an environment ran on, which no cell says: a cell's device
    is its engine's.
    """
    # The float model says something of an engine's transformers, nothing of the package.
    quantized = [cell for cell in result.cells if cell.scheme != FLOAT_SCHEME]
    made: list[Trial] = []
    for role in get_args(StandsAs):
        sides: dict[str, list[CellResult]] = {}
        for cell in quantized:
            sides.setdefault(getattr(cell, role).environment, []).append(cell)
        for name, cells in sides.items():
            own = made_on.get(name, "") if role == "quantizer" else ""
            made += _trials_of(getattr(cells[0], role), own_cells(cells, role), own)
    return [trial for trial in made if trial.package in packages]


def _trials_of(side: Side, cells: list[CellResult], device: str) -> Iterator[Trial]:
    versions: dict[str, str] = {
        canonicalize_name(name): version.public
        for name, text in side.packages.items()
        if (version := parsed(text))
    }
    beside = versions.pop(PARTNER, None)
    if beside is not None:
        # One cell that works is enough; nothing is known where none says, or is to be relied on.
        verdicts = {cell.verdict for cell in cells if not cell.flaky}
        worked = True if verdicts & _WORKED else False if verdicts & _DID_NOT else None
        telling = {c.device for c in cells if c.verdict in _WORKED | _DID_NOT and not c.flaky}
        devices = device if device and telling else ", ".join(sorted(telling))
        for package, release in versions.items():
            yield Trial(package, release, PARTNER, beside, worked, devices)


def specifiers(
    trials: Iterable[Trial], declares: Declares, released: Callable[[str], list[str]]
) -> list[Specifier]:
    """Return what holds for each release and partner of which anything is known."""
    groups: dict[tuple[str, str, str], list[Trial]] = {}
    for trial in trials:
        groups.setdefault((trial.package, trial.release, trial.partner), []).append(trial)
    return [
        _specifier(*key, groups[key], declares, released)
        for key in sorted(groups, key=lambda key: [natural(part) for part in key])
        if any(trial.worked is not None for trial in groups[key])
    ]


def _specifier(
    package: str,
    release: str,
    partner: str,
    trials: list[Trial],
    declares: Declares,
    released: Callable[[str], list[str]],
) -> Specifier:
    good = {Version(trial.version) for trial in trials if trial.worked}
    bad = {Version(trial.version) for trial in trials if trial.worked is False} - good
    unknown = {Version(trial.version) for trial in trials} - good - bad
    bounds = compute(good, bad, filter(None, map(parsed, released(partner))))
    without_answer = {minor_of(version) for version in unknown}
    declared = declared_specifier(declares(package, release), partner)
    return Specifier(
        package=package,
        release=release,
        partner=partner,
        holds=bounds.holds,
        declared=declared,
        differs=_differs(declared, good, bad),
        worked=[str(version) for version in sorted(good)],
        failed=[str(version) for version in sorted(bad)],
        unknown=[str(version) for version in sorted(unknown)],
        untried=[minor for minor in bounds.untried if minor not in without_answer],
        devices=sorted({trial.device for trial in trials if trial.worked is not None}),
    )


def declared_specifier(requires: list[str] | None, partner: str) -> str | None:
    """Return the bounds that Requires-Dist entries put on a package, ``None`` without metadata.

    Entries of extras and of other systems do not count, and what cannot be read is passed over.
    """
    if requires is None:
        return None
    bounds = SpecifierSet()
    for requirement in applying(requires):
        if canonicalize_name(requirement.name) == canonicalize_name(partner):
            bounds &= requirement.specifier
    return str(bounds)


def _differs(declared: str | None, good: set[Version], bad: set[Version]) -> list[str]:
    if declared is None:
        return []
    bounds = SpecifierSet(declared)
    wrong = {
        "allowed by metadata, but does not work": set(bounds.filter(bad, prereleases=True)),
        "forbidden by metadata, but works": good - set(bounds.filter(good, prereleases=True)),
    }
    return [f"{how}: {', '.join(map(str, sorted(some)))}" for how, some in wrong.items() if some]
