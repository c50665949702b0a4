"""What a step's command may see of the machine: bubblewrap, where it is there.

A sandboxed command sees the system's programs and libraries, read-only; the folders of its
:class:`View`; and processes, ``/tmp``, ``/dev/shm`` and a loopback of its own, which end with it.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import NamedTuple

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/sys")
"""Programs, libraries, and what the kernel says of processors and cards."""
_SETTINGS = (
    "alternatives", "ca-certificates", "group", "hosts", "ld.so.cache", "ld.so.conf",
    "ld.so.conf.d", "localtime", "mime.types", "nsswitch.conf", "passwd", "pki", "protocols",
    "services", "ssl", "timezone",
)  # fmt: skip
"""Of ``/etc``: what libraries read. No keys, no passwords, no settings of services."""
_RESOLVER = "/etc/resolv.conf"
_KERNEL = "/proc/sys"
"""The kernel's settings, which are the machine's: root may write them in a sandbox too."""
_TRY_SECONDS = 10


class Isolation(StrEnum):
    """What stood between a step and the machine."""

    BUBBLEWRAP = "bubblewrap"
    NONE = "none"


class View(NamedTuple):
    """What one command may see beside the system: existing folders and files, by absolute path."""

    read_only: tuple[Path, ...] = ()
    writable: tuple[Path, ...] = ()
    """These may lie below those that are read-only, never the other way round."""
    devices: tuple[Path, ...] = ()
    network: bool = False
    """Whether the machine's network is its own; without it there is a loopback and nothing else."""
    shown: tuple[tuple[Path, Path], ...] = ()
    """Read-only too: what lies at a first path, if it does, shown at a second, which may lie below
    those that are writable."""


SYSTEM_ALONE = View()


class Sandbox(NamedTuple):
    """How commands are shut in on this machine."""

    isolation: Isolation
    program: str = ""
    """Path of ``bwrap``."""
    lack: str = ""
    """Why there is no isolation, in words for a person."""

    def shut_in(self, argv: Sequence[str], view: View, cwd: Path) -> list[str]:
        """Return the command by which ``argv`` runs with this view; ``argv`` where there is none.

        A command that dies of a signal ends bubblewrap with 128 and the signal's number.
        """
        if self.isolation is Isolation.NONE:
            return list(argv)
        return [self.program, *_options(view, cwd), "--", *argv]


OPEN = Sandbox(Isolation.NONE)
"""Nothing stands between a command and the machine."""


def _options(view: View, cwd: Path) -> list[str]:
    """Return the options of bubblewrap for a view; of two mounts at one place the later counts."""
    options = ["--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    options += ["--hostname", "localhost"]  # which resolves to its own loopback
    if view.network:
        options += ["--share-net", "--ro-bind-try", _RESOLVER, _RESOLVER]
    for place in (*_SYSTEM, *(f"/etc/{name}" for name in _SETTINGS)):
        options += ["--ro-bind-try", place, place]
    options += ["--proc", "/proc", "--ro-bind", _KERNEL, _KERNEL]
    options += ["--dev", "/dev", "--tmpfs", "/dev/shm", "--tmpfs", "/tmp"]
    for place in map(str, view.read_only):
        options += ["--ro-bind", place, place]
    for place in map(str, view.writable):
        options += ["--bind", place, place]
    for source, target in view.shown:
        options += ["--ro-bind-try", str(source), str(target)]
    for place in map(str, view.devices):
        options += ["--dev-bind-try", place, place]
    for place in ("/", "/dev"):  # what is mounted below stays as it is
        options += ["--remount-ro", place]
    return [*options, "--chdir", str(cwd)]


@cache
def find_sandbox() -> Sandbox:
    """Return how commands are shut in here: tried once, as the kernel may forbid what is there."""
    program = shutil.which("bwrap")
    if program is None:
        return Sandbox(Isolation.NONE, lack="bubblewrap is not installed (apt install bubblewrap)")
    sandbox = Sandbox(Isolation.BUBBLEWRAP, program)
    try:
        done = subprocess.run(
            sandbox.shut_in(["true"], View(), Path("/")),
            capture_output=True, text=True, errors="replace", timeout=_TRY_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return Sandbox(Isolation.NONE, lack=f"bubblewrap does not start: {error}")
    if done.returncode:
        words = " ".join(done.stderr.split())[:200]
        return Sandbox(Isolation.NONE, lack=f"bubblewrap does not work here: {words}")
    return sandbox
