"""Observations: what one step left behind. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from matrix.machine.sandbox import Isolation
from matrix.pipeline.outcomes import Conclusion, Outcome
from matrix.pipeline.steps import Step

SCHEMA_VERSION = 2
"""Version 1 had no digest and is not read: whoever damages a file could leave the digest out."""


class Observation(Conclusion, frozen=True, kw_only=True):
    """One step, performed once for its key. Written by the parent, whatever the child did."""

    schema: int = SCHEMA_VERSION
    key: str
    inputs: dict[str, Any]
    """What the key is the digest of."""
    step: Step
    subject: str
    """The environment, checkpoint or cell, by its id."""
    exception: str = ""
    """Qualified name of the exception's type."""
    traceback: str = ""
    warnings: list[str] = msgspec.field(default_factory=list)
    facts: dict[str, Any] = msgspec.field(default_factory=dict)
    departures: list[str] = msgspec.field(default_factory=list)
    device: str = "cpu"
    """What the step ran on, as its key says: ``cpu x86-64-v4``, or ``cuda 9.0`` by its cards.
    Plain ``cpu`` where it was observed before instruction sets were told apart."""
    machine: dict[str, str] = msgspec.field(default_factory=dict)
    """What it ran on, in the words of :meth:`matrix.machine.hardware.Machine.facts`."""
    sandbox: Isolation = Isolation.NONE
    """What stood between the step and the machine."""
    seconds: float = 0.0
    peak_bytes: int = 0
    log: str = ""
    """Last part of what the step printed."""
    run: str = ""
    attempt: int = 1
    at: str = ""
    """ISO time of the end, UTC."""

    @property
    def made_on(self) -> dict[str, str]:
        """The machine in words, with what stood between it and the step."""
        return {**self.machine, "sandbox": self.sandbox.value} if self.machine else {}

    @property
    def final(self) -> bool:
        """Whether the same inputs need not be tried again: trouble of the machine is no answer."""
        return self.outcome is not Outcome.INFRA
