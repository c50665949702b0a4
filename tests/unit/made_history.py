"""Made-up histories: the observations that steps would have left, without performing any."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from matrix.pipeline.outcomes import PASSED, Conclusion, Outcome
from matrix.pipeline.steps import Device
from matrix.plan.cell_steps import steps_of_plan
from matrix.plan.cells import Cell, Plan
from matrix.plan.keys import Key, Keys
from matrix.store.observations import Observation
from tests.unit.made_evidence import right_facts

Ends = Mapping[tuple[str, str], Conclusion]
"""(step, subject) -> how it ended; what is not named passed."""
Facts = Callable[[str, str], dict[str, Any]]


def plain_facts(step: str, subject: str) -> dict[str, Any]:
    """Return what a good step leaves behind; an inspection's is the caller's to make."""
    match step:
        case "resolve":
            return {"lock": f"lock of {subject}"}
        case "install":
            versions = {"maker": "1.0", "runner": "3.0", "torch": "2.1"}
            return {"python": "3.11.9", "torch": "2.1+cpu", "versions": versions,
                    "machine": {"processor": "made up"}}  # fmt: skip
        case "build":
            return {"tensors_sha256": f"tensors of {subject}"}
        case "load":
            return {"kernel": None, "kernels": {}}
        case "generate":
            return right_facts()
        case _:
            return {}


class History:
    """Observations by step and key, with the keys that read them."""

    def __init__(
        self,
        plan: Plan,
        install_from: str = "wheels",
        devices: Mapping[Device, str] = MappingProxyType({"cpu": "cpu", "cuda": "cuda 8.0"}),
    ) -> None:
        self.plan = plan
        self.observations: dict[tuple[str, str], Observation] = {}
        self.locks: dict[str, str] = {}
        self.keys = Keys(
            plan.environments,
            self.lookup,
            lambda name: self.locks.get(name, "a lock"),
            install_from,
            devices=devices,
        )
        self.looked_up: list[tuple[str, str]] = []

    def lookup(self, step: str, key: str) -> Observation | None:
        self.looked_up.append((step, key))
        return self.observations.get((step, key))

    def observe(self, key: Key | None, ends: Ends, facts: Facts) -> None:
        if key is None:
            return
        conclusion = ends.get((key.step, key.subject), PASSED)
        passed = conclusion.outcome is Outcome.PASSED
        self.observations[key.step, key.value] = Observation(
            key=key.value,
            inputs=key.inputs,
            step=key.step,
            subject=key.subject,
            outcome=conclusion.outcome,
            reason=conclusion.reason,
            message=conclusion.message,
            facts=facts(key.step, key.subject) if passed else {},
            departures=key.departures,
            device=str(key.inputs.get("device", "cpu")),
            seconds=1.5,
            run="run-1",
            at=f"2026-01-01T00:00:{len(self.observations):02}",
        )

    def finish(self, ends: Ends | None = None, facts: Facts = plain_facts) -> History:
        """Observe all that can be, in the order in which a run would."""
        left_out: set[str] = set()
        for step in steps_of_plan(self.plan):
            key = self.keys.of(step)
            if step.definition.continues and step.name in left_out:
                continue
            self.observe(key, ends or {}, facts)
            if not self.keys.passed(key):
                left_out.add(step.name)
        return self

    def forget(self, step: str, subject: str) -> None:
        """Remove what was observed of a subject."""
        self.observations = {
            place: observation
            for place, observation in self.observations.items()
            if (observation.step, observation.subject) != (step, subject)
        }

    def change(self, step: str, subject: str, **fields: Any) -> None:
        """Change what was observed of a subject."""
        for place, observation in self.observations.items():
            if (observation.step, observation.subject) == (step, subject):
                self.observations[place] = msgspec.structs.replace(observation, **fields)

    def names(self) -> dict[tuple[str, str], str]:
        """Return (step, subject) -> key."""
        return {
            (observation.step, observation.subject): observation.key
            for observation in self.observations.values()
        }

    def unfinished(self) -> list[Cell]:
        return [cell for cell in self.plan.cells if self.keys.unfinished(cell)]
