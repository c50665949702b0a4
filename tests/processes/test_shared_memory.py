"""What a child's processes put into shared memory ends with them; what is a stranger's stays."""

from __future__ import annotations

import mmap
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from matrix.machine import keeper
from matrix.machine.processes import Child, child_environ
from matrix.spec.tables import Limits
from tests.processes.test_processes import GENEROUS, python

SHARED_MEMORY = Path("/dev/shm")
MAKES = """
import multiprocessing, os, signal, sys, time
from multiprocessing import resource_tracker, shared_memory

def make():
    "Make what vLLM's workers share, have a worker use it, and say how it is called."
    global segment, semaphore
    segment = shared_memory.SharedMemory(create=True, size=4096)
    semaphore = multiprocessing.get_context("spawn").Semaphore()
    if os.fork() == 0:
        while True: time.sleep(1)
    return segment.name, "sem." + semaphore._semlock.name.lstrip("/")

def wait_for_looks(keeper, looks=5):
    "Wait until the keeper has gone to sleep so often: it looks at what is new each time."
    def sleeps():
        lines = open(f"/proc/{keeper}/status").read().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("voluntary")))
    first = sleeps()
    while sleeps() < first + looks: time.sleep(0.01)
"""
LIVES = f"{MAKES}\nprint(*make(), flush=True)\nwhile True: time.sleep(1)\n"
JOB_IS_KILLED = f"""{MAKES}
keeper, here = os.getppid(), os.pipe()
if os.fork() == 0:
    os.setsid()
    names = make()
    wait_for_looks(keeper)
    os.write(here[1], " ".join(names).encode())
    os.killpg(0, signal.SIGKILL)  # with its worker, and the tracker that would have tidied up
names = os.read(here[0], 1000).decode()
os.wait()
print(names, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return child_environ(tmp_path / "home", {})


@pytest.fixture
def stranger() -> Iterator[Path]:
    """Give an object that this process made, beside the children."""
    file = SHARED_MEMORY / f"matrix-test-{secrets.token_hex(4)}"
    file.write_bytes(bytes(4096))
    yield file
    file.unlink()


def names_of(child: Child) -> list[Path]:
    """Wait until a child has said how its objects are called."""
    lines: list[str] = []

    def keep(line: str) -> bool:
        lines.append(line)
        return True

    end = child.watch(Limits(seconds=600, silence=600, memory_mb=2000, log_mb=10), keep)
    child.drain()
    assert lines, (end, child.log.take())
    return [SHARED_MEMORY / name for name in lines[0].split()]


@pytest.mark.parametrize("code", [LIVES, JOB_IS_KILLED], ids=["child", "job of a child"])
def test_what_killed_processes_leave_is_removed(
    tmp_path: Path, environ: dict[str, str], code: str, stranger: Path
) -> None:
    with Child(python(code), environ=environ, cwd=tmp_path, events=True) as child:
        left = names_of(child)
        assert len(left) == 2
        assert all(file.exists() for file in left), "nobody else removes it"
        meanwhile = SHARED_MEMORY / f"matrix-test-{secrets.token_hex(4)}"
        meanwhile.write_bytes(bytes(4096))  # a stranger's, and used by nobody just now
    try:
        assert not [file for file in left if file.exists()]
        assert stranger.exists()
        assert meanwhile.exists()
    finally:
        meanwhile.unlink()


def test_what_a_stranger_uses_as_well_stays(tmp_path: Path, environ: dict[str, str]) -> None:
    with Child(python(LIVES), environ=environ, cwd=tmp_path, events=True) as child:
        segment, semaphore = names_of(child)
        with segment.open("r+b") as opened:
            mapped = mmap.mmap(opened.fileno(), 0)
    assert not semaphore.exists()
    assert segment.exists()
    mapped.close()
    segment.unlink()


def test_one_run_leaves_anothers_alone(tmp_path: Path, environ: dict[str, str]) -> None:
    with Child(python(LIVES), environ=environ, cwd=tmp_path, events=True) as child:
        with Child(python(JOB_IS_KILLED), environ=environ, cwd=tmp_path, events=True) as other:
            others = names_of(other)
            ours = names_of(child)
            child.end()
            assert not [file for file in ours if file.exists()]
            assert all(file.exists() for file in others), "though nobody uses them now"
        assert not [file for file in others if file.exists()]


def test_a_command_that_ends_by_itself_leaves_none_either(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    code = f"{MAKES}\nprint(*make(), flush=True)\nwait_for_looks(os.getppid())\nos._exit(0)\n"
    with Child(python(code), environ=environ, cwd=tmp_path, events=True) as child:
        left = names_of(child)
        assert child.watch(GENEROUS).status == 0
    assert not [file for file in left if file.exists()]


def test_an_object_that_goes_meanwhile_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, stays = tmp_path / "gone", tmp_path / "stays"
    gone.touch()
    stays.touch()
    scan = os.scandir

    @contextmanager
    def scan_slowly(folder: str) -> Iterator[list[os.DirEntry[str]]]:
        with scan(folder) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
        gone.unlink()
        yield listed

    monkeypatch.setattr(keeper, "SHARED_MEMORY", str(tmp_path))
    monkeypatch.setattr(os, "scandir", scan_slowly)
    assert list(keeper.objects().values()) == [str(stays)]
