"""When the report is written again while a run goes on, and what it says of the run."""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec
import pytest
from filelock import FileLock

from matrix import report
from matrix.history import folder as snapshots
from matrix.history.states import Snapshot
from matrix.judge.results import CanaryState, MatrixResult
from matrix.pipeline.outcomes import Verdict
from matrix.run.context import Context
from matrix.run.interim import EVERY_SECONDS, Interim
from matrix.run.reporting import snapshot_of
from tests.unit.made_history import History
from tests.unit.test_plan_command import BARE, opened


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return opened(tmp_path, BARE)


def no_tell(line: str) -> None:
    raise AssertionError(line)


def finish(context: Context) -> None:
    """Have all observed that can be."""
    context.keys = History(context.plan).finish().keys


def progress(folder: Path) -> str:
    document = json.loads((folder / "matrix.json").read_text())
    return str(document["going_on"])


def age(folder: Path, seconds: float) -> None:
    written = (folder / "index.html").stat().st_mtime
    os.utime(folder / "index.html", (written - seconds, written - seconds))


def test_nothing_is_reported_before_anything_is_done(context: Context, tmp_path: Path) -> None:
    Interim(context, tmp_path / "reports").write_if_due(no_tell)
    assert not (tmp_path / "reports").exists()


def test_what_is_done_is_reported_and_said_to_go_on(context: Context, tmp_path: Path) -> None:
    history = History(context.plan).finish()
    history.forget("generate", "tied/awq/maker-1.0/runner-3.0")
    context.keys = history.keys
    folder = tmp_path / "reports"
    Interim(context, folder).write_if_due(no_tell)
    assert (
        progress(folder) == "5 of 6 cells were done when this was written, and the run was going on"
    )
    assert (folder / "index.html").exists()


def test_earlier_runs_are_told_meanwhile_and_only_the_end_is_kept(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(context)
    table = msgspec.structs.replace(context.table(), canaries=CanaryState.ESTABLISHED)
    monkeypatch.setattr(context, "table", lambda: table)
    earlier = snapshot_of(context, table)
    working = {
        name: msgspec.structs.replace(cell, verdict=Verdict.WORKS, evidence="other")
        for name, cell in earlier.cells.items()
    }
    head = msgspec.structs.replace(earlier.head, runs=["before"])
    snapshots.History(context.store.root, "all").add(
        Snapshot("2026-01-01", "before", head, working)
    )
    torn = context.store.path("history", "all", "2026-01-02", "torn.parquet")
    torn.write_bytes(b"PAR1")
    interim, folder = Interim(context, tmp_path / "reports"), tmp_path / "reports"
    for is_over, kept in ((False, 1), (True, 2)):
        (trouble,) = interim.write(is_over=is_over)
        assert "torn.parquet: is no snapshot" in trouble
        assert "What changed since" in (folder / "matrix.md").read_text()
        assert "<entry>" in (folder / "feed.xml").read_text()
        assert len(snapshots.History(context.store.root, "all").entries) == kept


def test_a_report_is_written_again_when_it_is_old(context: Context, tmp_path: Path) -> None:
    folder = tmp_path / "reports"
    finish(context)
    interim = Interim(context, folder)
    interim.write()
    (folder / "matrix.json").unlink()
    interim.write_if_due(no_tell)
    assert not (folder / "matrix.json").exists()
    age(folder, EVERY_SECONDS)
    interim.write_if_due(no_tell)
    assert progress(folder).startswith("6 of 6 cells")


def test_one_process_writes_at_a_time_and_the_others_go_on(
    context: Context, tmp_path: Path
) -> None:
    finish(context)
    with FileLock(context.store.path("report.lock")):
        Interim(context, tmp_path / "reports").write()
    assert not (tmp_path / "reports").exists()


def test_a_folder_that_cannot_be_written_stops_no_run(context: Context, tmp_path: Path) -> None:
    finish(context)
    (tmp_path / "file").touch()
    Interim(context, tmp_path / "file" / "reports").write_if_due(no_tell)


def test_a_report_that_cannot_be_made_costs_itself_only_and_is_told_once(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(context)
    tried: list[Path] = []

    def broken(_result: MatrixResult, folder: Path) -> list[str]:
        tried.append(folder)
        raise TypeError("no \x1b[31mtext")

    monkeypatch.setattr(report, "write", broken)
    lines: list[str] = []
    interim = Interim(context, tmp_path)
    interim.write_if_due(lines.append)
    interim.write_if_due(lines.append)
    assert lines == ["the report cannot be made while the run goes on: TypeError: no ␛[31mtext"]
    assert tried == [tmp_path]
    with pytest.raises(TypeError):  # the one at the end is what the run is for
        interim.write(is_over=True)


def test_cells_that_cannot_run_are_not_counted_as_done(context: Context, tmp_path: Path) -> None:
    finish(context)
    first, *others = context.plan.cells
    lacking = msgspec.structs.replace(first, unmet="needs a GPU")
    context.plan = msgspec.structs.replace(context.plan, cells=[lacking, *others])
    Interim(context, tmp_path).write()
    assert progress(tmp_path).startswith("5 of 5 cells")
