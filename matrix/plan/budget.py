"""Which cells a budget of minutes and disk is spent on: the most valuable first. Pure.

Cells of releases that were never seen come first, the newest release before older ones; then cells
whose evidence is of other inputs than today's; then repetitions of what is settled, the oldest
first. What several cells stand on is paid once. A cell that does not fit is passed over for less
valuable ones that do; so a larger budget never gives up a cell for one that is worth less.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from enum import StrEnum
from pathlib import Path

import msgspec

from matrix.pipeline.outcomes import Outcome
from matrix.pipeline.steps import PIPELINE, Step, SubjectKind
from matrix.plan.cells import Cell, Plan, float_id, plan_of
from matrix.plan.keys import Lookup
from matrix.plan.predictions import GB, Cost, Prediction
from matrix.spec.tables import SpecError
from matrix.store.observations import Observation
from matrix.store.store import Record
from matrix.untrusted.reading import UnreadableError, decode
from matrix.untrusted.text import counted

EVALUATION = [line.step for line in PIPELINE if line.subject is SubjectKind.CELL]
"""The steps of a cell alone, which a re-check repeats."""


class Worth(StrEnum):
    """Why a cell is worth its cost, the most valuable first."""

    NEW = "new"
    STALE = "stale"
    RECHECK = "re-check"


class Candidate(msgspec.Struct, frozen=True):
    """A cell that can be run."""

    worth: Worth
    at: str
    """ISO times: of a new one, when its releases came out, the newest first; else, when it was last
    seen."""


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What one run does with its budget."""

    minutes: float | None
    """What may be spent; ``None`` for any amount."""
    disk_gb: float | None
    """10^9 bytes."""
    cells: dict[str, Worth]
    """The chosen ones by id, in the order in which they were chosen."""
    left_out: dict[str, Worth]
    """Those that did not fit."""
    cost: Cost
    profile: str = ""
    before: dict[str, str] = {}
    """Of those that are checked again: the verdict so far."""

    @property
    def again(self) -> frozenset[str]:
        """Ids of the cells that are checked again."""
        return frozenset(i for i, worth in self.cells.items() if worth is Worth.RECHECK)


def candidates(
    cells: Iterable[Cell],
    records: Iterable[Record],
    unfinished: Callable[[Cell], bool],
    released: Callable[[Cell], str],
) -> dict[str, Candidate]:
    """Return the cells that can be run, by id, with what they are worth.

    A cell that is settled because an earlier step failed has nothing of its own to repeat.

    Args:
        cells: Of the plan.
        records: The store's history. A cell was seen when it was loaded, or when something it
            stands on ended otherwise than well.
        unfinished: Whether something of a cell is still to be done.
        released: When the releases that a cell stands on came out, the newest first.
    """
    evaluated: dict[str, str] = {}
    ended: dict[str, str] = {}
    for record in records:
        if record.step == "check" or record.outcome == Outcome.INFRA:
            continue
        if record.step in EVALUATION:
            evaluated[record.subject] = max(record.at, evaluated.get(record.subject, ""))
        elif record.outcome != Outcome.PASSED:
            ended[record.subject] = max(record.at, ended.get(record.subject, ""))
    worths: dict[str, Candidate] = {}
    for cell in cells:
        if not cell.runs:
            continue
        if not unfinished(cell):
            if cell.id in evaluated:
                worths[cell.id] = Candidate(Worth.RECHECK, evaluated[cell.id])
            continue
        checkpoint = cell.checkpoint
        stands_on = (checkpoint.id, checkpoint.quantizer.environment, cell.engine.environment)
        dates = [evaluated.get(cell.id, ""), *(ended.get(name, "") for name in stands_on)]
        last = max(dates)
        worths[cell.id] = (
            Candidate(Worth.STALE, last) if last else Candidate(Worth.NEW, released(cell))
        )
    return worths


def in_order(candidates: dict[str, Candidate]) -> list[str]:
    """Return the ids of candidates, the most valuable first; the plan's order where equal."""

    def those(worth: Worth, newest_first: bool) -> list[str]:
        ids = [i for i, candidate in candidates.items() if candidate.worth is worth]
        return sorted(ids, key=lambda i: candidates[i].at, reverse=newest_first)

    return [
        *those(Worth.NEW, newest_first=True),
        *those(Worth.STALE, newest_first=False),
        *those(Worth.RECHECK, newest_first=False),
    ]


def choose(
    cells: Iterable[Cell],
    candidates: dict[str, Candidate],
    prediction: Prediction,
    paid: Collection[str],
    *,
    minutes: float | None = None,
    disk_gb: float | None = None,
) -> Choice:
    """Return the cells that a budget buys.

    A cell whose float twin in the same engine is not settled brings it along, before itself:
    without it nothing can be compared.

    Args:
        cells: Of the plan.
        candidates: What they are worth.
        prediction: What cells cost.
        paid: Names of the costs that need not be paid any more.
        minutes: Of work; environments that are worked on side by side take less.
        disk_gb: 10^9 bytes that may be added.
    """
    twins = {cell.id: float_id(cell) for cell in cells}
    chosen: dict[str, Worth] = {}
    have = set(paid)
    spent = Cost()
    for cell in in_order(candidates):
        twin = twins[cell]
        is_due = twin in candidates and candidates[twin].worth is not Worth.RECHECK
        group = [name for name in ([twin] if is_due else []) + [cell] if name not in chosen]
        total = spent + prediction.of_cells(group, have)
        over = minutes is not None and total.seconds > minutes * 60
        if over or (disk_gb is not None and total.disk > disk_gb * GB):
            continue
        spent = total
        have.update(prediction.names(group, have))
        chosen |= {name: candidates[name].worth for name in group}
    return Choice(
        minutes=minutes,
        disk_gb=disk_gb,
        cells=chosen,
        left_out={i: candidate.worth for i, candidate in candidates.items() if i not in chosen},
        cost=spent,
    )


def narrowed(plan: Plan, ids: Collection[str]) -> Plan:
    """Return a plan of some of its cells, of their float twins, and of what both stand on.

    The twins are there to be compared with: all that are due are among the cells anyway.
    """
    kept = set(ids) | {float_id(cell) for cell in plan.cells if cell.id in ids}
    cells = [cell for cell in plan.cells if cell.id in kept]
    return plan_of(cells, plan.profile, plan.title, plan.parts, plan.environments)


def canaries_alone(plan: Plan) -> Plan:
    """Return a plan of the canaries, of their float twins, and of what both stand on."""
    return narrowed(plan, [cell.id for cell in plan.cells if cell.canary])


def ignoring(lookup: Lookup, again: Collection[str], run: str) -> Lookup:
    """Return a lookup for which cells that are checked again have not been loaded before this run.

    What was observed stays where it is until it is replaced, and the records keep both.
    """

    def look(step: Step, key: str) -> Observation | None:
        observation = lookup(step, key)
        if observation is None or step not in EVALUATION:
            return observation
        return None if observation.subject in again and observation.run != run else observation

    return look


def read_choice(file: Path) -> Choice:
    """Return the choice that a run was given; raise :class:`SpecError` where there is none."""
    try:
        return decode(file.read_bytes(), Choice)
    except (OSError, UnreadableError) as error:
        remedy = "Unset MATRIX_CELLS, and let nox or --minutes choose"
        raise SpecError(file, "cells", f"no choice can be read ({error})", remedy) from None


def in_words(choice: Choice) -> list[str]:
    """Return lines on what a budget bought and what it left out."""
    limits = [] if choice.minutes is None else [f"{choice.minutes:g} minutes"]
    limits += [] if choice.disk_gb is None else [f"{choice.disk_gb:g} GB of disk"]
    cost = choice.cost
    lines = [
        f"budget of {' and '.join(limits)}: {_counted(choice.cells)} chosen, "
        f"{cost.seconds / 60:.1f} minutes of work and {cost.disk / GB:.1f} GB predicted",
        f"left out because of the budget: {_counted(choice.left_out)}",
    ]
    if choice.left_out and not choice.cells:
        lines.append("that is too little for any cell: `matrix plan` says what they take")
    return lines


def _counted(cells: dict[str, Worth]) -> str:
    if not cells:
        return "no cell"
    numbers = [(worth, sum(w is worth for w in cells.values())) for worth in Worth]
    parts = ", ".join(f"{number} {worth}" for worth, number in numbers if number)
    return f"{counted(len(cells), 'cell')} ({parts})"


def differences(choice: Choice, now: Callable[[str], str]) -> list[str]:
    """Return a line for each cell that came out otherwise when it was checked again."""
    verdicts = ((cell, before, now(cell)) for cell, before in choice.before.items())
    return [
        f"checked again, {cell} is {after} and was {before}, with the same inputs"
        for cell, before, after in verdicts
        if before != after
    ]
