"""Which keys count as flaky, by made-up records."""

from __future__ import annotations

from itertools import count

import pytest

from matrix.judge.flaky import flaky_keys
from matrix.store.store import Record

NUMBERS = count()


def step(outcome: str, key: str = "a") -> Record:
    return Record(
        run=f"r{next(NUMBERS)}", at="", subject="m/s/q/e", step="load", key=key, outcome=outcome
    )


def check(outcome: str, value: float | None = None, threshold: float | None = None) -> Record:
    return Record(
        run=f"r{next(NUMBERS)}", at="", subject="m/s/q/e", step="check", key="a", outcome=outcome,
        check="greedy-text", value=value, threshold=threshold,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("records", "flaky"),
    [
        ([], set()),
        ([step("passed"), step("passed")], set()),
        ([step("failed"), step("failed")], set()),
        ([step("passed"), step("failed")], {"a"}),
        ([step("failed"), step("passed"), step("passed")], {"a"}),
        ([step("infra"), step("passed")], set()),
        ([step("unsupported"), step("passed")], set()),
        ([step("passed"), step("failed", "b")], set()),
        # Two answers, of which a check says two things.
        ([step("passed"), check("failed", 0.0), step("passed"), check("passed", 1.0)], {"a"}),
        ([step("passed"), check("degraded"), step("passed"), check("notice")], {"a"}),
        ([step("passed"), check("failed", 0.0), step("passed"), check("degraded", 0.5)], set()),
        # One answer that came to be judged otherwise, and two of one value by another threshold.
        ([step("passed"), check("failed", 0.0), check("passed", 1.0)], set()),
        ([step("passed"), check("failed", 0.4), step("passed"), check("passed", 0.4)], set()),
        (
            [
                step("passed"), check("failed", 0.0), check("passed", 1.0), step("passed"),
                check("passed", 1.0),
            ],
            set(),
        ),
    ],
)  # fmt: skip
def test_good_and_bad_ends_under_one_key(records: list[Record], flaky: set[str]) -> None:
    assert flaky_keys(records) == flaky
