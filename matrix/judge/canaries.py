"""Why a canary came out otherwise: what came, and what differs from when it last came out right.

A run whose canaries are established leaves what went into them in the store; one that is void is
compared with that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from matrix.judge.results import CellResult
from matrix.pipeline.outcomes import Reason
from matrix.pipeline.steps import Stage
from matrix.spec.loading import PACKAGE
from matrix.store.identity import code_digest, digest, file_digest
from matrix.store.observations import Observation
from matrix.store.sealing import unseal
from matrix.store.store import Store, write_json
from matrix.untrusted.reading import UnreadableError, decode, read_file

JUDGING = ("judge/explaining.py", "judge/refusals.py", "judge/verdict.py")
"""What judges by what the checks found."""
MAX_BYTES = 50_000_000
MESSAGE_CHARS = 300
DIFFERENCES = 12
"""How many differences a line names."""

_SHOWN_AS_THEY_ARE = ("device", "python", "torch", "processor", "memory", "system")
"""Inputs whose values say something to a person; of others only that they changed."""
_WORDS = {
    "lock": "lock", "adapter": "adapter", "child": "probe/child.py", "environ": "variables",
    "options": "options", "reader": "matrix/checkpoint", "tensors": "model",
    "departures": "departures",
}  # fmt: skip
"""Inputs of keys that stand for themselves: the other ones are keys of earlier steps."""

Inputs = dict[str, str]
"""What went into a canary: a name in words -> its value, or a digest of it."""


class Established(msgspec.Struct, frozen=True):
    """The canaries of a profile as they last came out right."""

    at: str
    """ISO time of the newest evidence."""
    inputs: dict[str, Inputs]
    """Cell -> what went into it."""


def inputs_of(observations: Mapping[Stage, Observation], thresholds: Mapping[str, float]) -> Inputs:
    """Return what went into a cell: machine, locks, adapters, and the code that judged it."""
    inputs: Inputs = {
        "matrix/checks": code_digest(PACKAGE / "checks"),
        **{f"matrix/{name}": file_digest(PACKAGE / name) for name in JUDGING},
        "thresholds": digest(dict(thresholds)),
    }
    for stage, observation in observations.items():
        subject = observation.subject.rpartition("/")[2]
        for name, value in {**observation.inputs, "departures": observation.departures}.items():
            if name in _WORDS:
                inputs[f"{_WORDS[name]} of {subject} ({stage})"] = digest(value)
            elif name in _SHOWN_AS_THEY_ARE:
                inputs[f"{name} of {subject} ({stage})"] = str(value)
        machine = observation.machine
        inputs |= {name: machine[name] for name in _SHOWN_AS_THEY_ARE if name in machine}
    return inputs


def differences(before: Inputs, now: Inputs) -> list[str]:
    """Return in words what differs between what went into a cell before and now."""
    lines: dict[str, None] = {}
    for name in sorted({*before, *now}):
        old, new = before.get(name, ""), now.get(name, "")
        if not old or not new or old == new:
            continue  # a step that one of the two did not come to says nothing
        plain = name.partition(" (")[0]
        shown = plain.partition(" of ")[0] in _SHOWN_AS_THEY_ARE
        lines[f"{plain}: {old}, now {new}" if shown else f"{plain} changed"] = None
    return list(lines)


def troubles(
    cells: list[CellResult], inputs: Mapping[str, Inputs], last: Established | None
) -> Iterator[str]:
    """Yield a line for each canary that came out otherwise: what came, and what differs."""
    for cell in cells:
        if cell.canary is None or cell.verdict is cell.canary:
            continue
        if cell.reason is Reason.NOT_RUN:
            yield f"{cell.id}: expected {cell.canary}, not run yet"
            continue
        came = f"{cell.verdict}, blame {cell.blame}"
        if cell.message:
            first_line = cell.message.strip().splitlines()[0]
            came += f" ({cell.stage or 'no stage'}: {first_line[:MESSAGE_CHARS]})"
        before = last.inputs.get(cell.id) if last else None
        if last is None or before is None:
            since = "it was never established in this store"
        else:
            changes = differences(before, inputs.get(cell.id, {}))
            since = f"since it was last established, with evidence up to {last.at}: "
            since += "; ".join(changes[:DIFFERENCES]) or "nothing that is recorded differs"
            if len(changes) > DIFFERENCES:
                since += f"; and {len(changes) - DIFFERENCES} more"
        yield f"{cell.id}: expected {cell.canary}, came {came}; {since}"


def read_established(store: Store, profile: str) -> Established | None:
    """Return how a profile's canaries last came out right in a store, where that can be read."""
    try:
        return decode(unseal(read_file(_file(store, profile), MAX_BYTES)), Established)
    except (OSError, UnreadableError):
        return None


def keep_established(store: Store, profile: str, established: Established) -> None:
    """Keep how the canaries came out right; written only where something changed."""
    if read_established(store, profile) != established:
        write_json(_file(store, profile), established)


def _file(store: Store, profile: str) -> Path:
    return store.path("established", f"{digest(profile)}.json")
