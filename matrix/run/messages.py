"""What a run says of what it does: a line for each thing that happens."""

from __future__ import annotations

from collections.abc import Callable

from matrix.pipeline.outcomes import Outcome
from matrix.pipeline.steps import SubjectKind
from matrix.plan.cell_steps import PlannedStep
from matrix.store.observations import Observation

MESSAGE_CHARS = 160


class Messages:
    """Puts what happens into lines.

    Args:
        tell: Is given each line.
        verdict: Says in a word what a cell is, by its id, after it was run.
    """

    def __init__(self, tell: Callable[[str], None], verdict: Callable[[str], str]) -> None:
        self.tell = tell
        self._verdict = verdict

    def of_step(self, step: PlannedStep, observation: Observation) -> None:
        """Say how a step ended; of a cell that is at its end, what it is."""
        if step.definition.subject is not SubjectKind.CELL:
            self.of_environment(step.environment, step.label, observation)
        elif step.definition.continues or observation.outcome is not Outcome.PASSED:
            self.tell(f"{step.label}: {self._verdict(step.name)} [{observation.seconds:.1f} s]")

    def of_environment(self, environment: str, label: str, observation: Observation) -> None:
        """Say how something ended in an environment."""
        end = observation.outcome.value
        if observation.outcome is not Outcome.PASSED:
            first_line = observation.message.strip().splitlines()[:1]
            message = first_line[0][:MESSAGE_CHARS] if first_line else ""
            end += f" ({observation.reason}) {message}"
        self.tell(f"{environment}: {label}: {end} [{observation.seconds:.1f} s]")

    def not_imported_again(self, environment: str) -> None:
        """Say that a package which was imported before does not import now."""
        self.tell(f"{environment}: did not import again; the next run tries it")
