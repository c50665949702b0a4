"""Where an environment's lock is looked for, and how often."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from matrix.environments.locks import Lock, Locks, committed_name, keep_lock, own_name
from matrix.plan.keys import lock_inputs
from matrix.spec.tables import Environment, Resolution


def environment(resolution: Resolution = "pinned") -> Environment:
    return Environment(
        name="small",
        python="3.11",
        resolution=resolution,
        cutoff="" if resolution == "pinned" else "2026-11-01T00:00:00Z",
        requirements=["small==1.0"],
        constraints=[],
        overrides=[],
        build_requirements={},
        environ={},
        departures=[],
    )


def write(file: Path, asking: Environment, pin: str) -> None:
    """Write a lock that answers an environment's inputs, in a store's folder as a store does."""
    inputs = msgspec.json.encode(lock_inputs(asking), order="sorted").decode()
    as_of = f"# as of: {asking.cutoff}\n" if asking.resolution == "today" else ""
    file.parent.mkdir(parents=True, exist_ok=True)
    text = f"# Lock of small, made by uv.\n# inputs: {inputs}\n{as_of}{pin}\n"
    if file.parent.name == "own":
        keep_lock(file, Lock(text))
    else:
        file.write_text(text)


@pytest.fixture
def locks(tmp_path: Path) -> Locks:
    return Locks(tmp_path / "committed", tmp_path / "own")


@pytest.mark.parametrize("resolution", ["pinned", "released"])
def test_the_committed_lock_comes_before_the_stores(
    locks: Locks, tmp_path: Path, resolution: Resolution
) -> None:
    asking = environment(resolution)
    write(tmp_path / "own" / own_name(asking), asking, "small==1.0")
    write(tmp_path / "committed" / committed_name(asking), asking, "small==1.0.post1")
    lock = locks.find(asking)
    assert lock is not None
    assert lock.pins == {"small": "1.0.post1"}


def test_a_committed_lock_that_answers_something_else_gives_way(
    locks: Locks, tmp_path: Path
) -> None:
    asking = environment()
    other = msgspec.structs.replace(asking, python="3.12")
    write(tmp_path / "committed" / committed_name(asking), other, "small==1.0.post1")
    assert locks.find(asking) is None
    write(tmp_path / "own" / own_name(asking), asking, "small==1.0")
    lock = locks.find(asking)
    assert lock is not None
    assert lock.pins == {"small": "1.0"}


def test_a_lock_is_read_once_for_each_resolution(locks: Locks, tmp_path: Path) -> None:
    resolutions: list[Resolution] = ["pinned", "released", "today"]
    for number, resolution in enumerate(resolutions):
        asking = environment(resolution)
        write(tmp_path / "own" / own_name(asking), asking, f"small=={number}")
        assert locks.find(asking) is not None
        (tmp_path / "own" / own_name(asking)).unlink()
    for number, resolution in enumerate(resolutions):
        lock = locks.find(environment(resolution))
        assert lock is not None
        assert lock.pins == {"small": f"{number}"}


def test_every_changed_byte_of_a_stores_lock_makes_it_none(locks: Locks, tmp_path: Path) -> None:
    asking = environment()
    file = tmp_path / "own" / own_name(asking)
    write(file, asking, "small==1.0")
    whole = file.read_bytes()
    for place in range(len(whole)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert locks.find(asking) is None
    file.write_bytes(whole)
    assert locks.find(asking) is not None


@pytest.mark.parametrize(
    "pin",
    [
        "small==1.0\n--index-url https://elsewhere.example", "-r /etc/passwd",
        "small @ https://elsewhere.example/small.whl", "small==1.0\nother>=2", "small==1.0\x00",
        "small==1.0\n" + "#" * 1_000_000,
    ],
)  # fmt: skip
@pytest.mark.parametrize("folder", ["committed", "own"])
def test_a_lock_with_more_than_pins_is_none(
    locks: Locks, tmp_path: Path, folder: str, pin: str
) -> None:
    asking = environment()
    name = own_name(asking) if folder == "own" else committed_name(asking)
    write(tmp_path / folder / name, asking, pin)
    assert locks.find(asking) is None
    write(tmp_path / folder / name, asking, 'small==1.0 ; python_version > "3"\nother[a,b]==2!1+c')
    assert locks.find(asking) is not None


def test_a_lock_that_is_a_pipe_a_device_or_no_text_is_none(locks: Locks, tmp_path: Path) -> None:
    file = tmp_path / "committed" / committed_name(environment())
    file.parent.mkdir()
    os.mkfifo(file)
    assert locks.find(environment()) is None
    file.unlink()
    file.symlink_to("/dev/zero")
    assert locks.find(environment()) is None
    file.unlink()
    file.symlink_to(file.name)
    assert locks.find(environment()) is None
    file.unlink()
    file.write_bytes(b"# Lock of \xff")
    assert locks.find(environment()) is None
