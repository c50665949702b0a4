"""What a step made, taken over by copying: regular files alone, bounded, each with its digest.

The copies are ours: whatever still runs of the step, or holds one of its files open, changes none.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from matrix.store.sealing import unseal
from matrix.untrusted.reading import UnreadableError, decode, read_file
from matrix.untrusted.text import visible

MAX_FILES = 10_000
DEEPEST = 10
"""Folders within each other."""
MAX_LIST_BYTES = 8_000_000
"""Of a list of so many files with names of the length that a system allows."""
_CHUNK = 1 << 20
_ZEROS = bytes(_CHUNK)
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class TakenFile(msgspec.Struct, frozen=True):
    """A file as it was when it was taken over."""

    size: int
    sha256: str


class TakenFiles(msgspec.Struct, frozen=True):
    """All files below a folder, by their paths."""

    files: dict[str, TakenFile]


def take_over(source: Path, target: Path, most_bytes: int) -> TakenFiles:
    """Copy a folder of untrusted files, each of which is removed once it is copied.

    Raises :class:`UnreadableError` for what is no regular file, has further names, or is more than
    a step may leave; ``OSError`` where the disk is full, say.
    """
    taken: dict[str, TakenFile] = {}
    left = most_bytes
    target.mkdir()
    for name, folder in _walk(source):
        if len(taken) == MAX_FILES:
            raise UnreadableError(f"{source.name}/ has more than {MAX_FILES:,} files")
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            taken[name] = _copy(folder, place, left)
        except _TooLargeError:
            raise UnreadableError(
                f"{source.name}/ has more than {most_bytes:,} bytes, which is more than a model of "
                "this size can need"
            ) from None
        left -= taken[name].size
        with suppress(OSError):  # room is all that it gives; the step may have forbidden it
            os.unlink(place.name, dir_fd=folder)
    return TakenFiles(taken)


def damage_of(folder: Path, files: Path) -> str:
    """Return what is wrong with a folder that was taken over; empty where nothing is.

    ``files`` is the list of what it held, which was sealed. Everything is read.
    """
    try:
        expected = decode(unseal(read_file(files, MAX_LIST_BYTES)), TakenFiles).files
        surplus = dict(expected)
        for name, parent in _walk(folder):
            if surplus.pop(name, None) is None:
                return f"{visible(name)} was not there when it was made"
            if _digest(parent, Path(name).name, expected[name].size) != expected[name]:
                return f"{visible(name)} is not what was written"
    except (OSError, UnreadableError) as error:
        return visible(str(error))
    return f"{visible(next(iter(surplus)))} is missing" if surplus else ""


class _TooLargeError(UnreadableError):
    """A file has more bytes than were expected."""


def _walk(root: Path) -> Iterator[tuple[str, int]]:
    """Give the path of each file below a folder, and the open folder that it lies in."""
    try:
        handle = os.open(root, _READ | os.O_DIRECTORY)
    except NotADirectoryError:
        raise UnreadableError(f"{root.name} is no folder") from None
    try:
        yield from _walk_open(handle, "", root.name)
    finally:
        os.close(handle)


def _walk_open(handle: int, before: str, root: str, depth: int = 0) -> Iterator[tuple[str, int]]:
    with os.scandir(handle) as entries:
        names = sorted(entry.name for entry in _bounded(entries, f"{root}/{before}"))
    for name in names:
        path = f"{before}{name}"
        status = os.stat(name, dir_fd=handle, follow_symlinks=False)
        if problem := _problem(name, status, depth):
            raise UnreadableError(f"{visible(f'{root}/{path}')} {problem}")
        if not stat.S_ISDIR(status.st_mode):
            yield path, handle
            continue
        inner = os.open(name, _READ | os.O_DIRECTORY, dir_fd=handle)
        try:
            yield from _walk_open(inner, f"{path}/", root, depth + 1)
        finally:
            os.close(inner)


def _bounded(entries: Iterator[os.DirEntry[str]], where: str) -> Iterator[os.DirEntry[str]]:
    for number, entry in enumerate(entries):
        if number == MAX_FILES:
            raise UnreadableError(f"{visible(where)} has more than {MAX_FILES:,} files")
        yield entry


def _problem(name: str, status: os.stat_result, depth: int) -> str:
    """Return why something in a folder is not taken over; empty where it is."""
    if not name.isprintable():  # bytes that are no UTF-8 are surrogates here
        return "has a name that is no plain text"
    if stat.S_ISDIR(status.st_mode):
        return f"lies deeper than {DEEPEST} folders" if depth == DEEPEST else ""
    if stat.S_ISLNK(status.st_mode):
        return "is a link, and it must be a file"
    if not stat.S_ISREG(status.st_mode):
        return "is neither a file nor a folder"
    return "has a second name elsewhere (a hard link)" if status.st_nlink > 1 else ""


def _copy(folder: int, place: Path, most_bytes: int) -> TakenFile:
    """Copy the file of that name in an open folder."""
    with place.open("xb") as copy:

        def write(chunk: bytes) -> None:
            if chunk == _ZEROS[: len(chunk)]:
                copy.seek(len(chunk), os.SEEK_CUR)  # a hole takes no room here either
            else:
                copy.write(chunk)

        taken = _digest(folder, place.name, most_bytes, write)
        copy.truncate(taken.size)
    place.chmod(0o644)
    return taken


def _digest(
    folder: int, name: str, most_bytes: int, write: Callable[[bytes], object] = len
) -> TakenFile:
    """Return the size and digest of a file in an open folder, having given ``write`` its bytes.

    Raises :class:`_TooLargeError` for one that has more than ``most_bytes``.
    """
    size, sha256 = 0, hashlib.sha256()
    with os.fdopen(os.open(name, _READ, dir_fd=folder), "rb", buffering=0) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableError(f"{visible(name)} is no regular file")
        if status.st_size > most_bytes:
            raise _TooLargeError(f"{visible(name)} has more bytes than it had")
        while chunk := file.read(_CHUNK):
            size += len(chunk)
            if size > most_bytes:
                raise _TooLargeError(f"{visible(name)} has more bytes than it had")
            sha256.update(chunk)
            write(chunk)
    return TakenFile(size, sha256.hexdigest())
