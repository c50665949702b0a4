"""A new step between inspect and load touches its definition, its performer and its check only.

Done as somebody would: three edits in a copy of the package, and a run of made-up packages.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from matrix.spec.loading import PACKAGE
from tests.provoked.runs import SPEC

CELL = "made-up/float/none/plain+good"

DEFINITION = (
    ('    INSPECT = "inspect"\n', '    INSPECT = "inspect"\n    WEIGH = "weigh"\n'),
    (
        "    *_environment(\n        RoleKind.ENGINE,",
        "    Definition(\n        Step.WEIGH, RoleKind.QUANTIZER, SubjectKind.CHECKPOINT,\n"
        "        Performer.HARNESS, Stage.WEIGH, Blame.CHECKPOINT, code='run',\n    ),\n"
        "    *_environment(\n        RoleKind.ENGINE,",
    ),
)
PERFORMER = (
    (
        "    Step.INSPECT: inspecting.inspect,\n",
        "    Step.INSPECT: inspecting.inspect,\n"
        "    Step.WEIGH: lambda workspace, step, key: workspace.keep(\n"
        "        key, Conclusion(*ENDS[os.environ['WEIGH']]), End(), facts=RENAMED\n    ),\n",
    ),
    (
        "from matrix.run.workspace import Workspace\n",
        "from matrix.run.workspace import Workspace\nimport os\n"
        "from matrix.pipeline.outcomes import Conclusion, Outcome, Reason\n"
        "from matrix.pipeline.ends import End\n"
        "RENAMED = {'renamed': 1}\n"
        "ENDS = {'passes': (Outcome.PASSED,),\n"
        "        'fails': (Outcome.FAILED, Reason.EXCEPTION, 'no such tensor')}\n",
    ),
)
CHECK = (
    (
        "def run_checks(",
        "def weighed(evidence: Evidence) -> Opinion:\n"
        '    """Every tensor has its name."""\n'
        "    renamed = evidence.facts.get(Stage.WEIGH, {}).get('renamed')\n"
        "    judgement = Judgement.PASSED if renamed == 1 else Judgement.NOT_APPLICABLE\n"
        "    return Opinion(judgement)\n\n\n"
        "CHECKS = (*CHECKS, Check('weighed', Stage.WEIGH, weighed))\n\n\ndef run_checks(",
    ),
)


def edit(file: Path, *changes: tuple[str, str]) -> None:
    text = file.read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text, f"{file.name} has no {old!r}"
        text = text.replace(old, new)
    file.write_text(text, encoding="utf-8")


DECODING = """
import sys, msgspec
from pathlib import Path
from matrix.judge.document import decode
table = decode(Path("reports/matrix.json").read_bytes())
sys.stdout.buffer.write(msgspec.json.encode(table))
"""
"""By the copy: this process knows no such step."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with a copy of the package that has one more step."""
    folder = tmp_path_factory.mktemp("one-more-step")
    copied = folder / "matrix"
    shutil.copytree(PACKAGE, copied, ignore=shutil.ignore_patterns("__pycache__"))
    edit(copied / "pipeline" / "steps.py", *DEFINITION)
    edit(copied / "run" / "performers.py", *PERFORMER)
    edit(copied / "checks" / "__init__.py", *CHECK)
    return folder


def run(folder: Path, command: str, *options: str, ending: str, status: int = 0) -> str:
    environ = {**os.environ, "PYTHONPATH": str(folder), "WEIGH": ending}
    ended = subprocess.run(
        [sys.executable, "-m", "matrix", command, "--spec", SPEC, "--profile", "engines",
         "--store", folder / ending, *options],
        env=environ, cwd=folder, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert ended.returncode == status, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def reported(folder: Path, ending: str) -> dict[str, Any]:
    run(folder, "report", "--reports", str(folder / "reports"), ending=ending)
    decoded = subprocess.run(
        [sys.executable, "-c", DECODING], env={**os.environ, "PYTHONPATH": str(folder)}, cwd=folder,
        capture_output=True, timeout=300, check=True,
    )  # fmt: skip
    table = json.loads(decoded.stdout)
    cell: dict[str, Any] = next(cell for cell in table["cells"] if cell["id"] == CELL)
    return cell


def test_it_is_planned_keyed_performed_checked_and_reported(folder: Path) -> None:
    output = run(folder, "run", "--cell", CELL, ending="passes")
    assert "what to do" not in output
    assert f"weigh {CELL.rpartition('/')[0]}: passed" in output
    cell = reported(folder, "passes")
    stages = {stage["stage"]: stage["outcome"] for stage in cell["stages"]}
    assert list(stages)[4:6] == ["inspect", "weigh"]
    assert set(stages.values()) == {"passed"}
    assert cell["verdict"] == "works"
    assert ("weighed", "passed") in [(f["check"], f["judgement"]) for f in cell["findings"]]
    assert "this cell is done" in run(folder, "run", "--cell", CELL, ending="passes")


def test_what_it_refuses_is_given_to_no_engine(folder: Path) -> None:
    output = run(folder, "run", "--cell", CELL, ending="fails", status=1)
    assert "  what to do: use versions that worked together; `" in output
    assert " specifiers --spec " in output
    cell = reported(folder, "fails")
    stages = {stage["stage"]: stage["outcome"] for stage in cell["stages"]}
    assert (stages["weigh"], stages["load"]) == ("failed", "blocked")
    assert (cell["verdict"], cell["blame"], cell["stage"]) == ("broken", "checkpoint", "weigh")
    assert "no such tensor" in cell["message"]
