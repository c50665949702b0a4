"""What was not tried and may work, by what was. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

import msgspec
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from matrix.judge.declarations import PackageMetadata
from matrix.judge.likeness import Trial, Wish, allows, fits, is_wanted, program
from matrix.judge.results import MatrixResult, ModelFacts, Side
from matrix.spec.requirements import exact_version
from matrix.spec.versions import parsed

MANY = 4
"""From so many releases on, the first and the last stand for all."""


class Likelihood(msgspec.Struct, frozen=True, kw_only=True):
    """What was not tried and may work."""

    what: str
    why: str
    beside: list[str] = []
    """What it may work with, where that is several."""


def alike(near: list[Trial], result: MatrixResult, wish: Wish) -> list[Likelihood]:
    """Return what works with other models, or under other schemes, and fails with none of them."""
    pairs: dict[tuple[str, str], list[Trial]] = {}
    for trial in near:
        pairs.setdefault((trial.quantizer.name, trial.engine.name), []).append(trial)
    grouped: dict[str, list[str]] = {}
    for (quantizer, engine), trials in pairs.items():
        if all(trial.works for trial in trials):
            grouped.setdefault(_proven_with(trials, result, wish), []).append(
                f"{quantizer} in {engine}"
            )
    return [
        Likelihood(what="the same environments", why=f"they work with {why}", beside=combinations)
        for why, combinations in grouped.items()
    ]


def _proven_with(trials: list[Trial], result: MatrixResult, wish: Wish) -> str:
    schemes = {t.scheme for t in trials if not fits(wish.scheme, result.schemes[t.scheme])}
    models = {
        f"{cell.model} ({_traits(result.models[cell.model])})"
        for trial in trials
        if trial.scheme not in schemes
        for cell in trial.cells
    }
    other_models = [f"the model {name}" for name in sorted(models)]
    return ", ".join([*other_models, *(f"the scheme {name}" for name in sorted(schemes))])


def _traits(model: ModelFacts) -> str:
    return f"{model.model_type}, {'tied' if model.tied else 'untied'}"


class _Row(msgspec.Struct, frozen=True):
    """What releases of a package were tried with: all the same but for them."""

    is_quantizer: bool
    package: str
    partner: str
    """What is beside it in its environment, and what is on the other side."""
    variant: str
    scheme: str


def between(exact: list[Trial], wish: Wish, metadata: PackageMetadata) -> list[Likelihood]:
    """Return releases between two that were tried next to each other, and that both work."""
    rows: dict[_Row, dict[Version, Trial]] = {}
    for trial in exact:
        for is_quantizer in (True, False):
            side = trial.quantizer if is_quantizer else trial.engine
            other = trial.engine if is_quantizer else trial.quantizer
            package, version = program(side)
            partner = " and ".join([*_beside(side, package), other.name])
            variant = side.name.removeprefix(side.environment)
            row = _Row(is_quantizer, package, partner, variant, trial.scheme)
            if (release := parsed(version)) is not None:
                rows.setdefault(row, {})[release] = trial
    gaps: dict[tuple[str, str], list[str]] = {}
    for row, tried in rows.items():
        for gap in _gaps(row, tried, wish, metadata):
            gaps.setdefault(gap, []).append(row.partner)
    return [
        Likelihood(what=what, why=why, beside=list(dict.fromkeys(partners)))
        for (what, why), partners in gaps.items()
    ]


def _beside(side: Side, package: str) -> list[str]:
    """Return what was chosen beside a package; a torch goes with its release."""
    own = {package, package.removesuffix("-cpu"), "torch"}
    axes = ((canonicalize_name(axis), version) for axis, version in side.axes.items())
    return [f"{axis} {version}" for axis, version in axes if axis not in own]


def _gaps(
    row: _Row, tried: Mapping[Version, Trial], wish: Wish, metadata: PackageMetadata
) -> Iterator[tuple[str, str]]:
    """Yield the releases in each gap, and between which two it is."""
    wanted = wish.quantizer if row.is_quantizer else wish.engine
    named = [exact_version(wanted)] if wanted else []
    releases = sorted(set(filter(None, map(parsed, [*metadata.versions(row.package), *named]))))
    own = "quantizer" if row.is_quantizer else "engine"
    rest = msgspec.structs.replace(wish, **{own: wanted and Requirement(wanted.name)})
    for older, newer in pairwise(sorted(tried)):
        inside = [
            release
            for release in releases
            if older < release < newer and (wanted is None or allows(wanted, str(release)))
        ]
        both = (tried[older], tried[newer])
        if inside and all(trial.works and is_wanted(trial, rest) for trial in both):
            yield (
                f"{row.package} {_in_short(inside)}",
                f"between {older} and {newer}, which both work",
            )


def _in_short(releases: list[Version]) -> str:
    if len(releases) < MANY:
        return ", ".join(map(str, releases))
    return f"{releases[0]} to {releases[-1]} ({len(releases)} releases)"
