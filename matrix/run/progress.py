"""What is being done, and how much is done and left, as lines for a person."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TextIO

from matrix.plan.cells import Cell
from matrix.untrusted.text import visible

RECOUNT_SECONDS = 0.5


class Progress:
    """Tells each event with the number of finished cells.

    Cells that sibling processes (``nox -j``) finish are counted as well, by looking at the store
    now and then. nox holds back what a parallel session prints until the session's end; where
    that is not shown on a terminal, the lines go straight to the run's own stream, which
    ``MATRIX_PROGRESS`` names.
    """

    def __init__(
        self,
        cells: Iterable[Cell],
        unfinished: Callable[[Cell], bool],
        stream: TextIO,
        host: Mapping[str, str],
    ) -> None:
        self._left = list(cells)
        self._total = len(self._left)
        self._unfinished = unfinished
        self._stream = stream
        self._shared = Path(host["MATRIX_PROGRESS"]) if host.get("MATRIX_PROGRESS") else None
        self._count_at = 0.0

    def tell(self, text: str) -> None:
        """Print a line with the count in front; what a package said in it is made visible."""
        if time.monotonic() >= self._count_at:
            self._left = [cell for cell in self._left if self._unfinished(cell)]
            self._count_at = time.monotonic() + RECOUNT_SECONDS
        done = self._total - len(self._left)
        line = f"[{done} of {self._total} cells done, {len(self._left)} left] {visible(text)}\n"
        if self._shared is not None:
            try:
                with self._shared.open("a", encoding="utf-8") as stream:
                    stream.write(line)
                return
            except OSError:
                self._shared = None  # the stream is a socket or gone: the session's own remains
        self._stream.write(line)
        self._stream.flush()
