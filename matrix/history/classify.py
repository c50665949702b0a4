"""What became of every cell between two snapshots, and why as far as it is known. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from matrix.history.changes import BADNESS, Change, ChangeKind, Changes
from matrix.history.grouping import groups
from matrix.history.inputs import (
    NOTHING,
    UNEXPLAINED,
    differences,
    other_machine,
    other_packages,
    same_evidence,
)
from matrix.history.releases import Releases
from matrix.history.states import CellState, Head, Snapshot
from matrix.pipeline.outcomes import NO_ANSWER, Verdict

_NUMBER = re.compile(r"[0-9][0-9.]*")

NO_TITLES: Mapping[str, str] = MappingProxyType({})
NO_ANSWERS: Mapping[str, Snapshot] = MappingProxyType({})


def compare(
    old: Snapshot,
    new: Snapshot,
    titles: Mapping[str, str] = NO_TITLES,
    last_answers: Mapping[str, Snapshot] = NO_ANSWERS,
) -> Changes:
    """Return what became of every cell of two snapshots, in the order of the newer one's table.

    Args:
        old: What is compared with.
        new: What came of it.
        titles: Of known issues, by id.
        last_answers: Of cells that have no answer in ``old``: the snapshot of their last one.
    """
    releases = Releases(old, new)
    cells, states = [], {}
    for name in dict.fromkeys([*new.cells, *old.cells]):
        before = last_answers.get(name, old)
        if state := before.cells.get(name):
            states[name] = state
        pair = (state, new.cells.get(name))
        cells.append(_change(name, *pair, (before.head, new.head), releases))
    return Changes(old=old.label, new=new.label, cells=cells, groups=groups(cells, states, titles))


def _change(
    name: str,
    old: CellState | None,
    new: CellState | None,
    heads: tuple[Head, Head],
    releases: Releases,
) -> Change:
    if new is None:
        assert old is not None
        return Change(
            cell=name, kind=ChangeKind.GONE, old=old.verdict, inputs=releases.gone(old),
            cause=cause_of(old),
        )  # fmt: skip
    if old is None or (old.verdict in NO_ANSWER and new.verdict not in NO_ANSWER):
        inputs, before = releases.new(new)
        return Change(
            cell=name, kind=ChangeKind.NEW, old=old.verdict if old else None, new=new.verdict,
            inputs=inputs, cause=cause_of(new), before=before, flaky=new.flaky,
        )  # fmt: skip
    kind = kind_of(old, new)
    inputs = [] if kind is ChangeKind.UNCHANGED else differences(old, new, heads)
    if kind is ChangeKind.STILL_BROKEN:  # that nothing else is known of it says nothing
        silent = same_evidence(old, new)
        inputs = [] if silent else [line for line in inputs if line not in UNEXPLAINED]
    turned = kind in (ChangeKind.REGRESSED, ChangeKind.FIXED) and inputs == [NOTHING]
    return Change(
        cell=name, kind=kind, old=old.verdict, new=new.verdict, inputs=inputs,
        cause=cause_of(old if kind is ChangeKind.FIXED else new), flaky=new.flaky or turned,
    )  # fmt: skip


def kind_of(old: CellState, new: CellState) -> ChangeKind:
    """Return what became of a cell that both runs have; the new verdict may be no answer, the old
    one only where both are."""
    if new.verdict in NO_ANSWER:
        return ChangeKind.UNCHANGED if old.verdict in NO_ANSWER else ChangeKind.NOT_RUN
    worse = BADNESS[new.verdict] - BADNESS[old.verdict]
    if worse == 0 and new.verdict is Verdict.WORKS:
        return ChangeKind.UNCHANGED
    if worse == 0 and _same_cause(old, new):
        return ChangeKind.STILL_BROKEN
    if same_evidence(old, new):
        return ChangeKind.CHANGED_CHECKS
    if other_machine(old, new) and not other_packages(old, new):
        return ChangeKind.CHANGED_MACHINE
    if worse == 0:
        return ChangeKind.CHANGED_CAUSE
    return ChangeKind.REGRESSED if worse > 0 else ChangeKind.FIXED


def cause_of(cell: CellState) -> str:
    """Return what explains a verdict: a known issue, a group, or else the first line said of it."""
    first_line = cell.message.strip().partition("\n")[0]
    return cell.issue or cell.group or first_line


def _same_cause(old: CellState, new: CellState) -> bool:
    """Whether two failures are one, whatever numbers their messages give."""
    if old.verdict is not new.verdict:
        return False
    if old.issue or new.issue:
        return old.issue == new.issue
    if old.group or new.group:
        return old.group == new.group
    return _shape(old) == _shape(new)


def _shape(cell: CellState) -> tuple[str, str, str, str]:
    return cell.stage, cell.reason, cell.explained_by, _NUMBER.sub("0", cause_of(cell))
