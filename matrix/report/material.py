"""What a report is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from matrix.history.changes import Changes, Night, PastVerdict
from matrix.judge.results import MatrixResult
from matrix.judge.stories import CellStory
from matrix.spec.methods import EMPTY, Methods
from matrix.spec.pairs import Pairs


def _no_story(_: str) -> CellStory:
    return CellStory()


class Material(NamedTuple):
    """A judged table, and what stands beside it: evidence of its cells, and earlier runs."""

    result: MatrixResult
    story: Callable[[str], CellStory] = _no_story
    """From a cell's id. It is of observations that judging has read and the store holds: 35 kB a
    cell in a real run, so 0.7 GB of the 2 GB that a report of 20,000 cells takes."""
    changes: Changes | None = None
    """From the last run to this one; ``None`` where there was none."""
    nights: Sequence[Night] = ()
    """Earlier runs of this profile, oldest first, this one last."""
    past: Mapping[str, list[PastVerdict]] = MappingProxyType({})
    """Cell -> what it was in earlier runs, oldest first, only where it changed."""
    methods: Methods = EMPTY
    """Which formats the releases of engines list."""
    pairs: Pairs | None = None
    """Which releases resolve together; ``None`` where nobody asked."""
    neighbours: Mapping[str, str] = MappingProxyType({})
    """Profile -> where its page lies from this one."""
