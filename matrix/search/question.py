"""Which verdicts of cells a search tells apart, and what a cell answers. Pure."""

from __future__ import annotations

from typing import NamedTuple

from matrix.judge.results import CellResult
from matrix.pipeline.outcomes import Reason, Verdict
from matrix.pipeline.steps import Stage
from matrix.search.answers import Answer

SOUND = frozenset({Verdict.WORKS, Verdict.DEGRADED})
MESSAGE_CHARS = 160
"""Of a cell's cause, which is shown for every try."""
_NOT_BUILT = (
    Stage.QUANTIZER_RESOLVE, Stage.QUANTIZER_INSTALL, Stage.ENGINE_RESOLVE, Stage.ENGINE_INSTALL,
)  # fmt: skip
"""Where a cell ends whose environment cannot be had."""


class Question(NamedTuple):
    """The verdicts that count as good, and those that count as bad; all others say nothing."""

    good: frozenset[Verdict]
    bad: frozenset[Verdict]

    def answer(self, result: CellResult) -> Answer | None:
        """Return what a cell says; ``None`` where the machine kept it from saying anything."""
        if result.verdict in (Verdict.INFRA, Verdict.NOT_RUN):
            return None
        if result.stage in _NOT_BUILT or result.reason is Reason.NOT_BUILT:
            return Answer.UNTESTABLE
        if result.verdict in self.bad:
            return Answer.BAD
        return Answer.GOOD if result.verdict in self.good else Answer.UNTESTABLE


def question_of(good: Verdict, bad: Verdict, chosen: frozenset[Verdict]) -> Question:
    """Return the question by what the ends are: bad is what was chosen, else the bad end's verdict.

    Good is what the good end is; where that is sound, any sound verdict.
    """
    counts_as_bad = chosen or frozenset({bad})
    counts_as_good = SOUND if good in SOUND else frozenset({good})
    return Question(counts_as_good - counts_as_bad, counts_as_bad)


def in_words(result: CellResult) -> str:
    """Return a cell's verdict with where and why it ended, where it did."""
    message = " ".join(result.message.split())
    if result.verdict is Verdict.WORKS:
        return result.verdict.value
    if len(message) > MESSAGE_CHARS:
        message = f"{message[:MESSAGE_CHARS]}…"
    return ": ".join(filter(None, (result.verdict.value, result.stage, message)))
