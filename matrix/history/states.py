"""What a snapshot holds: a run as a whole, and what each of its cells was. Pure."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import msgspec

from matrix.judge.results import CanaryState
from matrix.pipeline.outcomes import Verdict
from matrix.untrusted.text import visible

SCHEMA_VERSION = 3
FOLDER = "history"
AGAIN = "-again-"
"""In the id of a run that runs again what another one found: the other's id, this, a number."""
MESSAGE_CHARS = 300
"""What a snapshot keeps of a message."""


class CellState(msgspec.Struct, frozen=True, kw_only=True):
    """What a cell was in one run, and what went into it: a row of a snapshot, a field a column.

    Of what went in, empty says that it is not known.
    """

    id: str
    verdict: Verdict
    blame: str = ""
    stage: str = ""
    reason: str = ""
    message: str = ""
    explained_by: str = ""
    issue: str = ""
    group: str = ""
    device: str = ""
    made_on: str = ""
    kernel: str = ""
    tokens_per_second: float | None = None
    peak_bytes: int | None = None
    perplexity: float | None = None
    nats: float | None = None
    divergence: float | None = None
    high_divergence: float | None = None
    same_top: float | None = None
    seconds: float = 0.0
    """All stages together."""
    attempts: int = 0
    flaky: bool = False
    at: str = ""
    evidence: str = ""
    """Digest that names the observations of packages that it was judged by."""
    model: str = ""
    """Digest of the float model's tensors; the next one of the scheme's parameters."""
    scheme: str = ""
    quantizer_environment: str = ""
    quantizer_packages: str = ""
    """All that is installed, as JSON: name -> version, those that the spec names first."""
    quantizer_python: str = ""
    quantizer_lock: str = ""
    """Digests of the lock, of the adapter, and of options, variables and departures."""
    quantizer_adapter: str = ""
    quantizer_setup: str = ""
    quantizer_resolution: str = ""
    engine_environment: str = ""
    engine_packages: str = ""
    engine_python: str = ""
    engine_lock: str = ""
    engine_adapter: str = ""
    engine_setup: str = ""
    engine_resolution: str = ""


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What a snapshot says of its run as a whole."""

    schema: int = SCHEMA_VERSION
    profile: str
    runs: list[str]
    """Ids of the runs the evidence comes from, oldest first, the last of them."""
    finished: str
    """ISO time of the newest observation."""
    canaries: CanaryState
    machine: dict[str, str]
    judging: str = ""
    """Digest of the code and the thresholds by which cells are judged."""
    version: str = ""
    """Of this project."""
    commit: str = ""
    """Of this project where it is known; what was changed since is not."""
    unfinished: bool = False
    """Whether cells were still to be done when it was taken."""
    alarms: list[str] = []
    """A line for each known issue whose cells pass."""

    @property
    def believed(self) -> bool:
        """Whether the run can be compared with: none of its canaries came out otherwise."""
        return self.canaries is not CanaryState.VOID

    @property
    def last_run(self) -> str:
        """The run that the newest evidence is from, whichever part of it is run again."""
        return self.runs[-1].partition(AGAIN)[0] if self.runs else ""

    def is_middle_of(self, run: str) -> bool:
        """Whether it was taken before a run was over, as of a report in the middle of it."""
        return self.unfinished and self.last_run == run


class Snapshot(NamedTuple):
    """What one run came to."""

    day: str
    """ISO date."""
    run: str
    head: Head
    cells: dict[str, CellState]
    """By id, in the order of the table."""

    @property
    def label(self) -> str:
        """Day and id, for a person: the name of a file may hold anything."""
        return visible(f"{self.day} {self.run}".strip())

    def says_the_same(self, other: Snapshot) -> bool:
        """Whether both came to the same, whichever commit of this project judged."""
        return self.cells == other.cells and _without_judging(self.head) == _without_judging(
            other.head
        )


def folder_of(store: Path, profile: str) -> Path:
    """Return the folder of a profile's snapshots in a store, in which each day has one."""
    return store / FOLDER / quote(profile, safe="").replace(".", "%2E")


def _without_judging(head: Head) -> Head:
    return msgspec.structs.replace(head, version="", commit="", judging="")
