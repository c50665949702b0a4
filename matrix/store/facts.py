"""What a step observed: the facts of an observation, read as the type of its step. Pure.

========  ==================================================
resolve   :class:`ResolveFacts`
install   :class:`InstallFacts`
build     :class:`BuildFacts`
inspect   :class:`matrix.checkpoint.inspection.Inspection`
load      :class:`matrix.checks.evidence.Load`
generate  :class:`matrix.checks.evidence.Generation`
========  ==================================================

Nothing is read of what an import or a quantization observed: it is kept for people. Observations
keep their facts as they were written, so that nothing of a newer version is lost.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from matrix.pipeline.steps import Step
from matrix.store.observations import Observation

_T = TypeVar("_T")


class ResolveFacts(msgspec.Struct, frozen=True):
    """What a resolution observed."""

    lock: str = ""
    """Digest of the lock."""


class InstallFacts(msgspec.Struct, frozen=True):
    """What an installation observed."""

    python: str = ""
    torch: str = ""
    """Torch as installed, local tag and all; empty where there is none."""
    versions: dict[str, str] = {}
    """Canonical name of each distribution that is installed -> version."""
    machine: dict[str, str] = {}
    """Where it was made, in old observations; newer ones have it beside the facts."""


class BuildFacts(msgspec.Struct, frozen=True):
    """What the build of a model observed."""

    tensors_sha256: str = ""


_CHECKED: dict[Step, type[msgspec.Struct]] = {
    Step.RESOLVE: ResolveFacts,
    Step.INSTALL: InstallFacts,
    Step.BUILD: BuildFacts,
}
"""Steps whose facts keys are made of. Those of the other ones are the packages' own words: they
are read where they are judged, and what cannot be read is a failure of its step."""


def read_facts(observation: Observation, kind: type[_T]) -> _T:
    """Return the facts of an observation as the type of its step; other facts are passed over.

    Raises ``msgspec.ValidationError`` where they are not of that type.
    """
    return msgspec.convert(observation.facts, kind)


def check_facts(observation: Observation) -> None:
    """Raise ``msgspec.ValidationError`` where keys cannot be made of an observation's facts."""
    if observation.step in _CHECKED:
        read_facts(observation, _CHECKED[observation.step])


def departures_used(observation: Observation) -> list[str]:
    """Return the departures that an adapter says it came to use; what it says is untrusted."""
    names = observation.facts.get("departures")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
