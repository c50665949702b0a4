"""What the suite has judged already, and so which environments are worth waiting for."""

from __future__ import annotations

from pathlib import Path

from matrix.judge import canaries
from matrix.judge.cells import CellJudge, refusals
from matrix.judge.suite_subjects import subjects
from matrix.run.context import Context
from matrix.spec.loading import PACKAGE
from matrix.store.identity import code_digest, digest, file_digest
from matrix.store.sealing import seal_text, unseal_text
from matrix.store.store import write_atomically
from matrix.untrusted.reading import UnreadableError, read_file

MAX_DIGEST_BYTES = 1000


def pending(context: Context) -> list[str]:
    """Return the environments that have something to do, or to be judged."""
    judge = context.fresh_judge()
    unfinished = {cell.id for cell in context.keys.unfinished_of(context.plan.cells)}
    return [
        name
        for name, cells in context.cells_of.items()
        if any(cell.runs for cell in cells)
        and (any(cell.id in unfinished for cell in cells) or not is_current(context, name, judge))
    ]


def is_current(context: Context, environment: str, judge: CellJudge | None = None) -> bool:
    """Whether the suite has judged just these observations, with these checks."""
    try:
        digest_then = unseal_text(read_file(_file(context, environment), MAX_DIGEST_BYTES))
        digest_now = _digest(context, environment, judge or context.fresh_judge())
        return digest_then == digest_now.encode()
    except (OSError, UnreadableError):
        return False


def note_run(context: Context, environment: str) -> None:
    """Note that the suite has judged what there is of an environment."""
    digest_now = _digest(context, environment, context.fresh_judge())
    write_atomically(_file(context, environment), seal_text(digest_now.encode()))


def _file(context: Context, environment: str) -> Path:
    return context.store.path("suites", environment)


def _digest(context: Context, environment: str, judge: CellJudge) -> str:
    observed = []
    for subject in subjects(context.plan, environment):
        keys = judge.keys_of(subject.cell)
        # What a cell is depends on all that was before; the other subjects stand alone.
        stages = subject.stages if subject.stands_alone else tuple(keys)
        ends = [context.keys.observed(keys[stage]) for stage in stages if stage in keys]
        observed.append([(end.key, end.outcome) if end else None for end in ends])
    code = [code_digest(PACKAGE / "checks"), *(file_digest(PACKAGE / n) for n in canaries.JUDGING)]
    return digest([observed, code, context.loaded.spec.thresholds, refusals(context.loaded)])
