"""What a step left behind is read back, or refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from matrix.pipeline.ends import End, classify_end
from matrix.pipeline.outcomes import PASSED, REASONS, Outcome
from matrix.pipeline.steps import Step
from matrix.run.probes import KEPT_BYTES, RESULT_BYTES, Event, read_event, read_result
from matrix.store.facts import InstallFacts, check_facts, departures_used, read_facts
from matrix.store.observations import Observation
from matrix.untrusted.reading import UnreadableError


@pytest.mark.parametrize("outcome", list(Outcome))
def test_only_trouble_of_the_machine_is_tried_again(outcome: Outcome) -> None:
    reason = min(REASONS[outcome])
    observation = Observation(outcome, reason, key="k", inputs={}, step=Step.LOAD, subject="s")
    assert observation.final == (outcome is not Outcome.INFRA)


# ------------------------------------------------------------------- what a child leaves behind

RESULT = {"schema": 1, "stage": "load", "ok": True, "seconds": 1.0, "peak_rss_bytes": 5}


def test_a_result_is_read_back(tmp_path: Path) -> None:
    file = tmp_path / "load.json"
    file.write_text(json.dumps(RESULT | {"facts": {"kernel": None}}))
    assert classify_end(End(), read_result(file, Step.LOAD), []) == PASSED


def test_answers_are_read_with_likeliest_tokens_that_are_not_kept(tmp_path: Path) -> None:
    file = tmp_path / "load.json"
    file.write_text(json.dumps(RESULT | {"facts": {"likeliest": "A" * (KEPT_BYTES + 1)}}))
    assert len(read_result(file, Step.LOAD).facts["likeliest"]) > KEPT_BYTES


def nested(levels: int) -> object:
    return [nested(levels - 1)] if levels else []


BAD = {
    "empty": b"",
    "torn": b'{"schema": 1, "stage": "lo',
    "another step's": json.dumps(RESULT | {"stage": "generate"}).encode(),
    "another schema": json.dumps(RESULT | {"schema": 2}).encode(),
    "of another shape": json.dumps(RESULT | {"warnings": "many"}).encode(),
    "not UTF-8": json.dumps(RESULT).encode().replace(b"load", b"lo\xff"),
    "nested until nothing can read it": b'{"facts": ' + b"[" * 100_000,
    "nested until nothing can write it": json.dumps(
        RESULT | {"facts": {"a": nested(150)}}
    ).encode(),
    "half a character": json.dumps(RESULT | {"warnings": ["\ud800"]}).encode(),
    "no number of seconds": json.dumps(RESULT | {"seconds": float("nan")}).encode(),
    "numbers without end": json.dumps(RESULT).encode().replace(b"5", b"5" * 5000),
    "more warnings than a probe keeps": json.dumps(RESULT | {"warnings": ["w"] * 51}).encode(),
    "a warning without end": json.dumps(RESULT | {"warnings": ["w" * 20_001]}).encode(),
    "a message without end": json.dumps(
        RESULT | {"exception": {"type": "E", "message": "m" * 4_001}}
    ).encode(),
    "more facts than are kept": json.dumps(RESULT | {"facts": {"a": "f" * KEPT_BYTES}}).encode(),
    "facts that take more as they are kept": json.dumps(
        RESULT | {"facts": {"a": [0] * (KEPT_BYTES // 5)}}
    ).encode(),
    "a pickle": b"\x80\x04cos\nsystem\n(S'exit 1'\ntR.",
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_read_as_a_result_is_none(tmp_path: Path, case: str) -> None:
    file = tmp_path / "load.json"
    file.write_bytes(BAD[case])
    with pytest.raises(UnreadableError):
        read_result(file, Step.LOAD)


@pytest.mark.parametrize(
    "line",
    ["", "[1]", "null", "\ud800", "[" * 100_000, '{"event": 1}', '{"event": "", "status": "9"}',
     '{"event": "ended", "status": 1' + "0" * 400 + "}", '{"event": "stage", "stage": ["load"]}'],
)  # fmt: skip
def test_what_is_no_event_is_none(line: str) -> None:
    assert read_event(line.encode("utf-8", "replace").decode()) is None


def test_events_are_read_back() -> None:
    assert read_event('{"event": "imported", "ok": true, "pid": 7}') == Event("imported", ok=True)
    assert read_event('{"event": "ended", "status": -9}') == Event("ended", status=-9)


def test_what_is_no_regular_file_is_no_result(tmp_path: Path) -> None:
    real, link, pipe = tmp_path / "real.json", tmp_path / "link.json", tmp_path / "pipe.json"
    real.write_text(json.dumps(RESULT))
    link.symlink_to(real)
    os.mkfifo(pipe)
    assert read_result(real, Step.LOAD) is not None
    for file in (link, pipe):  # without waiting for someone who writes to it
        with pytest.raises(UnreadableError):
            read_result(file, Step.LOAD)
    with pytest.raises(FileNotFoundError):
        read_result(tmp_path / "none.json", Step.LOAD)


def test_a_result_beyond_all_bounds_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "load.json"
    text = json.dumps(RESULT)
    file.write_text(text + " " * (RESULT_BYTES - len(text)))
    assert read_result(file, Step.LOAD) is not None
    file.write_text(text + " " * (RESULT_BYTES + 1 - len(text)))
    with pytest.raises(UnreadableError, match=f"more than {RESULT_BYTES} bytes"):
        read_result(file, Step.LOAD)


def test_observations_of_before_machines_were_recorded_are_still_read() -> None:
    old = Observation(key="k", inputs={}, step=Step.LOAD, subject="s", outcome=Outcome.PASSED)
    raw = json.loads(msgspec.json.encode(old))
    del raw["machine"]
    assert msgspec.json.decode(json.dumps(raw), type=Observation) == old


def test_facts_are_read_as_the_type_of_their_step_and_others_are_passed_over() -> None:
    facts = {"python": "3.11.9", "versions": {"maker": "1.0"}, "of a newer version": [1]}
    step = Observation(
        Outcome.PASSED, key="k", inputs={}, step=Step.INSTALL, subject="s", facts=facts
    )  # fmt: skip
    assert read_facts(step, InstallFacts) == InstallFacts("3.11.9", versions={"maker": "1.0"})
    check_facts(step)
    damaged = msgspec.structs.replace(step, facts={"versions": [1]})
    with pytest.raises(msgspec.ValidationError, match="versions"):
        check_facts(damaged)
    # What a package says is judged where it is read: a failure of its step, which is an answer.
    check_facts(msgspec.structs.replace(damaged, step=Step.LOAD, facts={"kernels": [1]}))


@pytest.mark.parametrize(
    ("facts", "used"),
    [({}, []), ({"departures": ["a", 1, "b"]}, ["a", "b"]), ({"departures": {"a": 1}}, []),
     ({"departures": "a"}, [])],
)  # fmt: skip
def test_departures_used_are_names_whatever_an_adapter_says(
    facts: dict[str, Any], used: list[str]
) -> None:
    step = Observation(
        Outcome.PASSED, key="k", inputs={}, step=Step.LOAD, subject="s", facts=facts
    )  # fmt: skip
    assert departures_used(step) == used
