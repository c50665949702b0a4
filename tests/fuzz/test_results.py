"""What a probe left, its events, a model's reference: a value of the type, or refused."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from matrix.checks.divergence import with_divergence
from matrix.checks.evidence import (
    EvidenceError,
    Reference,
    read_generation,
    read_load,
    read_reference,
)
from matrix.pipeline.ends import End, StepResult, classify_end, require_device
from matrix.pipeline.outcomes import Conclusion
from matrix.pipeline.steps import Step
from matrix.run.probes import Event, read_event, read_result
from matrix.store.observations import Observation
from matrix.untrusted.reading import UnreadableError, is_deep
from tests.fuzz.fuzzing import fuzzed
from tests.fuzz.mutations import like_json
from tests.unit.test_divergence import WITH_LIKELIEST, facts_with

EXCEPTION = {"type": "ValueError", "message": "no", "traceback": "Traceback ..."}
RESULT = {
    "schema": 1, "stage": "generate", "ok": True, "seconds": 1.5, "peak_rss_bytes": 10**9,
    "exception": None, "warnings": ["careful"],
    "facts": {**facts_with(*WITH_LIKELIEST.likeliest), "kernels": {"a": "b"}, "device": "cpu"},
}  # fmt: skip
FAILED = {**RESULT, "ok": False, "exception": EXCEPTION, "facts": {}}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results") / "generate.json"


@fuzzed("results", like_json(RESULT, FAILED))
def test_a_result_is_one_or_refused(data: bytes, file: Path) -> None:
    file.write_bytes(data)
    try:
        result = read_result(file, Step.GENERATE)
    except UnreadableError as error:
        classify_end(End(), None, [], "", str(error))
        return
    assert isinstance(result, StepResult)
    assert not is_deep(result.facts)
    end = classify_end(End(), result, ["GPU, please"], "a log")
    _keep(result, require_device(end, result.facts, "cpu"))
    with suppress(EvidenceError):
        with_divergence(result.facts, WITH_LIKELIEST)
    with suppress(EvidenceError):
        read_generation(result.facts, WITH_LIKELIEST)
    with suppress(EvidenceError):
        read_load(result.facts, result.warnings)


def _keep(result: StepResult, end: Conclusion) -> None:
    """Whatever a result holds can be written as an observation and is read again as it was."""
    kept = Observation(
        outcome=end.outcome, reason=end.reason, message=end.message, key="k", inputs={},
        step=Step.GENERATE, subject="s", warnings=result.warnings, facts=result.facts,
    )  # fmt: skip
    written = msgspec.json.format(msgspec.json.encode(kept), indent=1)
    assert msgspec.json.encode(msgspec.json.decode(written, type=Observation)) == (
        msgspec.json.encode(kept)
    )


@fuzzed("events", like_json(*map(msgspec.to_builtins, (
    Event("imported", ok=True), Event("stage", stage="load"), Event("ended", status=-9),
))))  # fmt: skip
def test_a_line_is_an_event_or_none(data: bytes) -> None:
    for line in data.decode("utf-8", "replace").split("\n"):
        event = read_event(line)
        assert event is None or isinstance(event, Event)


@fuzzed("references", like_json(msgspec.to_builtins(WITH_LIKELIEST)))
def test_a_reference_is_one_or_refused(data: bytes) -> None:
    with suppress(EvidenceError):
        assert isinstance(read_reference(data), Reference)
