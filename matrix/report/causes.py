"""What is wrong, each cause once, with all that it takes down.

Everything here is a pure function of a ``MatrixResult``, and none depends on
the order in which its cells stand.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple, assert_never

from matrix.judge.results import CellResult, EnvironmentResult, KnownIssue, MatrixResult
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
    """What most of its cells say."""
    cells: tuple[str, ...]
    """Their ids, in the order of the table."""
    issue: str = ""
    """Id of the known issue that it is, in ``MatrixResult.issues``."""
    group: str = ""
    """What its cells have in common where no known issue explains them."""

    @property
    def id(self) -> str:
        """Return what addresses call it: that of its known issue, else what all it says gives."""
        if self.issue:
            return self.issue
        content = self.group or "\n".join((*self[1:5], *self.subjects))
        return f"cause-{hashlib.sha256(content.encode()).hexdigest()[:8]}"

    def title(self, issues: Mapping[str, KnownIssue]) -> str:
        """Return what it is in one line."""
        entry = issues.get(self.issue)
        return entry.title if entry else self.message or self.reason or self.stage


class _Words(NamedTuple):
    """What a cell says of its cause."""

    blame: str
    stage: str
    reason: str
    message: str


_FINE = {Verdict.WORKS, Verdict.UNTESTED, Verdict.UNSUPPORTED, Verdict.NOT_RUN}


def causes(result: MatrixResult) -> list[Cause]:
    """Return what is wrong, each cause once, the one that takes down most cells first.

    Cells with the same known issue are one cause, and so are those of one group that none
    explains. An environment broken by itself is one cause however many cells stand on it; so is
    what the same finding explains, whatever each engine makes of it. Other cells are grouped by
    whom they blame. What was not run yet is no cause.
    """
    failures = {environment.name: _failure(environment) for environment in result.environments}
    members: dict[tuple[str, str, object], list[tuple[str, str, _Words]]] = {}
    for cell in result.cells:
        if cell.verdict in _FINE:
            continue
        roles = (cell.quantizer.environment, cell.engine.environment)
        broken = next((name for name in roles if failures.get(name)), "")
        failure = failures.get(broken)
        subject, words = (broken, failure) if failure else (_subject(cell), _words(cell))
        group = "" if cell.explained_by else cell.group
        rest = (words, "" if failure or _is_telling(cell) else subject)
        key = (cell.issue, group, None if cell.issue or group else rest)
        members.setdefault(key, []).append((cell.id, subject, words))
    listed = [_cause(of, issue, group) for (issue, group, _), of in members.items()]
    return sorted(listed, key=lambda cause: (-len(cause.cells), cause))


def _cause(members: list[tuple[str, str, _Words]], issue: str, group: str) -> Cause:
    """Return the cause of cells, each by its id, its subject and what it says."""
    subjects = sorted({subject for _, subject, _ in members}, key=natural)
    often = Counter(words for _, _, words in members)
    words = min(often, key=lambda words: (-often[words], words))
    return Cause(tuple(subjects), *words, tuple(name for name, _, _ in members), issue, group)


def _words(cell: CellResult) -> _Words:
    """Return what a cell says of its cause: the finding that explains it, else how it ended."""
    explained = next((f for f in cell.findings if f.check == cell.explained_by), None)
    if explained is not None:
        # What each engine makes of it is told after it, in words of its own.
        return _Words(cell.blame, explained.stage, explained.check, explained.message)
    return _Words(cell.blame, cell.stage or "", cell.reason, cell.message)


def _is_telling(cell: CellResult) -> bool:
    """Whether cells that say the same have the same cause: two wrong answers need not."""
    return bool(cell.explained_by) or cell.verdict is Verdict.INFRA or cell.reason in {
        Reason.EXCEPTION, Reason.NOT_BUILT, Reason.UNRESOLVABLE, Reason.BUILD_FAILED,
    }  # fmt: skip


def _failure(environment: EnvironmentResult) -> _Words | None:
    """Return what an environment says that broke by itself, or ``None``."""
    failed = _first_failure(environment)
    if failed is None or failed.reason is Reason.NOT_RUN:
        return None
    blame = environment.role if failed.outcome is Outcome.FAILED else Blame.NOBODY
    return _Words(blame, failed.stage, failed.reason, failed.message)


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
