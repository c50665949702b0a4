"""How a report says that the program is started: as it really is, on this machine and on others."""

from __future__ import annotations

from pathlib import Path

import pytest

from matrix.machine.invocation import invocation


def environment(folder: Path, *, installed: bool) -> Path:
    """Make an environment's programs in a folder; return its interpreter."""
    programs = folder / "bin"
    programs.mkdir(parents=True)
    for name in ("python", "matrix") if installed else ("python",):
        (programs / name).touch(mode=0o755)
    return programs / "python"


def test_a_command_on_the_path_is_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = environment(tmp_path / "venv", installed=True)
    monkeypatch.setenv("PATH", str(python.parent))
    assert invocation(python, tmp_path) == ["matrix"]


def test_an_environment_below_the_working_directory_is_named_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = environment(tmp_path / ".venv", installed=True)
    other = environment(tmp_path / "other", installed=True)
    monkeypatch.setenv("PATH", str(other.parent))
    assert invocation(python, tmp_path) == [".venv/bin/matrix"]


def test_no_folder_of_the_machine_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = environment(tmp_path / "venv", installed=True)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert invocation(python, tmp_path / "elsewhere") == ["matrix"]


def test_a_checkout_that_is_not_installed_is_run_as_a_module(tmp_path: Path) -> None:
    python = environment(tmp_path / ".venv", installed=False)
    assert invocation(python, tmp_path) == [".venv/bin/python", "-m", "matrix"]
    assert invocation(python, tmp_path / "elsewhere") == ["python", "-m", "matrix"]
