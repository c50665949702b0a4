"""What a store keeps, damaged: the value that was written, or nothing; and of any sealed JSON, a
value of the type or nothing."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from matrix.pipeline.outcomes import Outcome
from matrix.pipeline.steps import Step
from matrix.store.begun import BegunSteps
from matrix.store.identity import key_of
from matrix.store.observations import SCHEMA_VERSION, Observation
from matrix.store.sealing import seal
from matrix.store.store import Record, Store
from tests.fuzz.fuzzing import fuzzed
from tests.fuzz.mutations import like, like_json
from tests.unit.made_evidence import right_facts

INPUTS = {"lock": "a", "more": ["b", {"c": 1}]}
SAMPLES = {
    step: Observation(
        schema=SCHEMA_VERSION, outcome=Outcome.PASSED, key=key_of(step, INPUTS, []), inputs=INPUTS,
        step=step, subject="tied/awq/maker-2.0/runner-3.0", facts=facts, device="cpu x86-64-v4",
        machine={"processor": "made up"}, seconds=1.5, log="a log\n", run="run-1",
        at="2026-01-01T00:00:00Z",
    )
    for step, facts in (
        (Step.INSTALL, {"python": "3.11.9", "torch": "2.1", "versions": {"maker": "1.0"}}),
        (Step.RESOLVE, {"lock": "a lock"}),
        (Step.GENERATE, right_facts()),
    )
}  # fmt: skip
RECORD = msgspec.convert(SAMPLES[Step.INSTALL], Record, from_attributes=True)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


def sealed(data: bytes) -> bytes:
    """Return JSON of an object as it is written; other bytes as they are."""
    return seal(data) if data.startswith(b"{") else data


def read(root: Path, step: Step, data: bytes) -> Observation | None:
    """Return what a store takes a file for that lies where a sample belongs."""
    key = SAMPLES[step].key
    Store(root).path("observations", step, f"{key}.json").write_bytes(data)
    return Store(root, "run").observation(step, key)


@fuzzed("observations", like_json(*map(msgspec.to_builtins, SAMPLES.values())))
def test_an_observation_is_one_of_its_place_or_not_made(data: bytes, root: Path) -> None:
    for step, sample in SAMPLES.items():
        observation = read(root, step, sealed(data))
        if observation is not None:
            assert (observation.step, observation.key) == (step, sample.key)
            assert observation.inputs == sample.inputs


@fuzzed("damages", like(*map(seal, map(msgspec.json.encode, SAMPLES.values()))))
def test_no_damage_makes_another_observation(data: bytes, root: Path) -> None:
    for step, sample in SAMPLES.items():
        assert read(root, step, data) in (None, sample)


@fuzzed("begun", like(b"a-boot run-1\na-boot run-2\n"))
def test_notes_of_what_was_begun_name_runs_or_none(data: bytes, root: Path) -> None:
    begun = BegunSteps(root / "begun", "run-3", "a-boot")
    file = root / "begun" / "load" / "key"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    assert len(begun.ended_in("load", "key")) <= data.count(b"a-boot")


@fuzzed("records", like_json(msgspec.to_builtins(RECORD)))
def test_lines_of_history_are_records_or_passed_over(data: bytes, root: Path) -> None:
    lines = [sealed(line) for line in data.split(b"\n")]
    Store(root).path("records", "run-1.jsonl").write_bytes(b"\n".join(lines))
    assert all(isinstance(record, Record) for record in Store(root).records())
