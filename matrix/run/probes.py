"""The harness's side of a probe: a server in an environment that imports once and forks per job.

The protocol is described in docs/design.md. A job is a file, an answer is a file per step, and a
line on a pipe says what happens; nothing the child says or leaves behind is trusted unread.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from types import TracebackType
from typing import Annotated, Any

import msgspec

from matrix.machine.processes import Child, child_environ
from matrix.machine.sandbox import OPEN, SYSTEM_ALONE, Sandbox, View
from matrix.pipeline.ends import End, StepResult
from matrix.pipeline.steps import Step
from matrix.plan.keys import CHILD
from matrix.spec.tables import Limits
from matrix.untrusted.reading import DEEPEST, UnreadableError, decode, hold, is_deep, read_file
from matrix.untrusted.removing import remove

RESULT_BYTES = 4_000_000
"""A step's result larger than this is not read; SmolLM2's answers with its likeliest tokens have a
fifth of it."""
KEPT_BYTES = 3_000_000
"""No more than this is kept of a result, as the store writes it: of the largest, it is 50,000."""
EVENTS = 100
"""So many events that are not yet waited for are held; a job has three."""


LOCKS_DEPTH = 8
"""In so many folders within each other, locks of compilations are looked for."""


class Event(msgspec.Struct, frozen=True):
    """A line on the pipe of events, as docs/design.md describes them. Untrusted."""

    event: str = ""
    ok: bool = False
    stage: str = ""
    status: Annotated[int, msgspec.Meta(ge=-255, le=255)] | None = None


class Answer(msgspec.Struct, frozen=True):
    """How one step of a job ended, and what it left."""

    step: Step
    end: End
    result: StepResult | None
    log: str
    unreadable: str = ""
    """Why there is no result though a file was left."""


class Probe:
    """One server for one adapter in one environment. Leaving it ends all its processes.

    ``home`` is the environment's own and outlives the server: vLLM keeps there what it took ten
    seconds to find out about a model class. ``gpus`` are the UUIDs of those that it sees. In a
    ``sandbox`` it sees what ``view`` has, and may write to its home and its jobs' folders alone,
    which lie in ``work``.
    """

    def __init__(
        self,
        python: Path,
        adapter: Path,
        *,
        environ: Mapping[str, str],
        departures: list[str],
        home: Path,
        work: Path,
        gpus: Sequence[str] = (),
        sandbox: Sandbox = OPEN,
        view: View = SYSTEM_ALONE,
    ) -> None:
        self._work, self._orders, self._jobs = work, work / "orders", work / "jobs"
        self._orders.mkdir()
        self._jobs.mkdir()
        self._import_result = self._jobs / "import.json"
        self.inside = self._results = self._jobs
        """The folder of the job that is done, by a path that no link can take the place of."""
        self._temporary = home / "tmp"
        remove(self._temporary)
        remove_stale_locks(home)
        argv = [
            str(python), str(CHILD), "--adapter", str(adapter),
            "--import-result", str(self._import_result),
        ]  # fmt: skip
        for departure in departures:
            argv += ["--departure", departure]
        files = (CHILD, *adapter.parent.glob("*.py"))  # an adapter may import those beside it
        self._child = Child(
            argv, environ=child_environ(home, environ, gpus), cwd=home, events=True,
            sandbox=sandbox,
            view=view._replace(
                read_only=(*view.read_only, *files, self._orders),
                writable=(*view.writable, home, self._jobs),
            ),
        )  # fmt: skip
        self._events: list[Event] = []
        self._oom_kills = 0
        self._ended = False
        self.alive = True
        """Whether it can be given another job."""

    def __enter__(self) -> Probe:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._child.end()
        remove(self._temporary)

    def importing(self, limits: Limits) -> Answer:
        """Wait for the import of the package under test."""
        end = self._watch(limits, lambda event: event.event == "imported")
        event = self._events.pop(0) if self._events else Event()
        self.alive = event.event == "imported" and event.ok
        return _answer(Step.IMPORT, end, self._import_result, self._log())

    @contextmanager
    def job_folder(self) -> Iterator[Path]:
        """Give a fresh folder in which one job may write; it is removed afterwards.

        It is whole before the server sees it, who may put a link in the place of anything there,
        and of the folder itself: ``inside`` leads to what was made here.
        """
        made = Path(mkdtemp(prefix="job-", dir=self._work))
        (made / "results").mkdir()
        with hold(made) as self.inside, hold(made / "results") as self._results:
            folder = made.rename(self._jobs / made.name)
            try:
                yield folder
            finally:
                remove(folder)

    def perform(
        self, job: Mapping[str, Any], steps: list[Step], limits: Mapping[Step, Limits], work: Path,
        *, fork: bool,
    ) -> Iterator[Answer]:  # fmt: skip
        """Have a job done; give each step's answer as it ends. Stops at one that did not pass.

        ``work`` is what :meth:`job_folder` gives.
        """
        results = work / "results"
        file = self._orders / f"{work.name}.json"
        file.write_text(json.dumps({"schema": 1, "stages": steps, "results": str(results), **job}))
        self.alive = self.alive and fork
        self._events, self._oom_kills, self._ended = [], 0, False
        self._child.send(json.dumps({"job": str(file), "fork": fork}))
        end, log = End(), ""
        for index, step in enumerate(steps):
            if not self._ended:
                end = self._step(limits[step], steps[index + 1 :])
            # A quick step's words may have come with those of the step before, so it has both.
            log += self._log()
            answer = _answer(step, end, self._results / f"{step}.json", log)
            yield answer
            if end.limit or answer.result is None or not answer.result.ok:
                # One that goes on after a step that left nothing is not to be relied on.
                self.alive = self.alive and self._ended
                return

    def _step(self, limits: Limits, later: list[Step]) -> End:
        """Wait until a step is over: the next one begins, or the job ends. All else is no event."""
        over = {Event("stage", stage=step) for step in later}
        end = self._watch(limits, lambda event: event.event == "ended" or event in over)
        self.alive = self.alive and bool(self._events)
        event = self._events.pop(0) if self._events else Event()
        self._ended = event.event == "ended"
        # A process that was ended since the job began may be missed only now.
        self._oom_kills += end.oom_kills
        end = msgspec.structs.replace(end, oom_kills=self._oom_kills)
        return msgspec.structs.replace(end, status=event.status) if self._ended else end

    def _watch(self, limits: Limits, is_awaited: Callable[[Event], bool]) -> End:
        """Wait for an event of some kinds, which is the first of the events then."""

        def heard(line: str) -> bool:
            event = read_event(line)
            if event is not None and is_awaited(event) and len(self._events) < EVENTS:
                self._events.append(event)
            return bool(self._events)

        return End() if self._events else self._child.watch(limits, heard)

    def _log(self) -> str:
        self._child.drain()
        return self._child.log.take()


def remove_stale_locks(home: Path) -> None:
    """Remove the locks of compilations that were cut off, while nothing runs in a home.

    torch's ``cpp_extension`` waits for ever for the lock of a process that was killed, and
    GPTQModel compiles at its first import: each later one would end at its limit.
    """
    for folder, names, files in os.walk(home):
        depth = len(Path(folder).relative_to(home).parts)
        names[:] = [name for name in names if name != "pycache" and depth < LOCKS_DEPTH]
        if "torch_extensions" in Path(folder).parts and "lock" in files:
            Path(folder, "lock").unlink(missing_ok=True)


def read_event(line: str) -> Event | None:
    """Return what a line on the pipe of events says, or ``None`` where that is no event."""
    try:
        return decode(line.encode(), Event)
    except UnreadableError:
        return None


def _answer(step: Step, end: End, file: Path, log: str) -> Answer:
    try:
        return Answer(step, end, read_result(file, step), log)
    except FileNotFoundError:
        return Answer(step, end, None, log)
    except (OSError, UnreadableError) as error:
        return Answer(step, end, None, log, str(error))


def read_result(file: Path, step: Step) -> StepResult:
    """Return what a step left.

    Raises:
        UnreadableError: It is no result of that step, or more than can be kept.
        OSError: There is no such file, or the system does not give it.
    """
    result = decode(read_file(file, RESULT_BYTES), StepResult)
    if result.stage != step:
        raise UnreadableError(f"{file.name} is of another step: {result.stage[:40]!r}")
    if is_deep(result.facts):
        raise UnreadableError(f"{file.name} has facts nested deeper than {DEEPEST}")
    facts = {name: value for name, value in result.facts.items() if name != "likeliest"}
    kept = msgspec.structs.replace(result, facts=facts)
    if len(msgspec.json.format(msgspec.json.encode(kept), indent=1)) > KEPT_BYTES:
        raise UnreadableError(f"{file.name} has more than {KEPT_BYTES} bytes to be kept")
    return result
