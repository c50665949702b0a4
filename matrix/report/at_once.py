"""Work in a process of its own while this one goes on."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import TypeVar, cast

_T = TypeVar("_T")
_work: Callable[[], object] | None = None
"""What a forked process is there for: it need not be pickled."""


@contextmanager
def at_once(work: Callable[[], _T], *, forked: bool) -> Iterator[Callable[[], _T]]:
    """Give a function that returns what ``work`` returns, or raises what it raises.

    Where it is forked, it began already, in a copy of this process. That is not made where this
    process has other threads, whose locks would stay closed in it.
    """
    gc.freeze()  # to look for garbage in what stays takes a seventh of the time
    try:
        if not forked or threading.active_count() > 1:
            yield work
            return
        fork = get_context("fork")
        with ProcessPoolExecutor(1, fork, initializer=_keep, initargs=(work,)) as process:
            yield cast("Callable[[], _T]", process.submit(_perform).result)
    finally:
        gc.unfreeze()


def _keep(work: Callable[[], object]) -> None:
    global _work
    _work = work


def _perform() -> object:
    assert _work is not None
    return _work()
