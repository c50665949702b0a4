"""A checkpoint repaired by our own command, in a bounded child, as a further row of the table."""

from __future__ import annotations

import sys
from typing import Any

from matrix.machine.processes import child_environ, run
from matrix.pipeline.ends import ChildException, End, classify_exception, classify_own_end
from matrix.pipeline.outcomes import PASSED, Conclusion, Outcome, Reason
from matrix.plan.cell_steps import PlannedStep
from matrix.plan.cells import Checkpoint
from matrix.plan.keys import Key
from matrix.plan.needs import with_room
from matrix.repair.names import NOTHING_TO_REPAIR, NOTHING_WRITTEN
from matrix.run.products import checkpoint_folder, publish_checkpoint
from matrix.run.views import view_of_our_own
from matrix.run.workspace import Workspace
from matrix.spec.loading import PACKAGE
from matrix.store.observations import Observation
from matrix.untrusted.reading import UnreadableError


def repair(workspace: Workspace, step: PlannedStep, key: Key) -> Observation:
    """Return what came of repairing a checkpoint, as an observation; its files appear with it."""
    assert isinstance(step.subject, Checkpoint)
    checkpoint = step.subject
    with workspace.work("repair") as work:
        output = work / "output"
        unrepaired = checkpoint_folder(workspace, checkpoint.unrepaired)
        argv = [
            sys.executable, "-m", "matrix", "repair", str(unrepaired), "--out", str(output),
            *(word for name in checkpoint.quantizer.repairs for word in ("--repair", name)),
        ]  # fmt: skip
        limits = with_room(workspace.limits.of(step.step), checkpoint.model)
        end, log = run(
            argv, child_environ(work / "home", {}), PACKAGE.parent, limits,
            workspace.sandbox, view_of_our_own(work, unrepaired),
        )  # fmt: skip
        conclusion = conclude(end, log)
        facts: dict[str, Any] = {}
        if conclusion == PASSED:
            facts = {"changes": [line for line in log.splitlines() if " -> " in line]}
            try:
                publish_checkpoint(workspace, key, output, checkpoint.model)
            except UnreadableError as error:
                conclusion = Conclusion(Outcome.FAILED, Reason.NO_RESULT, str(error))
    return workspace.keep(key, conclusion, end, facts=facts, log=log)


def conclude(end: End, log: str) -> Conclusion:
    """Return what the end of the command means, by its status and by the line that says why.

    Python ends with status 1 as well where an exception is not caught, so a status alone says
    nothing of the checkpoint.
    """
    lines = log.strip().splitlines()
    last_line = "".join(lines[-1:])
    is_nothing = any(line.startswith(NOTHING_TO_REPAIR) for line in lines)
    if end.limit:
        return classify_own_end(end, log)
    match end.status:
        case 0:
            return PASSED
        case 1 if is_nothing:
            return Conclusion(Outcome.UNSUPPORTED, Reason.REFUSED, NOTHING_TO_REPAIR)
        case 1:
            name, _, message = last_line.partition(": ")
            return classify_exception(ChildException(name, message), [])
        case 2 if last_line.endswith(NOTHING_WRITTEN):
            return Conclusion(Outcome.FAILED, Reason.UNREADABLE, last_line)
        case 2:
            refused = classify_exception(ChildException("OSError", last_line), [])
            return Conclusion(Outcome.INFRA, refused.reason, last_line)
        case _:
            return classify_own_end(end, log)
