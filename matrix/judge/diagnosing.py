"""Which known issue a cell that does not work has, or which group of unknown ones it is in. Pure.

What the checks say of a file comes first, as in the cell's cause; then the exception that ended the
cell; the log only where there is no exception, or where that says that the log knows more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import msgspec

from matrix.diagnose.catalogue import Issue, Traits
from matrix.diagnose.grouping import signature_of
from matrix.diagnose.matching import Failure, Fit, Side, explains, literals, match_issues
from matrix.diagnose.passages import Excerpt, excerpt_of_text
from matrix.judge.missing import points_to_log
from matrix.judge.sides import Installed
from matrix.judge.verdict import JudgedCell, blocks
from matrix.pipeline.outcomes import Finding, Judgement, Outcome, StageResult, Verdict
from matrix.pipeline.steps import STAGES, RoleKind, Stage
from matrix.plan.cells import Cell
from matrix.store.observations import Observation

DIAGNOSED = (Verdict.DEGRADED, Verdict.GARBAGE, Verdict.BROKEN, Verdict.UNSUPPORTED)
"""Verdicts that a known issue may be the reason of."""
ReadIssues = Callable[[], Mapping[str, Issue]]
"""Gives the known issues by id, when first there is something to explain."""
_WRONG = (Judgement.FAILED, Judgement.DEGRADED)


class Diagnosis(NamedTuple):
    """What is known of why a cell does not work."""

    issue: str = ""
    """Id of the known issue that explains it."""
    looks_like: str = ""
    """Id of a known issue of other versions or models that shows in the same words."""
    group: str = ""
    """What it has in common with others that no known issue explains."""


class Diagnoser:
    """Looks the failures of cells up in the catalogue."""

    def __init__(self, read_issues: ReadIssues) -> None:
        self._read_issues = read_issues

    @cached_property
    def issues(self) -> Mapping[str, Issue]:
        """The known issues, by id."""
        return self._read_issues()

    @cached_property
    def _literals(self) -> list[str]:
        return literals(self.issues.values())

    def diagnose(
        self,
        cell: Cell,
        judged: JudgedCell,
        stages: Sequence[StageResult],
        findings: Sequence[Finding],
        observations: Mapping[Stage, Observation],
        installed: Installed,
    ) -> Diagnosis:
        """Return what is known of why a cell does not work; nothing of one that does."""
        if judged.verdict not in DIAGNOSED:
            return Diagnosis()
        ended = next((result.stage for result in stages if blocks(result)), Stage.GENERATE)
        failure = failure_at(ended, cell, installed, observations.get(ended))
        explained = [finding for finding in findings if finding.check == judged.explained_by]
        attempts = [
            msgspec.structs.replace(failure, findings=explained),
            msgspec.structs.replace(failure, excerpt=self._excerpt(ended, observations)),
            msgspec.structs.replace(
                failure, findings=[f for f in findings if f.judgement in _WRONG]
            ),
        ]
        similar: list[str] = []
        for attempt in attempts:
            matches = match_issues(self.issues.values(), attempt)
            if matches and explains(matches[0], attempt):
                return Diagnosis(issue=matches[0].issue.id)
            similar += [match.issue.id for match in matches if match.fit is Fit.LOOKS_LIKE]
        return Diagnosis(
            looks_like=similar[0] if similar else "", group=_group(ended, observations)
        )

    def _excerpt(self, ended: Stage, observations: Mapping[Stage, Observation]) -> Excerpt:
        """Return what matters of what a cell printed: of its exception, else of its logs."""
        failed = observations.get(ended)
        if failed is None or failed.outcome is Outcome.PASSED:
            logs = [observations[s].log for s in (Stage.LOAD, Stage.GENERATE) if s in observations]
            return excerpt_of_text("\n".join(logs), self._literals)
        if points_to_log(failed.message):
            return excerpt_of_text(failed.log, self._literals)
        words = failed.traceback if failed.exception else failed.log
        return excerpt_of_text(f"{words}\n{failed.message}", self._literals)


def _group(ended: Stage, observations: Mapping[Stage, Observation]) -> str:
    failed = observations.get(ended)
    return signature_of(failed.exception, failed.traceback) if failed else ""


def failure_at(
    stage: Stage, cell: Cell, installed: Installed, observation: Observation | None
) -> Failure:
    """Return what is known of a stage of a cell beside what came of it."""
    of_engine = STAGES[stage].role is RoleKind.ENGINE
    here = installed.engine if of_engine else installed.quantizer
    scheme = cell.checkpoint.scheme
    return Failure(
        step=STAGES[stage].step,
        here=Side(here, is_complete=bool(here)),
        maker=Side(installed.quantizer, is_complete=bool(installed.quantizer)),
        traits=Traits(
            tied=cell.checkpoint.model.tied,
            methods=[scheme.method] if scheme else ["none"],
            bits=[scheme.bits] if scheme else [],
            desc_act=scheme.desc_act if scheme else None,
            devices=[observation.device.partition(" ")[0]] if observation else [],
        ),
    )
