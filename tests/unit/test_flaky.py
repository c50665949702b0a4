"""Which keys count as flaky, by made-up records."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import msgspec
import pytest

from matrix.judge.flaky import flaky_keys
from matrix.judge.installing import environments_that_work
from matrix.judge.specifiers import trials
from matrix.pipeline.outcomes import Verdict
from matrix.pipeline.steps import Step
from matrix.plan.cell_steps import steps_of_plan
from matrix.report.table import together
from matrix.store.store import Record
from tests.unit.made_history import History
from tests.unit.report_results import realistic, render
from tests.unit.test_plan_command import BARE, opened

NUMBERS = count()


def step(outcome: str, key: str = "a") -> Record:
    return Record(
        run=f"r{next(NUMBERS)}", at="", subject="m/s/q/e", step="load", key=key, outcome=outcome
    )


def check(outcome: str, value: float | None = None, threshold: float | None = None) -> Record:
    return Record(
        run=f"r{next(NUMBERS)}", at="", subject="m/s/q/e", step="check", key="a", outcome=outcome,
        check="greedy-text", value=value, threshold=threshold,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("records", "flaky"),
    [
        ([], set()),
        ([step("passed"), step("passed")], set()),
        ([step("failed"), step("failed")], set()),
        ([step("passed"), step("failed")], {"a"}),
        ([step("failed"), step("passed"), step("passed")], {"a"}),
        ([step("infra"), step("passed")], set()),
        ([step("unsupported"), step("passed")], set()),
        ([step("passed"), step("failed", "b")], set()),
        # Two answers, of which a check says two things.
        ([step("passed"), check("failed", 0.0), step("passed"), check("passed", 1.0)], {"a"}),
        ([step("passed"), check("degraded"), step("passed"), check("notice")], {"a"}),
        ([step("passed"), check("failed", 0.0), step("passed"), check("degraded", 0.5)], set()),
        # One answer that came to be judged otherwise, and two of one value by another threshold.
        ([step("passed"), check("failed", 0.0), check("passed", 1.0)], set()),
        ([step("passed"), check("failed", 0.4), step("passed"), check("passed", 0.4)], set()),
        # Two answers of two values, between which the limit was changed or not; a check has two.
        (
            [step("passed"), check("failed", 0.4, 0.3), step("passed"), check("passed", 0.2, 0.5)],
            set(),
        ),
        (
            [step("passed"), check("failed", 0.0, 0.5), step("passed"), check("passed", 1.0, 0.9)],
            {"a"},
        ),
        (
            [step("passed"), check("failed", 0.5, 0.5), step("passed"), check("passed", 0.1, 0.2)],
            {"a"},
        ),
        (
            [step("passed"), check("failed", 0.4, 0.3), step("passed"), check("passed", 0.5, 0.6)],
            set(),
        ),
        (
            [step("passed"), check("failed", 0.4, 0.3), step("passed"), check("passed", 0.2, 0.3)],
            {"a"},
        ),
        (
            [
                step("passed"), check("failed", 0.0), check("passed", 1.0), step("passed"),
                check("passed", 1.0),
            ],
            set(),
        ),
    ],
)  # fmt: skip
def test_good_and_bad_ends_under_one_key(records: list[Record], flaky: set[str]) -> None:
    assert flaky_keys(records) == flaky


def test_all_cells_that_stand_on_a_flaky_step_are_marked(tmp_path: Path) -> None:
    context = opened(tmp_path, BARE)
    context.keys = History(context.plan).finish().keys
    made = next(s for s in steps_of_plan(context.plan) if s.step is Step.QUANTIZE)
    key = context.keys.of(made)
    assert key is not None
    assert not any(cell.flaky for cell in context.table().cells)
    for outcome in ("passed", "failed"):
        context.store.append(step(outcome, key.value))
    flaky = [cell.id for cell in context.table().cells if cell.flaky]
    assert flaky == [c.id for c in context.plan.cells if c.checkpoint.id == made.name]
    assert flaky
    assert [c.id for c in context.table_judge().table().cells if c.flaky] == flaky


def test_no_specifier_is_made_of_what_is_flaky() -> None:
    result = realistic()
    packages = ["autoawq"]
    all_of_them = trials(result, packages, {})
    flaky = [msgspec.structs.replace(cell, flaky=True) for cell in result.cells]
    without = trials(msgspec.structs.replace(result, cells=flaky), packages, {})
    assert {trial.worked for trial in all_of_them} >= {True, False}
    assert len(without) == len(all_of_them)
    assert {(trial.worked, trial.device) for trial in without} == {(None, "")}


def test_what_is_flaky_is_installed_for_nobody_and_works_together_with_nothing() -> None:
    good = [cell for cell in realistic().cells if cell.verdict is Verdict.WORKS]
    first, *others = [
        c for c in good if (c.quantizer, c.scheme) == (good[0].quantizer, good[0].scheme)
    ]
    turning = msgspec.structs.replace(first, flaky=True)
    assert environments_that_work([turning]) == set()
    assert environments_that_work([first])
    (row,) = together([turning, *others])
    assert first.engine.name not in row.engines
    assert (set(row.flaky), set(row.fails)) == ({first.engine.name}, set())
    broken = msgspec.structs.replace(turning, verdict=Verdict.BROKEN)
    (row,) = together([broken, *others])
    assert (set(row.flaky), set(row.fails)) == ({first.engine.name}, set())
    marked = [broken if cell is first else cell for cell in good]
    texts = render(msgspec.structs.replace(realistic(), cells=marked))
    assert "not known (flaky)" in texts["matrix.md"]
    assert f"{first.engine.name} (flaky)" in texts["index.html"]
