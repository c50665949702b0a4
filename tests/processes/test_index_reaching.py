"""Indexes that are down, slow or not to be asked, and how they let somebody in. On the loopback."""

from __future__ import annotations

import json
import re
import socket
from base64 import b64encode
from pathlib import Path
from threading import Event

import pytest

from matrix.index import fetching
from matrix.index.client import Index, IndexLimits
from matrix.index.fetching import Limits
from matrix.index.settings import IndexSettings
from tests.processes import index_server as served
from tests.processes.asking import PATIENCE, ask
from tests.processes.index_server import HTML, JSON, WHEEL, Handler, Server, file, page
from tests.processes.test_index import LIES
from tests.resealing import replace_in

pytestmark = pytest.mark.usefixtures("no_proxy")
IMPATIENCE = IndexLimits(page=Limits(seconds=0.3), pages_seconds=0.6)


def test_an_index_that_is_down_is_named_with_its_package(server: Server, tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound, and never listened on
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}/simple"
        server.serve("made-up", page("made-up", file(WHEEL)))
        ask(Index(IndexSettings([server.address]), tmp_path / "index", PATIENCE))
        kept = tmp_path / "index" / "made-up.json"  # as if it had been up then
        replace_in(kept, server.address, address)
        answer = ask(Index(IndexSettings([address]), tmp_path / "index", PATIENCE))
    assert answer.trouble == (
        f"made-up: the index {address} cannot be reached (connection refused). Ask again later, "
        "or name another index (UV_DEFAULT_INDEX or PIP_INDEX_URL)"
    )
    assert [release.version for release in answer.releases] == ["1.0"]
    assert answer.asked


def test_what_another_index_answered_is_no_answer_of_this_one(
    tmp_path: Path, server: Server
) -> None:
    server.serve("made-up", page("made-up", file("made_up-1.0.tar.gz")))
    assert ask(Index(IndexSettings([server.address]), tmp_path / "index", PATIENCE)).asked
    dead = Index(IndexSettings(["http://127.0.0.1:1/simple"]), tmp_path / "index", PATIENCE)
    answer = ask(dead)
    assert (answer.asked, answer.releases) == ("", [])
    assert answer.trouble


def test_without_a_kept_answer_there_is_none(tmp_path: Path) -> None:
    index = Index(IndexSettings(["http://127.0.0.1:1/simple"]), tmp_path, PATIENCE)
    answer = ask(index)
    assert (answer.asked, answer.releases) == ("", [])
    assert answer.trouble


@pytest.mark.parametrize("slow", [served.drip, served.drip_headers, served.silent])
def test_a_slow_index_is_given_up_in_time(
    server: Server, tmp_path: Path, slow: served.Respond
) -> None:
    """Before it has come to its end, after which the trouble would be another."""
    server.answers["/simple/made-up/"] = slow
    index = Index(IndexSettings([server.address]), tmp_path, IMPATIENCE)
    answer = ask(index)
    assert re.search(r"no whole answer|does not answer in time", answer.trouble)


def test_redirects_are_followed_a_few_times(server: Server, index: Index) -> None:
    server.serve("sound", page("made-up", file(WHEEL)))
    server.answers["/simple/made-up/"] = lambda on: on.send(b"", HTML, 302, Location="../sound/")
    assert [release.version for release in ask(index).releases] == ["1.0"]
    server.answers["/simple/made-up/"] = lambda on: on.send(b"", HTML, 302, Location="../made-up/")
    server.asked.clear()
    assert "from one address to the next" in ask(index).trouble
    assert len(server.asked) == 1 + fetching.REDIRECTS
    server.answers["/simple/made-up/"] = lambda on: on.send(
        b"", HTML, 302, Location="file:///etc/passwd"
    )
    assert "begins with https://" in ask(index).trouble


@pytest.mark.parametrize(
    ("status", "problem"),
    [(503, "answered with status 503"), (401, "lets nobody in"), (206, "status 206")],
)
def test_a_status_that_is_no_answer_is_told(
    server: Server, index: Index, status: int, problem: str
) -> None:
    server.answers["/simple/made-up/"] = lambda on: on.send(b"{}", JSON, status)
    assert problem in ask(index).trouble


def test_the_first_index_that_has_a_package_answers_for_it(server: Server, tmp_path: Path) -> None:
    with served.running() as first:
        index = Index(IndexSettings([first.address, server.address]), tmp_path, PATIENCE)
        server.serve("made-up", page("made-up", file("made_up-9.0.tar.gz")))
        assert ask(index).index == server.address  # the first does not have it
        first.serve("made-up", page("made-up", file("made_up-1.0.tar.gz")))
        assert [release.version for release in ask(index).releases] == ["1.0"]
        first.answers["/simple/made-up/"] = lambda on: on.send(b"", JSON, 500)
        server.asked.clear()
        assert "status 500" in ask(index).trouble
        assert server.asked == []  # where its package may be another's


def test_a_package_that_no_index_has_is_told(server: Server, index: Index) -> None:
    assert f"made-up: no index has it ({server.address})" in ask(index).trouble


def test_packages_do_not_wait_for_each_other(server: Server, index: Index) -> None:
    sent = Event()

    def send_after_the_other(on: Handler) -> None:
        on.send(page("slow", file("slow-1.0.tar.gz")), status=200 if sent.wait(600) else 503)

    def send(on: Handler) -> None:
        on.send(page("made-up", file(WHEEL)))
        sent.set()

    server.answers |= {"/simple/slow/": send_after_the_other, "/simple/made-up/": send}
    answers = index.ask({"slow": "", "Made_Up": ""})
    assert [*answers] == ["slow", "made-up"]
    assert [answer.trouble for answer in answers.values()] == ["", ""]


def test_offline_nobody_is_asked(server: Server, index: Index, tmp_path: Path) -> None:
    server.serve("made-up", page("made-up", file(WHEEL)))
    kept = ask(index)
    server.asked.clear()
    (answer,) = index.ask({"made-up": "0"}, offline=True).values()
    off = Index(IndexSettings([server.address], offline=True), tmp_path / "index", PATIENCE)
    for reply in (answer, ask(off)):
        assert (reply.asked, reply.releases) == (kept.asked, kept.releases)
        assert "offline" in reply.trouble
    assert server.asked == []


def test_where_pip_is_to_ask_no_index_nobody_is_asked(server: Server, tmp_path: Path) -> None:
    server.serve("made-up", page("made-up", file(WHEEL)))
    answer = ask(Index(IndexSettings([server.address], no_index=True), tmp_path, PATIENCE))
    assert "not asked (pip's no-index is set" in answer.trouble
    assert server.asked == []


def test_a_kept_answer_that_was_changed_or_is_of_another_package_is_none(
    server: Server, index: Index, tmp_path: Path
) -> None:
    server.serve("made-up", page("made-up", file(WHEEL)))
    kept, offline = (
        tmp_path / "index" / "made-up.json",
        IndexSettings([server.address], no_index=True),
    )
    assert ask(index).asked
    whole = kept.read_bytes()
    assert ask(Index(offline, tmp_path / "index", PATIENCE)).asked
    kept.write_bytes(whole.replace(b"1.0", b"1.1"))
    assert ask(Index(offline, tmp_path / "index", PATIENCE)).asked == ""
    kept.write_bytes(whole)
    replace_in(kept, '"package": "made-up"', '"package": "another"')
    assert ask(Index(offline, tmp_path / "index", PATIENCE)).asked == ""


@pytest.mark.parametrize("kept", ["", "{}", "\x00", '{"schema": 2}'])
def test_a_kept_answer_that_cannot_be_read_is_none(tmp_path: Path, kept: str) -> None:
    (tmp_path / "made-up.json").write_text(kept)
    index = Index(IndexSettings(["http://127.0.0.1:1"]), tmp_path, PATIENCE)
    assert ask(index).asked == ""


def test_a_kept_answer_is_a_file_that_a_person_can_read(
    server: Server, index: Index, tmp_path: Path
) -> None:
    server.serve("made-up", page("made-up", file(WHEEL)))
    answer = ask(index)
    kept = json.loads((tmp_path / "index" / "made-up.json").read_text())
    assert (kept["answer"]["asked"], kept["answer"]["index"]) == (answer.asked, server.address)


def with_password(server: Server) -> str:
    return server.address.replace("http://", "http://user:s3cr3t@")


@pytest.mark.parametrize("lie", [None, *LIES])
def test_a_password_in_an_address_is_used_and_never_shown(
    server: Server, tmp_path: Path, lie: str | None
) -> None:
    credentials: list[str | None] = []

    def respond(on: Handler) -> None:
        credentials.append(on.headers.get("Authorization"))
        body, kind, _ = LIES[lie] if lie else (page("made-up", file(WHEEL)), JSON, "")
        on.send(body, kind)

    server.answers["/simple/made-up/"] = respond
    index = Index(IndexSettings([with_password(server)]), tmp_path, PATIENCE)
    answer = ask(index, since="0")
    assert credentials == ["Basic " + b64encode(b"user:s3cr3t").decode()]
    written = "".join(path.read_text() for path in tmp_path.rglob("*.json"))
    for text in (repr(answer), written):
        assert "s3cr3t" not in text
        assert "user" not in text


@pytest.mark.parametrize(
    "address",
    ["http://user:s3cr3t@127.0.0.1:1/simple", "https://user:s3cr3t@[::bad/simple",
     "http://user:s3cr3t@no such host/", "ftp://user:s3cr3t@127.0.0.1/simple",
     "user:s3cr3t@127.0.0.1/simple", "http://user:s3cr3t@127.0.0.1:99999/simple"],
)  # fmt: skip
def test_a_password_is_not_shown_by_an_address_that_does_not_work(
    tmp_path: Path, address: str
) -> None:
    answer = ask(Index(IndexSettings([address]), tmp_path, PATIENCE))
    assert answer.trouble
    assert "s3cr3t" not in repr(answer)


def test_a_netrc_lets_in(server: Server, index: Index, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password s3cr3t\n")
    credentials: list[str | None] = []

    def respond(on: Handler) -> None:
        credentials.append(on.headers.get("Authorization"))
        on.send(page("made-up", file(WHEEL)))

    server.answers["/simple/made-up/"] = respond
    assert not ask(index).trouble
    assert credentials == ["Basic " + b64encode(b"me:s3cr3t").decode()]


def test_a_missing_file_of_certificates_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    settings = IndexSettings(["https://127.0.0.1:1/simple"], str(tmp_path / "none.pem"))
    assert "certificates" in ask(Index(settings, tmp_path, PATIENCE)).trouble
