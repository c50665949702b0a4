"""What the processes of a child use and leave, and what the machine has left beside them."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil

LOOK_SECONDS = 5.0
"""Between two looks at a child no more than this counts: the rest is time in which the harness was
stopped, and could not have taken a sign of life."""
KILL_SECONDS = 10.0
SPACE_BYTES = 500_000_000
"""A child that leaves less of the disk than this is ended, so that others can go on writing."""
MARK = "MATRIX_CHILD"
"""Variable by which the processes of one child are known when their keeper was killed."""
IN_MEMORY = ("tmp", "dev/shm")
"""Folders whose files a sandbox keeps in memory."""


class Stopwatch:
    """Seconds that a child had, by the kernel's monotonic clock: a change of date leaves it alone,
    and it rests while the machine sleeps. What passed while this process was stopped is left out.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._looked = now()
        self._seconds = 0.0

    def look(self) -> float:
        """Return the seconds since the start; to be called often."""
        now = self._now()
        self._seconds += min(now - self._looked, LOOK_SECONDS)
        self._looked = now
        return self._seconds


def count_oom_kills() -> int:
    """Return how many processes the kernel has ended for want of memory, of a container's too.

    0 where it does not count (before Linux 4.13).
    """
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def memory_of(keeper: int, enough: int, *, in_sandbox: bool) -> int:
    """Return bytes used by what a keeper started: resident ones, files that a sandbox keeps in
    memory, and shared pages once where it is more than ``enough``."""
    try:
        tree = psutil.Process(keeper).children(recursive=True)
        first = [process for process in tree if in_sandbox and process.ppid() != keeper][:1]
    except psutil.NoSuchProcess:
        return 0
    files = sum(_file_bytes(process.pid) for process in first)
    resident = files + sum(_bytes(process, shared_once=False) for process in tree)
    if resident <= enough:
        return resident
    return files + sum(_bytes(process, shared_once=True) for process in tree)


def _file_bytes(first: int) -> int:
    """Return bytes of a sandbox's files in memory, by its first process, which is bubblewrap's own.

    Of those that are mapped as well, some count twice.
    """
    total = 0
    for place in IN_MEMORY:
        folder = Path("/proc", str(first), "root", place)
        with contextlib.suppress(OSError):
            if folder.stat().st_dev != Path("/", place).stat().st_dev:  # it has its own by now
                system = os.statvfs(folder)
                total += (system.f_blocks - system.f_bfree) * system.f_frsize
    return total


def _bytes(process: psutil.Process, *, shared_once: bool) -> int:
    try:
        if shared_once:
            return int(process.memory_full_info().pss)
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def kill_marked(mark: str) -> list[int]:
    """Kill what is left of a child whose keeper was killed; return the pids of what stays.

    One that gave itself other variables is not recognized. In a sandbox nothing is left.
    """
    stopwatch = Stopwatch()
    while (left := list(filter(partial(_has_mark, mark), psutil.process_iter()))) and (
        stopwatch.look() < KILL_SECONDS
    ):
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=0.05)
    return [process.pid for process in left]


def _has_mark(mark: str, process: psutil.Process) -> bool:
    try:
        return bool(process.environ().get(MARK) == mark)
    except psutil.Error:  # it has ended, or is another user's
        return False


def leaves_space(folder: Path) -> bool:
    """Whether a child that writes to a folder leaves others some of the disk."""
    try:
        return shutil.disk_usage(folder).free >= SPACE_BYTES
    except OSError:
        return True  # not there, so nothing is written there
