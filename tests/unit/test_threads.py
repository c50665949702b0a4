"""Work side by side: in the order in which it ends, with what it raised, and left behind."""

from __future__ import annotations

from contextlib import closing
from threading import Event

import pytest

from matrix.machine.threads import side_by_side


def test_what_ends_first_comes_first() -> None:
    begun = Event()

    def work(item: str) -> str:
        if item == "slow":
            begun.wait()
        return item * 2

    with closing(side_by_side(work, ["slow", "fast"], 2)) as ended:
        item, future = next(ended)
        assert (item, future.result()) == ("fast", "fastfast")
        begun.set()
        item, future = next(ended)
        assert (item, future.result()) == ("slow", "slowslow")
        assert list(ended) == []


def test_what_work_raised_is_raised_where_its_result_is_asked_for() -> None:
    (division, ok) = side_by_side(lambda item: 6 // item, [0, 3], 1)
    with pytest.raises(ZeroDivisionError):
        division[1].result()
    assert ok[1].result() == 2


def test_work_that_has_not_begun_is_not_begun_after_the_end() -> None:
    begun: list[int] = []
    held = Event()

    def work(item: int) -> None:
        begun.append(item)
        if item == 1:
            held.wait()

    with closing(side_by_side(work, range(5), 1)) as ended:
        assert next(ended)[0] == 0
    held.set()
    assert begun in ([0], [0, 1])


def test_time_ends_the_work_whatever_is_missing() -> None:
    never = Event()
    assert list(side_by_side(lambda _: never.wait(), [1, 2], 2, seconds=0.0)) == []
    never.set()


def test_nothing_to_do_is_done_at_once() -> None:
    assert list(side_by_side(str, [], 8)) == []
