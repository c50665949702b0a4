"""What the suite judges, and where: each environment, checkpoint and cell once."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

from matrix.pipeline.steps import STAGES, RoleKind, Stage, SubjectKind
from matrix.plan.cells import Cell, Plan

GROUPS = [
    (role, subject, tuple(stages))
    for (role, subject), stages in groupby(
        STAGES, lambda stage: (STAGES[stage].role, STAGES[stage].subject)
    )
]
"""The stages of a cell in groups that are judged together: those of one role and one subject."""


class Subject(NamedTuple):
    """Something to judge, by its name in records, with a cell that shows it."""

    name: str
    cell: Cell
    stages: tuple[Stage, ...]
    """Which of the cell's stages are the subject's own."""
    stands_alone: bool
    """Whether it is what it is whatever came of the stages before."""


def subjects(plan: Plan, environment: str | None = None) -> Iterator[Subject]:
    """Give all subjects of a plan once, or those that belong to one environment."""
    given: set[tuple[str, tuple[Stage, ...]]] = set()
    for cell in plan.cells:
        for role, subject, stages in GROUPS:
            is_engine = role is RoleKind.ENGINE
            place = (cell.engine if is_engine else cell.checkpoint.quantizer).environment
            if environment not in (None, place):
                continue
            name = _name(cell, subject, place)
            if (name, stages) not in given:
                given.add((name, stages))
                yield Subject(name, cell, stages, subject is not SubjectKind.CELL)


def _name(cell: Cell, subject: SubjectKind, environment: str) -> str:
    match subject:
        case SubjectKind.ENVIRONMENT:
            return environment
        case SubjectKind.MODEL:
            return cell.checkpoint.model.name
        case SubjectKind.CHECKPOINT:
            return cell.checkpoint.id
        case SubjectKind.CELL:
            return cell.id
