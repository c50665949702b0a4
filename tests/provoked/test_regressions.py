"""What came out worse is run again before it is told: by packages that count their loads."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from matrix.cli.app import app
from matrix.run.regressions import chosen
from matrix.store.store import Store
from tests import REPOSITORY
from tests.provoked.runs import SPEC
from tests.provoked.test_budgets import RELEASES, SECTIONS

OLD = "made-up/float/none/engine-1.1.1"
NEW = "made-up/float/none/engine-2.0.0"
COUNTING = """
import json
from pathlib import Path

def import_package(options):
    pass

def load(job):
    with Path(job["options"]["broken"]).open("a+") as plan:  # a line for each load that is to fail
        plan.seek(0)
        first, *others = plan.read().splitlines() or [""]
        plan.truncate(0)
        plan.write("\\n".join(others))
    if first == "fail":
        raise ValueError("it works no more")
    answers = json.loads(Path(job["checkpoint"], "answers.json").read_text())
    if first == "full":
        raise OSError(28, "No space left on device")
    if first == "babble":
        outputs = [{"ids": [1], "text": "?"} for _ in answers["outputs"]]
        answers = {**answers, "outputs": outputs}
    return answers, {"kernel": "made-up", "kernels": {}}

def generate(handle, job):
    return handle
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a spec, of which one run is over in which all works."""
    monkeypatch.setenv("MATRIX_SANDBOX", "off")  # in which no package changes the plan of loads
    head = SPEC.read_text().partition("# What is made up")[0]
    sections = SECTIONS.replace("BROKEN", str(tmp_path / "plan"))
    (tmp_path / "spec.toml").write_text(head + sections)
    (tmp_path / "turning.py").write_text(COUNTING)
    (tmp_path / "builder.py").write_bytes((SPEC.parent / "builder.py").read_bytes())
    (tmp_path / "releases.json").write_text(RELEASES)
    matrix(tmp_path, "run")
    matrix(tmp_path, "report")
    return tmp_path


def matrix(folder: Path, *arguments: str, module: str = "matrix") -> str:
    environ = {
        **os.environ, "MATRIX_SPEC": str(folder / "spec.toml"), "MATRIX_PROFILE": "all",
        "MATRIX_STORE": str(folder / "store"), "MATRIX_REPORTS": str(folder / "reports"),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=REPOSITORY, env=environ, text=True,
        timeout=600, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stdout
    return done.stdout


def next_night(folder: Path, *loads: str) -> None:
    """Change what went in, so that all is loaded again, and say what comes of the next loads."""
    with (folder / "turning.py").open("a") as adapter:
        adapter.write("# another night\n")
    (folder / "plan").write_text("\n".join(loads))


def loads(folder: Path) -> list[tuple[str, str]]:
    records = Store(folder / "store").records()
    return [(record.subject, record.outcome) for record in records if record.step == "load"]


def cells(folder: Path) -> dict[str, Any]:
    document = json.loads((folder / "reports" / "matrix.json").read_text())
    return {cell["id"]: cell for cell in document["cells"]}


def test_what_works_when_it_is_run_again_is_flaky_and_marked(folder: Path) -> None:
    next_night(folder, "fail", "works", "works")
    output = matrix(folder, "run")
    assert "1 cell came out worse than in the run of " in output
    assert f"{OLD} is flaky: works when it was run again, broken before" in output
    assert loads(folder)[2:] == [(OLD, "failed"), (NEW, "passed"), (OLD, "passed")]
    matrix(folder, "report")
    assert {name: cell.get("flaky", False) for name, cell in cells(folder).items()} == {
        OLD: True, NEW: False,
    }  # fmt: skip
    assert cells(folder)[OLD]["verdict"] == "broken"
    assert f"flaky: 1 came to good and to bad ends by the same inputs\n  {OLD}" in matrix(
        folder, "diff"
    )
    assert "run again" not in matrix(folder, "run")


def test_answers_that_turn_are_flaky_too(folder: Path) -> None:
    next_night(folder, "babble")
    output = matrix(folder, "run", "--reports", str(folder / "reports"))
    assert f"{OLD} is flaky: works when it was run again, garbage before" in output
    assert cells(folder)[OLD]["verdict"] == "garbage"
    assert cells(folder)[OLD]["flaky"]


def test_what_fails_three_times_of_four_stands_as_broken(folder: Path) -> None:
    next_night(folder, "fail", "works", "fail", "fail", "works")
    output = matrix(folder, "run")
    assert f"{OLD} is flaky: works when it was run again, broken before; broken stands" in output
    assert [end for name, end in loads(folder)[2:] if name == OLD] == [
        "failed", "failed", "failed", "passed",
    ]  # fmt: skip
    matrix(folder, "report")
    assert (cells(folder)[OLD]["verdict"], cells(folder)[OLD]["flaky"]) == ("broken", True)


def test_what_comes_out_worse_still_when_it_is_run_again_stands_as_that(folder: Path) -> None:
    next_night(folder, "babble", "works", "fail")
    output = matrix(folder, "run", "--reports", str(folder / "reports"))
    assert f"{OLD} is flaky: broken when it was run again, garbage before; broken stands" in output
    assert cells(folder)[OLD]["verdict"] == "broken"


def test_what_a_run_left_that_was_ended_is_run_again_by_the_next(folder: Path) -> None:
    next_night(folder, "fail")
    assert "run again" not in matrix(folder, "run", OLD)  # a part, after which nothing is repeated
    assert f"{OLD} is flaky" in matrix(folder, "run")
    assert "run again" not in matrix(folder, "run")


def test_a_new_release_that_breaks_what_the_one_before_did_is_run_again(folder: Path) -> None:
    spec = folder / "spec.toml"
    whole = spec.read_text()
    only_old = whole.replace('axes.version = ["1.1.1", "2.0.0"]', 'axes.version = ["1.1.1"]')
    spec.write_text(only_old)
    shutil.rmtree(folder / "store" / "history")
    matrix(folder, "report")
    spec.write_text(whole)
    next_night(folder, "works", *["fail"] * 4)
    assert "1 cell came out worse than in the run of " in (output := matrix(folder, "run"))
    assert "1 cell came out the same 3 times more" in output
    matrix(folder, "report")
    assert "new: 1 cell: regressed: broken, and works with the release before" in matrix(
        folder, "diff", "--fail-on", "regressed"
    )


def test_a_regression_that_is_confirmed_is_told_and_not_run_again(folder: Path) -> None:
    next_night(folder, *["fail"] * 8)
    output = matrix(folder, "run")
    assert "2 cells came out worse than in the run of " in output
    assert "2 cells came out the same 3 times more" in output
    assert len(loads(folder)) == 2 + 2 + 2 * 3
    matrix(folder, "report")
    assert not any(cell.get("flaky", False) for cell in cells(folder).values())
    assert "regressed: 2 cells" in matrix(folder, "diff")
    assert "no success" not in matrix(folder, "report")
    assert "no success: 2 cells regressed" in matrix(folder, "report", "--fail-on-regressed")
    assert "What changed since" in (folder / "reports" / "matrix.md").read_text()
    assert "run again" not in matrix(folder, "run")
    next_night(folder, "fail", "fail")
    assert "run again" not in matrix(folder, "run")  # as bad as before is no regression
    assert len(loads(folder)) == 2 + 2 + 2 * 3 + 2


def test_trouble_of_the_machine_confirms_nothing(folder: Path) -> None:
    next_night(folder, "fail", "works", "full")
    output = matrix(folder, "run")
    assert f"{OLD} could not be run again: broken, as it came out once" in output
    assert "is flaky" not in output
    assert "came out the same" not in output


def test_nox_runs_regressions_again_before_its_report(folder: Path) -> None:
    next_night(folder, "fail")
    output = matrix(folder, "-s", "matrix", "-j", "2", module="nox")
    assert "is flaky: works when it was run again, broken before" in output
    assert sum(cell.get("flaky", False) for cell in cells(folder).values()) == 1


def test_so_many_are_run_again_and_no_more() -> None:
    groups = [[f"{group}-{number}" for number in range(12)] for group in range(5)]
    assert chosen(groups[:2]) == [*groups[0][:10], *groups[1][:10]]
    assert chosen(groups) == [*groups[0][:10], *groups[1][:10], *groups[2][:10]]


@pytest.mark.parametrize(
    "option",
    [["*"], ["--environment", "builder"], ["--canaries"], ["--install-only"], ["--minutes", "0"],
     ["--reports", "r"]],
)  # fmt: skip
def test_regressions_take_no_other_option(option: list[str], tmp_path: Path) -> None:
    names = ["--spec", str(SPEC), "--profile", "engines", "--store", str(tmp_path / "store")]
    done = CliRunner().invoke(app, ["run", "--regressions", *names, *option])
    assert done.exit_code == 2
    assert done.stderr.startswith("error: --regressions chooses cells by itself")
    assert done.stderr.count("\n") == 1
