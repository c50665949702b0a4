"""What is being done, and how much is done and left: lines in a log, a bar on a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self, TextIO

from matrix.plan.cells import Cell
from matrix.run.time_left import TimeLeft, in_words
from matrix.untrusted.text import visible

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

RECOUNT_SECONDS = 0.5
RECOUNT_TIMES = 20
"""So many times as long as the last recount took, none is made."""


class Clock(NamedTuple):
    """Two clocks."""

    seconds: Callable[[], float] = time.monotonic
    """Never goes back; of the machine, so that processes agree."""
    now: Callable[[], datetime] = datetime.now
    """The time of day, which may be set meanwhile: it is shown and nothing is reckoned by it."""


CLOCK = Clock()


class Progress:
    """Tells each event, with how much of the cells that a run is about is done.

    Cells that sibling processes (``nox -j``) finish are counted as well, by looking at the store
    now and then. nox holds back what a parallel session prints until the session's end; where
    that is not shown on a terminal, the lines go straight to the run's own stream, which
    ``MATRIX_PROGRESS`` names.

    Args:
        cells: Those that the run is about.
        unfinished: Returns those of cells of which something is still to be done.
        stream: Where lines go; on a terminal, a bar stands below them within ``with``.
        host: Environment variables.
        time_left: How long the rest takes; reckoned by the number of cells where it is not given.
        clock: The time.
    """

    def __init__(
        self,
        cells: Iterable[Cell],
        unfinished: Callable[[Iterable[Cell]], list[Cell]],
        stream: TextIO,
        host: Mapping[str, str],
        time_left: TimeLeft | None = None,
        clock: Clock = CLOCK,
    ) -> None:
        everything = list(cells)
        self._total = len(everything)
        self._left = unfinished(everything)
        self._unfinished = unfinished
        self._stream = stream
        self._shared = Path(host["MATRIX_PROGRESS"]) if host.get("MATRIX_PROGRESS") else None
        self._clock = clock
        self._count_at = clock.seconds() + RECOUNT_SECONDS
        self._time_left = time_left or TimeLeft.of(self._ids(), clock.seconds(), lambda _: 0.0)
        self._bar: Bar | None = None

    def __enter__(self) -> Self:
        if self._left and self._shared is None and self._stream.isatty():
            self._bar = _bar(self._stream, self._total, self.counted)
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self._recount()
            self._bar.update(self._bar.task_ids[0], completed=self._total - len(self._left))
            self._bar.stop()

    def tell(self, text: str) -> None:
        """Print a line with time and count in front; what a package said in it is made visible."""
        if self._clock.seconds() >= self._count_at:
            self._recount()
        at, shown = f"{self._clock.now():%H:%M:%S}", visible(text)
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=self._total - len(self._left))
            self._bar.console.print(f"{at}  {shown}")
            return
        line = f"{at}  {self.counted()}  {shown}\n" if self._total else f"{at}  {shown}\n"
        if self._shared is not None:
            try:
                with self._shared.open("a", encoding="utf-8") as stream:
                    stream.write(line)
                return
            except OSError:
                self._shared = None  # the stream is a socket or gone: the session's own remains
        self._stream.write(line)
        self._stream.flush()

    def counted(self) -> str:
        """Return how much is done, as ``42 % (287 of 683 cells, about 14 min left)``."""
        done = self._total - len(self._left)
        words = [f"{done:,} of {self._total:,} cells"]
        seconds = self._time_left.seconds(self._clock.seconds()) if self._left else None
        if seconds is not None:
            words.append(in_words(seconds))
        return f"{100 * done // self._total:2} % ({', '.join(words)})"

    def _recount(self) -> None:
        began = self._clock.seconds()
        self._left = self._unfinished(self._left)
        at = self._clock.seconds()
        self._time_left.count(self._ids(), at)
        self._count_at = at + max(RECOUNT_SECONDS, RECOUNT_TIMES * (at - began))

    def _ids(self) -> list[str]:
        return [cell.id for cell in self._left]


def _bar(stream: TextIO, total: int, counted: Callable[[], str]) -> Bar:
    """Return a bar with what is counted and the time that has passed, drawn once a second."""
    from rich.console import Console
    from rich.progress import BarColumn, ProgressColumn, Task, TimeElapsedColumn
    from rich.progress import Progress as Bar
    from rich.text import Text

    class Counted(ProgressColumn):
        """What is done and left."""

        def render(self, task: Task) -> Text:  # noqa: ARG002 - rich gives it
            return Text(counted())

    console = Console(file=stream, markup=False, highlight=False, emoji=False)
    bar = Bar(
        BarColumn(20), Counted(), TimeElapsedColumn(), console=console, refresh_per_second=1,
        redirect_stdout=False, redirect_stderr=False,
    )  # fmt: skip
    bar.add_task("", total=total)
    return bar
