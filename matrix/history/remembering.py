"""A run beside those before it: kept as a snapshot, and compared with the last to be believed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from matrix.history.changes import Changes, Night, PastVerdict
from matrix.history.classify import compare
from matrix.history.folder import Entry, History
from matrix.history.states import Snapshot
from matrix.pipeline.outcomes import NO_ANSWER


class Remembered(NamedTuple):
    """What a report tells of earlier runs."""

    changes: Changes | None
    nights: list[Night]
    past: Mapping[str, list[PastVerdict]]
    troubles: list[str]
    """A line for each file of the history that was passed over, and where none could be kept."""


def remember(
    store: Path, snapshot: Snapshot, titles: Mapping[str, str], *, keep: bool = True
) -> Remembered:
    """Keep the snapshot of a run, where it is to be kept, and return what a report tells of it and
    of those before it."""
    history = History(store, snapshot.head.profile)
    earlier = before(history, snapshot)
    old = base_of(history, earlier, snapshot)
    changes = changes_between(history, old, snapshot, titles) if old else None
    past = history.past(earlier)
    keep, troubles = keep and bool(snapshot.head.runs), []  # where nothing is observed, nothing
    try:
        if keep:
            history.add(snapshot)
    except OSError as error:  # the report is what the run is for
        troubles.append(f"no snapshot of this run is kept: {error.strerror}")
    nights = history.nights()
    if troubles or not keep:
        nights.append(night_of(snapshot))
    return Remembered(changes, nights, past, [*troubles, *dict.fromkeys(history.troubles)])


def base_of(history: History, earlier: list[Entry], snapshot: Snapshot) -> Snapshot | None:
    """Return the last run that is believed, with which one is compared; ``None`` where there is
    none, or where this one is not believed itself."""
    if not snapshot.head.believed:
        return None
    believed = [entry for entry in earlier if entry.head.believed]
    return next(filter(None, (history.read(entry) for entry in reversed(believed))), None)


def changes_between(
    history: History, old: Snapshot, new: Snapshot, titles: Mapping[str, str]
) -> Changes:
    """Return what changed between two runs.

    A cell that had no answer in the older one, and has one now, is compared with its last one
    before; where the older run is none of the history, nothing is before it.
    """
    answered = (name for name in new.cells if _answers(new, name))
    silent = {name for name in answered if not _answers(old, name)}
    return compare(old, new, titles, history.last_answers(history.until(old), silent))


def before(history: History, snapshot: Snapshot) -> list[Entry]:
    """Return the runs before one that is reported, of which a last one that came to the very same
    is none: then this one left no snapshot."""
    earlier = earlier_runs(history, snapshot)
    last = history.read(earlier[-1]) if earlier else None
    return earlier[:-1] if last and last.says_the_same(snapshot) else earlier


def earlier_runs(history: History, snapshot: Snapshot) -> list[Entry]:
    """Return the runs but one: those that it takes the place of are none of them, and neither
    is what was taken in the middle of it."""
    return [
        entry
        for entry in history.entries
        if entry.run != snapshot.run and not entry.head.is_middle_of(snapshot.head.last_run)
    ]


def _answers(snapshot: Snapshot, name: str) -> bool:
    cell = snapshot.cells.get(name)
    return cell is not None and cell.verdict not in NO_ANSWER


def night_of(snapshot: Snapshot) -> Night:
    """Return how many cells had each verdict in a run."""
    counts = Counter(cell.verdict for cell in snapshot.cells.values())
    return Night(
        day=snapshot.day, run=snapshot.run, counts=dict(counts), believed=snapshot.head.believed
    )
