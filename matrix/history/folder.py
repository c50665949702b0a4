"""The history of a store: a snapshot of each run, in a folder for each profile and day.

::

    .matrix/history/<profile>/<YYYY-MM-DD>/<run>.parquet

What is asked of hundreds of nights is read by columns: ids and verdicts, and no object for a cell
whose verdict did not change.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from matrix.history.changes import Night, PastVerdict
from matrix.history.snapshots import (
    SUFFIX,
    VERDICTS,
    SnapshotError,
    Verdicts,
    read,
    read_head,
    read_verdicts,
    write,
)
from matrix.history.states import Head, Snapshot, folder_of
from matrix.pipeline.outcomes import NO_ANSWER

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
Codes = npt.NDArray[np.integer[Any]]
_ANSWERS = np.array([verdict not in NO_ANSWER for verdict in VERDICTS])


class Entry(NamedTuple):
    """A snapshot of a profile."""

    file: Path
    head: Head

    @property
    def day(self) -> str:
        """ISO date."""
        return self.file.parent.name

    @property
    def run(self) -> str:
        """The run that took it."""
        return self.file.stem


class History:
    """The snapshots of one profile in a store, oldest first.

    ``troubles`` has a line for each file that cannot be read, which is passed over.
    """

    def __init__(self, store: Path, profile: str) -> None:
        self._folder = folder_of(store, profile)
        self._read: dict[Path, Verdicts] = {}
        self.troubles: list[str] = []
        entries = []
        for file in sorted(self._folder.glob(f"*/*{SUFFIX}")):
            if not _DAY.fullmatch(file.parent.name):
                continue
            try:
                head = read_head(file)
            except SnapshotError as error:
                self.troubles.append(str(error))
                continue
            if head.profile == profile:
                entries.append(Entry(file, head))
        self.entries = sorted(entries, key=_age)

    def add(self, snapshot: Snapshot) -> Path | None:
        """Keep a snapshot, and return its file; ``None`` where the last one says the same.

        One that was kept under the same run gives way.
        """
        if self.entries:
            last = self.read(self.entries[-1])
            if last and last.says_the_same(snapshot):
                return None
        return self._keep(snapshot)

    def repeat_last(self, day: str, run: str) -> None:
        """Keep the last snapshot as that of a later day's run too, which came to the same."""
        last = self.read(self.entries[-1]) if self.entries else None
        if last and last.day < day:
            self._keep(last._replace(day=day, run=run))

    def _keep(self, snapshot: Snapshot) -> Path:
        entry = self._entry(snapshot)
        write(entry.file, snapshot.head, snapshot.cells)
        self._read.pop(entry.file, None)
        others = [other for other in self.entries if other.file != entry.file]
        self.entries = sorted([*others, entry], key=_age)
        return entry.file

    def read(self, entry: Entry) -> Snapshot | None:
        """Return the snapshot of an entry; ``None``, and a trouble, where it cannot be read."""
        try:
            return read(entry.file)
        except SnapshotError as error:
            self.troubles.append(str(error))
            return None

    def nights(self) -> list[Night]:
        """Return how many cells had each verdict in each run."""
        return [
            Night(
                day=entry.day,
                run=entry.run,
                counts={
                    VERDICTS[code]: int(number)
                    for code, number in enumerate(np.bincount(verdicts.codes))
                    if number
                },
                believed=entry.head.believed,
            )
            for entry, verdicts in self._columns(self.entries)
        ]

    def past(self, entries: Iterable[Entry]) -> dict[str, list[PastVerdict]]:
        """Return what each cell was in runs that are believed, oldest first, only where it came to
        another answer."""
        past: dict[str, list[PastVerdict]] = {}
        cells = _Cells()
        for entry, verdicts in self._columns(e for e in entries if e.head.believed):
            places = cells.places_of(verdicts.ids)
            differ = _ANSWERS[verdicts.codes] & (cells.last[places] != verdicts.codes)
            cells.last[places[differ]] = verdicts.codes[differ]
            changed = verdicts.ids.filter(pa.array(differ)).to_pylist()
            for name, code in zip(changed, verdicts.codes[differ], strict=True):
                was = PastVerdict(entry.day, entry.run, VERDICTS[code])
                past.setdefault(name, []).append(was)
        return past

    def until(self, snapshot: Snapshot) -> list[Entry]:
        """Return the entries up to that of a snapshot; none where it has none."""
        places = (n for n, e in enumerate(self.entries, 1) if e == self._entry(snapshot))
        return self.entries[: next(places, 0)]

    def last_answers(self, entries: list[Entry], names: set[str]) -> Mapping[str, Snapshot]:
        """Return the newest snapshot of believed runs in which each of some cells has an answer."""
        wanted, by_cell = set(names), {}
        for entry, verdicts in self._columns(e for e in reversed(entries) if e.head.believed):
            if not wanted:
                break
            answering = verdicts.ids.filter(pa.array(_ANSWERS[verdicts.codes]))
            hits = answering.filter(pc.is_in(answering, pa.array(sorted(wanted)))).to_pylist()
            snapshot = self.read(entry) if hits else None
            if snapshot is not None:
                by_cell.update(dict.fromkeys(hits, snapshot))
                wanted.difference_update(hits)
        return by_cell

    def _entry(self, snapshot: Snapshot) -> Entry:
        file = self._folder / snapshot.day / f"{snapshot.run}{SUFFIX}"
        return Entry(file, snapshot.head)

    def _columns(self, entries: Iterable[Entry]) -> Iterable[tuple[Entry, Verdicts]]:
        """Yield what can be read of entries; read once, as bytes and not as objects."""
        for entry in entries:
            if entry.file not in self._read:
                try:
                    self._read[entry.file] = read_verdicts(entry.file)
                except SnapshotError as error:
                    self.troubles.append(str(error))
                    continue
            yield entry, self._read[entry.file]


def _age(entry: Entry) -> tuple[str, str, str]:
    return entry.day, entry.head.finished, entry.run


class _Cells:
    """The cells of many nights by number, and the last answer of each as a code."""

    def __init__(self) -> None:
        self._ids = pa.array([], pa.string())
        self.last: Codes = np.empty(0, np.int8)

    def places_of(self, ids: pa.Array) -> Codes:
        """Return the numbers of cells; new ones get the next."""
        new = ids.filter(pc.invert(pc.is_in(ids, self._ids)))
        if len(new):
            self._ids = pa.concat_arrays([self._ids, new])
            self.last = np.append(self.last, np.full(len(new), -1, np.int8))
        places: Codes = pc.index_in(ids, self._ids).to_numpy()
        return places
