"""How to install again what works: which environments those are, and what is told of them."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest

from matrix.judge.installing import environments_that_work, install_of, with_installs
from matrix.judge.results import (
    CanaryState,
    CellResult,
    EnvironmentResult,
    Install,
    MatrixResult,
    Side,
)
from matrix.judge.standings import Solution
from matrix.pipeline.outcomes import Outcome, Reason, StageResult, Verdict
from matrix.pipeline.steps import Stage
from matrix.spec.tables import Environment
from tests.unit.report_results import cell_result

LOCKED = {"autoawq": "0.2.9", "nvidia-cublas": "13.1", "torch": "2.13.0"}
INSTALLED = {"autoawq": "0.2.9", "torch": "2.13.0+cpu"}


def environment(name: str = "q") -> Environment:
    return Environment(
        name=name, python="3.11", requirements=["autoawq==0.2.9"], constraints=[],
        overrides=["torch==2.13.0"], environ={"A": "1"}, departures=[],
        build_requirements={"autoawq": ["torch", "setuptools", "numpy<3"]},
        build_environ={"autoawq": {"BUILD_CUDA_EXT": "0"}},
    )  # fmt: skip


def cell(quantizer: str, engine: str, verdict: Verdict) -> CellResult:
    made = cell_result(Side(quantizer, f"of-{quantizer}"), Side(engine, f"of-{engine}"), "m", None)
    return msgspec.structs.replace(made, verdict=verdict)


def table(cells: list[CellResult]) -> MatrixResult:
    names = ["of-q", "of-e", "of-f"]
    return MatrixResult(
        profile="cpu", runs=[], finished="", machine={}, departures={}, cells=cells,
        canaries=CanaryState.NONE,
        environments=[
            EnvironmentResult(name=name, role="engine", packages={}, stages=[], cells=1)
            for name in names
        ],
    )  # fmt: skip


def installs(
    cells: list[CellResult], lock: Solution | None, installed: Mapping[str, str]
) -> dict[str, Install | None]:
    environments = {name: environment(name) for name in ("of-q", "of-e", "of-f")}
    made = with_installs(table(cells), environments, lambda _: lock, lambda _: installed)
    return {result.name: result.install for result in made.environments}


def test_both_environments_of_a_cell_that_works_work() -> None:
    cells = [cell("q", "e", Verdict.WORKS), cell("q", "f", Verdict.BROKEN)]
    assert environments_that_work(cells) == {"of-q", "of-e"}


@pytest.mark.parametrize("verdict", [verdict for verdict in Verdict if verdict != "works"])
def test_nothing_is_to_be_installed_that_only_some_other_verdict_stands_on(
    verdict: Verdict,
) -> None:
    assert environments_that_work([cell("q", "e", verdict)]) == set()


def test_the_environment_that_builds_a_float_model_is_none_to_install() -> None:
    assert environments_that_work([cell("none", "e", Verdict.WORKS)]) == {"of-e"}


def test_of_the_environment_that_builds_a_float_model_nothing_is_said() -> None:
    made = cell_result(Side("none", "of-q"), Side("e", "of-e"), "m", None)
    of_float = msgspec.structs.replace(made, verdict=Verdict.WORKS)
    named = installs([of_float], Solution(LOCKED), INSTALLED)
    assert [name for name, install in named.items() if install] == ["of-e"]


def test_an_install_says_the_lock_and_what_was_otherwise_here() -> None:
    install = install_of(environment(), LOCKED, INSTALLED)
    assert install == Install(
        python="3.11",
        pins=LOCKED,
        overrides=["torch==2.13.0"],
        # A build requirement without a version has the lock's: it is compiled against that torch.
        build_requirements={"autoawq": ["torch==2.13.0", "setuptools", "numpy<3"]},
        build_environ={"autoawq": {"BUILD_CUDA_EXT": "0"}},
        environ={"A": "1"},
        instead={"torch": "2.13.0+cpu"},
        left_out=["nvidia-cublas"],
    )


def test_what_was_installed_as_locked_is_not_told_twice() -> None:
    install = install_of(environment(), LOCKED, LOCKED)
    assert (install.instead, install.left_out) == ({}, [])


def test_of_environments_that_fail_it_is_said_that_they_do_not_work() -> None:
    cells = [cell("q", "e", Verdict.WORKS), cell("q", "f", Verdict.GARBAGE)]
    by_name = installs(cells, Solution(LOCKED), INSTALLED)
    failed = by_name["of-f"]
    assert failed is not None
    assert not failed.works
    assert by_name["of-q"] == by_name["of-e"] == install_of(environment(), LOCKED, INSTALLED)


def test_what_could_not_be_installed_has_its_lock_and_what_was_never_tried_has_none() -> None:
    failed = StageResult(Outcome.FAILED, Reason.BUILD_FAILED, stage=Stage.ENGINE_INSTALL)
    waits = StageResult(Outcome.INFRA, Reason.NOT_RUN, stage=Stage.ENGINE_INSTALL)
    for stage, expected in ((failed, install_of(environment(), LOCKED, LOCKED)), (waits, None)):
        cells = [cell("q", "q", Verdict.BROKEN)]
        shown = msgspec.structs.replace(table(cells).environments[0], stages=[stage])
        result = msgspec.structs.replace(table(cells), environments=[shown])
        made = with_installs(
            result, {"of-q": environment()}, lambda _: Solution(LOCKED), lambda _: {}
        )
        if expected is not None:
            expected = msgspec.structs.replace(expected, works=False)
        assert made.environments[0].install == expected


@pytest.mark.parametrize(
    ("lock", "installed"),
    [(None, INSTALLED), (Solution({}, "refused"), INSTALLED), (Solution(LOCKED), {})],
)
def test_without_a_lock_or_an_install_nothing_is_said(
    lock: Solution | None, installed: dict[str, str]
) -> None:
    by_name = installs([cell("q", "e", Verdict.WORKS)], lock, installed)
    assert set(by_name.values()) == {None}
