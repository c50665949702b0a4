"""Real runs of profiles, kept as fixtures: spec and snapshot, observations, records, references.

What was run is the recording's: its cells stand on the spec and the releases of its day, wherever
it is judged. What it is judged by is today's: checks, thresholds and whatever else in the project's
spec says what an observation means, since that is what the recordings are there to test.

Remake one from a store in which the profile is finished, when what is observed has changed:

    .venv/bin/python -m tests.recorded.recording .matrix cpu
"""

from __future__ import annotations

import gzip
import sys
import tempfile
from functools import cache
from pathlib import Path

import msgspec

from matrix.checks.evidence import Reference, read_reference
from matrix.diagnose.catalogue import load_issues
from matrix.judge.cells import CellJudge
from matrix.judge.results import MatrixResult
from matrix.judge.table import TableJudge
from matrix.pipeline.steps import Step
from matrix.plan.cell_steps import PlannedStep, steps_of
from matrix.plan.cells import Role, make_plan
from matrix.plan.keys import Key, Keys
from matrix.run.context import Context, Settings
from matrix.spec.files import MAIN, spec_files
from matrix.spec.loading import DEFAULT_SPEC, LoadedSpec, load
from matrix.spec.reading import read_tables
from matrix.spec.snapshot import SNAPSHOT
from matrix.store.observations import Observation
from matrix.store.sealing import unseal
from matrix.store.store import Record, Store

FOLDER = Path(__file__).parent
WHAT_WAS_RUN = (
    "departures", "released", "metadata", "environments", "models", "schemes", "quantizers",
    "engines", "profiles", "exclusions",
)  # fmt: skip
"""The tables of a recorded spec that count; all others are today's."""


class RecordedKeys(Keys):
    """Finds observations by what they are of, not by key: the code has moved on since then."""

    def observed(self, key: Key | None) -> Observation | None:
        """Return the observation of the same step, subject and departures."""
        if key is None:
            return None
        return self._lookup(key.step, _name(key.subject, key.departures))

    def of(self, step: PlannedStep) -> Key | None:
        """Return the key of a step, of an import with what tells an environment's roles apart."""
        key = super().of(step)
        if key is None or step.step is not Step.IMPORT:
            return key
        return msgspec.structs.replace(key, subject=_import_of(step.role))


def _name(subject: str, departures: list[str]) -> str:
    return " ".join([subject, *departures])


def _import_of(role: Role) -> str:
    variables = [f"{name}={value}" for name, value in sorted(role.environ.items())]
    return " ".join([role.environment, role.adapter.name, *variables])


def read(profile: str, name: str) -> list[bytes]:
    """Return the lines of a part of a recording."""
    return gzip.decompress((FOLDER / profile / f"{name}.jsonl.gz").read_bytes()).splitlines()


def observations(profile: str) -> list[Observation]:
    """Return all that was observed."""
    return [msgspec.json.decode(line, type=Observation) for line in read(profile, "observations")]


def records(profile: str) -> list[Record]:
    """Return the history that the run wrote."""
    return [msgspec.json.decode(line, type=Record) for line in read(profile, "records")]


def references(profile: str) -> dict[str, Reference]:
    """Return the float models' answers by the key of their build."""
    lines = read(profile, "references")
    pairs = [msgspec.json.decode(line, type=tuple[str, str]) for line in lines]
    return {key: read_reference(text.encode()) for key, text in pairs}


@cache
def spec(profile: str) -> LoadedSpec:
    """Return a recording's spec: what was run is its own, what that is judged by is today's."""
    with tempfile.TemporaryDirectory() as folder:
        for name in (MAIN, SNAPSHOT):
            text = gzip.decompress((FOLDER / profile / f"{name}.gz").read_bytes())
            Path(folder, name).write_bytes(text)
        loaded = load(Path(folder, MAIN))
    ran = {table: getattr(loaded.spec, table) for table in WHAT_WAS_RUN}
    today = msgspec.structs.replace(read_tables(DEFAULT_SPEC), **ran)
    return msgspec.structs.replace(loaded, file=DEFAULT_SPEC, spec=today, places={})


def judge(profile: str, given: list[Observation]) -> CellJudge:
    """Return a judge of the cells of a recording's profile over given observations."""
    loaded = spec(profile)
    plan = make_plan(loaded, profile)
    by_name = {
        (observation.step, _name(observation.subject, observation.departures)): observation
        for observation in given
    }
    keys = RecordedKeys(
        plan.environments,
        lambda step, name: by_name.get((step, name)),
        lambda _: "",
        "",
        {"cpu": "cpu", "cuda": "cuda"},
    )
    return CellJudge(loaded, plan, keys, references(profile).get, load_issues)


def table_of(profile: str, given: list[Observation]) -> MatrixResult:
    """Return the table of a recording's profile, judged by given observations."""
    return TableJudge(judge(profile, given)).table()


def record(root: Path, profile: str) -> None:
    """Copy the spec and what the judge used of a store, and nothing observed of other inputs."""
    context = Context(Settings.of({}, spec=DEFAULT_SPEC, profile=profile, store=root))
    used: dict[str, Observation] = {}
    for cell in context.plan.cells:
        for key in context.judge.keys_of(cell).values():
            observation = context.keys.observed(key)
            if observation is not None:
                used[observation.key] = observation
        for step in (step for step in steps_of(cell) if step.step is Step.IMPORT):
            imported = context.keys.observed(context.keys.of(step))
            if imported is not None:
                named = msgspec.structs.replace(imported, subject=_import_of(step.role))
                used[imported.key] = named
    builds = [observation.key for observation in used.values() if observation.step == "build"]
    encode = msgspec.json.Encoder(order="deterministic").encode
    texts = [(key, _judged(context.store.model(key))) for key in builds]
    kept = [encode(entry) for entry in Store(root).records() if entry.key in used]
    _write(profile, MAIN, b"\n".join(file.read_bytes() for file in spec_files(DEFAULT_SPEC)))
    _write(profile, SNAPSHOT, (DEFAULT_SPEC / SNAPSHOT).read_bytes())
    for name, lines in (
        ("observations", sorted(encode(observation) for observation in used.values())),
        ("records", kept),
        ("references", sorted(encode(pair) for pair in texts)),
    ):
        _write(profile, f"{name}.jsonl", b"\n".join(lines) + b"\n")


def _judged(model: Path) -> str:
    """Return what of a model's reference is judged by: its likeliest tokens are a run's alone."""
    reference = msgspec.json.decode(unseal((model / "reference.json").read_bytes()))
    return msgspec.json.encode({**reference, "likeliest": []}).decode()


def _write(profile: str, name: str, data: bytes) -> None:
    (FOLDER / profile).mkdir(exist_ok=True)
    (FOLDER / profile / f"{name}.gz").write_bytes(gzip.compress(data, mtime=0))


if __name__ == "__main__":
    record(Path(sys.argv[1]), sys.argv[2])
