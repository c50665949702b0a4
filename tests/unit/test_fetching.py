"""Answers are bounded, and what is too slow is left behind."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from matrix import fetching
from matrix.context import REPOSITORY
from matrix.fetching import Fetcher, FetchError, Limits, in_parallel
from tests.unit import index_server as served
from tests.unit.index_server import Server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "*")
    with served.running() as one:
        yield one


@pytest.mark.parametrize("slow", [served.drip, served.silent])
def test_what_asks_a_slow_server_ends_by_itself(server: Server, slow: served.Respond) -> None:
    server.answers["/x"] = slow
    address = server.address.replace("/simple", "/x")
    with pytest.raises(FetchError, match=r"within 0.2 s|does not answer in time"):
        Fetcher(limits=Limits(seconds=0.2)).get(address)


def test_a_process_ends_with_what_it_left_behind() -> None:
    code = """
from threading import Event
from matrix.fetching import in_parallel
in_parallel(lambda _: Event().wait(600), [1], 0.05)
"""
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, timeout=60, check=True)


def test_work_that_takes_too_long_is_left_behind(server: Server) -> None:
    def work(item: str) -> str:
        if item == "slow":
            server.ended.wait(30)
        return item * 2

    found = in_parallel(work, ["a", "slow", "b", "a"], 0.3)
    assert (found["a"], found["b"]) == ("aa", "bb")
    assert "within 0.3 s" in str(found["slow"])


def test_each_item_has_its_own_error_and_a_mistake_of_ours_passes() -> None:
    def work(item: int) -> int:
        if item == 1:
            raise FetchError("no")
        return 10 // item

    found = in_parallel(work, [1, 2, 5], 5)
    assert (str(found[1]), found[2], found[5]) == ("no", 5, 2)
    with pytest.raises(ZeroDivisionError):
        in_parallel(work, [2, 0], 5)
    assert in_parallel(work, [], 5) == {}


def test_no_more_are_asked_at_once_than_an_index_bears(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "AT_ONCE", 1)
    order: list[int] = []
    in_parallel(order.append, [3, 1, 2], 5)
    assert order == [3, 1, 2]
