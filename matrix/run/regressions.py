"""What came out worse than in the run before is run again, before that is told.

The same inputs stand under the same key, so the records then hold all ends: where they differ, the
cell is flaky (:mod:`matrix.judge.flaky`).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from matrix.history.changes import Change, Changes
from matrix.history.classify import BADNESS
from matrix.judge.cells import CellJudge
from matrix.judge.flaky import finding_records
from matrix.pipeline.outcomes import Verdict
from matrix.pipeline.steps import Stage
from matrix.plan.budget import Choice, Worth
from matrix.plan.cells import select
from matrix.plan.predictions import Cost
from matrix.run.context import Context
from matrix.run.reporting import changes_of
from matrix.run.run import Run
from matrix.run.workspace import Workspace

TIMES = 3
OF_A_GROUP = 10
"""How many cells are run again of those that came out worse for one cause: a hundred need not."""

Tell = Callable[[str], None]


def run_again(context: Context, tell: Tell) -> None:
    """Run again, up to three times each and in fresh processes, the cells that came out worse in
    this run than in the last one that is believed; tell which do not come out the same."""
    run = context.settings.run
    if not any(name.startswith(f"{run}-") for name, _ in context.store.segments()):
        return  # which takes no time, unlike reading what there is
    settings = msgspec.structs.replace(context.settings, cells=None)
    whole = Context(settings, machine=context.machine)
    loaded = _loaded_in(run, whole, whole.judge)
    changes = changes_of(whole, whole.table()) if loaded else None
    suspects = _suspects(changes, loaded) if changes else {}
    if changes is None or not suspects:
        return
    tell(
        f"{_cells(len(suspects))} came out worse than in the run of {changes.old}: run again "
        f"before that is told, up to {TIMES} times each"
    )
    for number in range(1, TIMES + 1):
        again = f"{run}-again-{number}"
        _note_findings(whole, list(suspects))
        _perform(whole, suspects, again, tell)
        whole.store.forget()
        judge = whole.fresh_judge()
        now = {name: judge.cell(name).verdict for name in suspects}
        turned = [name for name, verdict in suspects.items() if now[name] is not verdict]
        _note_findings(whole, turned)
        for name in turned:
            before = suspects.pop(name)
            tell(f"{name} is flaky: {now[name]} when it was run again, {before} before")
        for name in sorted(suspects.keys() - _loaded_in(again, whole, judge)):
            del suspects[name]  # by trouble of the machine, or its checkpoint is gone
            tell(f"{name} could not be run again: {now[name]}, as it came out once")
        if not suspects:
            break
    context.store.forget()
    if suspects:
        tell(f"{_cells(len(suspects))} came out the same {TIMES} times more")


def _loaded_in(run: str, context: Context, judge: CellJudge) -> set[str]:
    """Return the cells whose load, as it now stands, is of a run."""
    loads = {cell.id: judge.observations(cell.id).get(Stage.LOAD) for cell in context.plan.cells}
    return {name for name, load in loads.items() if load is not None and load.run == run}


def _suspects(changes: Changes, loaded: set[str]) -> dict[str, Verdict]:
    """Return the cells that came out worse and were loaded, a few of each group, with verdicts."""
    by_id = {change.cell: change for change in changes.cells}
    suspects: dict[str, Verdict] = {}
    for group in changes.groups:
        worse = [name for name in group.cells if name in loaded and _is_worse(by_id[name])]
        for name in worse[:OF_A_GROUP]:
            if (verdict := by_id[name].new) is not None:
                suspects[name] = verdict
    return suspects


def _is_worse(change: Change) -> bool:
    if change.old not in BADNESS or change.new not in BADNESS:
        return False
    return BADNESS[change.new] > BADNESS[change.old]


def _perform(context: Context, cells: dict[str, Verdict], run: str, tell: Tell) -> None:
    """Load and generate again, under the same keys and in the name of another run."""
    choice = Choice(
        minutes=None, disk_gb=None, cells=dict.fromkeys(cells, Worth.RECHECK), left_out={},
        cost=Cost(), profile=context.settings.profile,
    )  # fmt: skip
    settings = msgspec.structs.replace(context.settings, run=run)
    again = Context(settings, machine=context.machine, choice=choice)

    def verdict(name: str) -> str:
        return again.fresh_judge().cell(name).verdict

    Run(Workspace(again), tell, verdict, fork=False).perform(select(again.plan))


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


def _cells(number: int) -> str:
    return f"{number:,} {'cell' if number == 1 else 'cells'}"
