"""A store in which nothing of a profile is left to do, made of its recorded run within seconds:

    .venv/bin/python -m tests.recorded.full_store FOLDER cpu

Judging it is real work, since what was observed is the recorded run's. No environment is built and
no checkpoint has files: a run with nothing to do looks at neither.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from matrix.pipeline.outcomes import Outcome
from matrix.plan.cell_steps import steps_of
from matrix.plan.cells import Cell
from matrix.plan.keys import Key
from matrix.run import suites
from matrix.run.context import Context, Settings
from matrix.spec.loading import DEFAULT_SPEC
from matrix.store.observations import Observation
from matrix.store.sealing import seal
from tests.recorded import recording


class _KeysBySubject(recording.RecordedKeys):
    """Finds observations by step and subject: a departure may be new since the recording."""

    def observed(self, key: Key | None) -> Observation | None:
        """Return the recorded observation of a key's step and subject."""
        return self._lookup(key.step, key.subject) if key else None


def fill(folder: Path, profile: str, spec: Path = DEFAULT_SPEC) -> None:
    """Write what a finished run of a profile leaves in a store that the report is made from.

    Raises ``LookupError`` with the first step that the recording does not have.
    """
    context = Context(Settings.of({}, spec=spec, profile=profile, store=folder))
    recorded = {
        (observation.step, observation.subject): observation
        for observation in recording.observations(profile)
    }
    keys = _KeysBySubject(
        context.plan.environments,
        lambda step, subject: recorded.get((step, subject)),
        lambda _: "",
        "",
        {"cpu": "cpu", "cuda": "cuda"},
    )
    references = dict(
        msgspec.json.decode(line, type=tuple[str, str])
        for line in recording.read(profile, "references")
    )
    for cell in context.plan.cells:
        _fill_cell(context, keys, cell, references)
    for environment in context.plan.environments:
        suites.note_run(context, environment)


def _fill_cell(
    context: Context, recorded: _KeysBySubject, cell: Cell, references: dict[str, str]
) -> None:
    """Keep each step of a cell under today's key, as far as the recorded run got with it."""
    for step in steps_of(cell) if cell.runs else ():
        key, then = context.keys.of(step), recorded.of(step)
        observation = recorded.observed(then)
        if key is None or observation is None:
            raise LookupError(f"{cell.id}: not in the recording: {key or then}")
        if context.keys.observed(key) is None:
            _keep(context, key, observation, references)
        if observation.outcome is not Outcome.PASSED:
            return


def _keep(context: Context, key: Key, observation: Observation, references: dict[str, str]) -> None:
    """Keep a recorded observation under today's key, with the folder that its step leaves."""
    facts = observation.facts
    match key.step:
        case "resolve":
            facts = {**facts, "lock": key.inputs["lock"]}
        case "build":
            folder = context.store.path("models", key.value, "reference.json")
            folder.write_bytes(seal(references[observation.key].encode()))
        case "quantize":
            context.store.path("checkpoints", key.value, "checkpoint")
    context.store.keep(
        msgspec.structs.replace(
            observation,
            key=key.value,
            inputs=key.inputs,
            subject=key.subject,
            departures=key.departures,
            facts=facts,
        )
    )


if __name__ == "__main__":
    fill(Path(sys.argv[1]), sys.argv[2])
