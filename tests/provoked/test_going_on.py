"""A run over made-up packages: what comes first, what it says of itself, what can be taken back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from matrix.store.store import Store
from tests import REPOSITORY
from tests.provoked.runs import SPEC

CANARY = "made-up/awq/maker-2/engine-2"
TWIN = "made-up/float/none/engine-2"
OTHERS = {
    "made-up/awq/maker-1/engine-1", "made-up/awq/maker-1/engine-2", "made-up/awq/maker-2/engine-1",
    "made-up/float/none/engine-1",
}  # fmt: skip
CHECKED_HASH = (3).to_bytes(4, "little")
"""Flags in bytecode that holds for one text of its source alone (PEP 552)."""
SECTIONS = """
[[environments]]
name = "builder"
requirements = ["iniconfig==2.0.0"]

[[environments]]
name = "maker-{maker}"
axes.maker = ["1", "2"]
requirements = ["iniconfig==2.0.0"]
constraints = ["packaging>={maker}"]   # or all would be one environment under several names

[[environments]]
name = "engine-{engine}"
axes.engine = ["1", "2"]
requirements = ["iniconfig==2.0.0"]
constraints = ["packaging>=1{engine}"]

[models.made-up]
environment = "builder"
adapter = "./turning.py"
tied = true
recipe = { folder = "FOLDER" }

[schemes.awq]
format = "awq"
bits = 4
group_size = 64

[[quantizers]]
environments = "maker-*"
adapter = "./turning.py"
options = { folder = "FOLDER" }

[[engines]]
environments = "engine-*"
adapter = "./turning.py"
options = { folder = "FOLDER" }

[profiles.all]
title = "A model by two quantizers in two engines"
models = ["made-up"]
schemes = ["awq"]
quantizers = ["none", "maker-*"]
engines = ["engine-*"]

[profiles.all.canaries]
"made-up/awq/maker-2/engine-2" = "degraded"
"""
TURNING = """
import json, shutil, sys
from pathlib import Path

from . import builder

def import_package(options):
    pass

def build(job):
    if Path(job["recipe"]["folder"], "no-more").exists():
        raise ValueError("it cannot be built any more")
    return builder.build(job)

def quantize(job):
    shutil.copytree(job["model"], job["output"])
    return {}

def load(job):
    report = Path(job["options"]["folder"], "reports", "matrix.json")
    copied = Path.home() / "report.json"
    if sys.prefix.endswith("engine-1") and report.exists() and not copied.exists():
        shutil.copy(report, copied)
    return job, {"kernel": "made-up", "kernels": {}}

def generate(handle, job):
    return json.loads(Path(job["checkpoint"], "answers.json").read_text())
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the spec and its adapters."""
    head = SPEC.read_text().partition("[[environments]]")[0]
    (tmp_path / "spec.toml").write_text(head + SECTIONS.replace("FOLDER", str(tmp_path)))
    (tmp_path / "turning.py").write_text(TURNING)
    (tmp_path / "builder.py").write_bytes((SPEC.parent / "builder.py").read_bytes())
    return tmp_path


def change(folder: Path, old: str, new: str) -> None:
    text = (folder / "spec.toml").read_text()
    assert old in text
    (folder / "spec.toml").write_text(text.replace(old, new, 1))


def command(folder: Path, *arguments: str, status: int = 0) -> str:
    """Run a module on the folder's spec, store and reports; return all that it prints."""
    environ = {
        **os.environ, "MATRIX_SPEC": str(folder / "spec.toml"), "MATRIX_PROFILE": "all",
        "MATRIX_STORE": str(folder / "store"), "MATRIX_REPORTS": str(folder / "reports"),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=REPOSITORY, env=environ, text=True, timeout=600,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    assert done.returncode == status, done.stdout
    return done.stdout


def performed(folder: Path, step: str) -> list[str]:
    """Return what a step was performed on, in order."""
    return [r.subject for r in Store(folder / "store").records() if r.step == step]


def report(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "reports" / "matrix.json").read_text())
    return document


def verdicts(folder: Path) -> dict[str, str]:
    return {cell["id"]: cell["verdict"] for cell in report(folder)["cells"]}


def contents(folder: Path, *names: str) -> dict[str, bytes]:
    """Return every file below some folders of the store."""
    root = folder / "store"
    files = [file for name in names for file in (root / name).rglob("*") if file.is_file()]
    return {str(file.relative_to(root)): file.read_bytes() for file in files}


def test_a_run_does_the_canaries_before_all_others(folder: Path) -> None:
    output = command(folder, "matrix", "run", "--reports", str(folder / "reports"))
    assert "profile all: 6 of 6 cells are to be done" in output.splitlines()[0]
    assert performed(folder, "quantize") == ["made-up/awq/maker-2", "made-up/awq/maker-1"]
    loaded = performed(folder, "load")
    assert set(loaded[:2]) == {TWIN, CANARY}
    assert sorted(loaded[2:]) == sorted(OTHERS)
    assert report(folder)["going_on"] == ""
    assert not {"infra", "not run"} & set(verdicts(folder).values())


def test_nox_reports_the_canaries_first_and_says_that_the_run_goes_on_until_it_is_over(
    folder: Path,
) -> None:
    output = command(folder, "nox", "-s", "matrix", "-j", "1")
    assert "profile all: 6 of 6 cells are to be done" in output.splitlines()[0]
    loaded = performed(folder, "load")
    assert set(loaded[:2]) == {TWIN, CANARY}
    assert sorted(loaded[2:]) == sorted(OTHERS)
    copied = folder / "store" / "environments" / "engine-1" / "home" / "report.json"
    document = json.loads(copied.read_text())  # by the first load after the canaries
    assert document["going_on"].startswith("2 of 6 cells were done when this was written")
    assert document["canaries"] == "established"
    by_name = {cell["id"]: cell["verdict"] for cell in document["cells"]}
    assert by_name[CANARY] == "degraded"
    assert {by_name[cell] for cell in OTHERS} == {"not run"}
    assert report(folder)["going_on"] == ""
    assert not {"infra", "not run"} & set(verdicts(folder).values())


def test_side_by_side_the_canaries_come_first_as_well(folder: Path) -> None:
    command(folder, "nox", "-s", "matrix", "-j", "2")
    quantized = performed(folder, "quantize")
    assert quantized[0] == "made-up/awq/maker-2"
    assert len(quantized) == 2
    assert len(performed(folder, "load")) == 6
    assert report(folder)["going_on"] == ""


def test_installing_passes_over_what_somebody_works_on_and_does_nothing_else(folder: Path) -> None:
    (folder / "store" / "environments").mkdir(parents=True)
    with FileLock(folder / "store" / "environments" / "maker-1.lock"):
        command(folder, "matrix", "run", "--install-only")
    assert performed(folder, "install") == ["builder", "maker-2", "engine-1", "engine-2"]
    assert performed(folder, "import") == []
    command(folder, "matrix", "run", "--install-only")
    assert performed(folder, "install")[4:] == ["maker-1"]


def test_what_was_installed_before_still_gets_the_bytecode_that_others_made(folder: Path) -> None:
    (folder / "turning.py").write_text(TURNING.replace("    pass\n", "    import iniconfig\n"))
    command(folder, "matrix", "run", "--install-only")
    command(folder, "matrix", "run")
    own = "home/pycache/**/site-packages/iniconfig/__init__.*.pyc"
    compiled = list((folder / "store" / "environments").glob(f"*/{own}"))
    assert len(compiled) == 5
    checked = [file for file in compiled if file.read_bytes()[4:8] == CHECKED_HASH]
    assert len(checked) == 4, "all but the first have what we compiled"


def test_an_environment_whose_files_changed_is_made_again_and_said_to_be(folder: Path) -> None:
    store = folder / "store"
    command(folder, "matrix", "run")
    (site,) = store.glob("environments/engine-1/lib/*/site-packages")
    (site / "left.pth").write_text("import this\n")
    for observation in store.glob("observations/load/*.json"):
        observation.unlink()
    output = command(folder, "matrix", "run")
    assert "engine-1: its files changed since it was installed, so it is made again" in output
    assert output.count("its files changed") == 1
    assert not (site / "left.pth").exists()


@pytest.mark.parametrize(("module", "status"), [("nox", 1), ("matrix", 2)])
def test_a_disk_that_is_too_small_ends_it_before_uv_is_asked(
    folder: Path, module: str, status: int
) -> None:
    change(folder, "torch_mb = 0", "torch_mb = 1e12")
    arguments = ["-s", "matrix"] if module == "nox" else ["run"]
    output = command(folder, module, *arguments, status=status)
    assert str(folder / "store") in output
    assert "GB are predicted to be needed and" in output
    for remedy in ("matrix clean", "MATRIX_STORE", "UV_CACHE_DIR", "MATRIX_PROFILE", "MATRIX_DISK"):
        assert remedy in output
    assert not (folder / "store" / "environments").exists()
    assert not (folder / "store" / "observations").exists()


# ------------------------------------------------------------------------------------------ clean
EVIDENCE = ("observations", "records", "suites", "locks")


def pages_of(folder: Path) -> dict[str, bytes]:
    """Return the files of the report, its locks among them."""
    files = [file for file in (folder / "reports").rglob("*") if file.is_file()]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def test_what_is_taken_back_is_no_evidence_and_nothing_is_made_again(folder: Path) -> None:
    command(folder, "nox", "-s", "matrix", "-j", "1")
    pages = pages_of(folder)
    evidence = contents(folder, *EVIDENCE)
    offered = command(folder, "matrix", "clean")
    assert "Nothing was removed" in offered
    assert "all 5 environments" in offered
    assert "uv cache" in offered
    output = command(folder, "matrix", "clean", "--all")
    assert "MB freed" in output
    assert " 0.0 MB freed" not in output
    store = folder / "store"
    for pattern in ("environments/*/bin", "models/*/model", "checkpoints/*/checkpoint"):
        assert list(store.glob(pattern)) == []
    assert contents(folder, *EVIDENCE) == evidence
    command(folder, "matrix", "report")
    assert pages_of(folder) == pages
    (done,) = command(folder, "matrix", "run").splitlines()
    assert done.startswith("profile all is done: ")
    again = command(folder, "nox", "-s", "matrix", "-j", "1")
    assert "Running session engine-1" not in again
    assert contents(folder, *EVIDENCE) == evidence
    assert list(store.glob("environments/*/bin")) == []


def test_a_new_engine_has_the_checkpoints_made_again_and_no_verdict_changes(folder: Path) -> None:
    command(folder, "matrix", "run")
    command(folder, "matrix", "report")
    before = verdicts(folder)
    command(folder, "matrix", "clean", "--all")
    change(folder, 'axes.engine = ["1", "2"]', 'axes.engine = ["1", "2", "3"]')
    command(folder, "nox", "-s", "matrix", "-j", "2")
    after = verdicts(folder)
    assert {cell: after[cell] for cell in before} == before
    assert after["made-up/awq/maker-1/engine-3"] == "degraded"
    assert after["made-up/float/none/engine-3"] == "works"
    loaded = performed(folder, "load")
    assert all(cell.endswith("engine-3") for cell in loaded[6:])
    assert len(loaded) == 9
    assert performed(folder, "build") == ["made-up", "made-up"]


def test_a_model_that_cannot_be_made_again_costs_no_verdict(folder: Path) -> None:
    command(folder, "matrix", "run")
    command(folder, "matrix", "report")
    before = verdicts(folder)
    command(folder, "matrix", "clean", "--checkpoints")
    (folder / "no-more").touch()
    change(folder, 'axes.engine = ["1", "2"]', 'axes.engine = ["1", "2", "3"]')
    output = command(folder, "matrix", "run", status=2)
    assert "build made-up: not made again: " in output
    assert "3 of 9 cells have no answer (not run); the same command tries them again" in output
    assert "it cannot be built any more" in output
    command(folder, "matrix", "report")
    after = verdicts(folder)
    assert {cell: after[cell] for cell in before} == before
    assert {after[cell] for cell in after.keys() - before.keys()} == {"not run"}
    (folder / "no-more").unlink()
    command(folder, "matrix", "run")
    command(folder, "matrix", "report")
    assert verdicts(folder)["made-up/float/none/engine-3"] == "works"


def test_environments_that_no_profile_names_are_taken_back_and_the_others_kept(
    folder: Path,
) -> None:
    command(folder, "matrix", "run")
    assert not (folder / "reports").exists()
    change(folder, 'axes.engine = ["1", "2"]', 'axes.engine = ["2"]')
    assert "1 environments that no profile names" in command(folder, "matrix", "clean")
    command(folder, "matrix", "clean", "--environments")
    built = {file.parent.name for file in (folder / "store" / "environments").glob("*/bin")}
    assert built == {"builder", "maker-1", "maker-2", "engine-2"}


def test_nothing_is_taken_back_while_a_run_goes_on(folder: Path) -> None:
    command(folder, "matrix", "run", "--environment", "builder")
    before = contents(folder, "models")
    with Store(folder / "store").use():
        output = command(folder, "matrix", "clean", "--all", status=2)
    assert "a run uses" in output
    assert contents(folder, "models") == before
    shutil.rmtree(folder / "reports", ignore_errors=True)
    command(folder, "matrix", "clean", "--all")
    assert contents(folder, "models") != before
