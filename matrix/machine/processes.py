"""Children with limits: started through the keeper, watched, ended whole."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from matrix.machine import keeper
from matrix.machine.measuring import (
    MARK,
    Stopwatch,
    count_oom_kills,
    kill_marked,
    leaves_space,
    memory_of,
)
from matrix.machine.output import Output
from matrix.machine.sandbox import OPEN, SYSTEM_ALONE, Isolation, Sandbox, View
from matrix.pipeline.ends import End, Limit
from matrix.spec.tables import Limits

MEASURE_SECONDS = 0.2
CONTINUE_SECONDS = 1.0
END_SECONDS = keeper.GIVE_UP_SECONDS + 10

OF_SIGNALS = range(129, 193)
"""Statuses by which bubblewrap, as a shell, says of which signal its command died."""

PASSED_ON = (
    "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "PATH", "TZ",
    "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE",
)  # fmt: skip
"""Variables of the host that a child gets to see. No token, no cache, no index stands here."""


ONLINE = (
    "HF_ENDPOINT", "REQUESTS_CA_BUNDLE", "SSL_CERT_DIR", "SSL_CERT_FILE",
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY",
    "http_proxy", "https_proxy", "all_proxy", "no_proxy",
)  # fmt: skip
"""What one that is to download gets to see besides: where the Hub is, and how to get there."""


def child_environ(home: Path, more: Mapping[str, str], gpus: Sequence[str] = ()) -> dict[str, str]:
    """Return the environment of a probe: an allow-list and a private home.

    Nothing of the network's settings is in it but for one that ``more`` lets download.

    One OpenMP thread, because a pool of threads does not survive a fork; a probe with GPUs does not
    fork. It sees the GPUs with the given UUIDs and no other: without any, the evidence is a CPU's.
    """
    passed_on = PASSED_ON + (ONLINE if more.get("HF_HUB_OFFLINE") == "0" else ())
    environ = {name: os.environ[name] for name in passed_on if name in os.environ}
    environ |= {
        "HOME": str(home),
        "HF_HOME": str(home / "huggingface"),
        "XDG_CACHE_HOME": str(home / "cache"),
        "TMPDIR": str(home / "tmp"),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONHASHSEED": "0",
        "VLLM_HOST_IP": "127.0.0.1",  # it asks the network for it otherwise, where there is none
        **({} if gpus else {"OMP_NUM_THREADS": "1"}),
    }
    (home / "tmp").mkdir(parents=True, exist_ok=True)
    return environ | dict(more) | {"CUDA_VISIBLE_DEVICES": ",".join(gpus)}


def hide_from_siblings() -> None:
    """Keep other processes of this user from reading this one's environment and memory.

    Children that it starts are as open as any. Nobody opens its ``/proc/PID/fd`` any more either.
    """
    keeper.prctl(keeper.PR_SET_DUMPABLE, 0)


def die_with_parent(parent: int) -> None:
    """Have the kernel send SIGTERM to this process when its parent ends, however it ends."""
    keeper.prctl(keeper.PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before that
        raise SystemExit(143)


class Child:
    """A command in a process tree of its own. Use as a context manager: leaving it ends the tree.

    Standard error (and output, unless ``events``) is the log. With ``events``, standard output
    is read as lines and given to :meth:`watch`'s callback. In a ``sandbox`` it has this ``view``,
    in which ``cwd`` must lie.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        environ: Mapping[str, str],
        cwd: Path,
        events: bool = False,
        sandbox: Sandbox = OPEN,
        view: View = SYSTEM_ALONE,
    ) -> None:
        reading, self._lifeline = os.pipe()
        command = [sys.executable, "-I", "-S", keeper.__file__, str(reading)]
        command += sandbox.shut_in(argv, view, cwd)
        self._isolation = sandbox.isolation
        self._mark = secrets.token_hex(8)
        try:
            self._process = subprocess.Popen(
                command,
                env={**environ, MARK: self._mark},
                cwd=cwd,
                pass_fds=[reading],
                start_new_session=True,
                stdin=subprocess.PIPE if events else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE if events else subprocess.STDOUT,
            )
        finally:
            os.close(reading)
        if self._process.stdin is not None:
            os.set_blocking(self._process.stdin.fileno(), False)
        log_pipe = self._process.stderr if events else self._process.stdout
        assert log_pipe is not None
        self._output = Output(log_pipe, self._process.stdout if events else None)
        self.log = self._output.log
        self._home = Path(environ.get("HOME", cwd))
        self._oom_kills = count_oom_kills()

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()

    def end(self) -> int | None:
        """End the whole tree and wait for it. Return the exit status where it ended by itself.

        Its keeper does that, unless it was stopped or killed itself.
        """
        status = self._status()
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
        stopwatch = Stopwatch()
        while self._process.poll() is None and stopwatch.look() < END_SECONDS:
            self._process.send_signal(signal.SIGCONT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(CONTINUE_SECONDS)
        self._process.kill()
        if self._process.wait() < 0 and (left := kill_marked(self._mark)):
            sys.stderr.write(f"processes of {self._home} that cannot be killed: {left}\n")
        self._output.close()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue
        return status

    def send(self, line: str) -> None:
        """Write a line to the child's standard input; a child that is gone is found by watch.

        One that reads nothing and has filled the pipe gets none, and runs into its limits.
        """
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError, BlockingIOError):
                os.write(self._process.stdin.fileno(), line.encode() + b"\n")

    def watch(self, limits: Limits, on_event: Callable[[str], bool] = lambda _: False) -> End:
        """Wait until the child ends, a limit is hit, or ``on_event`` returns true for a line.

        On a limit the whole tree is ended. ``on_event`` returning true means that what was waited
        for has happened: status 0, and the child lives on.
        """
        stopwatch, last_sign, measure_at = Stopwatch(), 0.0, 0.0
        printed_before, peak, has_space = self._output.size, 0, True
        while True:
            finished, sound = self._output.read(on_event)
            seconds = stopwatch.look()
            last_sign = seconds if sound else last_sign
            if seconds >= measure_at:
                peak = max(peak, self._memory(limits))
                has_space = leaves_space(self._home)
                measure_at = seconds + MEASURE_SECONDS
            if finished:
                return self._end("", 0, seconds, peak)
            printed, silent = self._output.size - printed_before, seconds - last_sign
            hit = _hit(limits, seconds, silent, peak, printed, has_space=has_space)
            if hit:
                self.end()
                return self._end(hit, None, seconds, peak)
            status = self._status()
            if status is not None and not sound:
                return self._end("", status, seconds, peak)

    def _end(self, limit: Limit, status: int | None, seconds: float, peak: int) -> End:
        before, self._oom_kills = self._oom_kills, count_oom_kills()
        kills = self._oom_kills - before
        return End(limit=limit, status=status, seconds=seconds, peak_bytes=peak, oom_kills=kills)

    def drain(self) -> None:
        """Take what was logged before the last event and not yet read, as much as a pipe holds."""
        self._output.drain()

    def _memory(self, limits: Limits) -> int:
        in_sandbox = self._isolation is not Isolation.NONE
        return memory_of(self._process.pid, limits.memory_mb * 10**6, in_sandbox=in_sandbox)

    def _status(self) -> int | None:
        """Return the exit status, of a signal its number below zero; ``None`` while it runs."""
        status = self._process.poll()
        if status is None or self._isolation is Isolation.NONE or status not in OF_SIGNALS:
            return status
        return OF_SIGNALS.start - 1 - status


def _hit(
    limits: Limits, seconds: float, silent: float, peak: int, printed: int, *, has_space: bool
) -> Limit:
    if not has_space:
        return "no-space"
    if peak > limits.memory_mb * 10**6:
        return "oom"
    if printed > limits.log_mb * 10**6:
        return "log-limit"
    if seconds > limits.seconds:
        return "timeout"
    if silent > limits.silence:
        return "silence"
    return ""


def run(
    argv: Sequence[str],
    environ: Mapping[str, str],
    cwd: Path,
    limits: Limits,
    sandbox: Sandbox = OPEN,
    view: View = SYSTEM_ALONE,
) -> tuple[End, str]:
    """Run a command to its end within limits; return how it ended and the tail of its output."""
    with Child(argv, environ=environ, cwd=cwd, sandbox=sandbox, view=view) as child:
        end = child.watch(limits)
        child.drain()  # what it printed between the last look and its end
        return end, child.log.take()
