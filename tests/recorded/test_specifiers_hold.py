"""Specifiers computed from real runs, set against what the releases declare."""

from __future__ import annotations

from functools import cache

import pytest

from matrix.judge.results import Specifier
from matrix.report.constraints import in_short, not_tried
from tests.recorded.recording import observations, table_of


@cache
def held(profile: str) -> dict[str, Specifier]:
    """Return what holds of transformers by a profile's recording, by package and release."""
    table = table_of(profile, observations(profile))
    return {f"{specifier.package} {specifier.release}": specifier for specifier in table.specifiers}


def test_autoawq_0_2_7_holds_three_minors_of_transformers_and_declares_many() -> None:
    specifier = held("bounds")["autoawq 0.2.7"]
    assert specifier.holds == ">=4.45,<4.48"
    assert specifier.untried == []
    assert specifier.declared == ">=4.35.0"
    assert "allowed by metadata, but does not work" in specifier.differs[0]
    assert "4.44.2, 4.48.3" in specifier.differs[0]


def test_what_was_not_tried_of_two_runs_is_named() -> None:
    specifier = held("cpu")["autoawq 0.2.9"]
    assert specifier.worked == ["4.51.3", "5.23.0"]
    assert not_tried(specifier) == ["4.48-4.50", "4.52-4.56", "5.0-5.22", "newer than 5.23.0"]


@pytest.mark.parametrize(
    ("release", "holds"),
    [
        ("autoawq 0.2.6", ">=4.42,<4.47"),
        ("autoawq 0.2.7", ">=4.46,<4.48"),  # fewer versions were tried than in the other profile
        ("autoawq 0.2.7.post3", ">=4.46,<4.48"),
        ("autoawq 0.2.9", ">=4.51,<5.24 without 4.52-4.57, 5.0-5.22"),  # two runs, far apart
        ("auto-gptq 0.7.1", ">=4.42,<4.52"),
        ("gptqmodel 7.6.0", "==5.23.0"),
    ],
)
def test_what_holds_of_the_default_profile(release: str, holds: str) -> None:
    assert in_short(held("cpu")[release].holds) == holds
