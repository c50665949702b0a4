"""Cells run one by one, beside a run of the whole: what a search wants to know."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from matrix.plan.cells import Cell, select
from matrix.run.context import Context
from matrix.run.run import Run
from matrix.run.workspace import Workspace
from matrix.untrusted.text import visible


def unfinished(context: Context, cells: Iterable[Cell]) -> list[Cell]:
    """Return those cells of which something is still to be observed."""
    return [cell for cell in cells if context.keys.unfinished(cell)]


def observe(context: Context, cells: Iterable[Cell]) -> None:
    """Do what cells still need, and their float models in the same engines; tell what happens."""

    def verdict(cell_id: str) -> str:
        return context.fresh_judge().cell(cell_id).verdict

    run = Run(Workspace(context), tell, verdict, fork=True)
    with context.store.use():
        for cell in cells:
            run.perform(select(context.plan, cell=cell.id))


def tell(line: str) -> None:
    """Write a line of progress, apart from the answer."""
    sys.stderr.write(f"{visible(line)}\n")
    sys.stderr.flush()
