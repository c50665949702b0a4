"""Answers are bounded, and what is too slow is left behind."""

from __future__ import annotations

import socket
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from matrix.index import fetching
from matrix.index.fetching import Fetcher, FetchError, Limits, in_parallel
from matrix.machine import threads
from tests import REPOSITORY
from tests.processes import index_server as served
from tests.processes.index_server import Handler, Respond, Server


def at(server: Server, path: str) -> str:
    return server.address.replace("/simple", path)


@pytest.mark.parametrize("slow", [served.drip, served.silent])
def test_what_asks_a_slow_server_ends_by_itself(server: Server, slow: served.Respond) -> None:
    server.answers["/x"] = slow
    with pytest.raises(FetchError, match=r"within 0.2 s|does not answer in time"):
        Fetcher(limits=Limits(seconds=0.2)).get(at(server, "/x"))


def test_the_body_of_a_redirect_is_not_read(server: Server) -> None:
    """Else a server could send gigabytes past every limit."""
    sent: list[int] = []

    def respond(on: Handler) -> None:
        on.send_response(302)
        on.send_header("Location", "/sound")
        on.end_headers()
        for _ in range(100):
            on.wfile.write(bytes(1_000_000))
            sent.append(1_000_000)

    server.answers["/x"] = respond
    server.answers["/sound"] = lambda on: on.send(b"{}")
    fetched = Fetcher(limits=Limits(seconds=600, megabytes=1)).get(at(server, "/x"))
    assert (fetched.body, fetched.address) == (b"{}", at(server, "/sound"))
    assert sum(sent) < 50_000_000  # what the system's buffers take


def test_redirects_one_after_the_other_share_the_time(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock on which each answer takes 400 seconds."""
    clock = SimpleNamespace(monotonic=lambda: 400.0 * len(server.asked))
    monkeypatch.setattr(fetching, "time", clock)
    server.answers["/x"] = lambda on: on.send(b"", status=302, Location="/x")
    with pytest.raises(FetchError, match=r"within 600 s"):
        Fetcher(limits=Limits(seconds=600)).get(at(server, "/x"))
    assert len(server.asked) == 2


def test_a_password_goes_along_to_the_same_server_and_to_no_other(server: Server) -> None:
    credentials: dict[str, str | None] = {}

    def answering(name: str, **headers: str) -> Respond:
        def respond(on: Handler) -> None:
            credentials[name] = on.headers.get("Authorization")
            on.send(b"{}", status=302 if headers else 200, **headers)

        return respond

    with served.running() as other:
        other.answers["/there"] = answering("there")
        server.answers["/a"] = answering("a", Location="b")
        server.answers["/b"] = answering("b", Location=at(server, "/c"))
        server.answers["/c"] = answering("c", Location=at(other, "/there"))
        Fetcher().get(at(server, "/a").replace("//", "//user:s3cr3t@"))
    ours = "Basic " + b64encode(b"user:s3cr3t").decode()
    assert credentials == {"a": ours, "b": ours, "c": ours, "there": None}


@pytest.mark.parametrize("target", ["http://[::bad/", "http://\xff\xfe/", "//[x"])
def test_a_redirect_that_cannot_be_read_is_an_error(server: Server, target: str) -> None:
    server.answers["/x"] = lambda on: on.send(b"", status=302, Location=target)
    with pytest.raises(FetchError, match="address"):
        Fetcher(limits=Limits(seconds=600)).get(at(server, "/x"))


def test_a_process_ends_with_what_it_left_behind() -> None:
    code = """
from threading import Event
from matrix.index.fetching import in_parallel
in_parallel(lambda _: Event().wait(3600), [1], 0.05)
"""
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, timeout=600, check=True)


def test_work_that_takes_too_long_is_left_behind(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that is read at the start, before each of two results, and then too late."""
    times = iter([0.0, 0.0, 0.0])
    clock = SimpleNamespace(monotonic=lambda: next(times, 601.0))
    monkeypatch.setattr(threads, "time", clock)

    def work(item: str) -> str:
        if item == "slow":
            server.ended.wait(3600)
        return item * 2

    results = in_parallel(work, ["a", "slow", "b", "a"], 600)
    assert (results["a"], results["b"]) == ("aa", "bb")
    assert "within 600 s" in str(results["slow"])


def test_each_item_has_its_own_error_and_a_mistake_of_ours_passes() -> None:
    def work(item: int) -> int:
        if item == 1:
            raise FetchError("no")
        return 10 // item

    results = in_parallel(work, [1, 2, 5], 600)
    assert (str(results[1]), results[2], results[5]) == ("no", 5, 2)
    with pytest.raises(ZeroDivisionError):
        in_parallel(work, [2, 0], 600)
    assert in_parallel(work, [], 5) == {}


def test_no_more_are_asked_at_once_than_an_index_bears(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "AT_ONCE", 1)
    order: list[int] = []
    in_parallel(order.append, [3, 1, 2], 600)
    assert order == [3, 1, 2]


PUBLIC = {"index.example": "151.101.0.223", "files.example": "151.101.64.223"}
INNER = {
    "127.0.0.1": "127.0.0.1", "169.254.169.254": "169.254.169.254", "10.1.2.3": "10.1.2.3",
    "::1": "::1", "::ffff:127.0.0.1": "::ffff:127.0.0.1", "printer.example": "192.168.0.9",
    "0": "0.0.0.0",
}  # fmt: skip
"""Host -> its address."""


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    addresses = PUBLIC | INNER

    def resolve(host: str, *_: object, **__: object) -> list[Any]:
        if host not in addresses:
            raise socket.gaierror
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (addresses[host], 0))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    fetching._is_public.cache_clear()
    yield
    fetching._is_public.cache_clear()


@pytest.mark.usefixtures("names")
@pytest.mark.parametrize("host", INNER)
def test_the_internet_leads_to_nothing_of_this_network(host: str) -> None:
    inner = f"http://[{host}]/x" if ":" in host else f"http://{host}/x"
    with pytest.raises(FetchError, match="sends on to an address of this machine or its network"):
        Fetcher().get(inner, origin="https://index.example/simple/a/")


@pytest.mark.usefixtures("names")
@pytest.mark.parametrize(
    ("before", "address"),
    [
        ("https://index.example/simple/a/", "https://files.example/a"),
        ("https://index.example/simple/a/", "https://unknown.example/a"),
        ("http://10.1.2.3/simple/a/", "http://127.0.0.1/a"),
        ("http://printer.example/simple/a/", "https://files.example/a"),
    ],
)
def test_all_else_may_be_asked(before: str, address: str) -> None:
    fetching._check_outward(before, address)


def test_a_redirect_is_looked_at_before_it_is_followed(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_public = {"127.0.0.1": True, "localhost": False}
    monkeypatch.setattr(fetching, "_is_public", is_public.get)
    inner = at(server, "/secret").replace("127.0.0.1", "localhost")
    server.answers["/x"] = lambda on: on.send(b"", status=302, Location=inner)
    server.answers["/secret"] = lambda on: on.send(b"secret")
    with pytest.raises(FetchError, match="sends on to an address of this machine"):
        Fetcher().get(at(server, "/x"))
    assert server.paths() == ["/x"]
