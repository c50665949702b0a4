"""How the end of a step's process is classified: as which outcome, for which reason. Pure."""

from __future__ import annotations

import errno
import re
import signal
from collections.abc import Mapping
from typing import Annotated, Any, Literal, assert_never

import msgspec

from matrix.pipeline.outcomes import PASSED, Conclusion, Outcome, Reason
from matrix.pipeline.steps import Device

MESSAGE_CHARS = 2_000


class ChildException(msgspec.Struct, frozen=True):
    """An exception as the probe wrote it down, within the bounds of ``probe/child.py``."""

    type: Annotated[str, msgspec.Meta(max_length=1_000)]
    message: Annotated[str, msgspec.Meta(max_length=4_000)]
    traceback: Annotated[str, msgspec.Meta(max_length=8_000)] = ""


Warnings = Annotated[
    list[Annotated[str, msgspec.Meta(max_length=20_000)]], msgspec.Meta(max_length=50)
]


class StepResult(msgspec.Struct, frozen=True):
    """``<step>.json`` as the probe wrote it. Untrusted: the package under test can write there, so
    that the bounds of ``probe/child.py`` are checked again.
    """

    schema: Literal[1]
    stage: str
    ok: bool
    seconds: float
    peak_rss_bytes: int
    exception: ChildException | None = None
    warnings: Warnings = []
    facts: dict[str, Any] = {}


Limit = Literal["", "timeout", "silence", "oom", "log-limit", "no-space"]


class End(msgspec.Struct, frozen=True):
    """How a child's step ended, as the parent saw it."""

    limit: Limit = ""
    """The limit for which the parent ended it."""
    status: int | None = 0
    """Exit status; negative for a signal; ``None`` where the parent ended it."""
    seconds: float = 0.0
    peak_bytes: int = 0
    oom_kills: int = 0
    """Processes of anybody that the kernel ended meanwhile for want of memory."""


_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_CARD_FULL = "OutOfMemoryError"
"""torch's on a card (``torch.cuda.OutOfMemoryError``), which the job has to itself."""
_NO_MEMORY = re.compile(r"Cannot allocate memory|DefaultCPUAllocator: can't|std::bad_alloc")
"""The system's refusal of memory: ENOMEM, torch (c10/core/impl/alloc_cpu.cpp), C++. How much there
is, is the machine's matter; at the spec's own limit nothing is refused, the child is ended."""
_NO_SPACE = re.compile(r"No space left on device|\[Errno 28\]|Disk quota exceeded")
_NO_LIBRARY = re.compile(r"version `[\w.]{1,40}' not found|cannot open shared object file")
_NO_WHEEL_FOR_HERE = "has no wheels with a matching platform tag"
_NEWER_SYSTEM = re.compile(
    r"Wheels are available for `([\w.-]{1,200})` \(v[^)\n]{1,100}\) on the following "
    r"platforms?: (`(?:manylinux|musllinux)[^\n]{1,300})"
)
"""uv's hint (0.13.9) where this Linux is older than the one a wheel was built on."""
_NETWORK = re.compile(
    r"error sending request|dns error|Connection (?:refused|reset)|connection closed"
    r"|operation timed out|Temporary failure in name resolution"
    r"|tcp connect error|HTTP status server error|status code 5\d\d",
    re.IGNORECASE,
)


def classify_end(
    end: End,
    result: StepResult | None,
    needs_hardware: list[str],
    log: str = "",
    unreadable: str = "",
) -> Conclusion:
    """Return what an end means: first by the parent's limit, then by the child's own result, then
    by its status.

    ``needs_hardware`` holds texts of exceptions by which the package asks for hardware. A child
    that could not even write its result on a full disk says so in its ``log`` only. ``unreadable``
    says why there is no result though the child left a file.

    A failure while the kernel ended a process for want of memory, be it a worker's, is trouble of
    the machine, unless the child had passed a limit of its own. Without that, SIGKILL is a crash
    like another: nobody but the package sent it.
    """
    conclusion = _classify(end, result, needs_hardware, log, unreadable)
    if (
        conclusion.outcome is not Outcome.FAILED
        or not end.oom_kills
        or conclusion.reason in (Reason.OOM, Reason.LOG_LIMIT)
    ):
        return conclusion
    message = f"the kernel ended a process for want of memory meanwhile: {conclusion.message}"
    return Conclusion(Outcome.INFRA, Reason.OOM, message[:MESSAGE_CHARS])


def classify_own_end(end: End, log: str) -> Conclusion:
    """Return what an end of this project's own command means, in which no package runs that could
    send SIGKILL; otherwise as :func:`classify_end` does without a result."""
    if end.status == -signal.SIGKILL:
        return Conclusion(Outcome.INFRA, Reason.CRASH, "somebody ended it by SIGKILL")
    return classify_end(end, None, [], log)


def _classify(
    end: End, result: StepResult | None, needs_hardware: list[str], log: str, unreadable: str
) -> Conclusion:
    if end.limit:
        return _limit(end)
    if result is None and (not_shut_in := _not_shut_in(end, log)):
        return not_shut_in
    if result is None and (full := _NO_SPACE.search(log)):
        return Conclusion(Outcome.INFRA, Reason.NO_SPACE, full[0])
    if result is not None and result.exception is not None:
        return classify_exception(result.exception, needs_hardware)
    if end.status is not None and end.status < 0:
        return Conclusion(Outcome.FAILED, Reason.CRASH, f"died of signal {-end.status}")
    if result is None or not result.ok:
        message = f"ended with status {end.status} and left no result"
        message = f"left a result that cannot be used: {unreadable}" if unreadable else message
        return Conclusion(Outcome.FAILED, Reason.NO_RESULT, message)
    return PASSED


def _not_shut_in(end: End, log: str) -> Conclusion | None:
    """Return that the sandbox could not be made, where bubblewrap itself ended, else ``None``."""
    if end.status != 1 or not log.startswith("bwrap: "):
        return None
    line = log.partition("\n")[0][:MESSAGE_CHARS]
    return Conclusion(Outcome.INFRA, Reason.NOT_RUN, f"the sandbox could not be made: {line}")


def _limit(end: End) -> Conclusion:
    match end.limit:
        case "timeout":
            message = f"ended after {end.seconds:.0f} s, its time limit"
            return Conclusion(Outcome.FAILED, Reason.TIMEOUT, message)
        case "silence":
            message = "ended: no sign of life within its silence limit"
            return Conclusion(Outcome.FAILED, Reason.SILENCE, message)
        case "oom":
            message = f"ended at {end.peak_bytes / 1e6:.0f} MB, over its memory limit"
            return Conclusion(Outcome.FAILED, Reason.OOM, message)
        case "log-limit":
            message = "ended: printed more than its log limit"
            return Conclusion(Outcome.FAILED, Reason.LOG_LIMIT, message)
        case "no-space":
            message = "ended: next to nothing of the disk was left while it ran"
            return Conclusion(Outcome.INFRA, Reason.NO_SPACE, message)
        case "":
            return PASSED
        case _:
            assert_never(end.limit)


def classify_exception(exception: ChildException, needs_hardware: list[str]) -> Conclusion:
    """Return what an exception raised by a package means."""
    name = exception.type.rpartition(".")[2]
    message = f"{name}: {exception.message}"[:MESSAGE_CHARS]
    if any(text in exception.message for text in needs_hardware):
        reason = Reason.NO_LIBRARY if _NO_LIBRARY.search(exception.message) else Reason.NO_GPU
        return Conclusion(Outcome.NEEDS_HARDWARE, reason, message)
    if name == _CARD_FULL:
        return Conclusion(Outcome.FAILED, Reason.OOM, message)
    if name.endswith("MemoryError") or _NO_MEMORY.search(exception.message):
        return Conclusion(Outcome.INFRA, Reason.OOM, message)
    if _NO_SPACE.search(exception.message):
        return Conclusion(Outcome.INFRA, Reason.NO_SPACE, message)
    return Conclusion(Outcome.FAILED, Reason.EXCEPTION, message)


def require_device(conclusion: Conclusion, facts: Mapping[str, Any], device: Device) -> Conclusion:
    """Return a conclusion, or a failure where a probe's facts name another device than is required.

    What ran on another device is no evidence, however good it looks. Where facts name no device, it
    was the CPU.
    """
    ran_on = str(facts.get("device", "cpu")).partition(":")[0]
    if conclusion.outcome is not Outcome.PASSED or ran_on == device:
        return conclusion
    match device:
        case "cuda":
            why = "torch was built for CPUs, cannot use this driver, or put nothing on a GPU"
        case "cpu":
            why = "something beside what it was shown led it there"
        case _:
            assert_never(device)
    message = f"asked for {device}, but the probe ran on {ran_on[:40]!r}: {why}"
    return Conclusion(Outcome.FAILED, Reason.WRONG_DEVICE, message)


def allow_for_strangers(conclusion: Conclusion, strangers: int) -> Conclusion:
    """Return a conclusion, or trouble of the machine where a step failed on leased GPUs on which
    so many processes of others came to compute.

    They take memory and time that the step was promised, so it says nothing of the packages.
    """
    if conclusion.outcome is not Outcome.FAILED or not strangers:
        return conclusion
    came = "1 other process" if strangers == 1 else f"{strangers} other processes"
    message = f"{came} came to compute on its GPUs, so this says nothing: {conclusion.message}"
    return Conclusion(Outcome.INFRA, conclusion.reason, message[:MESSAGE_CHARS])


def classify_uv_end(end: End, log: str, failure: Reason) -> Conclusion:
    """Return what an end of ``uv`` means; ``failure`` is the reason where packages are to blame.

    Full disks and dead networks are told apart from refusals by what uv printed; a limit it ran
    into is trouble of the machine as well.
    """
    if end.limit:
        limit = _limit(end)
        return Conclusion(Outcome.INFRA, limit.reason, limit.message)
    if end.status == 0:
        return PASSED
    if not_shut_in := _not_shut_in(end, log):
        return not_shut_in
    message = _last_error(log)
    if _NO_SPACE.search(log):
        return Conclusion(Outcome.INFRA, Reason.NO_SPACE, message)
    if _NETWORK.search(log):
        return Conclusion(Outcome.INFRA, Reason.NETWORK, message)
    if end.status is None or end.status < 0:
        return Conclusion(Outcome.INFRA, Reason.CRASH, f"uv died of signal {-(end.status or 0)}")
    if (newer := _NEWER_SYSTEM.search(log)) and _NO_WHEEL_FOR_HERE in log:
        message = f"needs a system for which {newer[1]} has wheels ({newer[2]}): {message}"
        return Conclusion(Outcome.NEEDS_HARDWARE, Reason.NO_LIBRARY, message[:MESSAGE_CHARS])
    return Conclusion(Outcome.FAILED, failure, message)


def _last_error(log: str) -> str:
    """Return uv's refusal without the progress lines before it."""
    lines = log.strip().splitlines()
    start = next((i for i, line in enumerate(lines) if re.match(r"\s*(error|×)", line)), 0)
    return "\n".join(lines[start:])[:MESSAGE_CHARS]


def is_disk_full(error: Exception) -> bool:
    """Whether the system said by an error that a disk, or a user's share of it, is full."""
    return isinstance(error, OSError) and error.errno in _DISK_FULL
