"""What is wrong, each cause once, with all that it takes down.

Everything here is a pure function of a ``MatrixResult``, and none depends on
the order in which its cells stand.
"""

from __future__ import annotations

from typing import NamedTuple, assert_never

from matrix.judge.results import CellResult, EnvironmentResult, MatrixResult
from matrix.pipeline.outcomes import Outcome, Reason, StageResult, Verdict
from matrix.pipeline.steps import Blame
from matrix.untrusted.text import natural


class Cause(NamedTuple):
    """One thing that is wrong, with everything it takes down."""

    subjects: tuple[str, ...]
    """Names of the environments, checkpoints or pairs that share it."""
    blame: str
    stage: str
    reason: str
    message: str
    cells: int


def causes(result: MatrixResult) -> list[Cause]:
    """Return what is wrong, each cause once, the one that takes down most cells first.

    An environment broken by itself is one cause however many cells stand on it, and environments
    that fail with the same message are one cause; so are cells that the same finding explains,
    whatever each engine makes of it. Other cells are grouped by whom they blame. What was not run
    yet is no cause.
    """
    subjects_of: dict[tuple[str, str, str, str, str], dict[str, int]] = {}
    broken = set()
    fine = {Verdict.WORKS, Verdict.UNTESTED, Verdict.UNSUPPORTED}
    wanted = {
        name
        for cell in result.cells
        if cell.verdict not in fine
        for name in (cell.quantizer.environment, cell.engine.environment)
    }
    for environment in result.environments:
        failed = _first_failure(environment)
        if failed is None or failed.reason is Reason.NOT_RUN or environment.name not in wanted:
            continue
        broken.add(environment.name)
        blame = environment.role if failed.outcome is Outcome.FAILED else Blame.NOBODY.value
        key = (blame, failed.stage.value, failed.reason.value, failed.message, "")
        subjects_of.setdefault(key, {})[environment.name] = environment.cells
    for cell in result.cells:
        if cell.verdict in fine or cell.reason is Reason.NOT_RUN:
            continue
        if broken & {cell.quantizer.environment, cell.engine.environment}:
            continue
        subjects = subjects_of.setdefault(_cell_cause(cell), {})
        subjects[_subject(cell)] = subjects.get(_subject(cell), 0) + 1
    listed = [
        Cause(tuple(sorted(subjects, key=natural)), *key[:4], cells=sum(subjects.values()))
        for key, subjects in subjects_of.items()
    ]
    return sorted(listed, key=lambda cause: (-cause.cells, cause))


def _cell_cause(cell: CellResult) -> tuple[str, str, str, str, str]:
    """Return what cells with one cause share: blame, stage, reason, message and what else parts."""
    stage = cell.stage.value if cell.stage else ""
    explained = next((f for f in cell.findings if f.check == cell.explained_by), None)
    if explained is not None:
        # What each engine makes of it is told after it, in words of its own.
        return cell.blame.value, explained.stage.value, explained.check, explained.message, ""
    # Two wrong answers are told in the same words and need not have the same cause.
    telling = cell.reason in {
        Reason.EXCEPTION, Reason.NOT_BUILT, Reason.UNRESOLVABLE, Reason.BUILD_FAILED,
    }  # fmt: skip
    apart = "" if telling or cell.verdict is Verdict.INFRA else _subject(cell)
    return cell.blame.value, stage, cell.reason.value, cell.message, apart


def _first_failure(environment: EnvironmentResult) -> StageResult | None:
    """Return the stage at which an environment broke by itself, or ``None``."""
    bad = {Outcome.FAILED, Outcome.INFRA}
    return next((stage for stage in environment.stages if stage.outcome in bad), None)


def _subject(cell: CellResult) -> str:
    """Return the name of what a cell's blame points at."""
    match cell.blame:
        case Blame.QUANTIZER:
            return cell.quantizer.name
        case Blame.ENGINE:
            return cell.engine.name
        case Blame.CHECKPOINT:
            return f"{cell.model} by {cell.quantizer.name}"
        case Blame.PAIR | Blame.NOBODY:
            return f"{cell.quantizer.name} in {cell.engine.name}"
        case _:
            assert_never(cell.blame)
