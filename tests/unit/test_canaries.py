"""A void run says which canary came out how, and what differs from when it last came out right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from matrix.judge.canaries import (
    Established,
    Inputs,
    differences,
    inputs_of,
    keep_established,
    read_established,
    troubles,
)
from matrix.judge.results import CellResult, MatrixResult, Side
from matrix.judge.table import TableJudge
from matrix.judge.verdict import canary_state
from matrix.pipeline.outcomes import Conclusion, Outcome, Reason, Verdict
from matrix.pipeline.steps import Blame
from matrix.store.store import Store
from tests.unit.made_history import Ends, History
from tests.unit.made_world import CANARY, World

WORKS = "tied/awq/maker-2.0/runner-3.0"
RAISED = Conclusion(Outcome.FAILED, Reason.EXCEPTION, "ValueError: no <kernel>")


class Canaries:
    """The small matrix, whose canaries can be spoilt, and what went into them."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder)

    def judge(
        self, history: History | None = None, *, spoilt: bool = False
    ) -> tuple[MatrixResult, dict[str, Inputs]]:
        ends: Ends = {("load", WORKS): RAISED} if spoilt else {}
        history = history or self.world.history()
        judge = TableJudge(self.world.judge(history.finish(ends, self.world.facts)))
        return judge.table(), judge.inputs_of_canaries()


@pytest.fixture(scope="module")
def canaries(tmp_path_factory: pytest.TempPathFactory) -> Canaries:
    return Canaries(tmp_path_factory.mktemp("canaries"))


def lines(canaries: Canaries, last: Established | None, **changes: Any) -> list[str]:
    table, inputs = canaries.judge(**changes)
    return list(troubles(table.cells, inputs, last))


def established(canaries: Canaries) -> Established:
    table, inputs = canaries.judge()
    assert table.canaries == "established"
    return Established(table.finished, inputs)


def test_established_canaries_have_no_troubles(canaries: Canaries) -> None:
    assert lines(canaries, established(canaries)) == []


def test_a_trouble_names_canary_expectation_and_what_came(canaries: Canaries) -> None:
    (line,) = lines(canaries, None, spoilt=True)
    assert line.startswith(f"{WORKS}: expected works, came broken, blame ")
    assert "ValueError: no <kernel>" in line
    assert line.endswith("it was never established in this store")


def test_where_nothing_differs_that_is_said(canaries: Canaries) -> None:
    (line,) = lines(canaries, established(canaries), spoilt=True)
    assert line.endswith("nothing that is recorded differs")


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ("device", "device of runner-3.0: cpu, now cpu x86-64-v3"),
        ("lock", "lock of runner-3.0 changed"),
        ("machine", "processor: made up, now another"),
    ],
)
def test_what_differs_is_named(canaries: Canaries, change: str, difference: str) -> None:
    history = canaries.world.history()
    if change == "device":
        history = History(history.plan, devices={"cpu": "cpu x86-64-v3", "cuda": "cuda"})
    if change == "lock":
        history = History(history.plan)
        history.locks["runner-3.0"] = "another lock"
    last = established(canaries)
    last = msgspec.structs.replace(
        last,
        inputs={cell: {**values, "processor": "made up"} for cell, values in last.inputs.items()},
    )
    table, inputs = canaries.judge(history, spoilt=True)
    if change == "machine":
        inputs = {cell: {**values, "processor": "another"} for cell, values in inputs.items()}
    (line,) = troubles(table.cells, inputs, last)
    assert difference in line


def test_a_change_of_the_checks_is_a_change_of_code() -> None:
    now = inputs_of({}, {"stored_size": 0.2})
    before = {**now, "matrix/checks": "another", "thresholds": "another"}
    assert differences(before, now) == ["matrix/checks changed", "thresholds changed"]


def test_a_step_to_which_a_run_did_not_come_is_no_difference() -> None:
    assert differences({"device of x (load)": "cpu"}, {}) == []


def test_what_is_kept_is_read_again_and_damage_is_as_if_there_was_none(tmp_path: Path) -> None:
    store, kept = Store(tmp_path), Established("2026-11-24", {CANARY: {"device of x": "cpu"}})
    assert read_established(store, "cpu") is None
    keep_established(store, "cpu", kept)
    assert read_established(store, "cpu") == kept
    assert read_established(store, "another") is None
    (file,) = (tmp_path / "established").iterdir()
    file.write_bytes(b"[" * 100_000)
    assert read_established(store, "cpu") is None
    file.write_bytes(b'{"at": "\xff"}')
    assert read_established(store, "cpu") is None


def test_a_canary_that_was_not_run_is_no_trouble_of_packages(canaries: Canaries) -> None:
    history = History(canaries.world.history().plan)
    table = canaries.world.table(history)
    assert table.canaries == "not established"
    lines_of_canaries = list(troubles(table.cells, {}, None))
    assert len(lines_of_canaries) == 2
    assert all(line.endswith(", not run yet") for line in lines_of_canaries)


def cell(verdict: Verdict, canary: Verdict | None) -> CellResult:
    side = Side(name="s", environment="e")
    return CellResult(
        id="c",
        model="m",
        scheme="s",
        quantizer=side,
        engine=side,
        verdict=verdict,
        blame=Blame.NOBODY,
        stage=None,
        reason=Reason.NONE,
        message="",
        stages=[],
        findings=[],
        canary=canary,
    )


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([], ""),
        ([(Verdict.BROKEN, None)], ""),
        ([(Verdict.WORKS, Verdict.WORKS), (Verdict.GARBAGE, Verdict.GARBAGE)], "established"),
        ([(Verdict.WORKS, Verdict.WORKS), (Verdict.INFRA, Verdict.GARBAGE)], "not established"),
        ([(Verdict.UNTESTED, Verdict.WORKS)], "not established"),
        ([(Verdict.INFRA, Verdict.WORKS), (Verdict.WORKS, Verdict.GARBAGE)], "void"),
        ([(Verdict.DEGRADED, Verdict.WORKS)], "void"),
    ],
)
def test_canary_state(verdicts: list[tuple[Verdict, Verdict | None]], expected: str) -> None:
    assert canary_state(cell(*pair) for pair in verdicts) == expected
