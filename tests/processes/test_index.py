"""Asking an index: answers, and servers that are down, slow or lie. All on the loopback."""

from __future__ import annotations

import gzip
import json
import re
import socket
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest

from matrix.index import fetching
from matrix.index.client import Index, IndexAnswer, IndexLimits
from matrix.index.fetching import Limits
from matrix.index.settings import IndexSettings
from matrix.spec.snapshot import Release
from tests.processes import index_server as served
from tests.processes.index_server import HTML, JSON, WHEEL, Handler, Server, file, page

PATIENCE = IndexLimits(
    page=Limits(seconds=600, megabytes=8), pages_seconds=600,
    file=Limits(seconds=600, megabytes=2), files_seconds=600,
)  # fmt: skip
IMPATIENCE = IndexLimits(page=Limits(seconds=0.3), pages_seconds=0.6)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


@pytest.fixture
def server() -> Iterator[Server]:
    with served.running() as started:
        yield started


@pytest.fixture
def index(server: Server, tmp_path: Path) -> Index:
    return Index(IndexSettings([server.address]), tmp_path / "index", PATIENCE)


def ask(index: Index, package: str = "made-up", since: str = "") -> IndexAnswer:
    (answer,) = index.ask({package: since}).values()
    return answer


def test_a_release_is_what_its_files_say(server: Server, index: Index) -> None:
    server.serve("made-up", page(
        "Made.Up",
        file("made_up-1.0.post1-cp311-cp311-manylinux1_x86_64.whl", size=7, requires_python=">=3.9",
             upload_time="2026-01-02T03:04:05.678901Z"),
        file("made_up-1.0.post1-cp310-cp310-manylinux1_x86_64.whl", size=9, requires_python=">=3.9",
             upload_time="2026-01-02T03:04:07Z"),
        file("made_up-1.0.post1-cp311-cp311-win_amd64.whl", size=99, requires_python=">=3.9",
             upload_time="2026-01-02T03:04:06+02:00"),
        file("made_up-1.0.post1.tar.gz", size=5000, requires_python=">=3.9"),
        file("made-up-0.9.tar.gz", size=3, yanked="a bug"),
    ))  # fmt: skip
    answer = ask(index)
    assert answer.trouble == ""
    assert answer.index == server.address
    assert answer.releases == [
        Release("0.9", yanked="a bug", sdist=True, size=3),
        Release(
            "1.0.post1", uploaded="2026-01-02T01:04:06Z", requires_python=">=3.9",
            wheels=["cp310-cp310-manylinux1_x86_64", "cp311-cp311-manylinux1_x86_64"],
            sdist=True, size=9,
        ),
    ]  # fmt: skip


def test_a_release_is_yanked_when_all_that_can_be_used_is(server: Server, index: Index) -> None:
    server.serve("made-up", page(
        "made-up",
        file("made_up-1.0.tar.gz", yanked=False), file(WHEEL, yanked="a bug"),
        file("made_up-2.0.tar.gz", yanked=True), file("made_up-2.0-cp39-cp39-win32.whl"),
    ))  # fmt: skip
    assert [release.yanked for release in ask(index).releases] == [None, ""]


def test_an_index_that_speaks_html_only_is_understood(server: Server, index: Index) -> None:
    server.serve("made-up", b"""<!DOCTYPE html><html><body>
        <a href="../../files/made_up-1.0.tar.gz#sha256=00" data-requires-python="&gt;=3.8"
           data-yanked="a bug">made_up-1.0.tar.gz</a>
        <a href="other-2.0.tar.gz">other-2.0.tar.gz</a>
        </body></html>""", HTML)  # fmt: skip
    assert ask(index).releases == [
        Release("1.0", requires_python=">=3.8", yanked="a bug", sdist=True)
    ]


def test_an_index_in_a_local_folder_is_read_as_pip_reads_it(tmp_path: Path) -> None:
    folder = tmp_path / "simple" / "made-up"
    folder.mkdir(parents=True)
    (folder / "index.html").write_text('<a href="x">made_up-1.0.tar.gz</a>')
    settings = IndexSettings([f"file://{tmp_path}/none", f"file://{tmp_path}/simple"])
    assert [release.version for release in ask(Index(settings, tmp_path / "index")).releases] == [
        "1.0"
    ]


HOSTILE_FILES = [
    file("made_up-\x1b[31m2.0-py3-none-any.whl"),
    file("made_up-2.0-py3-none-\x1b[2Jany.whl"),
    file("made_up-2.0-py3-none-any\u202e.whl"),
    file("made_up-" + "1" * 5000 + ".tar.gz"),
    file("made_up-" + "1." * 90 + "1.tar.gz"),
    file("made_up-not_a_version-py3-none-any.whl"),
    file("another_project-9.0-py3-none-any.whl"),
    file("another-project-9.0.tar.gz"),
    file("../../made_up-9.0.tar.gz"),
    file("made_up-9.0.exe"),
    file(""),
]


def test_files_that_nobody_can_parse_are_passed_over(server: Server, index: Index) -> None:
    server.serve("made-up", page("made-up", *HOSTILE_FILES, file(WHEEL)))
    answer = ask(index)
    assert (answer.trouble, [release.version for release in answer.releases]) == ("", ["1.0"])


def test_what_an_index_says_is_made_fit_to_be_shown_and_kept(server: Server, index: Index) -> None:
    server.serve("made-up", page("made-up", file(
        WHEEL, yanked="\x1b[31mred\u202e" + "x" * 9000, requires_python="===\x1b[31m",
        size=10**40, upload_time="0001-01-01T00:00:00+10:00",
    )))  # fmt: skip
    (release,) = ask(index).releases
    assert release.yanked is not None
    assert release.yanked.startswith("␛[31mred⟨U+202E⟩x")
    assert len(release.yanked) < 300
    assert (release.requires_python, release.size, release.uploaded) == ("", 0, "")


LIES = {
    "HTML as JSON": (b"<html>Log in, please</html>", JSON, "calls JSON and is none"),
    "a page of the hotel": (b"<html>Log in, please</html>", HTML, "lists no release of made-up"),
    "no page at all": (b"%PDF-1.4", "application/pdf", "'application/pdf', which is no page"),
    "truncated": (page("made-up", file(WHEEL))[:-30], JSON, "calls JSON and is none"),
    "another project": (page("evil", file(WHEEL)), JSON, "answers for another project, 'evil'"),
    "an escape": (page("e\x1b[31mvil"), JSON, "answers for another project, 'e␛[31mvil'"),
    "no files": (page("made-up"), JSON, "lists no release of made-up"),
    "a junk field": (page("made-up", file(WHEEL, size="big")), JSON, "wrong field files.0.size"),
    "files are text": (page("made-up", files="none"), JSON, "has a wrong field files"),
    "no object": (b"[]", JSON, "has a wrong field"),
    "deep": (b"[" * 100_000, JSON, "calls JSON and is none"),
    "another API": (page("made-up", meta={"api-version": "9.0"}), JSON, "no version of the simple"),
    "not Unicode": (b'{"name": "\xff\xfe"}', JSON, "calls JSON and is none"),
    "a million files": (b'{"files": [' + b"{}," * 1_000_000 + b"{}]}", JSON, "than 50000 files"),
    "a million links": (b"<a></a>" * 1_000_000, HTML, "more than 50000 files"),
    "too large": (b" " * 9_000_000, JSON, "sends more than 8 MB"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_an_index_that_lies_gives_a_line_and_the_answer_that_is_kept(
    server: Server, index: Index, lie: str
) -> None:
    server.serve("made-up", page("made-up", file("made_up-0.5.tar.gz")))
    sound = ask(index)
    body, kind, problem = LIES[lie]
    server.serve("made-up", body, kind)
    answer = ask(index)
    assert problem in answer.trouble
    assert answer.trouble.startswith(f"made-up: the index {server.address} ")
    assert "UV_DEFAULT_INDEX" in answer.trouble
    assert answer.trouble.isprintable()
    assert (answer.asked, answer.releases) == (sound.asked, sound.releases)


def test_an_index_that_drops_many_releases_is_not_believed(server: Server, tmp_path: Path) -> None:
    releases = {"made-up": [Release(f"0.{number}") for number in range(40)]}
    files = [file(f"made_up-0.{number}.tar.gz") for number in range(40)]
    index = Index(IndexSettings([server.address]), tmp_path, PATIENCE, releases)
    server.serve("made-up", page("made-up", *files[4:]))
    sound = ask(index)
    assert (len(sound.releases), sound.trouble) == (36, "")
    server.serve("made-up", page("made-up", *files[39:]))
    answer = ask(index)
    assert f"the index {server.address} lacks 39 of the releases that are known" in answer.trouble
    assert "(0.0 to 0.38)" in answer.trouble
    assert (answer.asked, answer.releases) == (sound.asked, sound.releases)
    assert ask(Index(IndexSettings([server.address]), tmp_path, PATIENCE)).trouble == ""
    (kept,) = index.ask({"made-up": ""}, offline=True).values()  # which now is what it dropped to
    assert (kept.asked, kept.releases) == ("", [])


def test_a_small_answer_that_unpacks_to_gigabytes_is_given_up(server: Server, index: Index) -> None:
    bomb = gzip.compress(b" " * 200_000_000)
    assert len(bomb) < 300_000
    server.serve("made-up", bomb, Content_Encoding="gzip")
    assert "sends more than 8 MB" in ask(index).trouble


def test_a_packed_answer_is_unpacked(server: Server, index: Index) -> None:
    body = gzip.compress(page("made-up", file(WHEEL)))
    server.serve("made-up", body, Content_Encoding="gzip")
    assert [release.version for release in ask(index).releases] == ["1.0"]
    server.serve("made-up", body[: len(body) // 2], Content_Encoding="gzip")
    assert ask(index).trouble
    server.serve("made-up", b"no gzip", Content_Encoding="gzip")
    assert "cannot be unpacked" in ask(index).trouble


def test_an_index_that_is_down_is_named_with_its_package(server: Server, tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound, and never listened on
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}/simple"
        server.serve("made-up", page("made-up", file(WHEEL)))
        ask(Index(IndexSettings([server.address]), tmp_path / "index", PATIENCE))
        kept = tmp_path / "index" / "made-up.json"  # as if it had been up then
        kept.write_text(kept.read_text().replace(server.address, address))
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


@pytest.mark.parametrize("kept", ["", "{}", "\x00", '{"schema": 2}'])
def test_a_kept_answer_that_cannot_be_read_is_none(tmp_path: Path, kept: str) -> None:
    (tmp_path / "made-up.json").write_text(kept)
    index = Index(IndexSettings(["http://127.0.0.1:1"]), tmp_path, PATIENCE)
    assert ask(index).asked == ""


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


def test_a_kept_answer_is_a_file_that_a_person_can_read(
    server: Server, index: Index, tmp_path: Path
) -> None:
    server.serve("made-up", page("made-up", file(WHEEL)))
    answer = ask(index)
    kept = json.loads((tmp_path / "index" / "made-up.json").read_text())
    assert (kept["answer"]["asked"], kept["answer"]["index"]) == (answer.asked, server.address)
