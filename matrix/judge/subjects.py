"""What the suite judges, and where: each environment, checkpoint and cell once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from matrix.pipeline.steps import Stage
from matrix.plan.cells import Cell, Plan

QUANTIZER = (Stage.QUANTIZER_RESOLVE, Stage.QUANTIZER_INSTALL, Stage.QUANTIZER_IMPORT)
CHECKPOINT = (Stage.QUANTIZE, Stage.INSPECT)
ENGINE = (Stage.ENGINE_RESOLVE, Stage.ENGINE_INSTALL, Stage.ENGINE_IMPORT)
CELL = (Stage.LOAD, Stage.GENERATE)


class Subject(NamedTuple):
    """Something to judge, by its name in records, with a cell that shows it."""

    name: str
    cell: Cell
    stages: tuple[Stage, ...]
    """Which of the cell's stages are the subject's own."""


def subjects(plan: Plan, environment: str | None = None) -> Iterator[Subject]:
    """Give all subjects of a plan once, or those that belong to one environment."""
    seen: set[tuple[str, tuple[Stage, ...]]] = set()
    for cell in plan.cells:
        quantizer, engine = cell.checkpoint.quantizer.environment, cell.engine.environment
        for name, where, stages in (
            (quantizer, quantizer, QUANTIZER),
            (cell.checkpoint.id, quantizer, CHECKPOINT),
            (engine, engine, ENGINE),
            (cell.id, engine, CELL),
        ):
            if environment in (None, where) and (name, stages) not in seen:
                seen.add((name, stages))
                yield Subject(name, cell, stages)
