"""What is in the store is whole, whenever its writer was stopped."""

from __future__ import annotations

import itertools
import json
import os
import random
import stat
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix.pipeline.outcomes import REASONS, Outcome
from matrix.pipeline.steps import Step
from matrix.store.identity import key_of
from matrix.store.observations import Observation
from matrix.store.sealing import seal, unseal
from matrix.store.store import Record, Store, write_atomically
from matrix.store.unfinished import fresh_file
from tests.unit.made_evidence import REFERENCE

KEYS = {step.value: key_of(step, {"a": 1}, []) for step in Step}
LOAD, BUILD = KEYS["load"], KEYS["build"]


def observation(step: str = "load", outcome: Outcome = Outcome.PASSED) -> Observation:
    return Observation(
        outcome, min(REASONS[outcome]), "ü\n<b>", key=KEYS[step], inputs={"a": 1}, step=Step(step),
        subject="cell", facts={"x": [1.5, None]}, run="run-1", at="2026-01-01T00:00:00",
    )  # fmt: skip


def record(number: int, at: str = "2026", run: str = "r") -> Record:
    return Record(run=run, at=at, subject=f"s{number}", step="load", key="k", outcome="passed")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", "run-1")


def reopened(store: Store) -> Store:
    return Store(store.root, "run-2")


def test_what_is_kept_is_read_back_by_another_process(store: Store) -> None:
    store.keep(observation())
    assert reopened(store).observation(Step.LOAD, LOAD) == observation()
    assert reopened(store).observation(Step.GENERATE, LOAD) is None
    assert reopened(store).observation(Step.LOAD, "k2") is None


def test_a_write_that_was_stopped_leaves_the_old_whole_and_shows_nothing_new(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.keep(observation(outcome=Outcome.INFRA))

    def stopped(_handle: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", stopped)
    with pytest.raises(KeyboardInterrupt):
        store.keep(observation())
    folder = store.root / "observations" / "load"
    (folder / f".{LOAD}.json-abc").write_bytes(b'{"schema"')  # as SIGKILL leaves it, uncleaned
    (folder / ".k9.json-abc").write_bytes(b'{"schema"')
    observed = reopened(store).observation(Step.LOAD, LOAD)
    assert observed is not None
    assert observed.outcome is Outcome.INFRA
    assert reopened(store).observation(Step.LOAD, "k9") is None


@pytest.mark.parametrize("content", [b"", b'{"schema": 1, "key"', b"[]", b'{"outcome": "odd"}'])
def test_an_unreadable_observation_counts_as_none(store: Store, content: bytes) -> None:
    store.keep(observation())
    (store.root / "observations" / "load" / f"{LOAD}.json").write_bytes(content)
    assert reopened(store).observation(Step.LOAD, LOAD) is None


OTHERS: dict[str, object] = {
    "key": "k2", "step": "generate", "schema": 1, "inputs": {"a": 2}, "departures": ["another"],
}  # fmt: skip


@pytest.mark.parametrize("field", OTHERS)
def test_an_observation_that_names_another_counts_as_none(store: Store, field: str) -> None:
    store.keep(observation())
    file = store.root / "observations" / "load" / f"{LOAD}.json"
    other = json.loads(unseal(file.read_bytes())) | {field: OTHERS[field]}
    file.write_bytes(seal(json.dumps(other).encode()))
    assert reopened(store).observation(Step.LOAD, LOAD) is None
    file.write_bytes(
        seal(json.dumps(other | json.loads(msgspec.json.encode(observation()))).encode())
    )
    assert reopened(store).observation(Step.LOAD, LOAD) == observation()


def test_an_observation_of_every_step_is_refused_in_every_others_place(store: Store) -> None:
    for step in Step:
        store.keep(observation(step, Outcome.FAILED))
    files = {step: store.root / "observations" / step / f"{KEYS[step]}.json" for step in Step}
    contents = {step: file.read_bytes() for step, file in files.items()}
    for place, foreign in itertools.permutations(Step, 2):
        files[place].write_bytes(contents[foreign])
        assert reopened(store).observation(place, KEYS[place]) is None
        files[place].write_bytes(contents[place])
        assert reopened(store).observation(place, KEYS[place]) is not None


def test_every_changed_byte_of_an_observation_is_noticed(store: Store) -> None:
    store.keep(observation())
    file = store.root / "observations" / "load" / f"{LOAD}.json"
    whole = file.read_bytes()
    for place in range(len(whole)):
        for changed in (whole[place] ^ 1, ord(" ")):
            if changed != whole[place]:
                file.write_bytes(whole[:place] + bytes([changed]) + whole[place + 1 :])
                assert reopened(store).observation(Step.LOAD, LOAD) is None, place


def test_an_observation_without_a_digest_as_earlier_versions_wrote_counts_as_none(
    store: Store,
) -> None:
    store.keep(observation())
    file = store.root / "observations" / "load" / f"{LOAD}.json"
    file.write_bytes(msgspec.json.encode(msgspec.structs.replace(observation(), schema=1)))
    assert reopened(store).observation(Step.LOAD, LOAD) is None


def test_infra_is_looked_at_again_and_an_answer_is_not(store: Store) -> None:
    store.keep(observation(outcome=Outcome.INFRA))
    reader = reopened(store)
    assert reader.observation(Step.LOAD, LOAD) is not None
    store.keep(observation(outcome=Outcome.FAILED))
    observed = reader.observation(Step.LOAD, LOAD)
    assert observed is not None
    assert observed.outcome is Outcome.FAILED


def test_what_is_checked_again_takes_the_place_of_what_was_and_both_are_in_the_records(
    store: Store,
) -> None:
    store.keep(observation())
    assert store.observation(Step.LOAD, LOAD) == observation()  # read, and remembered
    store.keep(observation(outcome=Outcome.FAILED))
    for reader in (store, reopened(store)):
        kept = reader.observation(Step.LOAD, LOAD)
        assert kept is not None
        assert kept.outcome is Outcome.FAILED
    assert sorted(record.outcome for record in store.records()) == ["failed", "passed"]


def test_trouble_of_the_machine_takes_no_answers_place(store: Store) -> None:
    store.keep(observation())
    store.keep(observation(outcome=Outcome.INFRA))
    assert reopened(store).observation(Step.LOAD, LOAD) == observation()
    assert len(store.records()) == 2


def test_an_observation_of_a_model_without_its_reference_does_not_count(store: Store) -> None:
    store.keep(observation("build"))
    assert reopened(store).observation(Step.BUILD, BUILD) is None
    reference = store.path("models", BUILD, "reference.json")
    reference.write_bytes(seal(msgspec.json.encode(REFERENCE)))
    assert reopened(store).observation(Step.BUILD, BUILD) is not None
    reference.unlink()
    assert reopened(store).observation(Step.BUILD, BUILD) is None


@pytest.mark.parametrize(
    ("step", "folder"),
    [
        ("build", f"models/{BUILD}/model"),
        ("quantize", f"checkpoints/{KEYS['quantize']}/checkpoint"),
    ],
)
def test_an_observation_outlives_the_files_that_were_made(
    store: Store, step: str, folder: str
) -> None:
    store.keep(observation(step))
    file = store.path("models", BUILD, "reference.json")
    file.write_bytes(seal(msgspec.json.encode(REFERENCE)))
    assert reopened(store).observation(Step(step), KEYS[step]) == observation(step)
    assert not store.has_product(Step(step), KEYS[step])
    (store.root / folder).mkdir(parents=True)
    assert store.has_product(Step(step), KEYS[step])


def test_what_is_taken_back_waits_for_no_run_and_a_run_for_it(store: Store) -> None:
    with store.use(), reopened(store).use(), pytest.raises(BlockingIOError):
        store.take()
    with store.take(), pytest.raises(BlockingIOError):
        reopened(store).take()
    with store.use():
        pass


@pytest.mark.parametrize("damage", [b"", b'{"schema": 1}', b"\xff", b"[" * 100_000])
def test_a_model_whose_answers_cannot_be_read_is_built_again(store: Store, damage: bytes) -> None:
    store.keep(observation("build"))
    file = store.path("models", BUILD, "reference.json")
    file.write_bytes(seal(msgspec.json.encode(REFERENCE)))
    assert reopened(store).observation(Step.BUILD, BUILD) is not None
    assert reopened(store).reference(BUILD) == REFERENCE
    file.write_bytes(damage)
    assert reopened(store).observation(Step.BUILD, BUILD) is None
    file.unlink()
    os.mkfifo(file)
    assert reopened(store).reference(BUILD) is None  # without waiting for someone who writes to it


@pytest.mark.parametrize("step", ["build", "quantize"])
def test_a_failure_needs_no_product(store: Store, step: str) -> None:
    store.keep(observation(Step(step), Outcome.FAILED))
    assert reopened(store).observation(Step(step), KEYS[step]) is not None


def test_a_published_folder_takes_the_place_of_an_older_one(store: Store) -> None:
    for word in ("old", "new"):
        with store.work("job") as work:
            (work / "whole").mkdir()
            (work / "whole" / "file").write_text(word)
            (work / "whole" / word).write_text("")
            target = store.publish(work / "whole", "models", "k")
    assert (target / "file").read_text() == "new"
    assert not (target / "old").exists()


def test_files_can_be_read_by_others(store: Store) -> None:
    target = store.path("some", "file")
    write_atomically(target, b"x")
    assert stat.S_IMODE(target.stat().st_mode) == 0o644
    assert [file.name for file in target.parent.iterdir()] == ["file"]


# -------------------------------------------------------------------------------------- records


def test_every_kept_observation_has_its_record(store: Store) -> None:
    store.keep(observation("load", Outcome.FAILED))
    (entry,) = store.records()
    assert (entry.step, entry.key, entry.outcome, entry.inputs) == (
        "load", LOAD, "failed", {"a": 1},
    )  # fmt: skip


def test_a_torn_last_line_is_passed_over(store: Store) -> None:
    store.append(record(1))
    store.append(record(2))
    (segment,) = (store.root / "records").iterdir()
    segment.write_bytes(segment.read_bytes()[:-9])
    store.run = "run-2"
    store.append(record(3))
    assert [entry.subject for entry in store.records()] == ["s1", "s3"]


def test_every_changed_byte_of_a_record_costs_that_record_alone(store: Store) -> None:
    for number in (1, 2, 3):
        store.append(record(number))
    (segment,) = (store.root / "records").iterdir()
    whole = segment.read_bytes()
    first, second, third = whole.splitlines(keepends=True)
    for place in range(len(second) - 1):
        changed = second[:place] + bytes([second[place] ^ 1]) + second[place + 1 :]
        segment.write_bytes(first + changed + third)
        assert [entry.subject for entry in store.records()] == ["s1", "s3"], place


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Record], list[int]]:
    """Make records and say in which segment each lies."""
    times, runs = st.sampled_from(["2026-01", "2026-02", "2026-03"]), st.sampled_from("abc")
    records = [record(n, draw(times), draw(runs)) for n in range(draw(st.integers(0, 12)))]
    return records, [draw(st.integers(0, 3)) for _ in records]


def merged(records: list[Record], segments: list[int]) -> list[Record]:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        for entry, segment in zip(records, segments, strict=True):
            store.run = f"run-{segment}"
            store.append(entry)
        return store.records()


@given(histories(), st.randoms(use_true_random=False))
def test_segments_merge_to_the_same_however_records_are_spread(
    history: tuple[list[Record], list[int]], shuffle: random.Random
) -> None:
    records, segments = history
    shuffled = shuffle.sample(records, len(records))
    expected = merged(records, segments)
    assert merged(shuffled, [0] * len(records)) == expected
    assert merged(records + records, segments + segments[::-1]) == expected
    assert sorted(entry.subject for entry in expected) == sorted(entry.subject for entry in records)
    assert [entry.at for entry in expected] == sorted(entry.at for entry in records)


# ------------------------------------------------------------------------------ unfinished things


def test_work_is_gone_afterwards_however_it_ends(store: Store) -> None:
    folders = []

    def stopped() -> None:
        with store.work("job") as work:
            folders.append(work)
            (work / "deep").mkdir()
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        stopped()
    assert not folders[0].exists()


def test_sweeping_removes_what_dead_processes_left_and_nothing_else(
    store: Store,
) -> None:
    left = store.path("work", f"job-{2**22 + 1}-abc", "file").parent  # above every process's number
    summary = store.path("work", "summary-1.txt")
    summary.write_text("")
    with store.work("job") as mine:
        store.sweep()
        assert mine.exists()
        assert summary.exists()
        assert not left.exists()


def test_work_of_a_process_is_kept_whoever_has_its_number_and_whatever_it_is_named(
    store: Store,
) -> None:
    left = store.path("work", f"job-{os.getpid()}-abc", "file").parent  # ours, a process ago
    with store.work("probe-of-it") as mine, reopened(store).work("job") as another:
        store.sweep()
        assert mine.exists()
        assert another.exists()
        assert not left.exists()


PLACES = [
    ("report.json",), ("observations", "load", "k.json"), ("locks", "k.txt"), ("suites", "e"),
    ("locks", "models", "m.json"), ("index", "p.json"), ("index", "requires", "r.json"),
    ("established", "p.json"), ("history", "cpu", "2026-01-01", "r.parquet"),
    ("environments", "e", "matrix.json"),
]  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_sweeping_removes_unfinished_files_that_nobody_writes_any_more(
    store: Store, place: tuple[str, ...]
) -> None:
    target = store.path(*place)
    target.write_text("whole")
    left = target.with_name(f".{target.name}-abcd_123")
    left.write_text("half")
    handle, mine = fresh_file(target)
    linked = target.with_name(f".{target.name}-abcd_456")
    linked.symlink_to("nowhere")
    store.sweep()
    assert not left.exists()
    assert mine.exists()
    assert linked.is_symlink()
    assert target.read_text() == "whole"
    os.close(handle)
    store.sweep()
    assert not mine.exists()


def test_an_observation_is_readable_json(store: Store) -> None:
    failed = observation(outcome=Outcome.FAILED)
    store.keep(failed)
    content = json.loads((store.root / "observations" / "load" / f"{LOAD}.json").read_text())
    assert content["outcome"] == "failed"
    assert content["reason"] == failed.reason.value
