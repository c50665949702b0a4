"""How to install environments again: those of cells that work, and those that repeat a failure.
Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec

from matrix.judge.results import CellResult, EnvironmentResult, Install, MatrixResult
from matrix.judge.standings import ReadSolution
from matrix.pipeline.outcomes import Outcome, Verdict
from matrix.spec.loading import FLOAT_MODEL
from matrix.spec.source_builds import locked_builds
from matrix.spec.tables import Environment


def with_installs(
    result: MatrixResult,
    environments: Mapping[str, Environment],
    read_solution: ReadSolution,
    installed: Callable[[str], Mapping[str, str]],
) -> MatrixResult:
    """Return ``result`` in which environments say how they are installed again: those that work,
    and those that do not for a reason that is the packages' own.

    ``environments`` are what was asked for, ``read_solution`` gives what a lock says, ``installed``
    canonical name -> version of what was installed in an environment.
    """
    good = environments_that_work(result.cells)
    used = _environments_of(result.cells)

    def with_install(shown: EnvironmentResult) -> EnvironmentResult:
        if shown.name not in used:
            return shown
        environment, versions = environments[shown.name], installed(shown.name)
        works = shown.name in good
        solution = read_solution(environment) if works or _failed(shown, versions) else None
        if solution is None or not solution.packages or (works and not versions):
            return shown
        install = install_of(environment, solution.packages, versions or solution.packages)
        install = msgspec.structs.replace(install, works=works)
        return msgspec.structs.replace(shown, install=install)

    complete = [with_install(shown) for shown in result.environments]
    return msgspec.structs.replace(result, environments=complete)


def _failed(shown: EnvironmentResult, versions: Mapping[str, str]) -> bool:
    """Return whether an environment of which no cell works was installed, or failed to be."""
    return bool(versions) or any(stage.outcome is Outcome.FAILED for stage in shown.stages)


def environments_that_work(cells: Iterable[CellResult]) -> set[str]:
    """Return the names of the environments on which a cell stands that works and is not flaky."""
    return _environments_of(
        cell for cell in cells if cell.verdict is Verdict.WORKS and not cell.flaky
    )


def _environments_of(cells: Iterable[CellResult]) -> set[str]:
    """Return the names of the environments in which cells are quantized or loaded.

    The one that only builds float models is none of them: nobody quantizes or loads with it.
    """
    names = set()
    for cell in cells:
        names.add(cell.engine.environment)
        if cell.quantizer.name != FLOAT_MODEL:
            names.add(cell.quantizer.environment)
    return names


def install_of(
    environment: Environment, pins: Mapping[str, str], installed: Mapping[str, str]
) -> Install:
    """Return how to install an environment again: ``pins`` are canonical name -> version of all
    packages, as its lock has them, ``installed`` the same as it was installed here."""
    return Install(
        python=environment.python,
        pins=dict(sorted(pins.items())),
        overrides=environment.overrides,
        build_requirements=locked_builds(environment, pins),
        build_environ=environment.build_environ,
        environ=environment.environ,
        instead={name: version for name, version in installed.items() if version != pins.get(name)},
        left_out=sorted(pins.keys() - installed.keys()),
    )
