"""The lines of a run's progress, and its bar, by a made-up clock."""

from __future__ import annotations

import io
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

import pytest

from matrix.plan.cells import Cell, make_plan
from matrix.run.progress import Clock, Progress
from matrix.run.time_left import TimeLeft
from matrix.spec.loading import load
from tests.unit import small_spec


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class MadeUpRun:
    """Four cells, which are finished at a word, at times of a made-up clock."""

    def __init__(self, folder: Path) -> None:
        self.cells = make_plan(load(small_spec.write(folder)), "all").cells[:4]
        self.finished: list[str] = []
        self.at = 0.0
        self.count_takes = 0.0
        self.time_of_day = datetime(2026, 11, 30, 11, 32, 5)
        self.stream: io.StringIO = io.StringIO()

    def progress(self, stream: io.StringIO | None = None, **host: str) -> Progress:
        self.stream = stream or self.stream
        clock = Clock(lambda: self.at, lambda: self.time_of_day)
        ids = [cell.id for cell in self.cells]
        time_left = TimeLeft.of(ids, self.at, lambda left: 300.0 * len(left))
        return Progress(self.cells, self._unfinished, self.stream, host, time_left, clock)

    def _unfinished(self, cells: Iterable[Cell]) -> list[Cell]:
        self.at += self.count_takes
        return [cell for cell in cells if cell.id not in self.finished]

    def finish(self, number: int, at: float) -> None:
        self.finished, self.at = [cell.id for cell in self.cells[:number]], at


@pytest.fixture
def made_up(tmp_path: Path) -> MadeUpRun:
    return MadeUpRun(tmp_path)


def test_a_line_has_the_time_the_share_and_what_is_left(made_up: MadeUpRun) -> None:
    progress = made_up.progress()
    progress.tell("first")
    made_up.finish(1, 300.0)
    progress.tell("second")
    made_up.finish(4, 1200.0)
    progress.tell("third")
    assert made_up.stream.getvalue().splitlines() == [
        "11:32:05   0 % (0 of 4 cells, about 20 min left)  first",
        "11:32:05  25 % (1 of 4 cells, about 15 min left)  second",
        "11:32:05  100 % (4 of 4 cells)  third",
    ]


def test_a_clock_that_is_set_moves_no_time_left(made_up: MadeUpRun) -> None:
    progress = made_up.progress()
    made_up.finish(2, 600.0)
    progress.tell("before")
    made_up.time_of_day = datetime(1970, 1, 1, 0, 0, 0)
    progress.tell("after")
    assert made_up.stream.getvalue().splitlines() == [
        "11:32:05  50 % (2 of 4 cells, about 10 min left)  before",
        "00:00:00  50 % (2 of 4 cells, about 10 min left)  after",
    ]


def test_the_cells_are_counted_again_after_half_a_second(made_up: MadeUpRun) -> None:
    progress = made_up.progress()
    made_up.finish(2, 0.4)
    progress.tell("soon")
    made_up.at = 0.5
    progress.tell("later")
    soon, later = made_up.stream.getvalue().splitlines()
    assert [soon[10:14], later[10:14]] == [" 0 %", "50 %"]


def test_counting_takes_a_small_share_of_the_time(made_up: MadeUpRun) -> None:
    progress = made_up.progress()
    made_up.count_takes = 0.25
    made_up.finish(1, 1.0)
    progress.tell("counted until 1.25")
    made_up.finish(2, 6.2)
    progress.tell("too soon")
    assert made_up.at == 6.2
    made_up.at = 6.25
    progress.tell("later")
    shares = [line[10:14] for line in made_up.stream.getvalue().splitlines()]
    assert shares == ["25 %", "25 %", "50 %"]


def test_lines_go_to_the_log_of_the_whole_run_where_nox_holds_them_back(
    made_up: MadeUpRun, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    with made_up.progress(Terminal(), MATRIX_PROGRESS=str(log)) as progress:
        progress.tell("event")
    assert log.read_text().startswith("before\n11:32:05   0 % (0 of 4 cells, ")
    assert made_up.stream.getvalue() == ""


def test_a_terminal_has_a_bar_below_the_lines_and_no_markup_is_read(made_up: MadeUpRun) -> None:
    with made_up.progress(Terminal()) as progress:
        made_up.finish(1, 300.0)
        progress.tell("load: [bold]\x1b[2J [/nothing]")
        made_up.finish(4, 1200.0)
    shown = made_up.stream.getvalue()
    assert "11:32:05  load: [bold]␛[2J [/nothing]\n" in shown
    assert "100 % (4 of 4 cells)" in shown
    assert "\x1b[2J" not in shown
