"""What a child prints: a log, of which the end is kept, and lines of events."""

from __future__ import annotations

import os
import selectors
from collections.abc import Callable
from typing import IO

LOG_TAIL_BYTES = 16_000
EVENT_BYTES = 1_000_000
READ_BYTES = 65_536
DRAIN_READS = 32
POLL_SECONDS = 0.05


class Log:
    """The last part of a child's output, and how much there was."""

    def __init__(self) -> None:
        self.size = 0
        self._tail = b""

    def add(self, data: bytes) -> None:
        """Take more output."""
        self.size += len(data)
        self._tail = (self._tail + data)[-LOG_TAIL_BYTES:]

    def take(self) -> str:
        """Return the tail as text, whatever bytes it is made of, and begin anew."""
        tail, self._tail = self._tail, b""
        return tail.decode("utf-8", "replace")


class Output:
    """The log of a child, and its events where it writes some."""

    def __init__(self, log_pipe: IO[bytes], event_pipe: IO[bytes] | None) -> None:
        self.log = Log()
        self._event_bytes = 0
        self._line = b""
        self._log_pipe = log_pipe
        self._selector = selectors.DefaultSelector()
        for pipe in (log_pipe, event_pipe):
            if pipe is not None:
                os.set_blocking(pipe.fileno(), False)
                self._selector.register(pipe, selectors.EVENT_READ)

    @property
    def size(self) -> int:
        """Bytes of log and of events until now."""
        return self.log.size + self._event_bytes

    def read(self, on_event: Callable[[str], bool]) -> tuple[bool, bool]:
        """Read what is there; return whether the awaited event came and whether anything came."""
        sound = finished = False
        for key, _ in self._selector.select(POLL_SECONDS):
            data = self._read_pipe(key)
            sound |= bool(data)
            if key.fileobj is self._log_pipe:
                self.log.add(data)
                continue
            self._event_bytes += len(data)
            *lines, self._line = (self._line + data).split(b"\n")
            self._line = self._line[-EVENT_BYTES:]
            for line in lines:
                finished |= on_event(line.decode("utf-8", "replace"))
        return finished, sound

    def drain(self) -> None:
        """Take what was logged before the last event and not yet read, as much as a pipe holds."""
        for _ in range(DRAIN_READS):
            key = (self._selector.get_map() or {}).get(self._log_pipe)  # closed, it has none
            data = self._read_pipe(key) if key is not None else b""
            self.log.add(data)
            if not data:
                return

    def close(self) -> None:
        """Take what is left of the log, and read no more."""
        self.drain()
        self._selector.close()

    def _read_pipe(self, key: selectors.SelectorKey) -> bytes:
        try:
            data = os.read(key.fd, READ_BYTES)
        except BlockingIOError:
            return b""
        if not data:
            self._selector.unregister(key.fileobj)
        return data
