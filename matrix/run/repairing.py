"""A checkpoint repaired by our own command, in a bounded child, as a further row of the table."""

from __future__ import annotations

import sys
from typing import Any

from matrix.machine.processes import child_environ, run
from matrix.pipeline.ends import End, classify_end
from matrix.pipeline.outcomes import PASSED, Conclusion, Outcome, Reason
from matrix.plan.cell_steps import PlannedStep
from matrix.plan.cells import Checkpoint
from matrix.plan.keys import Key
from matrix.plan.needs import with_room
from matrix.run.products import checkpoint_folder, publish_checkpoint
from matrix.run.workspace import Workspace
from matrix.spec.loading import PACKAGE
from matrix.store.observations import Observation

NOTHING_TO_REPAIR, NOT_SURE = 1, 2
"""Statuses of the command."""


def repair(workspace: Workspace, step: PlannedStep, key: Key) -> Observation:
    """Return what came of repairing a checkpoint, as an observation; its files appear with it."""
    assert isinstance(step.subject, Checkpoint)
    checkpoint = step.subject
    with workspace.work("repair") as work:
        output = work / "output"
        argv = [
            sys.executable, "-m", "matrix", "repair",
            str(checkpoint_folder(workspace, checkpoint.unrepaired)), "--out", str(output),
            *(word for name in checkpoint.quantizer.repairs for word in ("--repair", name)),
        ]  # fmt: skip
        limits = with_room(workspace.limits.of(step.step), checkpoint.model)
        end, log = run(argv, child_environ(work / "home", {}), PACKAGE.parent, limits)
        conclusion = _conclusion(end, log)
        facts: dict[str, Any] = {}
        if conclusion == PASSED:
            facts = {"changes": [line for line in log.splitlines() if " -> " in line]}
            publish_checkpoint(workspace, key, output)
    return workspace.keep(key, conclusion, end, facts=facts, log=log)


def _conclusion(end: End, log: str) -> Conclusion:
    """Return what the end of the command means; its last line says why there is no copy."""
    last_line = "".join(log.strip().splitlines()[-1:])
    match end.status:
        case 0 if not end.limit:
            return PASSED
        case status if status == NOTHING_TO_REPAIR:
            return Conclusion(Outcome.UNSUPPORTED, Reason.REFUSED, last_line)
        case status if status == NOT_SURE and "No space left on device" not in last_line:
            return Conclusion(Outcome.FAILED, Reason.UNREADABLE, last_line)
        case _:
            return classify_end(end, None, [], log)
