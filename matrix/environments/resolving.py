"""Whether uv finds a set of packages for each of many environments: asked side by side, kept.

Nothing is installed and no wheel is downloaded: uv reads what packages require. Each answer, a
refusal too, is written at once as a lock in the store, named by what was asked and as of when, and
from then on only read. Trouble of the machine or the network is no answer and is asked again by
the next run.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from uv import find_uv_bin

from matrix.environments.locks import Lock, Locks, make_lock, own_name
from matrix.outcomes import Outcome, Reason
from matrix.spec.tables import Environment, Limits
from matrix.store.observations import Judged
from matrix.store.store import Store, write_atomically

TELL_SECONDS = 5.0
TROUBLE_IN_A_ROW = 8
"""After so many resolutions with nothing but trouble the network is gone, and no more are asked."""


_NOT_ASKED = f"not asked, since the {TROUBLE_IN_A_ROW} before it ended in trouble"

_Given = tuple[Lock | None, Judged]


class Resolved(NamedTuple):
    """What became of one environment in one resolution; without a lock there was trouble."""

    environment: Environment
    lock: Lock | None
    judged: Judged


def resolve_all(
    environments: Iterable[Environment],
    committed: Path,
    store: Store,
    host: Mapping[str, str],
    limits: Limits,
    tell: Callable[[str], None],
    jobs: int,
) -> Iterator[Resolved]:
    """Yield an answer for every environment: those that are kept first, then as uv gives them.

    ``committed`` is the folder of locks beside the spec. Leaving off in between loses nothing that
    was answered; what uv is just doing then ends with this process. Environments that ask the same
    are asked once. Raises :class:`OSError` where the store cannot be written.
    """
    kept = store.path("locks", "any").parent
    locks = Locks(committed, kept)
    waiting: dict[str, list[Environment]] = {}
    for environment in environments:
        lock = locks.find(environment)
        if lock is not None:
            yield Resolved(environment, lock, judged(lock))
        else:
            waiting.setdefault(own_name(environment), []).append(environment)

    def ask(name: str) -> _Given:
        with store.work("lock") as work:
            lock, found, _ = make_lock(waiting[name][0], work, host, limits)
        if lock is None:
            return None, found
        write_atomically(kept / name, lock.text.encode())
        return lock, judged(lock)

    find_uv_bin()  # here first: two threads that read sysconfig for the first time fail
    trouble, tell_at = 0, time.monotonic() + TELL_SECONDS
    with closing(_side_by_side(list(waiting), ask, jobs)) as asked:
        for done, (name, (lock, found)) in enumerate(asked, start=1):
            same = waiting.pop(name)
            yield from (Resolved(environment, lock, found) for environment in same)
            if lock is None:
                what = f"{same[0].name} as {same[0].resolution}"
                tell(f"{what}: {found.reason}, {found.message.strip()}")
            trouble = 0 if lock else trouble + 1
            if trouble == TROUBLE_IN_A_ROW:
                break
            if time.monotonic() >= tell_at:
                tell(f"{done} resolutions asked of uv, {len(waiting)} to go")
                tell_at = time.monotonic() + TELL_SECONDS
    for environment in (environment for same in waiting.values() for environment in same):
        yield Resolved(environment, None, Judged(Outcome.INFRA, Reason.NETWORK, _NOT_ASKED))


def judged(lock: Lock) -> Judged:
    """Return what a lock says of its environment."""
    if lock.refusal:
        return Judged(Outcome.FAILED, Reason.UNRESOLVABLE, lock.refusal)
    return Judged(Outcome.PASSED)


def _side_by_side(
    names: list[str], ask: Callable[[str], _Given], jobs: int
) -> Generator[tuple[str, _Given], None, None]:
    """Yield each name with what asking gave, in the order in which that ends; raise what it raised.

    The threads are daemons: an interrupted process does not wait for them, and what they started
    ends with it.
    """
    todo: queue.SimpleQueue[str] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[str, Future[_Given]]] = queue.SimpleQueue()
    stop = threading.Event()
    for name in names:
        todo.put(name)

    def work() -> None:
        while not stop.is_set():
            try:
                name = todo.get_nowait()
            except queue.Empty:
                return
            future: Future[_Given] = Future()
            try:
                future.set_result(ask(name))
            except BaseException as error:  # noqa: BLE001 - the thread that waits raises it
                future.set_exception(error)
            done.put((name, future))

    for _ in range(min(jobs, len(names))):
        threading.Thread(target=work, daemon=True).start()
    try:
        for _ in names:
            name, future = done.get()
            yield name, future.result()
    finally:
        stop.set()
