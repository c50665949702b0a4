"""Steps that were begun and are not over: a note lies in the store while one is done.

Whoever leaves a step takes its note away, by an exception or an interrupt too. One that stays is of
a process that was ended at once (SIGKILL, a crash, lack of memory) while it did that step.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from matrix.untrusted.reading import UnreadableError, read_file

MAX_NOTE_BYTES = 10_000
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class BegunSteps:
    """The notes of a store, by step and key.

    Args:
        folder: Where they lie; it need not be there.
        run: The id of this run.
        boot: Says when the machine was started: what a power cut ended is no step's fault.
    """

    def __init__(self, folder: Path, run: str, boot: str = "") -> None:
        self._folder = folder
        self._run = run
        self._boot = boot or _boot_id()

    @contextmanager
    def noting(self, step: str, key: str) -> Iterator[None]:
        """Have a note of a step in the store until it is left, unless another process has one."""
        file = self._file(step, key)
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab") as note:
            try:
                fcntl.flock(note, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield
                return
            note.write(f"{self._boot} {self._run}\n".encode())
            note.flush()
            try:
                yield
            finally:
                file.unlink(missing_ok=True)

    def ended_in(self, step: str, key: str) -> list[str]:
        """Return the runs that ended in a step since the machine was started, without a word."""
        try:
            lines = read_file(self._file(step, key), MAX_NOTE_BYTES).decode().splitlines()
        except (OSError, UnreadableError, UnicodeDecodeError):
            return []
        pairs = (line.partition(" ") for line in lines)
        return [run for boot, _, run in pairs if boot == self._boot]

    def forget(self, step: str, key: str) -> None:
        """Count no end in a step any more."""
        with suppress(OSError):
            self._file(step, key).unlink()

    def _file(self, step: str, key: str) -> Path:
        return self._folder / step / key


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return os.uname().nodename  # a system that does not say it
