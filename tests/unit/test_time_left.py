"""How long the rest of a run takes, by a made-up clock."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from matrix.plan.predictions import Cost, Prediction
from matrix.run.time_left import BEGAN, TimeLeft, in_words, predicted_work

CELLS = [f"cell-{number}" for number in range(10)]


def minutes(left: Collection[str]) -> float:
    return 60.0 * len(left)


def test_before_anything_is_done_the_prediction_counts_down() -> None:
    left = TimeLeft.of(CELLS, 1000.0, minutes)
    assert left.seconds(1000.0) == 600
    assert left.seconds(1090.0) == 510
    assert left.seconds(9000.0) == 150, "never less than a quarter of what was left when counted"


@pytest.mark.parametrize(("took", "expected"), [(60.0, 100.0), (600.0, 550.0)])
def test_what_finished_cells_took_scales_the_prediction(took: float, expected: float) -> None:
    left = TimeLeft.of(CELLS, 0.0, minutes)
    left.count(CELLS[5:], took)  # predicted to take 300 s
    assert left.seconds(took) == pytest.approx(expected)


def test_as_predicted_stays_as_predicted() -> None:
    left = TimeLeft.of(CELLS, 0.0, minutes)
    for done in range(1, 10):
        left.count(CELLS[done:], 60.0 * done)
        assert left.seconds(60.0 * done) == pytest.approx(600 - 60 * done)


def test_a_count_without_news_changes_nothing() -> None:
    left = TimeLeft.of(CELLS, 0.0, minutes)
    left.count(CELLS, 400.0)
    assert left.seconds(100.0) == 500


def test_without_a_prediction_the_rate_tells_as_soon_as_there_is_one() -> None:
    left = TimeLeft.of(CELLS, 50.0, lambda _: 0.0)
    assert left.seconds(60.0) is None
    left.count(CELLS[2:], 70.0)
    assert left.seconds(70.0) == pytest.approx(80)


def test_a_session_of_nox_tells_of_the_whole_run() -> None:
    left = TimeLeft.of_session({BEGAN: "1000.0 600.0 10"})
    assert left is not None
    assert left.seconds(1100.0) == 500, "its prediction is as old as the run"
    left.count(CELLS[5:], 1300.0)
    assert left.seconds(1300.0) == pytest.approx(300)


def test_a_session_goes_by_the_rate_where_nothing_is_predicted() -> None:
    left = TimeLeft.of_session({BEGAN: "1000.0 0.0 10"})
    assert left is not None
    assert left.seconds(1100.0) is None
    left.count(CELLS[5:], 1300.0)
    assert left.seconds(1300.0) == pytest.approx(300)


@pytest.mark.parametrize("value", ["", "1 2", "a b c", "1.0 -1.0 5", "1.0 5.0 0"])
def test_without_a_run_around_it_a_session_tells_of_its_own(value: str) -> None:
    assert TimeLeft.of_session({BEGAN: value}) is None


def test_what_finished_cells_stand_on_is_no_work_any_more() -> None:
    seconds = {"cell a": 1.0, "cell b": 2.0, "model m": 10.0, "wheels of w": 100.0}
    costs = {name: Cost(seconds=taken) for name, taken in seconds.items()}
    needs: dict[str, tuple[str, ...]] = {
        "cell a": ("model m",),
        "cell b": ("model m",),
        "model m": ("wheels of w",),
    }
    work = predicted_work(Prediction(costs, needs), frozenset({"wheels of w"}), ["a", "b"])
    assert work(["a", "b"]) == 13
    assert work(["b"]) == 2
    assert work([]) == 0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "less than a minute left"), (29, "less than a minute left"), (840, "about 14 min left"),
        (99 * 60, "about 99 min left"), (7500, "about 2 h 05 min left"),
    ],
)  # fmt: skip
def test_a_time_is_said_as_a_person_would(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
