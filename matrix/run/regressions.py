"""What came out worse than in the run before is run again, before that is told.

The same inputs stand under the same key, so the records then hold all ends: where they differ, the
cell is flaky (:mod:`matrix.judge.flaky`), and the worst end is the one that stands.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from matrix.history.changes import BADNESS, Changes
from matrix.history.states import AGAIN
from matrix.judge.cells import CellJudge
from matrix.judge.flaky import finding_records
from matrix.pipeline.outcomes import Verdict
from matrix.pipeline.steps import Stage
from matrix.plan.budget import EVALUATION, Choice, Worth
from matrix.plan.cells import select
from matrix.plan.predictions import Cost
from matrix.run.context import Context
from matrix.run.reporting import believed_until, changes_of
from matrix.run.run import Run
from matrix.run.workspace import Workspace
from matrix.store.observations import Observation
from matrix.untrusted.text import counted

TIMES = 3
OF_A_GROUP = 10
"""How many cells are run again of those that came out worse for one cause: a hundred need not."""
MOST = 30
"""How many are run again in all: three loads each of a minute and more take two hours of a core."""

Tell = Callable[[str], None]


class _Suspect(NamedTuple):
    """A cell that came out worse, as it came out."""

    verdict: Verdict
    ends: list[Observation]
    """What its load, and what came after, left behind."""


def run_again(context: Context, tell: Tell) -> None:
    """Run again, up to three times each and in fresh processes, the cells that came out worse than
    in the last run that is believed; tell which do not come out the same.

    The worst end stays the one that stands.
    """
    settings = msgspec.structs.replace(context.settings, cells=None)
    whole = Context(settings, machine=context.machine)
    loaded = _loaded_untold(whole)
    if not loaded:
        return  # which takes less time than a table
    table = whole.table()
    changes = changes_of(whole, table)
    if changes is None:
        return
    worse = _worse(changes, loaded - {cell.id for cell in table.cells if cell.flaky})
    suspects = _suspects(whole, chosen(worse))
    if not suspects:
        return
    number = counted(sum(map(len, worse)), "cell")
    these = "they" if len(suspects) == sum(map(len, worse)) else f"{len(suspects)} of them"
    tell(
        f"{number} came out worse than in the run of {changes.old}: before that is told, "
        f"{these} are run again, up to {TIMES} times each"
    )
    for attempt in range(1, TIMES + 1):
        again = f"{context.settings.run}{AGAIN}{attempt}"
        _note_findings(whole, list(suspects))
        _perform(whole, list(suspects), again, tell)
        whole.store.forget()
        _sort_out(whole, suspects, again, tell)
        if not suspects:
            break
    context.store.forget()
    if suspects:
        tell(f"{counted(len(suspects), 'cell')} came out the same {TIMES} times more")


def _loaded_untold(context: Context) -> set[str]:
    """Return the cells that were loaded since the last snapshot, by this run or by one before it
    that was ended, and whose load was not repeated yet."""
    loads = _loads(context, context.judge)
    newest = max(loads.values(), key=lambda load: load.at, default=None)
    until = believed_until(context, newest.run.partition(AGAIN)[0]) if newest else None
    if until is None:
        return set()
    repeated = f"{AGAIN}{TIMES}"
    return {n for n, load in loads.items() if load.at > until and not load.run.endswith(repeated)}


def _loads(context: Context, judge: CellJudge) -> dict[str, Observation]:
    """Return the loads of cells as they now stand."""
    loads = {cell.id: judge.observations(cell.id).get(Stage.LOAD) for cell in context.plan.cells}
    return {name: load for name, load in loads.items() if load is not None}


def _worse(changes: Changes, loaded: set[str]) -> list[list[str]]:
    """Return the cells that came out worse and were loaded, by what they have in common."""
    worse = {change.cell for change in changes.cells if change.is_worse} & loaded
    groups = ([name for name in group.cells if name in worse] for group in changes.groups)
    return [group for group in groups if group]


def chosen(groups: list[list[str]]) -> list[str]:
    """Return the cells that are run again: a few of each group, the gravest groups first."""
    return [name for group in groups for name in group[:OF_A_GROUP]][:MOST]


def _suspects(context: Context, names: list[str]) -> dict[str, _Suspect]:
    judge = context.judge
    return {
        name: _Suspect(
            judge.cell(name).verdict,
            [end for end in judge.observations(name).values() if end.step in EVALUATION],
        )
        for name in names
    }


def _sort_out(context: Context, suspects: dict[str, _Suspect], again: str, tell: Tell) -> None:
    """Leave of some cells those that were run again and came out the same; tell of the others.

    Where a cell came out better, or to no answer, what it first came to is put back.
    """
    judge = context.fresh_judge()
    ran = {name for name, load in _loads(context, judge).items() if load.run == again}
    now = {name: judge.cell(name).verdict for name in suspects}
    turned = [name for name in sorted(ran & now.keys()) if now[name] is not suspects[name].verdict]
    _note_findings(context, [name for name in turned if now[name] in BADNESS])
    for name, (first, ends) in sorted(suspects.items()):
        if name in ran and now[name] is first:
            continue
        del suspects[name]
        if name not in ran or now[name] not in BADNESS:
            # By trouble of the machine, or its checkpoint is gone.
            tell(f"{name} could not be run again: {first}, as it came out once")
        else:
            worst = max(first, now[name], key=BADNESS.__getitem__)
            tell(
                f"{name} is flaky: {now[name]} when it was run again, {first} before; "
                f"{worst} stands"
            )
            if worst is not first:
                continue
        for end in ends:
            context.store.put_back(end)


def _perform(context: Context, cells: list[str], run: str, tell: Tell) -> None:
    """Load and generate again, under the same keys and in the name of another run."""
    choice = Choice(
        minutes=None, disk_gb=None, cells=dict.fromkeys(cells, Worth.RECHECK), left_out={},
        cost=Cost(), profile=context.settings.profile,
    )  # fmt: skip
    settings = msgspec.structs.replace(context.settings, run=run)
    again = Context(settings, machine=context.machine, choice=choice)

    def verdict(name: str) -> str:
        return again.fresh_judge().cell(name).verdict

    Run(Workspace(again, tell=tell), tell, verdict, fork=False).perform(select(again.plan))


def _note_findings(context: Context, cells: list[str]) -> None:
    """Add to the records what the checks say of cells as they are now."""
    at, judge = datetime.now(UTC).isoformat(timespec="milliseconds"), context.fresh_judge()
    by_id = {cell.id: cell for cell in context.plan.cells}
    for name in cells:
        keys = judge.keys_of(by_id[name])
        findings = [
            (finding, key.value)
            for finding in judge.cell(name).findings
            if (key := keys.get(finding.stage)) is not None
        ]
        for record in finding_records(findings, name, context.settings.run, at):
            context.store.append(record)
