"""``python -m matrix releases``: against a made-up index, the snapshot advanced and not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from matrix.cli.releases import releases
from matrix.spec.loading import load
from matrix.spec.snapshot import SNAPSHOT, Release, Snapshot, SourceMetadata, encode, read_snapshot
from tests.processes import index_server as served
from tests.processes.index_server import HTML, JSON, Server, file, page
from tests.unit import small_spec

RANGE = (
    'axes.maker = ["1.0", "2.0"]',
    'axes.maker = { since = "1.0", pick = "latest patch per minor" }',
)
ASKED = "2026-11-01T00:00:00Z"
OLD = [
    file("maker-0.9.tar.gz", upload_time="2026-01-01T00:00:00Z"),
    file("maker-1.0.tar.gz", upload_time="2026-01-02T00:00:00Z"),
    file("maker-2.0.tar.gz", upload_time="2026-01-03T00:00:00Z"),
]
NEW = file("maker-2.1.tar.gz", upload_time="2026-11-20T10:00:00Z")


@pytest.fixture
def server() -> Iterator[Server]:
    with served.running() as started:
        started.serve("maker", page("maker", *OLD))
        yield started


class Project:
    """A spec with a range and its snapshot, and the command."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.spec = small_spec.write(folder, RANGE)
        self.snapshot = folder / SNAPSHOT
        self.store = folder / "store"
        self._server = server
        kept = [
            Release(f"{version}", uploaded=f"2026-01-0{day}T00:00:00Z", sdist=True)
            for day, version in enumerate(("0.9", "1.0", "2.0"), 1)
        ]
        self.snapshot.write_bytes(encode(Snapshot(1, ASKED, {"maker": kept})))
        self._app = typer.Typer()
        self._app.command()(releases)

    def run(self, *options: str, **environ: str) -> Result:
        given = ["--spec", str(self.spec), "--store", str(self.store), *options]
        clean = {"UV_DEFAULT_INDEX": self._server.address, "UV_INDEX": "", "NO_PROXY": "*"}
        clean |= {"UV_EXTRA_INDEX_URL": "", "UV_OFFLINE": "", "UV_INDEX_URL": ""}
        return CliRunner().invoke(self._app, given, env=clean | environ)

    def document(self, *options: str) -> Any:
        done = self.run("--format", "json", *options)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    def versions(self) -> list[str]:
        return [release.version for release in read_snapshot(self.snapshot).packages["maker"]]


@pytest.fixture
def project(tmp_path: Path, server: Server) -> Project:
    return Project(tmp_path, server)


def test_where_nothing_is_new_it_says_so_and_writes_nothing(project: Project) -> None:
    before = project.snapshot.read_bytes()
    done = project.run()
    assert (done.exit_code, done.stderr) == (0, "")
    assert "Nothing is new." in done.stdout
    assert f"against the snapshot of {ASKED}" in done.stdout
    assert project.snapshot.read_bytes() == before


def test_a_release_that_did_not_exist_before_advances_the_snapshot(
    project: Project, server: Server
) -> None:
    server.serve("maker", page("maker", *OLD, NEW))
    done = project.run()
    assert done.exit_code == 0
    assert "maker 2.1" in done.stdout
    assert "2026-11-20  adds maker-2.1" in done.stdout
    assert project.versions() == ["0.9", "1.0", "2.0"]  # shown, not taken
    assert "maker-2.1" not in load(project.spec).environments

    done = project.run("--take")
    assert done.exit_code == 0
    assert f"Taken into {SNAPSHOT}." in done.stdout
    assert project.versions() == ["0.9", "1.0", "2.0", "2.1"]
    taken = read_snapshot(project.snapshot)
    assert taken.asked > ASKED
    new = taken.release("maker", "2.1")
    assert new is not None
    assert (new.uploaded, new.seen) == ("2026-11-20T10:00:00Z", taken.asked[:10])
    assert "maker-2.1" in load(project.spec).environments
    assert "Nothing is new." in project.run().stdout


def test_a_release_of_these_days_waits_and_is_taken_when_it_has_waited(
    project: Project, server: Server
) -> None:
    fresh = datetime.now(UTC) - timedelta(days=2)
    young = file("maker-2.2.tar.gz", upload_time=f"{fresh:%Y-%m-%dT%H:%M:%SZ}")
    server.serve("maker", page("maker", *OLD, NEW, young))
    done = project.run("--take")
    assert (done.exit_code, done.stderr) == (0, "")
    until = f"{fresh + timedelta(days=3):%Y-%m-%dT%H:%M:%SZ}"
    assert "1 release too new to be taken in" in done.stdout
    assert f"maker 2.2            uploaded {fresh:%Y-%m-%d}, waits until {until}" in done.stdout
    assert project.versions() == ["0.9", "1.0", "2.0", "2.1"]
    assert "maker-2.2" not in load(project.spec).environments
    (late,) = project.document()["waiting"]
    assert (late["package"], late["version"], late["until"]) == ("maker", "2.2", until)

    assert project.run("--take", "--days", "1").exit_code == 0
    assert project.versions()[-1] == "2.2"
    assert "too new" not in project.run().stdout, "what is taken stays taken"
    assert project.run("--take", "--days", "-1").exit_code == 2


def test_what_a_new_source_archive_requires_is_taken_in_with_where_it_was_read(
    project: Project, server: Server
) -> None:
    """So that a release without a wheel can be resolved without anybody copying its metadata."""
    server.serve("maker", page("maker", *OLD, NEW))
    text = "Metadata-Version: 2.4\nName: maker\nVersion: 2.1\nRequires-Dist: torch>=2\n"
    body = served.sdist("maker-2.1", ("PKG-INFO", text))
    server.answers["/files/maker-2.1.tar.gz"] = served.in_parts(body)
    assert project.run("--take").exit_code == 0
    new = read_snapshot(project.snapshot).release("maker", "2.1")
    assert new is not None
    assert new.source == SourceMetadata(["torch>=2"], "PKG-INFO")
    (metadata,) = load(project.spec).at("maker-2.1", "today").metadata
    assert (metadata.version, metadata.requires_dist) == ("2.1", ["torch>=2"])
    assert metadata.source.startswith("PKG-INFO in ")
    del server.answers["/files/maker-2.1.tar.gz"]
    assert project.run("--take").exit_code == 0
    assert read_snapshot(project.snapshot).release("maker", "2.1") == new


def test_what_the_index_takes_back_is_told_and_not_dropped(
    project: Project, server: Server
) -> None:
    server.serve("maker", page(
        "maker",
        file("maker-1.0.tar.gz", upload_time="2026-01-02T00:00:00Z", yanked="a \x1b[31mbug"),
        file("maker-2.0.tar.gz", upload_time="2026-09-09T00:00:00Z"),
    ))  # fmt: skip
    done = project.run("--take", "--ranges")
    assert done.exit_code == 0
    changes = {
        tuple(line.split()[1:3]) for line in done.stdout.splitlines() if line.startswith("  m")
    }
    assert changes == {("0.9", "gone"), ("1.0", "yanked"), ("2.0", "redated")}
    assert "a ␛[31mbug" in done.stdout
    assert "\x1b" not in done.output
    assert "adds" not in done.stdout
    releases = {
        release.version: release for release in read_snapshot(project.snapshot).packages["maker"]
    }
    assert releases["0.9"].gone
    assert releases["2.0"].uploaded == "2026-01-03T00:00:00Z"
    assert "  1.0: yanked (a ␛[31mbug)" in done.stdout


def test_a_snapshot_is_made_where_there_was_none(project: Project, server: Server) -> None:
    """The spec could not even be spelled out before."""
    project.snapshot.write_bytes(encode(Snapshot(1, "", {})))
    server.serve("maker", page("maker", *OLD))
    done = project.run("--take")
    assert done.exit_code == 0
    assert project.versions() == ["0.9", "1.0", "2.0"]


def test_as_json_it_says_the_same(project: Project, server: Server) -> None:
    server.serve("maker", page("maker", *OLD, NEW, file("maker-2.2rc1.tar.gz")))
    document = project.document("--take")
    assert [(item["change"]["version"], item["environments"]) for item in document["news"]] == [
        ("2.1", ["maker-2.1"]), ("2.2rc1", []),
    ]  # fmt: skip
    assert (document["schema"], document["snapshot"], document["taken"]) == (1, ASKED, SNAPSHOT)
    (row,) = document["ranges"]
    assert row["takes"] == ["1.0", "2.0", "2.1"]
    assert row["passed_over"] == {"2.2rc1": "a pre-release"}


TROUBLE = {
    "down": lambda server: server.answers.pop("/simple/maker/"),
    "lying": lambda server: server.serve("maker", b"<html>", JSON),
    "a page of the hotel": lambda server: server.serve("maker", b"<html>", HTML),
    "another project's": lambda server: server.serve("maker", page("evil", NEW), JSON),
}


@pytest.mark.parametrize("trouble", TROUBLE)
def test_an_index_in_trouble_is_a_warning_and_the_last_answer_is_used(
    project: Project, server: Server, trouble: str
) -> None:
    server.serve("maker", page("maker", *OLD, NEW))
    kept = project.document()["asked"]
    TROUBLE[trouble](server)
    done = project.run()
    assert done.exit_code == 0
    assert done.stderr.startswith("warning: maker: ")
    assert f"The index's answer of {kept} is used, kept in the store" in done.stderr
    assert "maker 2.1" in done.stdout


@pytest.mark.parametrize("trouble", TROUBLE)
def test_without_an_earlier_answer_the_snapshot_is_used_and_stays(
    project: Project, server: Server, trouble: str
) -> None:
    before = project.snapshot.read_bytes()
    TROUBLE[trouble](server)
    done = project.run("--take")
    assert done.exit_code == 0
    assert f"The snapshot of {ASKED} is used" in done.stderr
    assert "Nothing is taken: no index answered." in done.stdout
    assert project.snapshot.read_bytes() == before


def test_without_any_answer_it_fails(project: Project, server: Server) -> None:
    project.snapshot.write_bytes(encode(Snapshot(1, "", {})))
    server.answers.clear()
    done = project.run("--take")
    assert done.exit_code == 1
    assert "No earlier answer is at hand" in done.stderr
    assert "Nothing is taken" in done.stdout


def test_an_answer_from_before_the_snapshot_says_nothing_new(
    project: Project, server: Server
) -> None:
    """Else what was released since would look gone."""
    assert project.run().exit_code == 0  # kept in the store, without 2.1
    server.serve("maker", page("maker", *OLD, NEW))
    later = Snapshot(1, "2999-01-01T00:00:00Z", {"maker": [Release("2.1", sdist=True)]})
    project.snapshot.write_bytes(encode(later))
    done = project.run("--offline", "--take")
    assert "What is new is not known." in done.stdout
    assert read_snapshot(project.snapshot) == later


def test_an_index_that_drops_many_releases_at_once_is_taken_only_when_told(
    project: Project, server: Server
) -> None:
    many = [f"1.{number}" for number in range(40)]
    kept = [Release(version, sdist=True) for version in [*many, "2.0"]]
    project.snapshot.write_bytes(encode(Snapshot(1, ASKED, {"maker": kept})))
    before = project.snapshot.read_bytes()
    server.serve("maker", page("maker", *OLD))  # which has 1.0 and 2.0
    done = project.run("--take")
    assert done.exit_code == 0
    assert "lacks 39 of the releases that are known" in done.stderr
    assert "--take-gone" in done.stderr
    assert f"The snapshot of {ASKED} is used" in done.stderr
    assert project.snapshot.read_bytes() == before

    done = project.run("--take-gone")
    assert (done.exit_code, done.stderr) == (0, "")
    releases = read_snapshot(project.snapshot).packages["maker"]
    assert {release.version for release in releases if release.gone} == {*many[1:]}
    assert project.run().stderr == ""

    project.snapshot.write_bytes(before)  # what is kept in the store is believed no more
    assert "not asked (offline)" in project.run("--take", "--offline").stderr
    assert project.snapshot.read_bytes() == before


def test_what_the_spec_cannot_be_loaded_with_is_shown_and_not_written(
    project: Project, server: Server
) -> None:
    """A release is in the range whose environment is there already, by another table."""
    taken_name = '[[environments]]\nname = "maker-3.0"\nrequirements = ["a"]\n[models.tied]'
    small_spec.write(project.spec.parent, RANGE, ("[models.tied]", taken_name))
    before = project.snapshot.read_bytes()
    server.serve("maker", page("maker", *OLD, file("maker-3.0.tar.gz")))
    done = project.run("--take")
    assert done.exit_code == 1
    assert "maker 3.0" in done.stdout
    assert "Nothing is taken: the spec cannot be loaded with it." in done.stdout
    assert "warning: What is new of maker cannot be taken: " in done.stderr
    assert "'maker-3.0' is defined twice" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert project.snapshot.read_bytes() == before
    assert project.run().exit_code == 0


def test_each_package_is_marked_with_the_date_of_its_own_answer(
    project: Project, server: Server
) -> None:
    kept = read_snapshot(project.snapshot).packages | {"other": [Release("1.0", sdist=True)]}
    project.snapshot.write_bytes(encode(Snapshot(1, ASKED, kept)))
    server.serve("maker", page("maker", *OLD[1:], NEW))  # nobody answers for `other`
    assert project.run("--take").exit_code == 0
    taken = read_snapshot(project.snapshot)
    answer = json.loads((project.store / "index" / "maker.json").read_text())["answer"]
    marks = {release.version: release.seen or release.gone for release in taken.packages["maker"]}
    assert taken.asked == ASKED
    assert marks == {"0.9": answer["asked"][:10], "1.0": "", "2.0": "", "2.1": marks["0.9"]}
    assert marks["2.1"] > ASKED[:10]


def test_trouble_that_packages_share_is_told_once(project: Project, server: Server) -> None:
    names = ["maker", "more", "other", "some"]
    kept = {name: [Release("1.0", sdist=True), Release("2.0", sdist=True)] for name in names}
    project.snapshot.write_bytes(encode(Snapshot(1, ASKED, kept)))
    server.answers.clear()
    (line,) = project.run().stderr.splitlines()
    assert line.startswith("warning: maker, more and 2 more: no index has it (")
    server.serve("more", page("more", file("more-1.0.tar.gz"), file("more-2.0.tar.gz")))
    (line,) = project.run().stderr.splitlines()
    assert line.startswith("warning: maker, other, some: no index has it (")


def test_offline_nobody_is_asked(project: Project, server: Server) -> None:
    server.serve("maker", page("maker", *OLD, NEW))
    kept = project.document()["asked"]
    server.asked.clear()
    done = project.run("--offline")
    assert (done.exit_code, done.stderr, server.asked) == (0, "", [])
    assert f"asked on {kept}" in done.stdout
    assert "maker 2.1" in done.stdout


def test_what_a_snapshot_says_is_shown_as_text(project: Project, server: Server) -> None:
    sound = Release("1.0", sdist=True)
    hostile = Release("2.0", sdist=True, yanked="\x1b[2Jgone")
    project.snapshot.write_bytes(encode(Snapshot(1, ASKED, {"maker": [sound, hostile]})))
    server.answers.clear()
    assert "yanked" not in project.run().stdout  # what is not asked for is not shown
    done = project.run("--ranges")
    assert "2.0: yanked (␛[2Jgone)" in done.stdout
    assert "\x1b" not in done.output


def test_the_oldest_answer_dates_the_snapshot(project: Project, server: Server) -> None:
    """What one package had last week is not what there is today."""
    kept = {"maker": [Release("1.0", sdist=True)], "other": [Release("1.0", sdist=True)]}
    project.snapshot.write_bytes(encode(Snapshot(1, ASKED, kept)))
    done = project.run("--take")  # nobody has `other`
    assert done.stderr.startswith("warning: other: no index has it")
    assert read_snapshot(project.snapshot).asked == ASKED
    server.serve("other", page("other", file("other-1.0.tar.gz")))
    project.run("--take")
    assert read_snapshot(project.snapshot).asked > ASKED


def test_a_password_is_shown_nowhere(project: Project, server: Server, tmp_path: Path) -> None:
    secret = server.address.replace("http://", "http://me:s3cr3t@")
    done = project.run("--take", UV_DEFAULT_INDEX=secret)
    server.answers.clear()
    failed = project.run(UV_DEFAULT_INDEX=secret)
    assert failed.stderr
    written = [path.read_text() for path in tmp_path.rglob("*.json")]
    assert not [text for text in (done.output, failed.output, *written) if "s3cr3t" in text]


def test_an_odd_version_is_passed_over_and_holds_up_nothing(
    project: Project, server: Server
) -> None:
    server.serve("maker", page("maker", *OLD, NEW, file("maker-1!99.tar.gz")))
    done = project.run("--take", "--days", "0", "--ranges")
    assert done.exit_code == 0, done.output
    assert "1!99: has an epoch, which names no environment" in done.stdout
    assert "2.1" in project.versions()


def test_one_package_that_cannot_be_taken_holds_up_no_other(
    project: Project, server: Server
) -> None:
    second = '[[environments]]\nname = "maker-3.0"\nrequirements = ["a"]\n[[environments]]\n'
    second += 'name = "second-{second}"\nrequirements = ["second=={second}"]\n'
    second += 'axes.second = { since = "1.0" }\n[models.tied]'
    small_spec.write(project.spec.parent, RANGE, ("[models.tied]", second))
    kept = read_snapshot(project.snapshot).packages | {"second": [Release("1.0", sdist=True)]}
    project.snapshot.write_bytes(encode(Snapshot(1, ASKED, kept)))
    server.serve("maker", page("maker", *OLD, file("maker-3.0.tar.gz")))
    server.serve("second", page("second", file("second-1.0.tar.gz"), file("second-2.0.tar.gz")))
    done = project.run("--take")
    assert done.exit_code == 1
    assert "warning: What is new of maker cannot be taken: " in done.stderr
    taken = read_snapshot(project.snapshot).packages
    assert [release.version for release in taken["second"]] == ["1.0", "2.0"]
    assert "3.0" not in project.versions()


def test_a_snapshot_of_a_date_yet_to_come_holds_up_nothing(
    project: Project, server: Server
) -> None:
    kept = read_snapshot(project.snapshot)
    project.snapshot.write_bytes(encode(Snapshot(1, "2036-01-01T00:00:00Z", kept.packages)))
    server.serve("maker", page("maker", *OLD, NEW))
    done = project.run("--take", "--days", "0")
    assert done.exit_code == 0, done.output
    assert "The snapshot is of 2036-01-01T00:00:00Z, which is yet to come" in done.stderr
    assert "2.1" in project.versions()
    assert read_snapshot(project.snapshot).asked < "2036"
