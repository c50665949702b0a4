"""What is said before a run, and when a disk is too small for it."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from matrix.plan.predictions import MB, Cost
from matrix.run.beforehand import beforehand, is_asked_for
from matrix.run.context import Context
from matrix.run.estimates import estimate
from matrix.spec.tables import SpecError
from tests.unit import small_spec
from tests.unit.made_history import History
from tests.unit.test_plan_command import BARE, opened

COSTLY = (
    "[departures.shim]",
    small_spec.FREE.replace("torch_mb = 0", "torch_mb = 1000")
    .replace("packages_mb = 0", "packages_mb = 10")
    .replace("unpacked = 1", "unpacked = 2\npackages_unpacked = 3")
    .replace("load_seconds = 0", "load_seconds = 60")
    + "[departures.shim]",
)
WHEELS, OWN = 3 * 2000 * MB, 4 * 30 * MB
"""Three torches (of the twins, the runner, and the makers, who say none), and four environments."""
CACHE = Path("/proc/cache")
"""In a file system that is certainly another one."""


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return opened(tmp_path, BARE, COSTLY)


def with_free(monkeypatch: pytest.MonkeyPatch, free: int, in_cache: int = 0) -> None:
    """Make a disk have so many bytes left, and that of ``CACHE`` as many as are given for it."""

    def usage(path: Path) -> SimpleNamespace:
        return SimpleNamespace(free=in_cache if path == CACHE.parent else free)

    monkeypatch.setattr(shutil, "disk_usage", usage)


def announce(context: Context, at_once: int = 1, **variables: str) -> str:
    host = {"HOME": str(context.settings.store.parent), **variables}
    lines = beforehand(
        context, context.plan.cells, estimate(context, host), at_once=at_once, host=host
    )
    return "\n".join(lines)


def test_cells_downloads_disk_and_minutes_are_told(context: Context) -> None:
    text = announce(context)
    assert "6 of 6 cells" in text
    assert "3.0 GB of downloads, 6.1 GB of disk, 6 minutes" in text
    assert str(context.settings.store.parent / ".cache" / "uv") in text
    assert "3 to 6 minutes" in announce(context, at_once=2)


def test_nothing_is_told_where_nothing_is_left_to_do(context: Context) -> None:
    context.keys = History(context.plan).finish().keys
    assert announce(context) == ""


def test_a_store_that_is_too_small_is_named_with_what_it_needs(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_free(monkeypatch, WHEELS + OWN)
    assert announce(context)
    with_free(monkeypatch, WHEELS + OWN - 1)
    with pytest.raises(SpecError, match=r"6\.1 GB are predicted to be needed and 6\.1 GB") as stop:
        announce(context)
    assert str(stop.value).startswith(f"{context.settings.store}: disk: ")
    assert "MATRIX_STORE" in str(stop.value)
    assert "share files" not in str(stop.value)


def test_a_budget_that_is_proposed_is_no_more_than_is_free(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_free(monkeypatch, 4_900 * MB)
    with pytest.raises(SpecError, match="MATRIX_DISK=4 those cells"):
        announce(context)


def test_no_budget_is_proposed_where_less_than_a_gigabyte_is_free(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_free(monkeypatch, 999 * MB)
    with pytest.raises(SpecError, match="MATRIX_PROFILE=smoke is a first look") as stop:
        announce(context)
    assert "MATRIX_DISK" not in str(stop.value)


def test_where_uv_copies_each_environment_has_wheels_of_its_own(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = 4 * 2000 * MB + OWN
    with_free(monkeypatch, copies + WHEELS + OWN)
    assert announce(context, UV_LINK_MODE="copy")
    with_free(monkeypatch, copies + WHEELS + OWN - 1)
    with pytest.raises(SpecError, match="MATRIX_STORE") as stop:
        announce(context, UV_LINK_MODE="copy")
    assert "let environments share files (install bubblewrap" in str(stop.value)
    with_free(monkeypatch, copies, in_cache=WHEELS + OWN)
    assert announce(context, UV_CACHE_DIR=str(CACHE))
    with_free(monkeypatch, copies - 1, in_cache=WHEELS + OWN)
    with pytest.raises(SpecError, match="MATRIX_STORE"):
        announce(context, UV_CACHE_DIR=str(CACHE))
    with_free(monkeypatch, copies, in_cache=WHEELS + OWN - 1)
    with pytest.raises(SpecError, match="UV_CACHE_DIR") as stop:
        announce(context, UV_CACHE_DIR=str(CACHE))
    assert str(stop.value).startswith(f"{CACHE}: disk: ")


def test_whoever_gives_a_budget_of_disk_has_looked(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_free(monkeypatch, 0)
    assert announce(context, MATRIX_DISK="5")
    host = {"HOME": "/nowhere"}
    expected = estimate(context, host)
    assert beforehand(context, context.plan.cells, expected, disk_gb=5.0, host=host)


def test_wheels_that_uv_has_unpacked_are_paid(context: Context, tmp_path: Path) -> None:
    wheels = tmp_path / ".cache" / "uv" / "wheels-v9" / "pypi" / "torch"
    wheels.mkdir(parents=True)
    (wheels / "2.1-cp311-none-any.msgpack").touch()  # no more than its metadata
    assert "3.0 GB of downloads" in announce(context)
    (wheels / "2.1-cp311-none-any.http").touch()
    assert "2.0 GB of downloads, 4.1 GB of disk" in announce(context)


def test_what_uv_has_built_from_source_is_paid(context: Context, tmp_path: Path) -> None:
    built = tmp_path / ".cache" / "uv" / "sdists-v9" / "pypi" / "torch" / "2.1" / "a build"
    (built / "src").mkdir(parents=True)  # unpacked, and not built
    assert "3.0 GB of downloads" in announce(context)
    (built / "torch-2.1-cp311-none-any.whl").touch()
    assert "2.0 GB of downloads" in announce(context)


def test_what_the_store_has_built_from_source_is_paid(context: Context) -> None:
    built = context.store.path("wheels", "digest", "torch-2.1+cpu-cp311-none-any.whl")
    (built.parent / "torch-2.10-cp311-none-any.whl").touch()
    assert "3.0 GB of downloads" in announce(context)
    built.touch()
    assert "2.0 GB of downloads" in announce(context)


def test_wheels_in_a_folder_are_not_downloaded(context: Context, tmp_path: Path) -> None:
    folder = tmp_path / "wheels"
    folder.mkdir()
    (folder / "torch-2.1+cpu-cp311-none-any.whl").write_bytes(bytes(1000))
    (folder / "torch-2.10-cp311-none-any.whl").write_bytes(bytes(5000))
    host = {"HOME": str(tmp_path), "PIP_FIND_LINKS": str(folder)}
    assert estimate(context, host).prediction.costs["wheels of torch 2.1"] == Cost(disk=2000)


def test_builds_without_cuda_are_small(context: Context) -> None:
    assert "0.6 GB of downloads" in announce(context, UV_TORCH_BACKEND="cpu")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], True),
        (["-s", "matrix"], True),
        (["--session", "lint", "matrix", "-j", "2"], True),
        (["--sessions=matrix"], True),
        (["-j", "4", "-s", "matrix", "--", "--fail-on", "garbage"], True),
        (["-R"], True),
        (["-s", "tests"], False),
        (["-s", "tests", "--", "-k", "matrix"], False),
        (["-rs", "tests"], False),
        (["-vs", "matrix"], True),
        (["-Rl"], False),
        (["-l"], False),
        (["--list", "-s", "matrix"], False),
        (["-k", "vllm"], False),
    ],
)
def test_nox_is_asked_for_a_session(arguments: list[str], expected: bool) -> None:
    assert is_asked_for("matrix", arguments) is expected
