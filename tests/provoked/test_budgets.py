"""A budget of minutes over made-up packages: the right cells first, and the next run goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from matrix.store.store import Store
from tests import REPOSITORY
from tests.provoked.runs import SPEC

OLD = "made-up/float/none/engine-1.1.1"
NEW = "made-up/float/none/engine-2.0.0"
RELEASES = """
{"schema": 1, "asked": "2026-01-01T00:00:00Z", "packages": {"iniconfig": [
  {"version": "1.1.1", "uploaded": "2020-10-14T10:20:18Z", "wheels": ["py2.py3-none-any"]},
  {"version": "2.0.0", "uploaded": "2023-01-07T11:08:09Z", "wheels": ["py3-none-any"]}]}}
"""
# A cell takes a minute by the constants, and nothing else takes any time.
DEVICE = """{ import_seconds = 0, quantize_seconds = 0, load_seconds = 60,
 quantize_seconds_per_billion = { awq = 0 }, load_seconds_per_billion = 0, generate_seconds = 0 }
""".replace("\n", "")
SECTIONS = f"""
[predictions]
download_mb_per_second = 1000
unpacked = 1
torch_mb = 0
packages_mb = 0
resolve_seconds = 0
install_seconds = 0
source_build_seconds = 0
build_seconds = 0
inspect_seconds_per_gb = 0
cpu = {DEVICE}
cuda = {DEVICE}

[[environments]]
name = "builder"
requirements = ["iniconfig==2.0.0"]

[[environments]]
name = "engine-{{version}}"
axes.version = ["1.1.1", "2.0.0"]
requirements = ["iniconfig=={{version}}"]

[models.made-up]
environment = "builder"
adapter = "./builder.py"
tied = true

[schemes.awq]
format = "awq"
bits = 4
group_size = 64

[[quantizers]]
environments = "builder"
adapter = "./turning.py"

[[engines]]
environments = "engine-*"
adapter = "./turning.py"
options = {{ broken = "BROKEN" }}

[profiles.all]
title = "A model in two releases of an engine"
models = ["made-up"]
schemes = []
quantizers = ["none"]
engines = ["engine-*"]
"""
TURNING = """
import json
from pathlib import Path

def import_package(options):
    pass

def load(job):
    if Path(job["options"]["broken"]).exists():
        raise ValueError("it works no more")
    return job, {"kernel": "made-up", "kernels": {}}

def generate(handle, job):
    return json.loads(Path(job["checkpoint"], "answers.json").read_text())
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the spec, its adapters and its snapshot of the index."""
    head = SPEC.read_text().partition("# What is made up")[0]
    broken = str(tmp_path / "broken")
    (tmp_path / "spec.toml").write_text(head + SECTIONS.replace("BROKEN", broken))
    (tmp_path / "turning.py").write_text(TURNING)
    (tmp_path / "builder.py").write_bytes((SPEC.parent / "builder.py").read_bytes())
    (tmp_path / "releases.json").write_text(RELEASES)
    return tmp_path


def matrix(folder: Path, *arguments: str, **variables: str) -> str:
    environ = {
        **os.environ, **variables, "MATRIX_SPEC": str(folder / "spec.toml"),
        "MATRIX_PROFILE": "all", "MATRIX_STORE": str(folder / "store"),
        "MATRIX_REPORTS": str(folder / "reports"),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=REPOSITORY, env=environ, text=True, timeout=600,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


def loaded(folder: Path) -> list[str]:
    """Return the cells that were loaded, in order."""
    return [r.subject for r in Store(folder / "store").records() if r.step == "load"]


def test_a_minute_goes_to_the_newest_release_and_the_next_to_what_is_left(folder: Path) -> None:
    output = matrix(folder, "matrix", "run", "--minutes", "1")
    assert loaded(folder) == [NEW]
    assert "budget of 1 minutes: 1 cell (1 new) chosen, 1.0 minutes" in output
    assert "left out because of the budget: 1 cell (1 new)" in output
    assert not (folder / "store" / "environments" / "engine-1.1.1").exists()
    # What was timed takes the place of the minute, so that the settled one fits in again as well.
    output = matrix(folder, "matrix", "run", "--minutes", "1")
    assert "2 cells (1 new, 1 re-check) chosen" in output
    assert "left out because of the budget: no cell" in output
    assert sorted(loaded(folder)) == [OLD, NEW, NEW]
    assert "checked again" not in output  # it came out the same


def test_what_comes_out_otherwise_when_it_is_checked_again_is_told(folder: Path) -> None:
    matrix(folder, "matrix", "run")
    again = matrix(folder, "matrix", "run")
    assert "load" not in again  # without a budget, nothing that is settled is repeated
    (folder / "broken").touch()
    output = matrix(folder, "matrix", "run", "--minutes", "5")
    for cell in (OLD, NEW):
        assert f"checked again, {cell} is broken and was works, with the same inputs" in output
    outcomes = [r.outcome for r in Store(folder / "store").records() if r.step == "load"]
    assert sorted(outcomes) == ["failed", "failed", "passed", "passed"]


def test_a_budget_that_buys_nothing_starts_nothing(folder: Path) -> None:
    output = matrix(folder, "matrix", "run", "--minutes", "0.5")
    assert "no cell chosen" in output
    assert not (folder / "store" / "environments").exists()


def test_nox_chooses_once_for_all_sessions_and_says_what_was_left_out(folder: Path) -> None:
    output = matrix(folder, "nox", "-s", "matrix", "-j", "2", MATRIX_MINUTES="1")
    assert loaded(folder) == [NEW]
    assert "left out because of the budget: 1 cell (1 new)" in output
    assert "2 cells in profile all" in output  # the report shows all cells
    assert "engine-1.1.1" not in output.partition("2 cells in profile all")[0]
    assert list((folder / "store" / "work").iterdir()) == []
    output = matrix(folder, "nox", "-s", "matrix", "-j", "2", MATRIX_MINUTES="1")
    assert sorted(loaded(folder)) == [OLD, NEW, NEW]
    assert "✓ 2 works" in output


def test_a_budget_that_is_no_number_is_refused_in_a_line(folder: Path) -> None:
    with pytest.raises(AssertionError, match="MATRIX_DISK: 'all' is no amount"):
        matrix(folder, "nox", "-s", "matrix", MATRIX_DISK="all")
