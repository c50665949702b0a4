"""Work done side by side, on threads that nobody waits for when the process ends.

``concurrent.futures.ThreadPoolExecutor`` does not serve here: Python waits for its threads before
it ends, and what an index or uv keeps a thread waiting for may never come.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from threading import Event, Thread
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    threads: int,
    seconds: float | None = None,
) -> Generator[tuple[Item, Future[Result]], None, None]:
    """Yield each item with what ``work`` gave or raised, in the order in which that ended.

    Ends after so many seconds, whatever is still missing. Work that has not begun when the
    generator is closed is not begun any more.
    """
    todo: queue.SimpleQueue[Item] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[Item, Future[Result]]] = queue.SimpleQueue()
    over = Event()
    number = 0
    for item in items:
        todo.put(item)
        number += 1

    def take() -> None:
        while not over.is_set():
            try:
                item = todo.get_nowait()
            except queue.Empty:
                return
            future: Future[Result] = Future()
            try:
                future.set_result(work(item))
            except BaseException as error:  # noqa: BLE001 - whoever asks for the result raises it
                future.set_exception(error)
            done.put((item, future))

    until = None if seconds is None else time.monotonic() + seconds
    try:
        for _ in range(min(threads, number)):
            Thread(target=take, daemon=True).start()
        for _ in range(number):
            yield done.get(timeout=None if until is None else max(0.0, until - time.monotonic()))
    except queue.Empty:
        return
    finally:
        over.set()
