"""Starts one command and sees to it that nothing of it outlives the harness or the command.

Run by path with ``python -I -S keeper.py LIFELINE COMMAND...``; standard library only, so that it
starts in milliseconds. ``LIFELINE`` is the number of a pipe's reading end whose writing end only
the harness holds: when the harness ends, even by SIGKILL, the pipe closes. The keeper is the
"child subreaper" (``prctl(2)``) of all that the command starts, so daemons that left their
process group and session are found as well.

It ends as the command ended: with its status, or of its signal. What its processes left in shared
memory is removed: killed ones do not do that themselves, and it outlives them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Iterable

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36
GIVE_UP_SECONDS = 30.0
LOOK_SECONDS = 0.1
LOOKS = 3
"""After so many looks at a new object that none of ours uses, it is a stranger's."""
SHARED_MEMORY = os.path.realpath("/dev/shm")


def prctl(option: int, argument: int) -> None:
    """Call ``prctl(2)``; raise ``OSError`` where the kernel refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, argument, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def parents() -> dict[int, int]:
    """Return pid -> parent's pid of every process, zombies left out."""
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                state, parent = file.read().rpartition(b")")[2].split()[:2]
                if state != b"Z":
                    parents[int(name)] = int(parent)
    return parents


def descendants() -> list[int]:
    """Return the pids of all living processes below this one."""
    parent_of = parents()
    below: list[int] = []
    level = {os.getpid()}
    while level:
        level = {pid for pid, parent in parent_of.items() if parent in level}
        below.extend(level)
    return below


def children() -> list[int]:
    """Return the pids of this process's own children; empty where the kernel does not list them."""
    with contextlib.suppress(OSError), open(f"/proc/self/task/{os.getpid()}/children") as file:
        return [int(pid) for pid in file.read().split()]
    return []


def end_all() -> None:
    """Kill everything below this process until nothing is left; new forks are killed as well.

    One that forks and exits again and again is gone before it is reached by a look at all
    processes, but not by one at our own children: each of its forks becomes one. Where some cannot
    be killed, this process says so and dies of SIGKILL, by which the harness knows.
    """
    give_up = time.monotonic() + GIVE_UP_SECONDS
    while time.monotonic() < give_up:
        for look in (children, descendants):
            for pid in look():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                continue
        except ChildProcessError:  # none is left: what loses its parent becomes a child of ours
            return
        time.sleep(0.001)
    os.write(2, f"these processes cannot be killed: {descendants()}\n".encode())
    os.kill(os.getpid(), signal.SIGKILL)


def reap() -> dict[int, int]:
    """Collect ended children; return pid -> wait status."""
    ended: dict[int, int] = {}
    with contextlib.suppress(ChildProcessError):
        while (pair := os.waitpid(-1, os.WNOHANG))[0]:
            ended[pair[0]] = pair[1]
    return ended


def objects() -> dict[int, str]:
    """Return inode -> path of this user's named objects in shared memory, semaphores among them."""
    paths: dict[int, str] = {}
    with contextlib.suppress(OSError), os.scandir(SHARED_MEMORY) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # others remove theirs meanwhile
                if entry.stat(follow_symlinks=False).st_uid == os.geteuid():
                    paths[entry.inode()] = entry.path
    return paths


def in_use(pids: Iterable[int]) -> set[int]:
    """Return the inodes of objects in shared memory that processes have mapped or open.

    By inode, as a semaphore is mapped under a name that it has no more (``sem_open`` of glibc).
    """
    inodes: set[int] = set()
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/maps", "rb") as file:
            lines = [line.split(None, 5) for line in file if SHARED_MEMORY.encode() in line]
            inodes |= {int(fields[4]) for fields in lines}
        with contextlib.suppress(OSError):
            for name in os.listdir(f"/proc/{pid}/fd"):
                link = f"/proc/{pid}/fd/{name}"
                with contextlib.suppress(OSError):
                    if os.readlink(link).startswith(SHARED_MEMORY):
                        inodes.add(os.stat(link).st_ino)
    return inodes


class SharedMemory:
    """What processes below this one put into shared memory. Others' objects are never touched.

    Ours is what came after the start and was seen in use by a process below. It is removed when
    all of them have ended, not before: one may hand an object to another by its name alone.
    """

    def __init__(self) -> None:
        self._settled = set(objects())
        self._looks: dict[int, int] = {}
        self._ours: set[int] = set()

    def look(self) -> None:
        """Find out whose the new objects are."""
        new = objects().keys() - self._settled
        used = in_use(descendants()) if new else set()
        for inode in new:
            self._looks[inode] = self._looks.get(inode, 0) + 1
            if inode in used:
                self._ours.add(inode)
            if inode in used or self._looks[inode] == LOOKS:
                self._settled.add(inode)

    def remove(self) -> None:
        """Remove what is ours and used by nobody any more."""
        left = {inode: path for inode, path in objects().items() if inode in self._ours}
        used = in_use(parents()) if left else set()
        for inode in left.keys() - used:
            with contextlib.suppress(OSError):
                os.unlink(left[inode])


def start(command: list[str]) -> int:
    """Start the command in a session of its own.

    When memory runs out, the kernel takes it before anything else of the machine: it can be done
    again, and the harness, or whatever a stranger runs here, cannot. Such an end is no verdict
    (:func:`matrix.pipeline.ends.classify_end`).
    """
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
        os.execvpe(command[0], command, os.environ)
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
    os._exit(127)


def main() -> None:
    """Start the command, wait for its end or the harness's, leave nothing behind."""
    lifeline, command = int(sys.argv[1]), sys.argv[2:]
    os.set_inheritable(lifeline, False)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    woken, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    shared_memory = SharedMemory()
    pid = start(command)
    for inherited in (0, 1):
        os.close(inherited)
    while True:
        ready, _, _ = select.select([lifeline, woken], [], [], LOOK_SECONDS)
        shared_memory.look()
        if lifeline in ready:
            end_all()
            shared_memory.remove()
            os._exit(128 + signal.SIGKILL)
        if woken not in ready:
            continue
        os.read(woken, 4096)
        status = reap().get(pid)
        if status is not None:
            break
    end_all()
    shared_memory.remove()
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        with contextlib.suppress(OSError):  # SIGKILL has no handler to set back
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main()
