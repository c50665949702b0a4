"""Children with limits: started through the keeper, watched, ended whole."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Literal

import psutil

from matrix.machine import keeper
from matrix.machine.sandbox import OPEN, SYSTEM_ALONE, Isolation, Sandbox, View
from matrix.pipeline.ends import End
from matrix.spec.tables import Limits

LOG_TAIL_BYTES = 16_000
EVENT_BYTES = 1_000_000
POLL_SECONDS = 0.05
MEMORY_POLL_SECONDS = 0.2

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


def die_with_parent(parent: int) -> None:
    """Have the kernel send SIGTERM to this process when its parent ends, however it ends."""
    keeper.prctl(keeper.PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before that
        raise SystemExit(143)


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
        try:
            self._process = subprocess.Popen(
                command,
                env=dict(environ),
                cwd=cwd,
                pass_fds=[reading],
                start_new_session=True,
                stdin=subprocess.PIPE if events else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE if events else subprocess.STDOUT,
            )
        finally:
            os.close(reading)
        self.log = Log()
        self._line = b""
        self._selector = selectors.DefaultSelector()
        self._log_pipe = self._process.stderr if events else self._process.stdout
        self._event_pipe = self._process.stdout if events else None
        for pipe in (self._log_pipe, self._event_pipe):
            if pipe is not None:
                os.set_blocking(pipe.fileno(), False)
                self._selector.register(pipe, selectors.EVENT_READ)

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
        """End the whole tree and wait for it. Return the exit status where it ended by itself."""
        status = self._status()
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
        self._process.wait()
        self.drain()
        self._log_pipe = self._event_pipe = None
        self._selector.close()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue
        return status

    def send(self, line: str) -> None:
        """Write a line to the child's standard input; a child that is gone is found by watch."""
        if self._process.stdin is not None:
            try:
                self._process.stdin.write(line.encode() + b"\n")
                self._process.stdin.flush()
            except BrokenPipeError:
                return

    def watch(self, limits: Limits, on_event: Callable[[str], bool] = lambda _: False) -> End:
        """Wait until the child ends, a limit is hit, or ``on_event`` returns true for a line.

        On a limit the whole tree is ended. ``on_event`` returning true means that what was waited
        for has happened: status 0, and the child lives on.
        """
        started = last_sign = time.monotonic()
        log_start, peak, measure_at = self.log.size, 0, 0.0
        while True:
            finished, sound = self._read(on_event)
            now = time.monotonic()
            last_sign = now if sound else last_sign
            if now >= measure_at:
                peak = max(peak, self._memory(limits.memory_mb * 10**6))
                measure_at = now + MEMORY_POLL_SECONDS
            if finished:
                return End(status=0, seconds=now - started, peak_bytes=peak)
            hit = _hit(limits, now - started, now - last_sign, peak, self.log.size - log_start)
            if hit:
                self.end()
                return End(limit=hit, status=None, seconds=now - started, peak_bytes=peak)
            status = self._status()
            if status is not None and not sound:
                return End(status=status, seconds=now - started, peak_bytes=peak)

    def drain(self) -> None:
        """Take what was printed before the last event and not yet read."""
        while self._read_pipe(self._log_pipe):
            continue

    def _status(self) -> int | None:
        """Return the exit status, of a signal its number below zero; ``None`` while it runs."""
        status = self._process.poll()
        if status is None or self._isolation is Isolation.NONE or status not in OF_SIGNALS:
            return status
        return OF_SIGNALS.start - 1 - status

    def _read(self, on_event: Callable[[str], bool]) -> tuple[bool, bool]:
        """Read what is there; return whether the awaited event came and whether anything came."""
        sound = finished = False
        for key, _ in self._selector.select(POLL_SECONDS):
            if key.fileobj is self._log_pipe:
                sound |= bool(self._read_pipe(self._log_pipe))
                continue
            data = self._read_pipe(self._event_pipe)
            sound |= bool(data)
            *lines, self._line = (self._line + data).split(b"\n")
            self._line = self._line[-EVENT_BYTES:]
            for line in lines:
                finished |= on_event(line.decode("utf-8", "replace"))
        return finished, sound

    def _read_pipe(self, pipe: IO[bytes] | None) -> bytes:
        if pipe is None:
            return b""
        try:
            data = os.read(pipe.fileno(), 65_536)
        except BlockingIOError:
            return b""
        if not data and pipe in [key.fileobj for key in self._selector.get_map().values()]:
            self._selector.unregister(pipe)
        if pipe is self._log_pipe:
            self.log.add(data)
        return data

    def _memory(self, enough: int) -> int:
        """Return bytes used by the tree: resident ones, shared pages once where that matters."""
        try:
            tree = psutil.Process(self._process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return 0
        resident = sum(_bytes(process, shared_once=False) for process in tree)
        if resident <= enough:
            return resident
        return sum(_bytes(process, shared_once=True) for process in tree)


def _bytes(process: psutil.Process, *, shared_once: bool) -> int:
    try:
        if shared_once:
            return int(process.memory_full_info().pss)
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _hit(
    limits: Limits, seconds: float, silent: float, peak: int, printed: int
) -> Literal["", "timeout", "silence", "oom", "log-limit"]:
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
