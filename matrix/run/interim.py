"""The report written again while a run goes on, so that it can be opened at any moment."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
from filelock import FileLock, Timeout

from matrix.judge.results import PAGE
from matrix.plan.budget import in_words
from matrix.plan.cells import Cell
from matrix.run.context import Context
from matrix.run.reporting import remembered
from matrix.untrusted.text import visible

EVERY_SECONDS = 60.0
"""How old a report must be to be written again: one of 740 cells takes ten seconds of a core."""
ERROR_CHARS = 300


class Interim:
    """Writes the report of a run that goes on. Several processes may; one does at a time."""

    def __init__(self, context: Context, reports: Path) -> None:
        self._context = context
        self._folder = reports
        self._cannot_be_made = False
        self._whole = context
        if context.choice is not None:  # a budget bought some of the cells; the report shows all
            self._whole = Context(msgspec.structs.replace(context.settings, cells=None))

    def write_if_due(self, tell: Callable[[str], None]) -> None:
        """Write the report where it is old, and something is done that it can show.

        Where it cannot be made, that is told once, and it is not tried again before the run is
        over: what went wrong is the report's fault, and the run goes on.
        """
        try:
            age = time.time() - (self._folder / PAGE).stat().st_mtime
        except OSError:
            age = EVERY_SECONDS
        if self._cannot_be_made or age < EVERY_SECONDS or not self._done():
            return
        try:
            self.write()
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a report ends no run
            self._cannot_be_made = True
            why = visible(f"{type(error).__name__}: {error}", ERROR_CHARS)
            tell(f"the report cannot be made while the run goes on: {why}")

    def write(self, *, is_over: bool = False) -> list[str]:
        """Write the report, unless another process does; a full disk is no reason to stop.

        Return a line for each file of the history that was passed over.
        """
        from matrix import report  # pandas takes half a second to import

        troubles: list[str] = []
        lock = FileLock(self._whole.store.path("report.lock"), timeout=0)
        with suppress(Timeout, OSError), lock:
            choice = self._context.choice
            table = msgspec.structs.replace(
                self._whole.table(),
                budget=in_words(choice) if choice else [],
                going_on="" if is_over else self._in_words(),
            )
            material, troubles = remembered(self._whole, table, keep=is_over)
            report.write(material._replace(story=self._whole.stories()), self._folder)
        return troubles

    def _in_words(self) -> str:
        """Say how far the run has come, in words that stay true where it is stopped."""
        done = f"{self._done()} of {len(self._to_run())} cells were done"
        return f"{done} when this was written, and the run was going on"

    def _done(self) -> int:
        return sum(not self._whole.keys.unfinished(cell) for cell in self._to_run())

    def _to_run(self) -> list[Cell]:
        """Return the cells that are run at all: not those that are excluded or lack hardware."""
        return [cell for cell in self._whole.plan.cells if cell.runs]
