"""What a probe answered, judged and kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from matrix.checks.divergence import with_divergence
from matrix.checks.evidence import EvidenceError
from matrix.environments import bytecode
from matrix.judge.builds import builds_of
from matrix.judge.missing import classify_missing, read_missing
from matrix.machine import processor
from matrix.pipeline.ends import classify_end, is_disk_full, require_device
from matrix.pipeline.outcomes import Conclusion, Outcome, Reason
from matrix.pipeline.steps import Step
from matrix.plan.cells import Cell, Role
from matrix.plan.keys import Key
from matrix.run.jobs import Job
from matrix.run.probes import Answer
from matrix.run.products import reference
from matrix.run.workspace import Workspace
from matrix.store.observations import Observation
from matrix.untrusted.reading import UnreadableError
from matrix.untrusted.removing import remove


def classify_answer(workspace: Workspace, answer: Answer, role: Role) -> Conclusion:
    """Return what an answer means: of a failure, also whether only this machine lacks what it
    wanted; and of a success, whether it is of the device that was meant.
    """
    conclusion = classify_end(
        answer.end, answer.result, role.needs_hardware, answer.log, answer.unreadable
    )
    exception = answer.result.exception if answer.result else None
    missing = read_missing(answer.end, exception, answer.log)
    environment = workspace.plan.environments[role.environment]
    if conclusion.outcome is Outcome.FAILED and missing is not None:
        builds = builds_of(workspace.folder(environment), missing)
        machine = workspace.machine
        lacks = processor.lacking(machine.features)
        conclusion = classify_missing(conclusion, missing, builds, lacks, machine.instruction_set)
    if answer.step is Step.BUILD:
        return conclusion  # wherever that runs: its key names no device
    facts = answer.result.facts if answer.result else {}
    return require_device(conclusion, facts, environment.device)


def keep_import(
    workspace: Workspace, key: Key, answer: Answer, role: Role, conclusion: Conclusion
) -> Observation:
    """Keep how an import ended."""
    facts = dict(answer.result.facts) if answer.result and answer.result.ok else {}
    facts.pop("versions", None)  # the install's observation has them
    if conclusion.outcome is Outcome.PASSED:
        environment = workspace.plan.environments[role.environment]
        pool, limits = workspace.store.path("bytecode"), workspace.limits.importing
        with workspace.work("bytecode") as work:
            bytecode.share(workspace.folder(environment), pool, work, limits, workspace.sandbox)
    return workspace.keep(
        key, conclusion, answer.end, result=answer.result, facts=facts, log=answer.log
    )


def keep_answer(
    workspace: Workspace,
    job: Job,
    answer: Answer,
    conclusion: Conclusion,
    output: Path,
    *,
    attempt: int,
    tell: Callable[[str], None],
) -> Observation | None:
    """Keep how a step of a job ended, with what it made; ``None`` where that is no news."""
    keys, key = workspace.keys, job.keys[answer.step]
    if job.publish is None and keys.settled(key):
        return None
    if conclusion.outcome is not Outcome.PASSED:
        remove(output)  # it may be what fills the disk
        if job.publish is not None and keys.passed(key):
            # It was made before, and cells were judged by it: how it went now is no news.
            tell(f"{job.label}: not made again: {conclusion.message}")
            return None
    facts: dict[str, Any] = answer.result.facts if answer.result else {}
    if answer.step is Step.GENERATE and conclusion.outcome is Outcome.PASSED:
        facts, conclusion = _compared(workspace, job, facts, conclusion)
    if job.publish is not None:
        facts, conclusion = _published(workspace, job, key, facts, conclusion, output)
    return workspace.keep(
        key, conclusion, answer.end, result=answer.result, facts=facts, log=answer.log,
        attempt=attempt,
    )  # fmt: skip


def _compared(
    workspace: Workspace, job: Job, facts: dict[str, Any], conclusion: Conclusion
) -> tuple[dict[str, Any], Conclusion]:
    """Compare an engine's answers with the float model's; return the facts and what it came to."""
    cell = job.planned(Step.GENERATE).subject
    assert isinstance(cell, Cell)
    try:
        return with_divergence(facts, reference(workspace, cell.checkpoint.model)), conclusion
    except EvidenceError as error:
        return {}, Conclusion(Outcome.FAILED, Reason.NO_RESULT, str(error))


def _published(
    workspace: Workspace,
    job: Job,
    key: Key,
    facts: dict[str, Any],
    conclusion: Conclusion,
    output: Path,
) -> tuple[dict[str, Any], Conclusion]:
    """Make a job's output visible where it passed; return the facts and what it came to."""
    assert job.publish is not None
    if conclusion.outcome is not Outcome.PASSED:
        return {}, conclusion
    try:
        return {**facts, **job.publish(workspace, key, output)}, conclusion
    except OSError as error:
        if is_disk_full(error):
            return {}, Conclusion(Outcome.INFRA, Reason.NO_SPACE, str(error))
        return {}, Conclusion(Outcome.FAILED, Reason.NO_RESULT, str(error))
    except (EvidenceError, UnreadableError) as error:
        return {}, Conclusion(Outcome.FAILED, Reason.NO_RESULT, str(error))
