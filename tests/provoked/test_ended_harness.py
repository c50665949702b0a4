"""What ends the harness, or what it stumbles over, keeps the rest of a run back at most thrice."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from matrix.pipeline.outcomes import Outcome, Reason, Verdict
from matrix.pipeline.steps import Step
from matrix.run import roles
from matrix.run.answers import keep_answer
from matrix.run.guarding import ENDS
from matrix.store.store import Store
from tests.provoked.runs import perform
from tests.provoked.test_going_on import TURNING, command, folder, report, verdicts

__all__ = ["folder"]
STRICKEN = "made-up/awq/maker-1/engine-1"
KILLING = (
    TURNING.replace("import json,", "import json, os, time,")
    .replace(
        'shutil.copytree(job["model"], job["output"])',
        """shutil.copytree(job["model"], job["output"])
    if sys.prefix.endswith("maker-1"):
        Path(job["output"], "deadly").touch()""",
    )
    .replace(
        "def load(job):",
        """def kill_harness():
    number = os.getpid()
    while b"run" not in Path(f"/proc/{number}/cmdline").read_bytes().split(b"\\0"):
        number = int(Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(number, 9)
    time.sleep(600)

def load(job):
    is_deadly = Path(job["options"]["folder"], "killing").exists()
    if is_deadly and sys.prefix.endswith("engine-1") and Path(job["checkpoint"], "deadly").exists():
        kill_harness()""",
    )
)


def test_a_step_that_ends_the_harness_is_passed_over_the_fourth_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MATRIX_SANDBOX", "off")  # in which no package reaches the harness
    (folder / "turning.py").write_text(KILLING)
    (folder / "killing").touch()
    for _ in range(ENDS):
        command(folder, "matrix", "run", status=-signal.SIGKILL)
    output = command(folder, "matrix", "run", status=2)
    assert f"{ENDS} runs ended in this step without a word" in output
    command(folder, "matrix", "report")
    told = verdicts(folder)
    assert told.pop(STRICKEN) == Verdict.INFRA
    assert not {"infra", "not run", "broken"} & set(told.values())
    (cell,) = [cell for cell in report(folder)["cells"] if cell["id"] == STRICKEN]
    assert "it is passed over: `matrix run CELL`" in cell["message"]
    again = command(folder, "matrix", "run", status=2)
    assert "1 of 6 cells have no answer (infra)" in again
    kept = [r for r in Store(folder / "store").records() if r.outcome == Outcome.INFRA]
    assert len(kept) == 1, "it is kept once"
    (folder / "killing").unlink()
    command(folder, "matrix", "run", STRICKEN, status=1)
    command(folder, "matrix", "report")
    assert verdicts(folder)[STRICKEN] == Verdict.DEGRADED
    assert not [file for file in (folder / "store" / "begun").rglob("*") if file.is_file()]


def test_an_answer_over_which_the_harness_stumbles_costs_its_own_cell_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(*arguments: Any, **words: Any) -> object:
        job, answer = arguments[1:3]
        if answer.step is Step.GENERATE and job.label.endswith(STRICKEN):
            raise RecursionError("maximum recursion depth exceeded")
        return keep_answer(*arguments, **words)

    monkeypatch.setattr(roles, "keep_answer", stumble)
    finished = perform("all", folder / "store", spec=folder / "spec.toml")
    cell = finished.cells.pop(STRICKEN)
    assert (cell.verdict, cell.reason) == (Verdict.INFRA, Reason.EXCEPTION)
    assert "RecursionError: maximum recursion depth exceeded" in cell.message
    assert any("the harness could not do it" in line for line in finished.told)
    assert {other.verdict for other in finished.cells.values()} <= {
        Verdict.WORKS, Verdict.DEGRADED, Verdict.GARBAGE,
    }  # fmt: skip
    monkeypatch.undo()
    again = perform("all", folder / "store", spec=folder / "spec.toml")
    assert not [line for line in again.told if "harness" in line]
    assert again.cell(STRICKEN).verdict is Verdict.DEGRADED
