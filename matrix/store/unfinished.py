"""Files and folders that are not finished, each held by a lock of its process until it is.

The kernel lets go of a lock however its process ends, so what nobody holds was left behind. The
number of a process would not say so: another one may have it by now.
"""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from matrix.untrusted.removing import remove

_OF_FILES = re.compile(r"\..+-[a-z0-9_]{8}")
"""Names of files that :func:`fresh_file` makes."""
_WITH_FILES = (
    "observations/*", "locks", "locks/*", "index", "index/*", "established", "suites",
    "history/*/*", "environments/*",
)  # fmt: skip
"""Folders of a store in which files appear by being renamed."""


@contextmanager
def fresh_folder(parent: Path, kind: str) -> Iterator[Path]:
    """Give a new folder, and remove it afterwards."""
    handle = -1
    while handle < 0:
        folder = Path(tempfile.mkdtemp(prefix=f"{kind}-{os.getpid()}-", dir=parent))
        handle = _held(folder)
    try:
        yield folder
    finally:
        remove(folder)
        os.close(handle)


def fresh_file(place: Path) -> tuple[int, Path]:
    """Return a new file beside a place, open for writing, and its path."""
    while True:
        handle, name = tempfile.mkstemp(prefix=f".{place.name}-", dir=place.parent)
        with suppress(OSError):  # a file system without locks, where nothing is swept either
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.path.exists(name):  # noqa: PTH110 - a name, not a path, is at hand
            return handle, Path(name)
        os.close(handle)


def is_unfinished(name: str) -> bool:
    """Whether a file's name is one that :func:`fresh_file` gives."""
    return _OF_FILES.fullmatch(name) is not None


def sweep(root: Path) -> None:
    """Remove what processes left in a store that are gone."""
    for folder in (root / "work").glob("*-*-*"):
        if folder.is_dir() and not folder.is_symlink():
            _remove_if_left(folder)
    for parent in (root, *(folder for pattern in _WITH_FILES for folder in root.glob(pattern))):
        with suppress(OSError), os.scandir(parent) as entries:
            for entry in entries:
                if is_unfinished(entry.name) and entry.is_file(follow_symlinks=False):
                    _remove_if_left(Path(entry.path))


def _held(folder: Path) -> int:
    """Return the open folder, locked; -1 where it was swept before that."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return -1
    with suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_SH)
    if folder.exists():
        return handle
    os.close(handle)
    return -1


def _remove_if_left(path: Path) -> None:
    """Remove a file or folder unless a process holds it."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.is_dir():
            remove(path)
        else:
            path.unlink(missing_ok=True)
    except OSError:
        pass  # it is held, or the file system has no locks
    finally:
        os.close(handle)
