"""What an index answers, and answers that lie. All on the loopback."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from matrix.index import client
from matrix.index.client import Index, IndexLimits
from matrix.index.fetching import Limits
from matrix.index.settings import IndexSettings
from matrix.spec.snapshot import Release
from tests.processes.asking import PATIENCE, ask
from tests.processes.index_server import HTML, JSON, WHEEL, Handler, Server, file, page

pytestmark = pytest.mark.usefixtures("no_proxy")


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


def test_html_is_read_however_it_is_written(server: Server, index: Index) -> None:
    body = b"""<!-- <a> --><HTML><Base href='/simple/made-up/'><h1><a>Links</a></h1><pre>
    <A
      data-requires-python=">=3.9" href='made_up-1.0.tar.gz#sha256=aa' >
      made_up-1.0.tar.gz</A ><br/><a href=x>\xff</a>
    <a class=x href=made_up-2.0.tar.gz data-yanked>made_up-2.0.tar.gz</a>"""
    server.serve("made-up", body, HTML)
    releases = {release.version: release for release in ask(index).releases}
    assert list(releases) == ["1.0", "2.0"]
    assert releases["1.0"].requires_python == ">=3.9"
    assert releases["2.0"].yanked is not None


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
    "deep": (b"[" * 40_000, JSON, "calls JSON and is none"),
    "another API": (page("made-up", meta={"api-version": "9.0"}), JSON, "no version of the simple"),
    "not Unicode": (b'{"name": "\xff\xfe"}', JSON, "calls JSON and is none"),
    "a million files": (b'{"files": [' + b"{}," * 1_000_000 + b"{}]}", JSON, "than 10000 files"),
    "a million links": (b"<a></a>" * 1_000_000, HTML, "more than 10000 files"),
    "an address that is none": (
        b'<base href="https://[]x/"><a href="../made_up-1.0.tar.gz">made_up-1.0.tar.gz</a>', HTML,
        "calls HTML and is none"),
    "links within links": (b'<a href="x">' * 30_000, HTML, "lists no release of made-up"),
    "quotes that never end": (b'<a href="' * 30_000, HTML, "lists no release of made-up"),
    "comments that never end": (b"<!--" * 30_000, HTML, "lists no release of made-up"),
    "a link of many attributes": (
        b'<a href="made_up-1.0.tar.gz"' + b" x=1" * 5000 + b">made_up-1.0.tar.gz</a>", HTML,
        "lists no release of made-up"),
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


def test_what_is_long_is_passed_over_before_it_is_parsed(server: Server, index: Index) -> None:
    long = ">=3," * 500_000 + "<4"
    server.serve("made-up", page("made-up", file(WHEEL, requires_python=long)))
    (release,) = ask(index).releases
    assert release.requires_python == ""


def test_nothing_is_asked_while_the_clocks_are_days_apart(
    server: Server, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.serve("made-up", page("made-up", file(WHEEL)))
    date = "Tue, 01 Jan 2036 00:00:00 GMT"
    monkeypatch.setattr(Handler, "date_time_string", lambda *_: date)
    answer = ask(index)
    assert not answer.asked
    assert "says that it is 2036-01-01, and this machine that it is " in answer.trouble


def test_an_answer_from_a_date_yet_to_come_is_not_kept_to(
    server: Server, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock was wrong when it was asked, and the index told no time."""
    server.serve("made-up", page("made-up", file(WHEEL)))
    monkeypatch.setattr(client, "_now", lambda: "2036-01-01T00:00:00Z")
    assert ask(index).asked == "2036-01-01T00:00:00Z"
    monkeypatch.undo()
    server.answers.clear()
    assert not ask(index).asked


def test_a_local_folder_gives_no_pipe_and_no_more_than_a_page(tmp_path: Path) -> None:
    settings = IndexSettings([f"file://{tmp_path}"])
    index = Index(settings, tmp_path / "index", IndexLimits(page=Limits(600, megabytes=1)))
    (tmp_path / "made-up").mkdir()
    os.mkfifo(tmp_path / "made-up" / "index.html")
    assert "index.html is no regular file" in ask(index).trouble
    (tmp_path / "made-up" / "index.html").unlink()
    (tmp_path / "made-up" / "index.html").write_bytes(b" " * 1_000_001)
    assert "index.html has more than 1000000 bytes" in ask(index).trouble


@pytest.mark.parametrize("field", ["url", "metadata"])
def test_a_page_offers_no_file_of_this_machine(
    server: Server, index: Index, tmp_path: Path, field: str
) -> None:
    secret = tmp_path / "index.html"
    secret.write_text("Metadata-Version: 2.1\nName: made-up\nVersion: 1.0\nRequires-Dist: torch\n")
    offered = {"core_metadata": True} if field == "metadata" else {}
    server.serve("made-up", page("made-up", file(WHEEL, url=f"file://{tmp_path}", **offered)))
    (release,) = ask(index, since="0").releases
    assert release.declares is None
