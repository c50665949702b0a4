"""In which order environments are begun."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from matrix.plan.cell_steps import steps_of_plan
from matrix.plan.cells import requirements_of
from matrix.plan.predictions import name_of
from matrix.run.context import Context
from matrix.run.estimates import Estimate, estimate, longest_first
from matrix.run.suites import pending
from matrix.store.store import Record
from tests.unit.test_plan_command import BARE, opened


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return opened(tmp_path, BARE)


def timed(context: Context, seconds: Mapping[str, float]) -> Estimate:
    """Return an estimate in which an import of each environment has been timed."""
    for name, duration in seconds.items():
        context.store.append(Record(
            run="r", at="2026", subject=name, step="import", key="k", outcome="passed",
            seconds=duration,
        ))  # fmt: skip
    return estimate(context, {"HOME": str(context.settings.store.parent)})


SECONDS = {"twins": 1, "maker-1.0": 5, "maker-2.0": 50, "runner-3.0": 2}


def test_the_longest_chain_of_work_comes_first(context: Context) -> None:
    order = longest_first(context, pending(context), timed(context, SECONDS))
    assert order == ["twins", "maker-2.0", "maker-1.0", "runner-3.0"]


def test_what_is_paid_for_is_no_work(context: Context) -> None:
    expected = timed(context, SECONDS)
    steps = [step for step in steps_of_plan(context.plan) if step.environment == "maker-2.0"]
    paid = set(map(name_of, steps))
    expected = msgspec.structs.replace(expected, paid=expected.paid | paid)
    order = longest_first(context, pending(context), expected)
    assert order == ["twins", "maker-1.0", "maker-2.0", "runner-3.0"]


@pytest.mark.parametrize("slow", SECONDS)
def test_none_comes_before_what_it_waits_for(context: Context, slow: str) -> None:
    expected = timed(context, {**SECONDS, slow: 1000})
    order = longest_first(context, reversed(pending(context)), expected)
    for name, needed in requirements_of(context.plan).items():
        assert all(order.index(other) < order.index(name) for other in needed)


def test_only_what_is_asked_for_is_put_in_order(context: Context) -> None:
    order = longest_first(context, ["maker-1.0", "maker-2.0"], timed(context, SECONDS))
    assert order == ["maker-2.0", "maker-1.0"]
