"""Reports of other profiles that lie beside a report, and what only looks like one."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from matrix.report import Material, write
from matrix.report.neighbours import neighbours
from tests.unit.hostile_results import HOSTILE
from tests.unit.report_pages import INVISIBLE
from tests.unit.report_results import realistic


def report(folder: Path, profile: object) -> Path:
    """Write as much of a report as others look at."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "matrix.json").write_bytes(msgspec.json.encode({"profile": profile, "cells": []}))
    (folder / "index.html").touch()
    return folder


def test_reports_one_level_below_and_above_are_linked(tmp_path: Path) -> None:
    reports = report(tmp_path / "reports", "cpu")
    gpu, smoke = report(reports / "gpu", "gpu"), report(reports / "a & b", "smoke")
    report(reports / "gpu" / "deep", "deep")
    assert neighbours(reports, "cpu") == {
        "gpu": "gpu/index.html",
        "smoke": "a%20%26%20b/index.html",
    }
    assert neighbours(gpu, "gpu") == {
        "cpu": "../index.html", "deep": "deep/index.html", "smoke": "../a%20%26%20b/index.html",
    }  # fmt: skip
    assert neighbours(smoke, "smoke") == {"cpu": "../index.html", "gpu": "../gpu/index.html"}


def test_folders_beside_one_that_is_in_no_report_are_not_looked_into(tmp_path: Path) -> None:
    own = report(tmp_path / "mine", "cpu")
    report(tmp_path / "somebody-else-s", "gpu")
    assert neighbours(own, "cpu") == {}


def test_what_is_no_report_is_passed_by(tmp_path: Path) -> None:
    own = report(tmp_path / "reports", "cpu")
    (report(own / "no-page", "a") / "index.html").unlink()
    (report(own / "no-json", "b") / "matrix.json").write_text("[" * 100_000)
    report(own / "no-text", 7)
    report(own / "same", "cpu")
    (report(own / "link", "c") / "matrix.json").unlink()
    (own / "link" / "matrix.json").symlink_to(own / "matrix.json")
    assert neighbours(own, "cpu") == {}
    assert neighbours(tmp_path / "not-written-yet", "cpu") == {}


def test_of_two_reports_of_one_profile_the_first_by_name_counts(tmp_path: Path) -> None:
    for name in "cab":
        report(tmp_path / "reports" / name, "gpu")
    report(tmp_path / "reports", "cpu")
    assert neighbours(tmp_path / "reports", "cpu") == {"gpu": "a/index.html"}


@pytest.mark.parametrize("text", HOSTILE)
def test_the_name_of_a_profile_is_visible_text(tmp_path: Path, text: str) -> None:
    report(tmp_path, "cpu")
    report(tmp_path / "other", text.encode("utf-8", "replace").decode())
    (name,) = neighbours(tmp_path, "cpu")
    assert not INVISIBLE.search(name)
    assert len(name) < 200


def test_a_report_is_written_with_its_neighbours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Material] = []

    def page(material: Material, _names: list[str]) -> str:
        written.append(material)
        return ""

    monkeypatch.setattr("matrix.report.page", page)
    monkeypatch.setattr("matrix.report.plots", lambda _: ())
    report(tmp_path / "gpu", "gpu")
    write(Material(realistic()), tmp_path)
    assert written[0].neighbours == {"gpu": "gpu/index.html"}
