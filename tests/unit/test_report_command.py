"""When ``matrix report`` is no success: by made-up tables of whole runs."""

from __future__ import annotations

import msgspec
import pytest

from matrix.cli.report import faults
from matrix.history.changes import Change, ChangeKind, Changes
from matrix.judge.results import CanaryState, MatrixResult
from matrix.pipeline.outcomes import Verdict
from tests.unit.report_results import realistic

RUN = "20261130T020000-1a2b"


def table(*verdicts: Verdict, runs: tuple[str, ...] = ("earlier",)) -> MatrixResult:
    """Return a table of cells with these verdicts, observed in these runs."""
    cells = [
        msgspec.structs.replace(cell, verdict=verdict, runs=list(runs))
        for cell, verdict in zip(realistic().cells, verdicts, strict=False)
    ]
    return msgspec.structs.replace(realistic(), cells=cells)


def why(result: MatrixResult, *unwanted: Verdict, changes: Changes | None = None) -> list[str]:
    return list(faults(result, RUN, unwanted, changes))


@pytest.mark.parametrize(
    "verdicts",
    [
        (Verdict.GARBAGE, Verdict.BROKEN),  # which are results
        (Verdict.WORKS, Verdict.INFRA, Verdict.NOT_RUN),
        (Verdict.UNSUPPORTED, Verdict.INFRA),
        (Verdict.NOT_RUN, Verdict.NOT_RUN),  # nobody has tried yet
        (Verdict.NOT_RUN, Verdict.UNTESTED),
        (),
    ],
)
def test_a_run_with_an_answer_is_a_success_and_so_is_none(verdicts: tuple[Verdict, ...]) -> None:
    assert why(table(*verdicts)) == []


@pytest.mark.parametrize(
    ("verdicts", "counts"),
    [
        ((Verdict.INFRA,) * 3, "3 infra"),
        ((Verdict.INFRA, Verdict.NOT_RUN, Verdict.INFRA), "2 infra, 1 not run"),
        ((Verdict.INFRA, Verdict.UNTESTED), "1 infra, 1 untested here"),
        ((Verdict.UNTESTED,) * 2, "2 untested here"),  # such as a driver that is gone
    ],
)
def test_a_run_without_any_answer_is_none(verdicts: tuple[Verdict, ...], counts: str) -> None:
    assert why(table(*verdicts)) == [f"no cell has an answer ({counts})"]


def test_what_was_answered_in_earlier_runs_makes_no_success_of_one_that_answered_nothing() -> None:
    tonight = table(Verdict.INFRA, Verdict.INFRA, runs=("earlier", RUN))
    both = msgspec.structs.replace(tonight, cells=[*table(Verdict.WORKS).cells, *tonight.cells])
    assert why(both) == ["no cell that this run worked on has an answer (2 infra)"]
    answered = table(Verdict.INFRA, Verdict.BROKEN, runs=(RUN,))
    assert why(answered) == []
    assert why(table(Verdict.INFRA, Verdict.UNTESTED, Verdict.WORKS, runs=(RUN,))) == []


def test_a_run_whose_canaries_are_void_is_none() -> None:
    void = msgspec.structs.replace(table(Verdict.WORKS), canaries=CanaryState.VOID)
    assert why(void) == ["the canaries are void: trust no verdict before that is explained"]


def test_a_verdict_that_is_not_wanted_makes_it_none() -> None:
    result = table(Verdict.WORKS, Verdict.GARBAGE, Verdict.BROKEN, Verdict.GARBAGE)
    assert why(result, Verdict.GARBAGE, Verdict.INFRA) == ["--fail-on: 2 garbage"]


def test_a_regression_makes_it_none_and_so_does_a_new_release_that_breaks_what_worked() -> None:
    result = table(Verdict.BROKEN)
    changes = Changes(
        old="2026-11-29 first", new="2026-11-30 second", groups=[],
        cells=[
            Change(cell="a\x1b", kind=ChangeKind.REGRESSED, old=Verdict.WORKS, new=Verdict.BROKEN),
            Change(cell="b", kind=ChangeKind.NEW, before=Verdict.WORKS, old=None,
                   new=Verdict.BROKEN),
            Change(cell="c", kind=ChangeKind.FIXED, old=Verdict.BROKEN, new=Verdict.WORKS),
        ],
    )  # fmt: skip
    assert why(result, changes=changes) == ["2 cells regressed: a␛, ..."]
    fixed = msgspec.structs.replace(changes, cells=changes.cells[2:])
    assert why(result, changes=fixed) == []
