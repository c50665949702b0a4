"""How an end becomes an outcome."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Literal, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix.pipeline.outcomes import Outcome, Reason
from matrix.run.probes import RESULT_BYTES, Event, read_event, read_result
from matrix.spec.tables import Device
from matrix.store.observations import (
    MESSAGE_CHARS,
    ChildException,
    End,
    Judged,
    Observation,
    StepResult,
    judge_company,
    judge_device,
    judge_end,
    judge_exception,
    judge_tool,
)

Limit = Literal["", "timeout", "silence", "oom", "log-limit"]
LIMITS = get_args(Limit)
GOOD = StepResult(schema=1, stage="load", ok=True, seconds=1.0, peak_rss_bytes=1)
RAISED = StepResult(
    schema=1, stage="load", ok=False, seconds=1.0, peak_rss_bytes=1,
    exception=ChildException("builtins.ValueError", "bad value"),
)  # fmt: skip
NO_OUTCOME = StepResult(schema=1, stage="load", ok=False, seconds=1.0, peak_rss_bytes=1)

ENDS: dict[str, tuple[End, StepResult | None, Outcome, Reason]] = {
    "passed": (End(), GOOD, Outcome.PASSED, Reason.NONE),
    "raised": (End(status=1), RAISED, Outcome.FAILED, Reason.EXCEPTION),
    "exit 0, no result": (End(), None, Outcome.FAILED, Reason.NO_RESULT),
    "exit 3, no result": (End(status=3), None, Outcome.FAILED, Reason.NO_RESULT),
    "no status, no result": (End(status=None), None, Outcome.FAILED, Reason.NO_RESULT),
    "not ok, no exception": (End(), NO_OUTCOME, Outcome.FAILED, Reason.NO_RESULT),
    "segfault": (End(status=-11), None, Outcome.FAILED, Reason.CRASH),
    "segfault after its result": (End(status=-11), GOOD, Outcome.FAILED, Reason.CRASH),
    "killed by the kernel": (End(status=-9), None, Outcome.INFRA, Reason.OOM),
    "time": (End("timeout", None), None, Outcome.FAILED, Reason.TIMEOUT),
    "silence": (End("silence", None), None, Outcome.FAILED, Reason.SILENCE),
    "memory": (End("oom", None), None, Outcome.FAILED, Reason.OOM),
    "output": (End("log-limit", None), None, Outcome.FAILED, Reason.LOG_LIMIT),
    "a limit comes before what was written": (
        End("timeout", None), GOOD, Outcome.FAILED, Reason.TIMEOUT),
    "an exception comes before the signal": (
        End(status=-6), RAISED, Outcome.FAILED, Reason.EXCEPTION),
}  # fmt: skip


@pytest.mark.parametrize("case", ENDS)
def test_each_end_of_a_child_has_its_own_reason(case: str) -> None:
    end, result, outcome, reason = ENDS[case]
    judged = judge_end(end, result, [])
    assert (judged.outcome, judged.reason) == (outcome, reason)
    assert bool(judged.message) == (outcome is not Outcome.PASSED)


ends = st.builds(
    End,
    limit=st.sampled_from(LIMITS),
    status=st.none() | st.integers(-64, 255),
    seconds=st.floats(0, 1e6),
    peak_bytes=st.integers(0, 2**50),
)
exceptions = st.builds(ChildException, st.text(), st.text())
results = st.builds(
    StepResult,
    schema=st.just(1),
    stage=st.just("load"),
    ok=st.booleans(),
    seconds=st.floats(0, 10),
    peak_rss_bytes=st.integers(0),
    exception=st.none() | exceptions,
)


@given(ends, st.none() | results, st.lists(st.text(min_size=1), max_size=2))
def test_nothing_passes_without_a_good_result_and_a_good_end(
    end: End, result: StepResult | None, needs_hardware: list[str]
) -> None:
    judged = judge_end(end, result, needs_hardware)
    good = result is not None and result.ok and result.exception is None
    ended = not end.limit and (end.status is None or end.status >= 0)
    assert (judged.outcome is Outcome.PASSED) == (good and ended)
    assert (judged.reason is Reason.NONE) == (judged.outcome is Outcome.PASSED)


@given(ends, st.text(), st.sampled_from([Reason.UNRESOLVABLE, Reason.BUILD_FAILED]))
def test_a_tool_passes_only_with_status_0_and_within_its_limits(
    end: End, log: str, failure: Reason
) -> None:
    judged = judge_tool(end, log, failure)
    assert (judged.outcome is Outcome.PASSED) == (end.status == 0 and not end.limit)
    if judged.outcome is Outcome.FAILED:
        assert judged.reason is failure


EXCEPTIONS = {
    "plain": ("builtins.TypeError", "bad", Outcome.FAILED, Reason.EXCEPTION, "TypeError: bad"),
    "nested": ("a.b.Wrong", "bad", Outcome.FAILED, Reason.EXCEPTION, "Wrong: bad"),
    "memory": ("builtins.MemoryError", "", Outcome.INFRA, Reason.OOM, "MemoryError: "),
    "numpy's": ("numpy.core._exceptions._ArrayMemoryError", "Unable to allocate 8.00 GiB for an "
                "array", Outcome.INFRA, Reason.OOM, "_ArrayMemoryError: Unable"),
    "torch's": ("builtins.RuntimeError", "[enforce fail at alloc_cpu.cpp:117] err == 0. "
                "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes. Error "
                "code 12 (Cannot allocate memory)", Outcome.INFRA, Reason.OOM, "RuntimeError: "),
    "a fork's": ("builtins.OSError", "[Errno 12] Cannot allocate memory", Outcome.INFRA,
                 Reason.OOM, "OSError: "),
    "C++'s": ("builtins.RuntimeError", "std::bad_alloc", Outcome.INFRA, Reason.OOM, ""),
    "of memory, and no refusal": ("builtins.ValueError", "memory layout: cannot allocate heads",
                                  Outcome.FAILED, Reason.EXCEPTION, ""),
    "disk": ("builtins.OSError", "[Errno 28] No space left on device: '/x'", Outcome.INFRA,
             Reason.NO_SPACE, "OSError: [Errno 28]"),
    "quota": ("builtins.OSError", "Disk quota exceeded", Outcome.INFRA, Reason.NO_SPACE, ""),
    "hardware": ("builtins.RuntimeError", "sorry: a GPU is needed!", Outcome.NEEDS_HARDWARE,
                 Reason.NO_GPU, "RuntimeError: sorry"),
    "long": ("x.E", "y" * 9000, Outcome.FAILED, Reason.EXCEPTION, "E: yyy"),
}  # fmt: skip


@pytest.mark.parametrize("case", EXCEPTIONS)
def test_what_an_exception_means(case: str) -> None:
    kind, message, outcome, reason, start = EXCEPTIONS[case]
    judged = judge_exception(ChildException(kind, message), ["a GPU is needed"])
    assert (judged.outcome, judged.reason) == (outcome, reason)
    assert judged.message.startswith(start)
    assert len(judged.message) <= MESSAGE_CHARS


def test_hardware_is_wanted_only_by_the_words_of_that_package() -> None:
    exception = ChildException("builtins.RuntimeError", "a GPU is needed")
    assert judge_exception(exception, []).outcome is Outcome.FAILED


REFUSAL = """Resolved nothing
  × No solution found when resolving dependencies:
  ╰─▶ Because a==1 needs b>2 and b<2, we can conclude that
"""
TOOL: dict[str, tuple[End, str, Outcome, Reason]] = {
    "fine": (End(), "error: no", Outcome.PASSED, Reason.NONE),
    "refusal": (End(status=1), REFUSAL, Outcome.FAILED, Reason.UNRESOLVABLE),
    "disk": (End(status=2), "error: No space left on device (os error 28)", Outcome.INFRA,
             Reason.NO_SPACE),
    "dns": (End(status=2), "error: dns error: failed to lookup", Outcome.INFRA, Reason.NETWORK),
    "refused": (End(status=2), "tcp connect error: Connection refused", Outcome.INFRA,
                Reason.NETWORK),
    "server": (End(status=2), "HTTP status server error (503)", Outcome.INFRA, Reason.NETWORK),
    "download": (End(status=1), "× Failed to download `x==1`\n  ╰─▶ operation timed out",
                 Outcome.INFRA, Reason.NETWORK),
    "not there": (End(status=1), "× Failed to download `x==1`\n  ╰─▶ 404 Not Found",
                  Outcome.FAILED, Reason.UNRESOLVABLE),
    "timeout": (End("timeout", None), "", Outcome.INFRA, Reason.TIMEOUT),
    "memory": (End("oom", None), "", Outcome.INFRA, Reason.OOM),
    "killed": (End(status=-9), "", Outcome.INFRA, Reason.CRASH),
}  # fmt: skip


@pytest.mark.parametrize("case", TOOL)
def test_a_tool_is_trouble_of_the_machine_or_a_refusal(case: str) -> None:
    end, log, outcome, reason = TOOL[case]
    judged = judge_tool(end, log, Reason.UNRESOLVABLE)
    assert (judged.outcome, judged.reason) == (outcome, reason)


def test_a_refusal_is_told_without_the_progress_before_it() -> None:
    message = judge_tool(End(status=1), REFUSAL, Reason.UNRESOLVABLE).message
    assert message.startswith("  × No solution")
    assert "conclude" in message


@pytest.mark.parametrize("outcome", list(Outcome))
def test_only_trouble_of_the_machine_is_tried_again(outcome: Outcome) -> None:
    observation = Observation(key="k", inputs={}, step="load", subject="s", outcome=outcome)
    assert observation.final == (outcome is not Outcome.INFRA)


# ------------------------------------------------------------------- what a child leaves behind

RESULT = {"schema": 1, "stage": "load", "ok": True, "seconds": 1.0, "peak_rss_bytes": 5}


def test_a_result_is_read_back(tmp_path: Path) -> None:
    file = tmp_path / "load.json"
    file.write_text(json.dumps(RESULT | {"facts": {"kernel": None}}))
    result = read_result(file, "load")
    assert result is not None
    assert judge_end(End(), result, []) == Judged(Outcome.PASSED)


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
    "a pickle": b"\x80\x04cos\nsystem\n(S'exit 1'\ntR.",
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_read_as_a_result_is_none(tmp_path: Path, case: str) -> None:
    file = tmp_path / "load.json"
    file.write_bytes(BAD[case])
    assert read_result(file, "load") is None


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
    assert read_result(real, "load") is not None
    assert read_result(link, "load") is None
    assert read_result(pipe, "load") is None  # without waiting for someone who writes to it
    assert read_result(tmp_path / "none.json", "load") is None


def test_a_result_beyond_all_bounds_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "load.json"
    text = json.dumps(RESULT)
    file.write_text(text + " " * (RESULT_BYTES - len(text)))
    assert read_result(file, "load") is not None
    file.write_text(text + " " * (RESULT_BYTES + 1 - len(text)))
    assert read_result(file, "load") is None


def test_what_this_machine_lacks_is_a_gpu_or_a_library() -> None:
    asks = ["version `GLIBCXX_", "GPU, please"]
    library = "libstdc++.so.6: version `GLIBCXX_3.4.32' not found (required by _C.abi3.so)"
    for message, reason in ((library, Reason.NO_LIBRARY), ("a GPU, please", Reason.NO_GPU)):
        judged = judge_exception(ChildException("builtins.ImportError", message), asks)
        assert (judged.outcome, judged.reason) == (Outcome.NEEDS_HARDWARE, reason)


# ------------------------------------------------------------------------------------- its device


@pytest.mark.parametrize(
    ("facts", "device", "counts"),
    [
        ({"device": "cuda"}, "cuda", True),
        ({"device": "cuda:0"}, "cuda", True),
        ({"device": "cpu"}, "cpu", True),
        ({}, "cpu", True),
        ({}, "cuda", False),
        ({"device": "cpu"}, "cuda", False),
        ({"device": "cuda:1"}, "cpu", False),
        ({"device": None}, "cuda", False),
    ],
)
def test_what_ran_elsewhere_than_asked_for_is_no_evidence(
    facts: dict[str, object], device: Device, counts: bool
) -> None:
    passed = Judged(Outcome.PASSED)
    judged = judge_device(passed, facts, device)
    if counts:
        assert judged is passed
    else:
        assert (judged.outcome, judged.reason) == (Outcome.FAILED, Reason.WRONG_DEVICE)
        assert judged.message.startswith(f"asked for {device}, but the probe ran on ")


def test_what_failed_failed_for_its_own_reason_wherever_it_ran() -> None:
    failed = Judged(Outcome.FAILED, Reason.EXCEPTION, "ValueError: no")
    assert judge_device(failed, {"device": "cpu"}, "cuda") is failed


def test_a_failure_in_company_is_the_machines_and_alone_it_is_the_packages() -> None:
    failed = Judged(Outcome.FAILED, Reason.OOM, "OutOfMemoryError: x" + "x" * 5000)
    passed = Judged(Outcome.PASSED)
    assert judge_company(failed, 0) is failed
    assert judge_company(passed, 2) is passed
    judged = judge_company(failed, 1)
    assert (judged.outcome, judged.reason) == (Outcome.INFRA, Reason.OOM)
    assert judged.message.startswith("1 other process came to compute on its GPUs, so this says")
    assert len(judged.message) == MESSAGE_CHARS


def test_a_lie_about_the_device_is_bounded() -> None:
    judged = judge_device(Judged(Outcome.PASSED), {"device": "x" * 10_000}, "cuda")
    assert len(judged.message) < 200


@pytest.mark.parametrize("name", ["torch.OutOfMemoryError", "torch.cuda.OutOfMemoryError"])
def test_a_full_card_is_out_of_memory(name: str) -> None:
    judged = judge_exception(ChildException(name, "CUDA out of memory. Tried ..."), [])
    assert (judged.outcome, judged.reason) == (Outcome.FAILED, Reason.OOM)


def test_observations_of_before_machines_were_recorded_are_still_read() -> None:
    old = Observation(key="k", inputs={}, step="load", subject="s", outcome=Outcome.PASSED)
    raw = json.loads(msgspec.json.encode(old))
    del raw["machine"]
    assert msgspec.json.decode(json.dumps(raw), type=Observation) == old
