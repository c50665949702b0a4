"""How an end becomes an outcome."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix.pipeline.ends import (
    MESSAGE_CHARS,
    ChildException,
    End,
    Limit,
    StepResult,
    allow_for_strangers,
    classify_end,
    classify_exception,
    classify_own_end,
    classify_uv_end,
    require_device,
)
from matrix.pipeline.outcomes import PASSED, Conclusion, Outcome, Reason
from matrix.pipeline.steps import Device

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
    "killed by the kernel": (End(status=-9, oom_kills=1), None, Outcome.INFRA, Reason.OOM),
    "killed by itself": (End(status=-9), None, Outcome.FAILED, Reason.CRASH),
    "a worker killed by the kernel": (
        End(status=1, oom_kills=1), RAISED, Outcome.INFRA, Reason.OOM),
    "waits for a worker killed by the kernel": (
        End("timeout", None, oom_kills=1), None, Outcome.INFRA, Reason.OOM),
    "over its own limit of memory, and the machine's": (
        End("oom", None, oom_kills=1), None, Outcome.FAILED, Reason.OOM),
    "others killed by the kernel": (End(oom_kills=1), GOOD, Outcome.PASSED, Reason.NONE),
    "disk": (End("no-space", None), None, Outcome.INFRA, Reason.NO_SPACE),
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
    conclusion = classify_end(end, result, [])
    assert (conclusion.outcome, conclusion.reason) == (outcome, reason)
    assert bool(conclusion.message) == (outcome is not Outcome.PASSED)


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


def test_a_command_of_ours_that_was_killed_says_nothing_of_what_it_read() -> None:
    killed = classify_own_end(End(status=-9), "")
    assert (killed.outcome, killed.reason) == (Outcome.INFRA, Reason.CRASH)
    assert classify_own_end(End(status=-11), "").outcome is Outcome.FAILED


def test_a_result_that_cannot_be_used_is_named() -> None:
    conclusion = classify_end(End(), None, [], unreadable="load.json has more than 7 bytes")
    assert conclusion.reason is Reason.NO_RESULT
    assert conclusion.message.endswith("cannot be used: load.json has more than 7 bytes")


@given(ends, st.none() | results, st.lists(st.text(min_size=1), max_size=2))
def test_nothing_passes_without_a_good_result_and_a_good_end(
    end: End, result: StepResult | None, needs_hardware: list[str]
) -> None:
    conclusion = classify_end(end, result, needs_hardware)
    good = result is not None and result.ok and result.exception is None
    ended = not end.limit and (end.status is None or end.status >= 0)
    assert (conclusion.outcome is Outcome.PASSED) == (good and ended)
    assert (conclusion.reason is Reason.NONE) == (conclusion.outcome is Outcome.PASSED)


@given(ends, st.text(), st.sampled_from([Reason.UNRESOLVABLE, Reason.BUILD_FAILED]))
def test_a_tool_passes_only_with_status_0_and_within_its_limits(
    end: End, log: str, failure: Reason
) -> None:
    conclusion = classify_uv_end(end, log, failure)
    assert (conclusion.outcome is Outcome.PASSED) == (end.status == 0 and not end.limit)
    if conclusion.outcome is Outcome.FAILED:
        assert conclusion.reason is failure


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
    conclusion = classify_exception(ChildException(kind, message), ["a GPU is needed"])
    assert (conclusion.outcome, conclusion.reason) == (outcome, reason)
    assert conclusion.message.startswith(start)
    assert len(conclusion.message) <= MESSAGE_CHARS


def test_hardware_is_wanted_only_by_the_words_of_that_package() -> None:
    exception = ChildException("builtins.RuntimeError", "a GPU is needed")
    assert classify_exception(exception, []).outcome is Outcome.FAILED


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
    conclusion = classify_uv_end(end, log, Reason.UNRESOLVABLE)
    assert (conclusion.outcome, conclusion.reason) == (outcome, reason)


def test_a_refusal_is_told_without_the_progress_before_it() -> None:
    message = classify_uv_end(End(status=1), REFUSAL, Reason.UNRESOLVABLE).message
    assert message.startswith("  × No solution")
    assert "conclude" in message


def test_what_this_machine_lacks_is_a_gpu_or_a_library() -> None:
    asks = ["version `GLIBCXX_", "GPU, please"]
    library = "libstdc++.so.6: version `GLIBCXX_3.4.32' not found (required by _C.abi3.so)"
    for message, reason in ((library, Reason.NO_LIBRARY), ("a GPU, please", Reason.NO_GPU)):
        conclusion = classify_exception(ChildException("builtins.ImportError", message), asks)
        assert (conclusion.outcome, conclusion.reason) == (Outcome.NEEDS_HARDWARE, reason)


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
    passed = PASSED
    conclusion = require_device(passed, facts, device)
    if counts:
        assert conclusion is passed
    else:
        assert (conclusion.outcome, conclusion.reason) == (Outcome.FAILED, Reason.WRONG_DEVICE)
        assert conclusion.message.startswith(f"asked for {device}, but the probe ran on ")


def test_what_failed_failed_for_its_own_reason_wherever_it_ran() -> None:
    failed = Conclusion(Outcome.FAILED, Reason.EXCEPTION, "ValueError: no")
    assert require_device(failed, {"device": "cpu"}, "cuda") is failed


def test_a_failure_in_company_is_the_machines_and_alone_it_is_the_packages() -> None:
    failed = Conclusion(Outcome.FAILED, Reason.OOM, "OutOfMemoryError: x" + "x" * 5000)
    passed = PASSED
    assert allow_for_strangers(failed, 0) is failed
    assert allow_for_strangers(passed, 2) is passed
    conclusion = allow_for_strangers(failed, 1)
    assert (conclusion.outcome, conclusion.reason) == (Outcome.INFRA, Reason.OOM)
    assert conclusion.message.startswith(
        "1 other process came to compute on its GPUs, so this says"
    )
    assert len(conclusion.message) == MESSAGE_CHARS


def test_a_lie_about_the_device_is_bounded() -> None:
    conclusion = require_device(PASSED, {"device": "x" * 10_000}, "cuda")
    assert len(conclusion.message) < 200


@pytest.mark.parametrize("name", ["torch.OutOfMemoryError", "torch.cuda.OutOfMemoryError"])
def test_a_full_card_is_out_of_memory(name: str) -> None:
    conclusion = classify_exception(ChildException(name, "CUDA out of memory. Tried ..."), [])
    assert (conclusion.outcome, conclusion.reason) == (Outcome.FAILED, Reason.OOM)
