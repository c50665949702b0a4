"""Where everything a run makes lies, and how it gets there whole.

::

    .matrix/
      environments/<name>/        a virtualenv; ``matrix.json`` in it is its commit point, ``home``
                                  the private home of what runs in it
      bytecode/<tag>/<digest>.pyc  compiled files that environments share, by their source
      wheels/<digest>/            a wheel that was built here, of a release that has none
      models/<key>/               ``model/`` (what the builder wrote), ``reference.json``,
                                  ``files.json`` (size and digest of each file in ``model/``)
      checkpoints/<key>/          ``checkpoint/``, ``files.json`` of it, ``provenance.json``
      observations/<step>/<key>.json
      begun/<step>/<key>          the runs that began a step and did not leave it
      locks/<key>.txt             locks that are not committed
      locks/models/<repository>.json   the commit at which a model was first seen
      locks/near/<key>.txt        locks that keep to another's pins wherever they can
      index/<package>.json        what an index last answered; ``requires/``: what wheels require
      records/<run>-<pid>.jsonl   one segment per writing process
      history/<profile>/<day>/<run>.parquet   what each run came to
      suites/<environment>        digest of what the suite last judged there
      report.json                 what the last report was made of, and its summary
      work/                       unfinished things; nothing in it is trusted
      use.lock, report.lock       who uses the store, who writes the report

Files appear by rename, so a reader sees all of one or nothing. All JSON, each line of a record, all
texts and history carry a digest of what is in them (``sealing``, ``history.snapshots``): what does
not hold to it is not evidence, and counts as not there. Environments and bytecode have their own.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

import msgspec

from matrix.checks.evidence import MAX_REFERENCE_BYTES, EvidenceError, Reference, read_reference
from matrix.pipeline.outcomes import Outcome
from matrix.pipeline.steps import STEPS, Step
from matrix.store.begun import BegunSteps
from matrix.store.facts import check_facts
from matrix.store.identity import key_of
from matrix.store.observations import SCHEMA_VERSION, Observation
from matrix.store.sealing import seal, unseal
from matrix.store.taking import damage_of
from matrix.store.unfinished import fresh_file, fresh_folder, sweep
from matrix.untrusted.reading import UnreadableError, decode, read_file
from matrix.untrusted.removing import remove

MAX_OBSERVATION_BYTES = 8_000_000
"""More than what is kept of a probe's result, and a log; the largest real one has 50,000."""
MAX_INSPECTION_BYTES = 64_000_000
"""Of a checkpoint with experts: 1,500 bytes for each layer that is quantized."""
MAX_RECORD_BYTES = 1_000_000
"""Of a line; the longest of a real run has 1,076."""
REFERENCE = "reference.json"
FILES = "files.json"
"""What lies beside a product: its files as they were taken over."""

_encode = msgspec.json.Encoder(order="deterministic").encode


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of history: that a step was observed, or what a check said."""

    schema: int = SCHEMA_VERSION
    run: str
    at: str
    subject: str
    step: str
    key: str
    attempt: int = 1
    outcome: str
    reason: str = ""
    device: str = ""
    departures: list[str] = []
    inputs: dict[str, Any] = {}
    check: str = ""
    value: float | None = None
    threshold: float | None = None
    seconds: float = 0.0


def read_observation(raw: bytes, step: Step, key: str) -> Observation:
    """Return the observation in a file's bytes.

    Raises :class:`UnreadableError` for one that is damaged, lies in another's place or has inputs
    that do not make its key. Facts of other steps than these are checked where they are judged.
    """
    observation = decode(unseal(raw), Observation)
    if observation.schema != SCHEMA_VERSION:
        raise UnreadableError(f"has schema {observation.schema}, and {SCHEMA_VERSION} is read")
    if (observation.step, observation.key) != (step, key):
        raise UnreadableError(f"is of {observation.step} {observation.key}")
    if key_of(step, observation.inputs, observation.departures) != key:
        raise UnreadableError("has inputs that do not make its key")
    try:
        check_facts(observation)
    except msgspec.ValidationError as error:
        raise UnreadableError(str(error)) from None
    return observation


def read_record(line: bytes) -> Record:
    """Return the record in a line; raise :class:`UnreadableError` for a damaged one."""
    return decode(unseal(line), Record)


class Store:
    """The folder of one matrix. Safe for several processes: every name is made by rename."""

    def __init__(self, root: Path, run: str = "") -> None:
        self.root = root.resolve()
        self.run = run
        self._finals: dict[tuple[Step, str], Observation] = {}
        self.begun = BegunSteps(self.root / "begun", run)
        self._whole: set[tuple[Step, str]] = set()
        """The steps whose files were read, and are what was written."""

    def path(self, *parts: str) -> Path:
        """Return a path below the root; its folder exists afterwards."""
        path = self.root.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def observation(self, step: Step, key: str) -> Observation | None:
        """Return what was observed under a key, or ``None``. Unreadable counts as not observed.

        A final observation only changes when this process checks it again, so it is read once. One
        of a model counts while its reference can be read: without it no answer can be judged.
        """
        if (step, key) in self._finals:
            return self._finals[step, key]
        try:
            file = self.root / "observations" / step / f"{key}.json"
            limit = MAX_INSPECTION_BYTES if step is Step.INSPECT else MAX_OBSERVATION_BYTES
            observation = read_observation(read_file(file, limit), step, key)
        except (OSError, UnreadableError):
            return None
        is_built = step == Step.BUILD and observation.outcome is Outcome.PASSED
        if is_built and self.reference(key) is None:
            return None
        if observation.final:
            self._finals[step, key] = observation
        return observation

    def forget(self) -> None:
        """Read observations anew: somebody else may have checked some of them again."""
        self._finals.clear()

    def has_product(self, step: Step, key: str) -> bool:
        """Whether the files that a step made are there; they may have been taken back since."""
        product = STEPS[step].product
        return product is None or (self.root / product[0] / key / product[1]).is_dir()

    def product_damage(self, step: Step, key: str) -> str:
        """Return what is wrong with the files that a step made; empty where nothing is.

        Everything is read, once by each process.
        """
        product = STEPS[step].product
        if product is None or (step, key) in self._whole:
            return ""
        folder = self.root / product[0] / key
        damage = damage_of(folder / product[1], folder / FILES)
        if not damage:
            self._whole.add((step, key))
        return damage

    def drop_product(self, step: Step, key: str) -> None:
        """Remove the files that a step made, at once as far as anybody sees."""
        product = STEPS[step].product
        assert product is not None
        with self.work("dropped") as work, suppress(FileNotFoundError):
            (self.root / product[0] / key / product[1]).replace(work / product[1])

    def model(self, key: str) -> Path:
        """Return the folder of a model: ``model/``, ``files.json`` and ``reference.json``."""
        return self.root / "models" / key

    def reference(self, key: str) -> Reference | None:
        """Return a float model's own answers by the key of its build, where they can be read."""
        try:
            return reference_in(self.model(key))
        except (OSError, UnreadableError, EvidenceError):
            return None

    def checkpoint(self, key: str) -> Path:
        """Return the folder of a checkpoint, ``files.json`` and ``provenance.json`` in it."""
        return self.root / "checkpoints" / key

    def keep(self, observation: Observation) -> None:
        """Make an observation visible, after its record: a record without one never counts.

        Trouble of the machine takes no final observation's place: it says nothing of the packages.
        """
        self.append(msgspec.convert(observation, Record, from_attributes=True))
        kept = self.observation(observation.step, observation.key)
        if kept is None or observation.final or not kept.final:
            self.put_back(observation)

    def put_back(self, observation: Observation) -> None:
        """Make an observation that has its record stand for its key, whatever stood there."""
        target = self.path("observations", observation.step, f"{observation.key}.json")
        write_json(target, msgspec.structs.replace(observation, schema=SCHEMA_VERSION))
        self._finals.pop((observation.step, observation.key), None)  # one that was checked again

    def append(self, record: Record) -> None:
        """Add a line to this process's own segment."""
        segment = self.path("records", f"{self.run}-{os.getpid()}.jsonl")
        with segment.open("ab") as file:
            file.write(seal(_encode(record)) + b"\n")

    def records(self) -> list[Record]:
        """Return all segments merged, in an order that does not depend on how they were split.

        A line that cannot be read is passed over: a torn last one, as a kill leaves it. So is what
        has the name of a segment and is no file.
        """
        read: dict[bytes, Record] = {}
        for segment in filter(Path.is_file, (self.root / "records").glob("*.jsonl")):
            with segment.open("rb") as file:
                for ended in iter(partial(file.readline, MAX_RECORD_BYTES), b""):
                    line = ended.rstrip(b"\n")
                    with suppress(UnreadableError):
                        read[line] = read_record(line)
        return [read[line] for line in sorted(read, key=lambda line: (read[line].at, line))]

    def segments(self) -> list[tuple[str, int]]:
        """Return the name and bytes of each segment of the history: all differ after any step."""
        files = sorted(filter(Path.is_file, (self.root / "records").glob("*.jsonl")))
        return [(file.name, file.stat().st_size) for file in files]

    def use(self) -> IO[bytes]:
        """Return an open file; until it is closed, nothing is taken back that a run may need."""
        return _locked(self.path("use.lock"), fcntl.LOCK_SH)

    def take(self) -> IO[bytes]:
        """Return an open file; until it is closed, no run begins.

        Raises ``BlockingIOError`` where one goes on.
        """
        return _locked(self.path("use.lock"), fcntl.LOCK_EX | fcntl.LOCK_NB)

    def work(self, kind: str) -> AbstractContextManager[Path]:
        """Give a fresh folder for unfinished things and remove it afterwards."""
        return fresh_folder(self.path("work", "x").parent, kind)

    def sweep(self) -> None:
        """Remove the unfinished things of processes that are gone."""
        sweep(self.root)

    def publish(self, folder: Path, *parts: str) -> Path:
        """Move a finished folder to its name; an older one of that name gives way."""
        target = self.path(*parts)
        remove(target)
        folder.replace(target)
        return target


def _locked(place: Path, how: int) -> IO[bytes]:
    """Return an open file that is locked until it is closed."""
    file = place.open("ab")
    try:
        fcntl.flock(file, how)
    except BlockingIOError:
        file.close()
        raise
    return file


def reference_in(folder: Path) -> Reference:
    """Return the answers of the float model in a folder.

    Raises :class:`UnreadableError`, :class:`EvidenceError` or ``OSError`` where there are none.
    """
    return read_reference(unseal(read_file(folder / REFERENCE, MAX_REFERENCE_BYTES)))


def write_json(path: Path, value: msgspec.Struct) -> None:
    """Write a value as sealed JSON that a person can read, whole or not at all."""
    write_atomically(path, seal(msgspec.json.format(_encode(value), indent=1)))


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file under another name in the same folder, which is made, then rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, unfinished = fresh_file(path)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            unfinished.chmod(0o644)
            unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
