"""An index that is asked of a server on the loopback, with all the time that it needs."""

from __future__ import annotations

from matrix.index.client import Index, IndexAnswer, IndexLimits
from matrix.index.fetching import Limits

PATIENCE = IndexLimits(
    page=Limits(seconds=600, megabytes=8), pages_seconds=600,
    file=Limits(seconds=600, megabytes=2), files_seconds=600,
)  # fmt: skip


def ask(index: Index, package: str = "made-up", since: str = "") -> IndexAnswer:
    (answer,) = index.ask({package: since}).values()
    return answer
