"""An environment whose files changed since it was installed does not count as unchanged."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from matrix.environments.virtualenvs import commit, discard, is_built, is_unchanged


@pytest.fixture(params=["copied", "linked"])
def environment(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Give a virtualenv, its package copied from a cache or linked to it."""
    folder, cached = tmp_path / "environment", tmp_path / "cached.py"
    package = folder / "lib" / "python3.11" / "site-packages" / "pkg"
    package.mkdir(parents=True)
    cached.write_text("X = 1\n")
    if request.param == "linked":
        os.link(cached, package / "__init__.py")
    else:
        (package / "__init__.py").write_text("X = 1\n")
    (package / "data.txt").write_text("data")
    (folder / "bin").mkdir()
    (folder / "bin" / "python").symlink_to("/usr/bin/python3")
    commit(folder, "key")
    return folder


def package_of(environment: Path) -> Path:
    return environment / "lib" / "python3.11" / "site-packages" / "pkg"


def append(environment: Path) -> None:
    with (package_of(environment) / "__init__.py").open("a") as file:
        file.write("import evil\n")


def replace(environment: Path) -> None:
    """Put another file of the same size and time in the place of one."""
    file, other = package_of(environment) / "__init__.py", environment / "other.py"
    times = file.stat()
    other.write_text("X = 2\n")
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.rename(file)


def add_pth(environment: Path) -> None:
    (package_of(environment).parent / "evil.pth").write_text("import evil\n")


def remove(environment: Path) -> None:
    (package_of(environment) / "data.txt").unlink()


def change_mode(environment: Path) -> None:
    (package_of(environment) / "data.txt").chmod(0o755)


def turn_link(environment: Path) -> None:
    (environment / "bin" / "python").unlink()
    (environment / "bin" / "python").symlink_to("/usr/bin/python4")


def leave_sourceless(environment: Path) -> None:
    (package_of(environment) / "evil.pyc").write_bytes(b"")


@pytest.mark.parametrize(
    "change", [append, replace, add_pth, remove, change_mode, turn_link, leave_sourceless]
)
def test_what_was_changed_shows(environment: Path, change: Callable[[Path], None]) -> None:
    assert is_unchanged(environment)
    change(environment)
    assert not is_unchanged(environment)
    assert is_built(environment, "key")


def test_what_was_overwritten_shows_though_its_time_was_set_back(environment: Path) -> None:
    """Where it is a link to a cache, the sandbox is what keeps a package from that."""
    file = package_of(environment) / "__init__.py"
    before = file.stat()
    file.write_text("X = 2\n")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert is_unchanged(environment) == (before.st_nlink == 2)


def test_what_runs_there_may_write_to_its_home_and_leave_bytecode(environment: Path) -> None:
    for folder in (environment / "home", package_of(environment) / "__pycache__"):
        folder.mkdir()
        (folder / "left").write_text("left")
    assert is_unchanged(environment)


def test_another_environment_that_comes_or_goes_changes_nothing(environment: Path) -> None:
    file = package_of(environment) / "__init__.py"
    if file.stat().st_nlink == 2:
        os.link(file, environment.parent / "of another environment")
        assert is_unchanged(environment)
        (environment.parent / "of another environment").unlink()
        (environment.parent / "cached.py").unlink()
    assert is_unchanged(environment)


def test_a_marker_without_files_marks_nothing_unchanged(environment: Path) -> None:
    (environment / "matrix.json").write_text('{"install": "key"}')
    assert is_built(environment, "key")
    assert not is_unchanged(environment)
    discard(environment)
    assert not is_built(environment, "key")
