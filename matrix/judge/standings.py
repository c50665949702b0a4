"""How an environment stands: declared, resolves, works; as pinned, as released, as of today. Pure.

Three answers that differ more often than not. **Declared** is what the metadata of the releases
that an environment names says of each other and of its Python. **Resolves** is whether the resolver
finds a set of packages. **Works** is what came of running just that set, in whatever resolution or
environment it was built.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec

from matrix.judge.declarations import PackageMetadata, declared
from matrix.judge.results import NOT_RUN, CellResult, RunVerdict, Standing
from matrix.pipeline.outcomes import NO_ANSWER, Verdict
from matrix.pipeline.steps import Blame, Stage
from matrix.spec.loading import LoadedSpec
from matrix.spec.requirements import named_releases
from matrix.spec.snapshot import Snapshot
from matrix.spec.tables import Environment, Resolution

StandsAs = Literal["quantizer", "engine"]

MOVED = "resolved to other packages"
"""How a difference begins that is to be expected: packages that others brought moved on."""
_GOOD = (Verdict.WORKS.value, Verdict.DEGRADED.value)
_BAD = (Verdict.BROKEN.value, Verdict.GARBAGE.value)
_BEFORE_IT_RUNS = [stage.value for stage in Stage if stage.endswith(("-install", "-import"))]
_WHEN: dict[Resolution, str] = {
    "pinned": "with our pins", "released": "as released", "today": "today"
}  # fmt: skip
_SHOWN = ("transformers", "torch")
"""Packages that are told of every set, whoever brought them."""


class Solution(msgspec.Struct, frozen=True):
    """What the resolver answered: all packages with versions, or a refusal."""

    packages: dict[str, str]
    """Canonical name -> version."""
    refusal: str = ""


ReadSolution = Callable[[Environment], Solution | None]
"""From an environment in a resolution to what its lock says; ``None`` where it has none."""


class Ran(NamedTuple):
    """What came of an environment that was built from one set of packages."""

    environment: Environment
    packages: dict[str, str]
    works: str
    stage: str = ""
    message: str = ""


def works(cells: Sequence[CellResult], role: StandsAs) -> tuple[str, str, str]:
    """Return the best that an environment came to in a role: word, stage, message.

    ``not run`` where all of its cells end by another's fault, or could not be run here.
    """
    order = list(Verdict)
    own = own_cells(cells, role)
    best = min(own, key=lambda cell: order.index(cell.verdict), default=None)
    if best is None or best.verdict in NO_ANSWER:
        return NOT_RUN, "", ""
    return best.verdict.value, best.stage.value if best.stage else "", best.message


def own_cells(cells: Iterable[CellResult], role: StandsAs) -> list[CellResult]:
    """Return those of an environment's cells whose end is not the other side's fault."""
    others = {"quantizer": {Blame.ENGINE}, "engine": {Blame.QUANTIZER, Blame.CHECKPOINT}}[role]
    return [cell for cell in cells if cell.blame not in others]


def standing(
    environment: Environment,
    solution: Solution | None,
    ran: Iterable[Ran],
    metadata: PackageMetadata,
) -> Standing:
    """Return how an environment stands in the resolution that it is spelled out in.

    ``solution`` is ``None`` where the resolver was not asked; ``ran`` is what was run, of this
    environment and of others.
    """
    declaration, who = declared(environment, metadata)
    named = named_releases(environment, overrides=True)
    packages = solution.packages if solution else {}
    run = _run_of(environment, packages, ran)
    shown = {name: packages[name] for name in (*named, *_SHOWN) if name in packages}
    refused = solution is not None and bool(solution.refusal)
    return Standing(
        resolution=environment.resolution,
        cutoff=environment.cutoff,
        declared=declaration,
        declared_by=who,
        resolves="not asked" if solution is None else "no" if refused else "yes",
        refusal=solution.refusal if solution else "",
        packages=shown,
        others=len(packages) - len(shown),
        works=RunVerdict(run.works) if run else NOT_RUN,
        stage=run.stage if run else "",
        message=run.message if run else "",
        same_as=_same_as(run.environment, environment) if run else "",
        yanked=metadata.yanked({**named, **packages}),
    )


def standings(
    loaded: LoadedSpec, name: str, read_solution: ReadSolution, ran: Sequence[Ran]
) -> list[Standing]:
    """Return how an environment of a spec stands in each resolution that it has.

    None where the resolver was asked in none.
    """
    metadata = PackageMetadata(loaded.snapshot, loaded.spec.metadata)
    solutions = [(spelled, read_solution(spelled)) for spelled in loaded.resolutions(name)]
    if all(solution is None for _, solution in solutions):
        return []
    return [standing(spelled, solution, ran, metadata) for spelled, solution in solutions]


def _run_of(environment: Environment, packages: dict[str, str], ran: Iterable[Ran]) -> Ran | None:
    """Return what was run with the same packages, Python, variables and device; its own first."""

    def conditions(of: Environment) -> tuple[str, str, dict[str, str]]:
        return of.python, of.device, of.environ

    same = [
        run
        for run in ran
        if packages
        and run.packages == packages
        and run.works != NOT_RUN
        and conditions(run.environment) == conditions(environment)
    ]
    # Roles may depart for one environment and not for the other: its own name comes first.
    return min(same, key=lambda run: run.environment.name != environment.name, default=None)


def _same_as(ran: Environment, environment: Environment) -> str:
    if ran.name == environment.name:
        return "" if ran.resolution == environment.resolution else ran.resolution
    return f"{ran.name} ({ran.resolution})"


def new_releases(snapshot: Snapshot, environments: Iterable[Environment]) -> dict[str, str]:
    """Return the releases that environments name and that the last take took in, with its date.

    Of a package that was not tracked before that take, none is new.
    """
    # The snapshot is as old as its oldest answer; a release is marked with its own answer's date.
    last = snapshot.asked[:10]
    new: dict[str, str] = {}
    for environment in environments:
        for package, version in named_releases(environment, overrides=True).items():
            release = snapshot.release(package, version)
            if release is None or not last or release.seen < last:
                continue
            if any(other.seen < last for other in snapshot.packages[package]):
                new[f"{package} {version}"] = release.seen
    return new


def differences(standings: Iterable[Standing]) -> list[str]:
    """Return where an environment's standings differ from each other, in words; worst first."""
    at = {standing.resolution: standing for standing in standings}
    then, now = at.get("released"), at.get("today")
    rotted = _rotted(then, now) if now else ""
    return [
        *filter(None, [rotted]),
        *_forbidden(at),
        *_allowed({when: at[when] for when in at if not (rotted and when == "today")}),
        *_yanked(at),
        *(_moved(then, now) if then and now else []),
    ]


def _rotted(then: Standing | None, now: Standing) -> str:
    if now.resolves == "no" and then is not None and then.resolves == "yes":
        return "rotted: resolved as released, is refused today"
    if now.resolves != "yes" or now.works not in _BAD:
        return ""
    if now.stage in _BEFORE_IT_RUNS:
        what = f"today, but does not {now.stage.rpartition('-')[2]}"
        same = then is not None and (then.works, then.stage) == (now.works, now.stage)
        return f"resolves as released and {what}" if same else f"rotted: resolves {what}"
    if then is not None and then.works in _GOOD:
        return f"rotted: {then.works} as released, is {now.works} today at {now.stage}"
    return ""


def _forbidden(at: Mapping[Resolution, Standing]) -> list[str]:
    lines = [
        f"forbidden by metadata, but {standing.works}: {standing.declared_by}"
        for standing in at.values()
        if standing.declared == "forbidden" and standing.works in _GOOD
    ]
    return list(dict.fromkeys(lines))


def _allowed(at: Mapping[Resolution, Standing]) -> list[str]:
    ends: dict[str, list[str]] = {}
    for resolution, standing in at.items():
        refused = standing.resolves == "no"
        if standing.declared == "allowed" and (refused or standing.works in _BAD):
            end = "refused" if refused else f"{standing.works} at {standing.stage}"
            ends.setdefault(end, []).append(_WHEN[resolution])
    return [f"allowed by metadata, but {end} {', '.join(when)}" for end, when in ends.items()]


def _yanked(at: Mapping[Resolution, Standing]) -> list[str]:
    reasons = {name: why for standing in at.values() for name, why in standing.yanked.items()}
    return [f"yanked: {name}" + (f" ({why})" if why else "") for name, why in reasons.items()]


def _moved(then: Standing, now: Standing) -> list[str]:
    if then.resolves != "yes" or now.resolves != "yes":
        return []
    moved = [
        f"{name} {then.packages.get(name, 'none')} then, {now.packages.get(name, 'none')} today"
        for name in dict.fromkeys([*then.packages, *now.packages])
        if then.packages.get(name) != now.packages.get(name)
    ]
    return [f"{MOVED}: {', '.join(moved)}"] if moved else []
