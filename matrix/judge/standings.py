"""How an environment stands: declared, resolves, works; as pinned, as released, as of today. Pure.

Three answers that differ more often than not. **Declared** is what the metadata of the releases
that an environment names says of each other and of its Python. **Resolves** is whether the resolver
finds a set of packages. **Works** is what came of running just that set, in whatever resolution or
environment it was built.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

import msgspec

from matrix.judge.declarations import PackageMetadata, declared
from matrix.judge.results import NOT_RUN, CellResult, Standing
from matrix.outcomes import Blame, Verdict
from matrix.spec.loading import LoadedSpec
from matrix.spec.requirements import named_releases
from matrix.spec.snapshot import Snapshot
from matrix.spec.tables import Environment

StandsAs = Literal["quantizer", "engine"]

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
    own = sorted(own_cells(cells, role), key=lambda cell: order.index(cell.verdict))
    if not own or own[0].verdict in (Verdict.UNTESTED, Verdict.INFRA):
        return NOT_RUN, "", ""
    best = own[0]
    return best.verdict.value, best.stage.value if best.stage else "", best.message


def own_cells(cells: Iterable[CellResult], role: StandsAs) -> list[CellResult]:
    """Return those of an environment's cells whose end is not the other side's fault."""
    others = {
        "quantizer": {Blame.ENGINE},
        "engine": {Blame.QUANTIZER, Blame.CHECKPOINT},
    }[role]
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
        works=run.works if run else NOT_RUN,
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
    same = [
        run
        for run in ran
        if packages
        and run.packages == packages
        and run.works != NOT_RUN
        and _conditions(run.environment) == _conditions(environment)
    ]
    # Roles may depart for one environment and not for the other: its own name comes first.
    same.sort(key=lambda run: run.environment.name != environment.name)
    return same[0] if same else None


def _conditions(environment: Environment) -> tuple[str, str, dict[str, str]]:
    return environment.python, environment.device, environment.environ


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
