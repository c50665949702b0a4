"""Real runs of profiles, kept as fixtures: their observations, records, references.

Remake one from a store in which the profile is finished, when what is observed has changed:

    .venv/bin/python -m tests.recorded.recording .matrix cpu
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import msgspec

from matrix.checks.evidence import Reference, read_reference
from matrix.context import Context, Settings
from matrix.judge import Judge
from matrix.keys import Key, Keys
from matrix.observations import Observation
from matrix.plan import Role
from matrix.spec import DEFAULT_SPEC
from matrix.store import Record, Store

FOLDER = Path(__file__).parent


class RecordedKeys(Keys):
    """Finds observations by what they are of, not by key: the code has moved on since then."""

    def observed(self, key: Key | None) -> Observation | None:
        """Return the observation of the same step, subject and departures."""
        if key is None:
            return None
        return self._lookup(key.step, _name(key.subject, key.departures))

    def importing(self, role: Role) -> Key | None:
        """Return the key of an import under the name that tells an environment's roles apart."""
        key = super().importing(role)
        return msgspec.structs.replace(key, subject=_import_of(role)) if key else None


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
    found = [msgspec.json.decode(line, type=tuple[str, str]) for line in lines]
    return {key: read_reference(text.encode()) for key, text in found}


def judge(profile: str, seen: list[Observation]) -> Judge:
    """Return a judge of a profile over given observations."""
    context = Context(Settings.of({}, spec=DEFAULT_SPEC, profile=profile))
    by_name = {(one.step, _name(one.subject, one.departures)): one for one in seen}
    keys = RecordedKeys(
        context.plan.environments,
        lambda step, name: by_name.get((step, name)),
        lambda _: "",
        "",
        {"cpu": "cpu", "cuda": "cuda"},
    )
    return Judge(context.loaded, context.plan, keys, references(profile).get)


def record(root: Path, profile: str) -> None:
    """Copy what the judge used of a store, without what was observed of other inputs."""
    context = Context(Settings.of({}, spec=DEFAULT_SPEC, profile=profile, store=root))
    used: dict[str, Observation] = {}
    for cell in context.plan.cells:
        for key in context.judge.keys_of(cell).values():
            seen = context.keys.observed(key)
            if seen is not None:
                used[seen.key] = seen
        for role in (cell.checkpoint.quantizer, cell.engine):
            imported = context.keys.observed(context.keys.importing(role))
            if imported is not None:
                named = msgspec.structs.replace(imported, subject=_import_of(role))
                used[imported.key] = named
    builds = [seen.key for seen in used.values() if seen.step == "build"]
    texts = [(key, (context.store.model(key) / "reference.json").read_text()) for key in builds]
    encode = msgspec.json.Encoder(order="deterministic").encode
    kept = [encode(one) for one in Store(root).records() if one.key in used]
    _write(profile, "observations", sorted(encode(seen) for seen in used.values()))
    _write(profile, "records", kept)
    _write(profile, "references", sorted(encode(pair) for pair in texts))


def _write(profile: str, name: str, lines: list[bytes]) -> None:
    (FOLDER / profile).mkdir(exist_ok=True)
    data = gzip.compress(b"\n".join(lines) + b"\n", mtime=0)
    (FOLDER / profile / f"{name}.jsonl.gz").write_bytes(data)


if __name__ == "__main__":
    record(Path(sys.argv[1]), sys.argv[2])
