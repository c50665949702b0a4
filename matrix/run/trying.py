"""Cells run one by one, beside a run of the whole, some of them in made-up environments."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from matrix.environments.locks import Lock, keep_lock, make_lock, read_lock
from matrix.machine.threads import side_by_side
from matrix.plan.cells import Cell, select
from matrix.plan.keys import lock_inputs
from matrix.run.context import Context
from matrix.run.run import Run
from matrix.run.workspace import Workspace
from matrix.search.answers import Answer, combined
from matrix.search.made_up import SIDES, Ends, Pin, Side, changed, settled, with_environments
from matrix.search.question import Question, in_words
from matrix.spec.tables import Environment
from matrix.store.identity import digest
from matrix.untrusted.text import visible


class TroubleError(Exception):
    """The machine or the network kept a try from being answered; the same command goes on."""


class Trial(NamedTuple):
    """What a try answered."""

    answer: Answer
    message: str
    """What it came to, for a person."""
    pins: Mapping[Side, Mapping[str, str]] = {}
    """What the two environments are locked to."""


class Tries:
    """Makes environments between two ends and runs the good end's cell in them.

    Args:
        context: A profile opened for work.
        ends: The good and the bad cell.
        question: Which verdicts are good, and which bad.
        repeat: How often a cell that loads is asked.
        jobs: How many are tried at once.
    """

    def __init__(
        self, context: Context, ends: Ends, question: Question, repeat: int, jobs: int
    ) -> None:
        self._context = context
        self._ends = ends
        self._question = question
        self._repeat = repeat
        self._jobs = jobs

    def of_all(self, tries: Sequence[Sequence[Pin]]) -> list[Trial]:
        """Return what each try says, in their order; raise :class:`TroubleError`."""
        numbers = range(len(tries))
        done = side_by_side(lambda number: self.of(tries[number]), numbers, self._jobs)
        trials = {number: future.result() for number, future in done}
        return [trials[number] for number in numbers]

    def of(self, pins: Sequence[Pin]) -> Trial:
        """Return what the good cell says with some pins of its environments changed."""
        made: dict[Side, Environment] = {}
        locked: dict[Side, Mapping[str, str]] = {}
        for side in SIDES:
            good, bad = self._ends.sides[side]
            lock = self._context.lock(good)
            locked[side] = lock.pins if lock else {}
            if versions := {pin.package: pin.version for pin in pins if pin.side == side}:
                wanted = changed(good, bad, versions)
                near = nearest_lock(self._context, wanted, {**locked[side], **versions})
                if near.refusal:
                    return Trial(Answer.UNTESTABLE, f"does not resolve: {_first(near.refusal)}")
                made[side] = settled(wanted, near.pins, _label(versions))
                locked[side] = near.pins
        cells = with_environments(self._ends.cell, {side: e.name for side, e in made.items()})
        answers: list[Answer] = []
        messages: list[str] = []
        while (together := combined(answers, self._repeat)) is None:
            answer, message = self._ask(cells, list(made.values()), repetition=len(answers))
            answers.append(answer)
            messages.append(message)
        return Trial(together, "; then ".join(dict.fromkeys(messages)), locked)

    def _ask(
        self, cells: list[Cell], made: list[Environment], repetition: int
    ) -> tuple[Answer, str]:
        """Run a cell where it was not; where it is repeated, load it once more in any case."""
        again = f"{self._context.store.run}-{repetition}" if repetition else ""
        environments = self._context.loaded.environments | {e.name: e for e in made}
        environments |= {e.name: e for pair in self._ends.sides.values() for e in pair}
        context = self._context.with_cells(cells, environments, again)
        observe(context, cells[:1])
        result = context.fresh_judge().cell(cells[0].id)
        answer = self._question.answer(result)
        if answer is None:
            raise TroubleError(f"{result.id}: {result.message}")
        return answer, in_words(result)


def nearest_lock(context: Context, environment: Environment, preferred: Mapping[str, str]) -> Lock:
    """Return uv's lock for an environment that keeps to preferred pins wherever it can.

    It is kept in the store. Raises :class:`TroubleError` where uv cannot answer.
    """
    name = digest([lock_inputs(environment), dict(preferred)])
    file = context.store.path("locks", "near", f"{name}.txt")
    if kept := read_lock(file, environment, of_store=True):
        return kept
    with context.store.work("lock") as work:
        pins = [f"{package}=={version}" for package, version in preferred.items() if version]
        (work / "resolved.txt").write_text("\n".join(pins))  # uv keeps to what its output says
        limits = context.loaded.spec.limits.resolve
        lock, conclusion, _ = make_lock(environment, work, os.environ, limits, context.sandbox)
    if lock is None:
        raise TroubleError(f"{environment.name}: {conclusion.message}")
    keep_lock(file, lock)
    return lock


def _label(versions: Mapping[str, str]) -> str:
    """Return how the environment's name begins in which some packages were changed."""
    if len(versions) > 1:
        return f"try-{len(versions)}-pins"
    ((package, version),) = versions.items()
    return f"try-{package}-{version}" if version else f"try-without-{package}"


def _first(text: str) -> str:
    return next(iter(text.strip().splitlines()), "")


def observe(context: Context, cells: Iterable[Cell]) -> None:
    """Do what cells still need, and their float models in the same engines; tell what happens."""

    def verdict(cell_id: str) -> str:
        return context.fresh_judge().cell(cell_id).verdict

    run = Run(Workspace(context, tell=tell), tell, verdict, fork=True)
    with context.store.use():
        for cell in context.keys.unfinished_of(cells):
            run.perform(select(context.plan, cells=[cell.id]))


def tell(line: str) -> None:
    """Write a line of progress, apart from the answer."""
    sys.stderr.write(f"{visible(line)}\n")
    sys.stderr.flush()
