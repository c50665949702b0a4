"""Files of a store, damaged: each is a value of its type, or counts as not there."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from matrix.pipeline.outcomes import Outcome
from matrix.pipeline.steps import Step
from matrix.store.observations import Observation
from matrix.store.store import Record, Store
from tests.fuzz.fuzzing import fuzzed
from tests.fuzz.mutations import like_json
from tests.unit.made_evidence import right_facts

SAMPLES = [
    Observation(
        outcome=Outcome.PASSED, key="k", inputs={"lock": "a", "more": ["b", {"c": 1}]}, step=step,
        subject="tied/awq/maker-2.0/runner-3.0", facts=facts, device="cpu x86-64-v4",
        machine={"processor": "made up"}, seconds=1.5, log="a log\n", run="run-1",
        at="2026-01-01T00:00:00Z",
    )
    for step, facts in (
        (Step.INSTALL, {"python": "3.11.9", "torch": "2.1", "versions": {"maker": "1.0"}}),
        (Step.RESOLVE, {"lock": "a lock"}),
        (Step.GENERATE, right_facts()),
    )
]  # fmt: skip
RECORD = msgspec.convert(SAMPLES[0], Record, from_attributes=True)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@fuzzed("observations", like_json(*map(msgspec.to_builtins, SAMPLES)))
def test_an_observation_is_one_or_not_made(data: bytes, root: Path) -> None:
    for step in (Step.INSTALL, Step.RESOLVE, Step.GENERATE):
        Store(root).path("observations", step, "k.json").write_bytes(data)
        read = Store(root, "run").observation(step, "k")
        assert read is None or (isinstance(read, Observation) and read.step == step)


@fuzzed("records", like_json(*map(msgspec.to_builtins, (RECORD,))))
def test_lines_of_history_are_records_or_passed_over(data: bytes, root: Path) -> None:
    Store(root).path("records", "run-1.jsonl").write_bytes(data)
    assert all(isinstance(record, Record) for record in Store(root).records())
