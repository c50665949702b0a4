"""A file on an index, read in parts as they are asked for, so that little of it is downloaded."""

from __future__ import annotations

import io
from collections.abc import Callable

from matrix.index.fetching import Fetched, FetchError

METADATA_BYTES = 1_000_000
"""Of one file within an archive; the largest METADATA seen here (transformers') has 0.05 MB."""
READ_BYTES = 6_000_000
"""Of one archive; a wheel's directory of 10,000 files has 1 MB."""

Get = Callable[[str, str], Fetched]
"""Address and part (``0-99``; empty for the whole) -> the answer, or :class:`FetchError`."""


class Parts(io.RawIOBase):
    """A file on a server, open for reading; each part is asked for once.

    ``first`` is how many bytes to begin with, from the end of the file where it is negative;
    ``block`` is the least that is asked for later.
    """

    def __init__(self, address: str, get: Get, first: int, block: int) -> None:
        self._address = address
        self._get = get
        self._block = block
        part = get(address, f"0-{first - 1}" if first > 0 else f"{first}")
        if part.total is None or len(part.body) != min(abs(first), part.total):
            raise FetchError("sends other parts of a file than were asked for")
        self._size = part.total
        self._parts = [(0 if first > 0 else part.total - len(part.body), part.body)]
        self._read = len(part.body)
        self._at = 0

    def tell(self) -> int:
        """Return where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to where the next read begins."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError("before the beginning of the file")
        self._at = base + offset
        return self._at

    def read(self, size: int = -1) -> bytes:
        """Return exactly ``size`` bytes, fewer only at the end of the file."""
        end = self._size if size < 0 else min(self._at + size, self._size)
        if end <= self._at:
            return b""
        start, part = next(
            (
                (start, part)
                for start, part in self._parts
                if start <= self._at and end <= start + len(part)
            ),
            None,
        ) or self._fetched(end)
        piece = part[self._at - start : end - start]
        self._at = end
        return piece

    def _fetched(self, end: int) -> tuple[int, bytes]:
        start, end = self._at, min(max(end, self._at + self._block), self._size)
        self._read += end - start
        if self._read > READ_BYTES:
            raise FetchError(f"has a file of which more than {READ_BYTES} bytes would be read")
        part = self._get(self._address, f"{start}-{end - 1}")
        if len(part.body) != end - start or part.total != self._size:
            raise FetchError("sends other parts of a file than were asked for")
        self._parts.append((start, part.body))
        return start, part.body
