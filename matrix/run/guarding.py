"""What stands between a step and the run that it belongs to: none ends it twice.

A step in which something is raised that nobody expected, by an answer that nobody thought of, is
kept as trouble of the machine, and the run goes on. One in which the harness itself was ended,
time and again, is passed over: a package can do so where no sandbox holds it. Who did it nobody
knows, so it is trouble as well and no package's fault.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable
from typing import TypeVar

from matrix.machine.sandbox import Isolation
from matrix.pipeline.ends import End, is_disk_full
from matrix.pipeline.outcomes import Conclusion, Outcome, Reason
from matrix.plan.cell_steps import distinct, steps_of
from matrix.plan.cells import Cell
from matrix.plan.keys import Key
from matrix.run.workspace import Workspace
from matrix.spec.tables import SpecError
from matrix.store.observations import Observation
from matrix.untrusted.text import visible

ENDS = 3
"""How often the harness may be ended in a step, before that is passed over. Twice is an impatient
user, or two jobs of a CI that take too long."""
SHOWN_CHARS = 300
T = TypeVar("T")


def passed_over(workspace: Workspace, noted: Key, due: Key) -> Observation | None:
    """Return how a step that ended the harness is kept; ``None`` for one that is to be done.

    ``noted`` is what notes are of, and ``due`` what is kept where that is to be done next.
    """
    if workspace.sandbox.isolation is not Isolation.NONE:
        return None  # nothing in there reaches the harness: somebody else ended it
    runs = workspace.store.begun.ended_in(noted.step, noted.value)
    if len(runs) < ENDS:
        return None
    message = (
        f"{len(runs)} runs ended in this step without a word ({', '.join(runs)}), so it is passed "
        "over: `matrix run CELL`, with its cell, tries it again"
    )
    workspace.tell(f"{due.step} {due.subject}: {message}")
    before = workspace.keys.observed(due)
    if before is not None and before.message == message:
        return before
    return workspace.keep(due, Conclusion(Outcome.INFRA, Reason.CRASH, message), End())


def guarded(workspace: Workspace, due: Callable[[], Key], do: Callable[[], T]) -> T | Observation:
    """Return what doing something gives; where it raises, how the step that is due is kept then.

    Raises ``SpecError`` all the same: the user is to mend that.
    """
    try:
        return do()
    except SpecError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, the other steps can be done
        return _keep_error(workspace, due(), error)


def _keep_error(workspace: Workspace, key: Key, error: Exception) -> Observation:
    text = visible(f"{type(error).__name__}: {error}", SHOWN_CHARS)
    message = f"the harness could not do it, which is a mistake in it or of the machine: {text}"
    workspace.tell(f"{key.step} {key.subject}: {message}")
    log = "".join(traceback.format_exception(error))
    reason = Reason.NO_SPACE if is_disk_full(error) else Reason.EXCEPTION
    conclusion = Conclusion(Outcome.INFRA, reason, message)
    return workspace.keep(key, conclusion, End(), log=log)


def forget_ends(workspace: Workspace, cells: Iterable[Cell]) -> None:
    """Let the steps of cells be done again, whatever they ended before."""
    for step in distinct(step for cell in cells for step in steps_of(cell)):
        key = workspace.keys.of(step)
        if key is not None:
            workspace.store.begun.forget(key.step, key.value)
