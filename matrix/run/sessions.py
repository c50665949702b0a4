"""What the sessions of the noxfile share: a profile opened once for all, and what is left to do.

Light to import: every session of ``nox -j`` is a process of its own that loads the noxfile anew.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from matrix.machine.hardware import environments_at_once
from matrix.machine.processes import die_with_parent, hide_from_siblings
from matrix.machine.sandbox import Isolation
from matrix.pipeline.steps import Step
from matrix.plan.budget import canaries_alone
from matrix.plan.cell_steps import steps_of_plan
from matrix.run import suites
from matrix.run.beforehand import beforehand, is_asked_for
from matrix.run.context import Context, Settings, unreachable
from matrix.run.estimates import choose_for_nox, estimate, longest_first
from matrix.run.sources import check_sources
from matrix.run.time_left import BEGAN
from matrix.run.unchanged import unchanged_summary
from matrix.spec.tables import SpecError
from matrix.untrusted.text import visible

ERROR_CHARS = 4_000


class Sessions:
    """The profile that ``MATRIX_...`` variables name, opened for the sessions of one nox.

    Ends the process with one line where it cannot be opened.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        """Open it; ``arguments`` are those of nox's command line."""
        self._arguments = arguments
        self.is_worker = "--parallel-worker" in arguments  # nox -j starts one for each session
        try:
            self.context = self._opened()
            if self.is_worker:
                die_with_parent(int(os.environ["MATRIX_UNDER_NOX"]))
            else:
                self._speak_for_all()
            # A worker does one session, whatever that waits for.
            self.pending = [] if self.is_worker else suites.pending(self.context)
            if self.is_worker or self.pending:
                self._hide()
        except SpecError as error:
            sys.exit(visible(f"error: {error}", ERROR_CHARS))
        except OSError as error:
            sys.exit(f"error: {unreachable(error)}")
        os.environ["MATRIX_UNDER_NOX"] = str(os.getpid())  # whose end is the end of all it starts
        self._canaries = canaries_alone(self.context.plan)
        self.first = ["canaries"] if self.pending and self.canaries_are_due() else []
        if self._lack_installs():
            self.first.append("installs")

    def _opened(self) -> Context:
        """Return the profile, of a budget the cells that it buys: chosen once, for all workers."""
        context = Context(Settings.of())
        if self.is_worker or not (chosen := choose_for_nox(context)):
            return context
        os.environ["MATRIX_CELLS"] = str(chosen)
        atexit.register(chosen.unlink, missing_ok=True)
        return Context(Settings.of())

    def _speak_for_all(self) -> None:
        """Have what all sessions tell reach the person who started nox."""
        summary = self.context.store.path("work", f"summary-{os.getpid()}.txt")
        atexit.register(_print_summary, summary)
        os.environ["MATRIX_RUN"] = self.context.settings.run
        os.environ["MATRIX_SUMMARY"] = str(summary)
        if not sys.stdout.isatty():
            # Nox holds back what parallel sessions print, so progress goes straight to the log; a
            # log file must be appended to then, or one writer overwrites the other.
            fcntl.fcntl(1, fcntl.F_SETFL, fcntl.fcntl(1, fcntl.F_GETFL) | os.O_APPEND)
            os.environ["MATRIX_PROGRESS"] = f"/proc/{os.getpid()}/fd/1"

    def work_of(self, environment: str) -> Iterator[list[str]]:
        """Yield options of ``matrix run`` by which what is left of an environment gets done."""
        if not self.context.runs(environment):
            return
        if environment in self._canaries.environments and self.canaries_are_due():
            yield ["--canaries", "--environment", environment]  # they wait for it
        if self.context.unfinished(environment):
            yield ["--environment", environment]

    def _lack_installs(self) -> bool:
        """Whether one of the pending environments is still to be installed."""
        if not self.pending:
            return False
        keys = self.context.keys
        steps = (
            step
            for step in steps_of_plan(self.context.plan)
            if step.step in (Step.RESOLVE, Step.INSTALL) and step.environment in self.pending
        )
        return any((key := keys.of(step)) is not None and not keys.settled(key) for step in steps)

    def canaries_are_due(self) -> bool:
        """Whether anything of the cells with known verdicts is still to be done."""
        return any(self.context.keys.unfinished(cell) for cell in self._canaries.cells)

    def begin(self) -> int:
        """Return how many of the pending environments to work on side by side.

        Where the session ``matrix`` is asked for, say what it takes, end where a source is none or
        the disk is too small, keep ``clean`` off the store, and put them in the order in which to
        begin them.
        """
        at_once = self._at_once()
        if is_asked_for("matrix", self._arguments):
            expected, cells = estimate(self.context), self.context.plan.cells
            try:
                check_sources(self.context)
                lack = self.context.sandbox.lack
                lines = beforehand(self.context, cells, expected, at_once=at_once, lack=lack)
            except SpecError as error:
                sys.exit(visible(f"error: {error}", ERROR_CHARS))
            print(*(f"{line}\n" for line in lines), sep="", flush=True)
            work = expected.prediction.of_cells(expected.unfinished, expected.paid).seconds
            os.environ[BEGAN] = f"{time.monotonic()} {work / at_once} {len(expected.unfinished)}"
            atexit.register(self.context.store.use().close)
            self.pending = longest_first(self.context, self.pending, expected)
        return at_once

    def _hide(self) -> None:
        """Where packages are not shut in, keep this process's variables and memory from them.

        Then nobody can open its output by its number any more, so another process holds that.
        """
        if self.context.sandbox.isolation is not Isolation.NONE:
            return
        if "MATRIX_PROGRESS" in os.environ and not self.is_worker:
            self._holder = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, env={})
            os.environ["MATRIX_PROGRESS"] = f"/proc/{self._holder.pid}/fd/1"
        hide_from_siblings()

    def _at_once(self) -> int:
        number = environments_at_once(self.context.loaded.spec.limits.load.memory_mb)
        environments = self.context.plan.environments
        if any(environments[name].device == "cuda" for name in self.pending):
            return max(1, min(number, len(self.context.machine.gpus)))
        return number

    def kept_summary(self) -> str | None:
        """Return the summary of the report that lies there; ``None`` where it may be made anew."""
        if self.pending or self.context.settings.cells:
            return None
        return unchanged_summary(self.context)


def _print_summary(file: Path) -> None:
    """Print what the report session left, after all that nox has to say."""
    if file.exists():
        sys.stdout.write("\n" + file.read_text(encoding="utf-8"))
        file.unlink()
