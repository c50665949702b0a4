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
from itertools import groupby
from typing import NamedTuple, get_args

import msgspec
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from matrix.judge.results import CellResult, MatrixResult, Side, Specifier
from matrix.judge.standings import Declares, StandsAs, applying, own_cells
from matrix.pipeline.outcomes import Verdict
from matrix.plan.cells import FLOAT_SCHEME
from matrix.spec.releases import parsed
from matrix.untrusted.text import natural, visible

PARTNER = "transformers"
"""Whose versions a release is tried beside; a torch that differs differs in much else as well."""
EVIDENCE_CHARS = 2000
SPELLED_OUT = 3
"""More minors left out than these are told to a reader as runs."""


class Fact(msgspec.Struct, frozen=True):
    """One try of a release beside a version of its partner."""

    package: str
    release: str
    partner: str
    version: str
    worked: bool | None
    """``None``: tried without an answer."""
    device: str = "cpu"
    """What the evidence was made on; empty where there is none."""


class Computed(NamedTuple):
    """A specifier, and the minors beside those that worked of which nothing is known."""

    holds: str
    untried: list[str]
    """Inside of it where both tried neighbours worked, else outside."""


def compute(
    worked: Iterable[Version], failed: Iterable[Version], released: Iterable[Version]
) -> Computed:
    """Return the specifier that contains all that worked and nothing that failed.

    The versions are public ones (no local part), none on both sides. ``released`` is what there
    is: a specifier can leave out only minors that it spells, so one that comes out later, in the
    middle, is claimed unless its whole major is left out.
    """
    good, bad = sorted(worked), sorted(failed)
    if not good:
        return Computed("", [])
    beside = _untried(good, bad, sorted(released))
    named = [_minor(version) for version, worked in beside if any(worked)]
    untried = list(dict.fromkeys(named))
    if len(good) == 1 and not bad:
        return Computed(f"=={good[0]}", untried)
    outside = [*bad, *(version for version, worked in beside if not all(worked))]
    between = sorted(version for version in outside if good[0] < version < good[-1])
    holds = [_lower(good[0], bad), _upper(good[-1], bad), *_exclusions(good, between)]
    return Computed(",".join(holds), untried)


def _lower(oldest: Version, bad: Sequence[Version]) -> str:
    shares = any(version < oldest and _minor(version) == _minor(oldest) for version in bad)
    # A pre-release is no part of the minor that it leads to.
    return f">={oldest if shares or oldest < Version(_minor(oldest)) else _minor(oldest)}"


def _upper(newest: Version, bad: Sequence[Version]) -> str:
    shares = any(version > newest and _minor(version) == _minor(newest) for version in bad)
    return f"<={newest}" if shares else f"<{_next_minor(newest)}"


def _exclusions(good: Sequence[Version], between: Sequence[Version]) -> list[str]:
    """Return clauses without what lies between; a major in which nothing worked is one clause."""
    minors = {_minor(version) for version in good}
    majors = {_major(version) for version in good}
    clauses: dict[str, None] = {}
    for version in between:
        if _minor(version) in minors:
            clauses[f"!={version}"] = None
        elif _major(version) in majors:
            clauses[f"!={_minor(version)}.*"] = None
        else:
            clauses[f"!={_major(version)}.*"] = None
    return list(clauses)


def _untried(
    good: list[Version], bad: list[Version], released: list[Version]
) -> list[tuple[Version, tuple[bool, bool]]]:
    """Return what was released between two that were tried, in minors of which nothing was.

    With each comes whether its tried neighbours worked, the older one and the newer one.
    """
    worked = {**dict.fromkeys(good, True), **dict.fromkeys(bad, False)}
    tried = sorted(worked)
    minors = {_minor(version) for version in tried}
    found = []
    for version in released:
        place = bisect(tried, version)
        if 0 < place < len(tried) and _minor(version) not in minors:
            found.append((version, (worked[tried[place - 1]], worked[tried[place]])))
    return found


def _major(version: Version) -> str:
    epoch = f"{version.epoch}!" if version.epoch else ""
    return f"{epoch}{version.major}"


def _minor(version: Version) -> str:
    return f"{_major(version)}.{version.minor}"


def _next_minor(version: Version) -> str:
    return f"{_major(version)}.{version.minor + 1}"


def facts(
    result: MatrixResult, packages: Collection[str], made_on: Mapping[str, str]
) -> list[Fact]:
    """Return what the cells of a result say of releases of some packages beside their partner.

    ``made_on`` is what the quantizers of an environment ran on, which no cell says: a cell's device
    is its engine's.
    """
    found: list[Fact] = []
    for role in get_args(StandsAs):
        sides: dict[str, list[CellResult]] = {}
        for cell in result.cells:
            # The float model says something of an engine's transformers, nothing of the package.
            if cell.scheme != FLOAT_SCHEME:
                side: Side = getattr(cell, role)
                sides.setdefault(side.environment, []).append(cell)
        for name, cells in sides.items():
            own = made_on.get(name, "") if role == "quantizer" else ""
            found += _facts_of(getattr(cells[0], role), own_cells(cells, role), own)
    return [fact for fact in found if fact.package in packages]


def _facts_of(side: Side, cells: list[CellResult], device: str) -> Iterator[Fact]:
    versions: dict[str, str] = {
        canonicalize_name(name): version.public
        for name, text in side.packages.items()
        if (version := parsed(text))
    }
    beside = versions.pop(PARTNER, None)
    if beside is not None:
        answer = _worked(cells)
        telling = {cell.device for cell in cells if cell.verdict in _WORKED | _DID_NOT}
        devices = device if device and telling else ", ".join(sorted(telling))
        for package, release in versions.items():
            yield Fact(package, release, PARTNER, beside, answer, devices)


_WORKED = {Verdict.WORKS, Verdict.DEGRADED}
_DID_NOT = {Verdict.GARBAGE, Verdict.BROKEN}


def _worked(cells: list[CellResult]) -> bool | None:
    """Return whether an environment worked: one cell is enough; ``None`` where none says."""
    said = {cell.verdict for cell in cells}
    if said & _WORKED:
        return True
    return False if said & _DID_NOT else None


def specifiers(
    found: Iterable[Fact], declares: Declares, released: Callable[[str], list[str]]
) -> list[Specifier]:
    """Return what holds for each release and partner of which anything is known."""
    groups: dict[tuple[str, str, str], list[Fact]] = {}
    for fact in found:
        groups.setdefault((fact.package, fact.release, fact.partner), []).append(fact)
    return [
        _specifier(groups[key], declares, released)
        for key in sorted(groups, key=lambda key: [natural(part) for part in key])
        if any(fact.worked is not None for fact in groups[key])
    ]


def _specifier(
    tried: list[Fact], declares: Declares, released: Callable[[str], list[str]]
) -> Specifier:
    one = tried[0]
    good = {Version(fact.version) for fact in tried if fact.worked}
    bad = {Version(fact.version) for fact in tried if fact.worked is False} - good
    unknown = {Version(fact.version) for fact in tried} - good - bad
    computed = compute(good, bad, filter(None, map(parsed, released(one.partner))))
    without_answer = {_minor(version) for version in unknown}
    declared = declared_specifier(declares(one.package, one.release), one.partner)
    return Specifier(
        package=one.package,
        release=one.release,
        partner=one.partner,
        holds=computed.holds,
        declared=declared,
        differs=_differs(declared, good, bad),
        worked=[str(version) for version in sorted(good)],
        failed=[str(version) for version in sorted(bad)],
        unknown=[str(version) for version in sorted(unknown)],
        untried=[minor for minor in computed.untried if minor not in without_answer],
        devices=sorted({fact.device for fact in tried if fact.worked is not None}),
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
    allowed = [str(v) for v in sorted(bad) if bounds.contains(v, prereleases=True)]
    forbidden = [str(v) for v in sorted(good) if not bounds.contains(v, prereleases=True)]
    differs = [f"allowed by metadata, but does not work: {', '.join(allowed)}"] if allowed else []
    return differs + (
        [f"forbidden by metadata, but works: {', '.join(forbidden)}"] if forbidden else []
    )


def spans(minors: Iterable[str]) -> list[str]:
    """Return minors with those that follow each other as one: ``4.48-4.50``."""
    runs: list[list[str]] = []
    for minor in minors:
        last = parsed(runs[-1][-1]) if runs else None
        if last is not None and _next_minor(last) == minor:
            runs[-1].append(minor)
        else:
            runs.append([minor])
    return [f"{run[0]}-{run[-1]}" if len(run) > 1 else run[0] for run in runs]


def told(holds: str) -> str:
    """Return a specifier for a reader: ``>=4.51,<5.24 without 4.52-4.57, 5.0-5.22``."""
    clauses = holds.split(",")
    left_out = [each for each in clauses if each.startswith("!=") and each.endswith(".*")]
    if len(left_out) <= SPELLED_OUT:
        return holds
    kept = ",".join(each for each in clauses if each not in left_out)
    runs = spans(each.removeprefix("!=").removesuffix(".*") for each in left_out)
    return f"{kept} without {', '.join(runs)}"


def not_tried(one: Specifier) -> list[str]:
    """Return what nobody tried of a partner: minors, and what lies beyond where that worked."""
    good = [version for text in one.worked if (version := parsed(text))]
    bad = [version for text in one.failed if (version := parsed(text))]
    unknown = [version for text in one.unknown if (version := parsed(text))]
    said = spans(one.untried)
    if good and min(good) <= min([*good, *bad]):
        said.insert(0, f"older than {min([*good, *unknown])}")
    if good and max(good) >= max([*good, *bad]):
        said.append(f"newer than {max([*good, *unknown])}")
    return said


def constraints(found: Iterable[Specifier], date: str, *, active: bool) -> str:
    """Return text for a constraints file of pip or uv, with its evidence in comments.

    Each release has a block of its own, and two of them contradict each other: they are commented
    out unless ``active``. ``date`` is that of the newest evidence.
    """
    lines = [
        "# Measured, not declared: matrix specifiers --format constraints",
        f"# Evidence up to {date[:10] or 'no date'}.",
    ]
    if not active:
        lines.append("# A block for each release: take one, or ask for it with --package.")
    mark = "" if active else "# "
    for (package, release), group in groupby(found, lambda one: (one.package, one.release)):
        lines += ["", f"{mark}{package}=={release}"]
        for one in group:
            # A declared ``===`` may hold any text.
            lines += [f"# {visible(line, EVIDENCE_CHARS)}" for line in _evidence(one)]
            lines.append(
                f"{mark}{one.partner}{one.holds}" if one.holds else f"# no {one.partner} works"
            )
    return "\n".join(lines) + "\n"


def _evidence(one: Specifier) -> Iterator[str]:
    for word, versions in (
        ("worked", one.worked),
        ("did not work", one.failed),
        ("no answer here", one.unknown),
        ("not tried", not_tried(one)),
    ):
        if versions:
            where = f" (on {', '.join(one.devices)})" if word == "worked" else ""
            yield f"{one.partner} {word}{where}: {', '.join(versions)}"
    declared = "not known" if one.declared is None else one.declared or "no bound"
    yield f"declared: {declared}"
