"""JSON and TOML that a package wrote, an index sent or a disk kept, read or refused.

Whatever the bytes are, reading them ends in a value of the type or in :class:`UnreadableError`.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

DEEPEST = 20
"""Lists and objects within each other that plain data may have; what adapters return has six."""

_LONG_KEY = re.compile(
    r"""(?<![\w-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){20}""", re.ASCII
)
"""A key of TOML of more than 20 names. Its parser takes memory by the square of their number."""
_T = TypeVar("_T")


class UnreadableError(ValueError):
    """The bytes are no JSON of the type that is asked for. The text says what is wrong."""


def read_file(file: Path, limit: int) -> bytes:
    """Return a regular file's bytes.

    Raises:
        UnreadableError: It is a link, a pipe, a folder, or has more bytes than ``limit``.
        OSError: It is not there, or the system does not give it.
    """
    if file.is_symlink():
        raise UnreadableError(f"{file.name} is a link, and it must be a file")
    handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # a pipe may have no writer
    with os.fdopen(handle, "rb") as opened:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise UnreadableError(f"{file.name} is no regular file")
        data = opened.read(limit + 1)
    if len(data) > limit:
        raise UnreadableError(f"{file.name} has more than {limit} bytes")
    return data


@contextmanager
def hold(folder: Path) -> Iterator[Path]:
    """Give a path of an open folder: it leads there whatever is put in the folder's place.

    Only this process can use it. Raises ``UnreadableError`` for a link, or what is no folder.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except NotADirectoryError:
        raise UnreadableError(f"{folder.name} is a link or no folder") from None
    try:
        yield Path("/proc/self/fd", str(handle))
    finally:
        os.close(handle)


def decode(data: bytes, kind: type[_T]) -> _T:
    """Return the value of a type that JSON bytes hold; raise :class:`UnreadableError`."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, another type; nested deep
        raise UnreadableError(str(error)) from None


def decode_toml(data: bytes) -> dict[str, Any]:
    """Return what TOML says; raise :class:`UnreadableError`."""
    try:
        text = data.decode()
        if key := _LONG_KEY.search(text):
            line = text.count("\n", 0, key.start()) + 1
            raise UnreadableError(f"line {line} has a key of over 20 names")
        return tomllib.loads(text)
    except RecursionError:
        raise UnreadableError("lists or tables are nested too deep") from None
    except ValueError as error:  # no UTF-8, no TOML, a number of thousands of digits
        raise UnreadableError(str(error)) from None


def is_deep(value: object) -> bool:
    """Whether plain data is nested deeper than what writes and shows it can follow."""
    level = [value]
    for _ in range(DEEPEST):
        level = [inner for outer in level for inner in _parts(outer)]
        if not level:
            return False
    return True


def _parts(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
