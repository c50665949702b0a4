"""Cards leased to one probe at a time, among all runs on the machine.

A lease is a lock on a file (``flock``) in a folder that all stores, checkouts and users share. The
kernel frees it when the process that holds it ends, however it ends, so a killed holder leaves
nothing to clean up. Only who holds the folder's queue takes cards, all that are needed or none: so
two that each want what the other has cannot wait for each other, and who needs two cards is not
passed over for ever by those who need one.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from matrix.machine.hardware import Gpu

WAIT_SECONDS = 1.0
PATIENCE = 60
"""So many looks pass before a wait for other runs is worth a line."""

_QUEUE = "queue"

ProcessesOn = Callable[[str], list[int]]
"""From a card's UUID to the ids of the processes that compute on it."""


PLACES = (Path("/run/lock"), Path("/var/lock"), Path("/tmp"))
"""For locks; the last is cleaned of files that are old, even of those that somebody holds."""


def leases_folder(host: Mapping[str, str] = os.environ, places: Sequence[Path] = PLACES) -> Path:
    """Return where this machine's leases are: ``MATRIX_LEASES``, or one place for all users.

    That is in the first of ``places`` where everybody may write, or the last: whoever asks, the
    answer must be the same.
    """
    if named := host.get("MATRIX_LEASES"):
        return Path(named)
    return next(filter(_for_all, places), places[-1]) / "matrix-leases"


def strangers(
    gpus: Sequence[Gpu], processes_on: ProcessesOn, wait: Callable[[float], None] = time.sleep
) -> int:
    """Return how many processes compute on leased cards whose holder has ended all its own.

    Looks again before it says so: what has just ended may still be listed.
    """
    if any(processes_on(gpu.uuid) for gpu in gpus):
        wait(WAIT_SECONDS)
    return len({process for gpu in gpus for process in processes_on(gpu.uuid)})


@contextmanager
def lease(
    gpus: Sequence[Gpu],
    count: int,
    folder: Path,
    processes_on: ProcessesOn,
    tell: Callable[[str], None],
    wait: Callable[[float], None] = time.sleep,
) -> Iterator[list[Gpu]]:
    """Lease ``count`` of the cards, waiting until so many are free; leaving frees them.

    A card on which somebody computes without a lease is left alone: it is waited for.

    Args:
        gpus: Those that would do.
        count: How many are needed.
        folder: Where the files of leases lie; it is made where it is not.
        processes_on: Says who is on a card.
        tell: Is given a line when there is somebody to wait for.
        wait: Waits so many seconds. What it raises ends the waiting, and nothing is held.

    Raises:
        ValueError: There are not so many: it would wait for ever.
        OSError: The folder cannot be used.
    """
    if count > len(gpus):
        raise ValueError(f"{count} GPUs to lease, but {len(gpus)} would do: see needs.unmet()")
    _make(folder)
    with ExitStack() as leased, ExitStack() as queue:
        first, last_reason, looks = False, "", 0
        while True:
            first = first or _lock(folder / _QUEUE, queue)
            taken: list[Gpu] = []
            occupied: dict[int, int] = {}
            if first:
                taken, occupied = _take(gpus, count, folder, processes_on, leased)
            if len(taken) == count:
                break
            if first and len(gpus) - len(occupied) < count:
                queue.close()  # strangers may stay for days: who needs fewer cards goes first
                first = False
            looks += 1
            why = _reason(occupied, looks, last_reason)
            if why != last_reason:
                tell(f"waiting for {count} of {len(gpus)} GPUs: {why}")
                last_reason = why
            wait(WAIT_SECONDS)
        queue.close()
        yield taken


def _reason(occupied: Mapping[int, int], looks: int, last_reason: str) -> str:
    """Return what is waited for after so many looks; the reason given last where nothing is new.

    ``occupied`` is the index of a card -> a process without a lease that computes on it.
    """
    if occupied and looks > 1:  # a probe that has just ended is gone at the second look
        return ", ".join(
            f"process {pid} computes on GPU {index}" for index, pid in occupied.items()
        )
    return last_reason or ("other runs have them" if looks == PATIENCE else "")


def _take(
    gpus: Sequence[Gpu],
    count: int,
    folder: Path,
    processes_on: ProcessesOn,
    leased: ExitStack,
) -> tuple[list[Gpu], dict[int, int]]:
    """Return cards, held in ``leased``, or none; and of each occupied card one process."""
    cards: list[Gpu] = []
    occupied: dict[int, int] = {}
    with ExitStack() as locks:
        for gpu in gpus:
            if len(cards) == count:
                break
            with ExitStack() as lock:
                if not _lock(folder / gpu.uuid.replace("/", "-"), lock):
                    continue
                if processes := processes_on(gpu.uuid):
                    occupied[gpu.index] = processes[0]
                    continue
                cards.append(gpu)
                locks.enter_context(lock.pop_all())
        if len(cards) < count:
            return [], occupied
        leased.enter_context(locks.pop_all())
        return cards, occupied


def _lock(file: Path, held: ExitStack) -> bool:
    """Lock a file where nobody else does, until ``held`` is left. It is never written to."""
    flags = os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW
    while True:
        opened = os.open(file, flags, 0o644)
        try:
            with suppress(PermissionError):  # another user's, who saw to that
                os.fchmod(opened, 0o644)  # whatever the umask: other users must be able to open it
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(opened)
            return False
        if _is_at(opened, file):
            held.callback(os.close, opened)
            return True
        os.close(opened)  # somebody deleted it meanwhile, and the next who comes locks another


def _is_at(opened: int, file: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(opened), file.lstat())
    return False


def _for_all(place: Path) -> bool:
    """Whether everybody may write to a folder."""
    with suppress(OSError):
        return bool(place.stat().st_mode & stat.S_IWOTH)
    return False


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        return
    folder.chmod(0o777)  # other users put their own cards' files there
