"""How long the rest of a run takes, by what was predicted and by how that held. Pure.

Seconds are of a clock that never goes back. Work is what cells are predicted to take, in seconds;
where nothing is predicted, it is their number.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Self

from matrix.plan.predictions import Prediction

TRUST = 0.1
"""So much of the predicted work counts as if it had been done as predicted: the first cells alone
do not say how fast a machine is."""
LEAST = 0.25
"""So much of what was left at the last count is left, however long ago that was."""
BEGAN = "MATRIX_BEGAN"
"""The variable by which sessions of nox know when all began, with what work and how many cells."""

Work = Callable[[Collection[str]], float]
"""From the ids of cells that are left to their work."""


class TimeLeft:
    """The rest of a run, which began at a time with so much work."""

    def __init__(self, began: float, at_first: float, work: Work, *, is_predicted: bool) -> None:
        self._began = began
        self._at_first = at_first
        self._work = work
        self._trusted = TRUST * at_first if is_predicted else 0.0
        self._left = at_first
        self._counted = began
        self._pace: float | None = 1.0 if is_predicted else None

    @classmethod
    def of(cls, cells: Collection[str], began: float, work: Work) -> Self:
        """Return that of cells which are begun now; by their number, where nothing is predicted."""
        if predicted := work(cells):
            return cls(began, predicted, work, is_predicted=True)
        return cls(began, len(cells), len, is_predicted=False)

    @classmethod
    def of_session(cls, host: Mapping[str, str]) -> Self | None:
        """Return that of the whole run of which this process is a part; ``None`` without such."""
        try:
            began, predicted, cells = map(float, host.get(BEGAN, "").split())
        except ValueError:
            return None
        if not (predicted >= 0 and cells > 0):
            return None
        if not predicted:
            return cls(began, cells, len, is_predicted=False)
        share = predicted / cells
        return cls(began, predicted, lambda left: share * len(left), is_predicted=True)

    def count(self, cells: Collection[str], at: float) -> None:
        """Take which cells are left at a time: what went before says how fast they are done."""
        left = self._work(cells)
        done = self._at_first - left
        if left == self._left or done <= 0:
            return
        self._left, self._counted = left, at
        self._pace = (at - self._began + self._trusted) / (done + self._trusted)

    def seconds(self, at: float) -> float | None:
        """Return how many seconds are left at a time; ``None`` where nothing tells."""
        if self._pace is None:
            return None
        left = self._left * self._pace
        return max(left - (at - self._counted), LEAST * left)


def predicted_work(prediction: Prediction, paid: frozenset[str], cells: Collection[str]) -> Work:
    """Return how to tell what those of some cells take that are left: what others of them stand on
    that are done, is done as well."""

    def work(left: Collection[str]) -> float:
        done = prediction.names(set(cells) - set(left), paid)
        return prediction.of_cells(left, paid.union(done)).seconds

    return work


def in_words(seconds: float) -> str:
    """Return a time that is left, as a person would say it."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than a minute left"
    if minutes < 100:
        return f"about {minutes} min left"
    return f"about {minutes // 60} h {minutes % 60:02} min left"
