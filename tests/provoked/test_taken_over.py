"""What packages leave is taken over or refused in a line; what is damaged later is made again."""

from __future__ import annotations

from pathlib import Path

import pytest

from matrix.judge.results import CellResult
from matrix.pipeline.outcomes import Reason, Verdict
from matrix.run.verifying import damages
from tests.provoked.made_up import builder
from tests.provoked.runs import Finished, perform
from tests.provoked.test_going_on import TURNING, folder, performed

__all__ = ["folder"]
CELL = "made-up/awq/maker-1/engine-2"
COPIED = 'shutil.copytree(job["model"], job["output"])'


def run(folder: Path, cell: str | None = None) -> Finished:
    return perform("all", folder / "store", cell=cell, spec=folder / "spec.toml")


@pytest.mark.parametrize(
    ("left", "message"),
    [
        ('Path(job["output"], "a").symlink_to("/etc/passwd")', "output/a is a link"),
        ('os.mkfifo(job["output"] + "/a")', "output/a is neither a file nor a folder"),
        ('os.link(job["output"] + "/config.json", job["output"] + "/a")', "has a second name"),
        ('Path(job["output"], "a\\nb").touch()', "b has a name that is no plain text"),
        ('os.truncate(os.open(job["output"] + "/a", 66), 2**40)', "more than a model of this size"),
    ],
)
def test_what_is_not_taken_over_is_the_quantizers_failure(
    folder: Path, left: str, message: str
) -> None:
    hostile = TURNING.replace(COPIED, f"{COPIED}\n    {left}").replace(
        "import json", "import os, json"
    )
    (folder / "turning.py").write_text(hostile)
    cell: CellResult = run(folder, CELL).cell(CELL)
    assert (cell.verdict, cell.reason, cell.stage) == (Verdict.BROKEN, Reason.NO_RESULT, "quantize")
    assert message in cell.message
    assert list((folder / "store").glob("checkpoints/*")) == []
    assert list((folder / "store" / "work").iterdir()) == []


MOVED = """
    work, bait = Path(job["output"]).parent, Path(job["options"]["folder"], "bait")
    work.rename(work.with_name("moved"))
    work.symlink_to(bait)
"""
LED_AWAY = """
    Path(job["output"]).symlink_to(Path(job["recipe"]["folder"], "bait"))
    return {}
"""


def test_a_link_in_the_place_of_a_jobs_folder_leads_nowhere(folder: Path) -> None:
    bait = folder / "bait" / "output"
    bait.mkdir(parents=True)
    (bait / "file").write_text("of the user")
    (folder / "turning.py").write_text(TURNING.replace(COPIED, f"{COPIED}{MOVED}"))
    cell = run(folder, CELL).cell(CELL)
    assert (cell.verdict, cell.stage) == (Verdict.BROKEN, "quantize")
    assert (bait / "file").read_text() == "of the user"
    assert list((folder / "store" / "work").iterdir()) == []


def test_a_link_in_the_place_of_an_output_is_refused(folder: Path) -> None:
    bait = folder / "bait"
    builder.build({"output": str(bait), "recipe": {"tie_word_embeddings": True}})
    files = {file: file.read_bytes() for file in bait.rglob("*") if file.is_file()}
    building = "    return builder.build(job)\n"
    (folder / "turning.py").write_text(TURNING.replace(building, LED_AWAY))
    cell = run(folder, CELL).cell(CELL)
    assert cell.reason is Reason.NO_RESULT
    assert "output is a link or no folder" in cell.message
    assert {file: file.read_bytes() for file in bait.rglob("*") if file.is_file()} == files
    assert list((folder / "store").glob("models/*")) == []


def test_a_damaged_checkpoint_is_named_once_and_made_again(folder: Path) -> None:
    first = run(folder, CELL).cell(CELL)
    assert not list(damages(folder / "store"))
    (file,) = (folder / "store").glob("checkpoints/*/checkpoint/answers.json")
    whole = file.read_bytes()
    file.write_bytes(whole[:-2] + b"!" + whole[-1:])
    again = run(folder, CELL)  # and other cells want it still
    assert len([line for line in again.told if "is not what was written" in line]) == 1
    assert performed(folder, "quantize") == ["made-up/awq/maker-1"] * 2
    assert again.cell(CELL).verdict == first.verdict
    assert not list(damages(folder / "store"))
