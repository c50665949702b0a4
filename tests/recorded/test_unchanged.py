"""A report is left as it is where a new one would say the same, and only there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from matrix.cli.app import app
from matrix.history.folder import History
from matrix.machine.hardware import detect
from matrix.run import reporting, suites
from matrix.run.context import Context, Settings
from matrix.run.unchanged import digest_of_report, note_report, unchanged_summary
from matrix.spec.loading import DEFAULT_SPEC, PACKAGE
from matrix.store.identity import code_digest, file_digest
from tests import REPOSITORY
from tests.recorded import full_store
from tests.resealing import replace_in

PROFILE = "times"
SUMMARY = "said last time\n"


class Place:
    """A small profile, finished: its spec, its store, its report, and the code that made it."""

    def __init__(self, folder: Path) -> None:
        self.spec = folder / "spec"
        self.store = folder / "store"
        self.reports = folder / "reports"
        self.package = folder / "matrix"
        self.profile = PROFILE
        self.machine = detect()
        shutil.copytree(DEFAULT_SPEC, self.spec)
        for name in ("checks", "report"):
            shutil.copytree(PACKAGE / name, self.package / name)
        full_store.fill(self.store, PROFILE, self.spec)
        self.reports.mkdir()
        self.page.write_text("a page")

    @property
    def page(self) -> Path:
        return self.reports / "index.html"

    def stored(self, folder: str) -> Path:
        """Return the first file of a folder in the store."""
        return min((self.store / folder).rglob("*.json"))

    def open(self) -> Context:
        """Open the profile as a process that starts now would."""
        forget_files()
        settings = Settings.of(
            {}, spec=self.spec, profile=self.profile, store=self.store, reports=self.reports
        )
        return Context(settings, machine=self.machine)

    def digest(self) -> str:
        return digest_of_report(self.open(), self.package)


def forget_files() -> None:
    for function in (file_digest, code_digest):
        function.cache_clear()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    yield Place(tmp_path)
    forget_files()


def write(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")


def of_machine(place: Place) -> None:
    place.machine = msgspec.structs.replace(place.machine, memory=1)


def of_profile(place: Place) -> None:
    place.profile = "bounds"


CHANGES: dict[str, Callable[[Place], object]] = {
    "a threshold": lambda p: write(
        p.spec / "thresholds.toml", "stored_size = 0.01 ", "stored_size = 0.02 "),
    "a title": lambda p: write(
        p.spec / "profiles" / "smaller.toml", "AutoAWQ 0.2.7 as released", "AutoAWQ then"),
    "a release": lambda p: write(p.spec / "releases.json", "2023-04-26T06", "2023-04-26T07"),
    "a list of methods": lambda p: write(
        p.spec / "methods.json", '["0.5.5","0.23.0"]', '["0.5.5","0.22.1"]'),
    "an answer on a pair": lambda p: write(p.spec / "pairs.json", '"0.33.0"', '"0.33.1"'),
    "a lock": lambda p: write(p.spec / "locks" / "vllm-0.32.0.txt", "numpy==", "numpy==9."),
    "a lock of another resolution": lambda p: write(
        p.spec / "locks" / "released" / "vllm-0.32.0.txt", "numpy==", "numpy==9."),
    "an observation": lambda p: replace_in(
        p.stored("observations/load"), '"attempt": 1', '"attempt": 2'),
    "a damaged observation": lambda p: write(p.stored("observations/load"), "{", "["),
    "a missing observation": lambda p: p.stored("observations/generate").unlink(),
    "a model's own answers": lambda p: replace_in(
        p.stored("models"), '"max_new_tokens"', '"calibration": [], "max_new_tokens"'),
    "a missing model": lambda p: shutil.rmtree(p.stored("models").parent),
    "a record": lambda p: (p.store / "records" / "another.jsonl").write_text(""),
    "a check": lambda p: write(p.package / "checks" / "weights.py", "import", "#\nimport"),
    "a template": lambda p: write(p.package / "report" / "templates" / "style.css", "{", "{ "),
    "the machine": of_machine,
    "the profile": of_profile,
    "the folder of the report": lambda p: setattr(p, "reports", p.reports.parent / "elsewhere"),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_report_is_made_of(place: Place, change: str) -> None:
    before = place.digest()
    assert place.digest() == before
    CHANGES[change](place)
    assert place.digest() != before


def test_a_changed_rule_of_refusals_is_news_for_the_suites(place: Place) -> None:
    context = place.open()
    names = list(context.plan.environments)
    assert all(suites.is_current(context, name) for name in names)
    write(
        place.spec / "refusals.toml", "is_marlin_format` is no longer", "is_marlin_format` is not"
    )
    assert not any(suites.is_current(place.open(), name) for name in names)


def test_packages_that_came_or_went(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = tmp_path / "site-packages"
    packages.mkdir()
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(packages))
    os.utime(packages, (1, 1))
    before = place.digest()
    (packages / "jinja2-4.0.dist-info").mkdir()
    assert place.digest() != before


def test_what_no_report_is_made_of(place: Place) -> None:
    before = place.digest()
    write(place.spec / "thresholds.toml", "[thresholds]", "[thresholds]\n# a comment")
    shutil.rmtree(place.store / "checkpoints")  # they can be made again
    os.utime(place.stored("observations/load"), (1, 1))
    assert place.digest() == before


def test_a_report_that_lies_there_as_it_was_written_is_told_again(place: Place) -> None:
    context = place.open()
    assert unchanged_summary(context) is None  # none was written by us
    note_report(context, digest_of_report(context), [place.page.name], SUMMARY)
    assert unchanged_summary(place.open()) == SUMMARY


def write_over(place: Place, old: bytes, new: bytes) -> None:
    note = place.store / "report.json"
    data = note.read_bytes()
    assert old in data
    note.write_bytes(data.replace(old, new, 1))


DAMAGES: dict[str, Callable[[Place], object]] = {
    "a changed observation": lambda p: p.stored("observations/generate").unlink(),
    "a changed page": lambda p: p.page.write_text("b page"),
    "a longer page": lambda p: p.page.write_text("a longer page"),
    "a missing page": lambda p: p.page.unlink(),
    "a note that cannot be read": lambda p: (p.store / "report.json").write_text("{"),
    "a note that is no text": lambda p: write_over(p, b"said", b"s\xffid"),
    "a note nested deep": lambda p: write_over(p, b"{", b'{"x":' + 10**6 * b"["),
    "a note of a file that can be none": lambda p: write_over(p, b"index", b"\\u0000dex"),
    "no note": lambda p: (p.store / "report.json").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_report_that_is_not_what_was_written_is_made_anew(place: Place, damage: str) -> None:
    context = place.open()
    os.utime(place.page, (1, 1))  # or a file changed in the same tick of the clock looks the same
    note_report(context, digest_of_report(context), [place.page.name], SUMMARY)
    DAMAGES[damage](place)
    assert unchanged_summary(place.open()) is None


def test_the_command_leaves_a_report_as_it_is_until_something_changes(place: Place) -> None:
    def report(*more: str) -> tuple[int, str]:
        forget_files()
        options = {"spec": place.spec, "profile": PROFILE, "store": place.store}
        words = [f"--{name}={value}" for name, value in options.items()]
        done = CliRunner().invoke(app, ["report", *words, f"--reports={place.reports}", *more])
        return place.page.stat().st_mtime_ns, done.stdout

    first = report()
    assert report() == first
    after_all, said = report("--fail-on", "garbage")
    assert after_all > first[0]
    assert said == first[1]
    replace_in(place.stored("observations/load"), '"seconds": ', '"seconds": 9')
    assert report()[0] > after_all


def test_a_night_without_news_is_kept_once_a_day(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = place.open()
    monkeypatch.setattr(reporting, "_today", lambda: "2026-11-29")
    reporting.keep_night(context)
    history = History(place.store, PROFILE)
    assert not history.entries  # nothing is kept of nothing
    history.add(reporting.snapshot_of(context, context.table()))
    for day in ("2026-11-29", "2026-11-30", "2026-11-30", "2026-12-01"):
        monkeypatch.setattr(reporting, "_today", lambda day=day: day)
        reporting.keep_night(place.open())
    days = [entry.day for entry in History(place.store, PROFILE).entries]
    assert days == ["2026-11-29", "2026-11-30", "2026-12-01"]


def test_nox_leaves_a_report_as_it_is_until_something_changes(place: Place) -> None:
    def nox() -> tuple[str, str]:
        environ = {
            **os.environ, "MATRIX_SPEC": str(place.spec), "MATRIX_PROFILE": PROFILE,
            "MATRIX_STORE": str(place.store), "MATRIX_REPORTS": str(place.reports),
        }  # fmt: skip
        command = [sys.executable, "-m", "nox", "-s", "matrix"]
        done = subprocess.run(
            command, cwd=REPOSITORY, env=environ, capture_output=True, text=True, check=True
        )
        assert place.page.stat().st_size > 10_000
        return done.stdout, done.stderr

    (first, log), said_again = nox(), "nothing has changed since the report was written"
    assert "6 cells in profile times" in first
    assert said_again not in log
    written = place.page.stat().st_mtime_ns
    again, log = nox()
    assert again == first
    assert said_again in log
    assert place.page.stat().st_mtime_ns == written
    replace_in(place.stored("observations/load"), '"seconds": ', '"seconds": 9')
    assert said_again not in nox()[1]
    assert place.page.stat().st_mtime_ns > written
