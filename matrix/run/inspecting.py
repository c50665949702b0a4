"""A checkpoint read independently, in a bounded child of the harness's own interpreter."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from matrix.checkpoint.inspection import Inspection
from matrix.machine.processes import child_environ, run
from matrix.pipeline.ends import classify_own_end
from matrix.pipeline.outcomes import PASSED, Conclusion, Outcome, Reason
from matrix.plan.cell_steps import PlannedStep
from matrix.plan.cells import Checkpoint
from matrix.plan.keys import Key
from matrix.plan.needs import with_room
from matrix.run.products import checkpoint_folder, model_folder
from matrix.run.views import view_of_our_own
from matrix.run.workspace import Workspace
from matrix.spec.loading import PACKAGE
from matrix.store.observations import Observation
from matrix.store.store import MAX_INSPECTION_BYTES
from matrix.untrusted.reading import UnreadableError, decode, read_file


def inspect(workspace: Workspace, step: PlannedStep, key: Key) -> Observation:
    """Return what the files of a checkpoint are, as an observation."""
    assert isinstance(step.subject, Checkpoint)
    checkpoint = step.subject
    with workspace.work("inspect") as work:
        output = work / "inspection.json"
        made = checkpoint_folder(workspace, checkpoint)
        original = model_folder(workspace, checkpoint.model) / "model"
        argv = [
            sys.executable, "-m", "matrix.checkpoint", str(made),
            "--original", str(original), "--output", str(output),
        ]  # fmt: skip
        environ = child_environ(work / "home", {})
        limits = with_room(workspace.limits.inspect, checkpoint.model)
        view = view_of_our_own(work, made, original)
        end, log = run(argv, environ, PACKAGE.parent, limits, workspace.sandbox, view)
        facts = _inspection(output)
    if facts is None:
        conclusion = classify_own_end(end, log)
    elif facts.problems:
        # Not one to give to an engine: it may be a pickle.
        conclusion = Conclusion(Outcome.FAILED, Reason.UNREADABLE, str(facts.problems[0]))
    else:
        conclusion = PASSED
    return workspace.keep(key, conclusion, end, facts=msgspec.to_builtins(facts) or {}, log=log)


def _inspection(file: Path) -> Inspection | None:
    try:
        return decode(read_file(file, MAX_INSPECTION_BYTES // 2), Inspection)
    except (OSError, UnreadableError):
        return None
