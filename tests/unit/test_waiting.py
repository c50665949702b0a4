"""Which new releases wait before they are taken in."""

from __future__ import annotations

import pytest

from matrix.index.client import IndexAnswer
from matrix.index.waiting import Waiting, without_newest
from matrix.spec.snapshot import Release

NOW = "2026-11-30T12:00:00Z"


def sorted_out(*releases: Release, days: float = 3) -> tuple[list[str], list[Waiting]]:
    """Return the versions that are left of an answer, and what waits."""
    answer = IndexAnswer("maker", NOW, "https://index", list(releases))
    before = {"maker": [Release("1.0", uploaded="2026-11-29T00:00:00Z")]}
    (left,), waiting = without_newest([answer], before, days)
    return [release.version for release in left.releases], waiting


@pytest.mark.parametrize(
    ("uploaded", "waits"),
    [
        ("2026-11-27T12:00:01Z", True),
        ("2026-11-27T12:00:00Z", False),
        ("2026-11-27T14:00:01+02:00", True),
        ("2026-01-01T00:00:00Z", False),
        ("2036-01-01T00:00:00Z", True),  # of an index or a clock that is wrong
        ("9999-12-31T23:59:59Z", True),  # after which no day comes
        ("", False),
        ("yesterday", False),
    ],
)
def test_a_release_waits_for_three_days_from_its_upload(uploaded: str, waits: bool) -> None:
    left, waiting = sorted_out(Release("2.0", uploaded=uploaded))
    assert left == ([] if waits else ["2.0"])
    assert [late.version for late in waiting] == (["2.0"] if waits else [])


def test_it_is_told_until_when_it_waits() -> None:
    _, waiting = sorted_out(Release("2.0", uploaded="2026-11-30T11:00:00Z"), days=0.5)
    assert waiting == [
        Waiting("maker", "2.0", "2026-11-30T11:00:00Z", "2026-11-30T23:00:00Z"),
    ]


def test_what_the_snapshot_has_does_not_wait_again() -> None:
    left, waiting = sorted_out(Release("1.0", uploaded="2026-11-29T00:00:00Z"))
    assert (left, waiting) == (["1.0"], [])


def test_nothing_waits_for_no_days() -> None:
    assert sorted_out(Release("2.0", uploaded=NOW), days=0) == (["2.0"], [])
