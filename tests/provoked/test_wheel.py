"""The wheel in an environment of its own, used from a folder that is no checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from uv import find_uv_bin

from matrix.environments.uv import uv_settings
from matrix.judge.document import decode
from tests import REPOSITORY
from tests.provoked.runs import SPEC

CELL = "made-up/float/none/plain+good"
CHECKPOINTS = REPOSITORY / "tests" / "checkpoints"
SOURCES = ("pyproject.toml", "README.md", "LICENSE")
SHADOWS = ("matrix", "runpy", "numpy", "typer", "json")
"""Modules that a checkpoint may bring along, for whoever imports from the working directory."""


def uv(*arguments: str | Path) -> None:
    environ = os.environ | uv_settings(os.environ, installing=True)
    command = [find_uv_bin(), *map(str, arguments)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a wheel. It is built of a copy, as what a build leaves beside the sources, the next
    one packs."""
    folder = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        shutil.copy(REPOSITORY / name, folder)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(REPOSITORY / "matrix", folder / "matrix", ignore=ignored)
    uv("build", "--wheel", "--python", sys.executable, folder)
    (built,) = (folder / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def command(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the command ``matrix`` of an environment that holds the wheel and what it requires."""
    environment = tmp_path_factory.mktemp("environment") / "venv"
    uv("venv", "--python", sys.executable, environment)
    uv("pip", "install", "--python", environment / "bin" / "python", wheel)
    return environment / "bin" / "matrix"


def matrix(command: Path, folder: Path, *arguments: str | Path) -> str:
    """Run the command in a folder, where it is on the ``PATH``; return what it printed."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MATRIX_")}
    environ["PATH"] = f"{command.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["matrix", *map(str, arguments)], cwd=folder, env=environ, timeout=600,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def files_below(folder: Path) -> set[str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)) for path in paths if "__pycache__" not in path.parts}


def test_all_that_the_package_holds_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    packed = {name.removeprefix("matrix/") for name in names if name.startswith("matrix/")}
    assert packed == files_below(REPOSITORY / "matrix")
    assert {"py.typed", "spec/project/releases.json"} <= packed
    (licence,) = [name for name in names if name.endswith("/LICENSE")]
    assert names - {f"matrix/{name}" for name in packed} - {licence} == {
        f"{Path(licence).parents[1]}/{name}"
        for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "top_level.txt")
    }


def test_a_plan_of_the_specs_own_profile_is_made_anywhere(command: Path, tmp_path: Path) -> None:
    plan = json.loads(matrix(command, tmp_path, "plan", "--profile", "smoke", "--format", "json"))
    assert len(plan["cells"]) == 4
    assert list(tmp_path.iterdir()) == []


def test_checkpoints_are_inspected_from_anywhere(command: Path, tmp_path: Path) -> None:
    sound, original = CHECKPOINTS / "autoawq-0.2.9-4bit-g64", CHECKPOINTS / "float" / "model"
    assert matrix(command, tmp_path, "inspect", sound, "--original", original).startswith(
        "sound: nothing is wrong with it"
    )


def test_nothing_of_a_checkpoint_that_one_stands_in_is_imported(
    command: Path, tmp_path: Path
) -> None:
    """``python -m matrix`` would run a folder of that name, and read a ``runpy.py``."""
    sound = CHECKPOINTS / "autoawq-0.2.9-4bit-g64"
    checkpoint = Path(shutil.copytree(sound, tmp_path / "checkpoint"))
    mark = tmp_path / "imported"
    code = f"open({str(mark)!r}, 'a').write(__name__ + '\\n')\n"
    for name in SHADOWS:
        (checkpoint / f"{name}.py").write_text(code)
    (checkpoint / "matrix").mkdir()
    for name in ("__init__", "__main__"):
        (checkpoint / "matrix" / f"{name}.py").write_text(code)
    assert matrix(command, checkpoint, "inspect", ".").startswith("sound: no fault")
    assert not mark.exists(), mark.read_text()


def test_a_run_and_its_report_leave_all_they_make_in_the_working_directory(
    command: Path, tmp_path: Path
) -> None:
    options = ("--spec", SPEC, "--profile", "engines")
    installed = command.parents[1]
    before = files_below(installed)
    matrix(command, tmp_path, "run", *options, "--cell", CELL)
    assert "report: reports/index.html" in matrix(command, tmp_path, "report", *options)
    assert {path.name for path in tmp_path.iterdir()} == {".matrix", "reports"}
    assert files_below(installed) == before
    table = decode((tmp_path / "reports" / "matrix.json").read_bytes())
    (cell,) = [cell for cell in table.cells if cell.id == CELL]
    assert cell.verdict == "works"
    assert cell.command == f"matrix run --spec {SPEC} --profile engines --cell {CELL}"
    assert str(installed) not in (tmp_path / "reports" / "index.html").read_text()
