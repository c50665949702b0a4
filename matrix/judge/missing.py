"""What a failed step lacked, by the words it left, and whose fault that is. Pure.

An operator, a symbol, an instruction, a version of a system library, a driver, a kernel for a GPU:
where another build in the same release has it, or only the machine lacks it, the packages are not
to blame. The same words are the release's own fault where none of its builds has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import assert_never

import msgspec

from matrix.pipeline.ends import MESSAGE_CHARS, ChildException, End
from matrix.pipeline.outcomes import Conclusion, Outcome, Reason

SIGILL, SIGSEGV = 4, 11
SHOWN = 4
"""How many libraries a message names."""


class Kind(StrEnum):
    """What can be missing."""

    OPERATOR = "operator"
    """Of torch: a kernel that a package's compiled code registers under a name."""
    SYMBOL = "symbol"
    """A name that the dynamic linker looks for."""
    INSTRUCTION = "instruction"
    LIBRARY_VERSION = "library version"
    """A symbol version of a library of the system, such as ``GLIBCXX_3.4.32``."""
    DRIVER = "driver"
    GPU_KERNEL = "GPU kernel"


class Missing(msgspec.Struct, frozen=True):
    """What a failed step lacked."""

    kind: Kind
    name: str = ""
    package: str = ""
    """The folder in ``site-packages`` whose code asked for it; empty where nobody says."""
    namespace: str = ""
    """Of an operator, such as ``_C``."""


class Build(msgspec.Struct, frozen=True):
    """A compiled library of a release."""

    library: str
    """Its path below ``site-packages``."""
    instruction_set: str
    """The one that its name says it is built for, such as ``AVX-512``; empty where it does not."""
    has_it: bool
    """Whether what is missing is in it."""


_OPERATOR = re.compile(r"'_OpNamespace' '(\w{1,100})' object has no attribute '(\w{1,200})'")
_SYMBOL = re.compile(r"(\S{1,500}): undefined symbol: (\w{1,500})")
_VERSION = re.compile(
    r"(\S{1,500}): version `((?:GLIBC|GLIBCXX|CXXABI|GCC|GOMP|OMP)_[\w.]{1,40})' not found "
    r"\(required by "
)
_DRIVER = re.compile(
    r"The NVIDIA driver on your system is too old"
    r"|CUDA driver version is insufficient for CUDA runtime version"
)
_GPU_KERNEL = re.compile(
    r"no kernel image is available for execution on the device"
    r"|CUDA capability sm_\d{2,4} is not compatible with the current PyTorch"
)
_ILLEGAL = "Fatal Python error: Illegal instruction"
"""What faulthandler prints (CPython 3.11, ``Modules/faulthandler.c``)."""
_OTHERS_ILLEGAL = re.compile(r"terminated with signal SIGILL|died with <Signals\.SIGILL: 4>")
"""What ``torch.multiprocessing.spawn`` (torch 2.13, ProcessExitedException) and ``subprocess``
(CPython 3.11, CalledProcessError) say of a process that they waited for."""
_SEE_LOG = re.compile(
    r"[Ss]ee (?:stack trace for )?(?:the )?root cause|Worker(?:Proc)? .{0,80}(?:failed|died)"
    r"|A process in the process pool was terminated abruptly"
    r"|For details look at the above report",
    re.DOTALL,
)
"""By which vLLM (0.6 to 0.32) and ``concurrent.futures`` say that what happened to a process of
theirs stands in the log, and transformers (5) that it printed what does not fit."""
_CHAINED = re.compile(
    r"^(The above exception was the direct cause of the following exception:"
    r"|During handling of the above exception, another exception occurred:)$",
    re.MULTILINE,
)
"""What Python prints between the exceptions of a chain, the first one raised first."""
_PACKAGE = re.compile(r"site-packages/([A-Za-z]\w{0,100})[/.]")
_FRAMEWORK = "torch"
"""Its frames are on the way to each operator; what asked for one stands before them."""


def read_missing(end: End, exception: ChildException | None, log: str) -> Missing | None:
    """Return what a failed step lacked, or ``None`` where its words name nothing of the kind.

    The exception counts, and the log only where the process left no exception or points to it:
    packages also log what they did without.
    """
    if exception is None or points_to_log(exception.message):
        # One that died of another signal itself may have let a helper try what the CPU can do.
        if end.status == -SIGILL or (end.status != -SIGSEGV and _ILLEGAL in log):
            return Missing(Kind.INSTRUCTION, package=_package(log))
        return _named(log, log)
    if _OTHERS_ILLEGAL.search(exception.message):
        return Missing(Kind.INSTRUCTION)
    for message, trace in _causes(exception):
        if missing := _named(message, trace):
            return missing
    return None


def points_to_log(message: str) -> bool:
    """Whether an exception says that what happened to another process stands in the log."""
    return _SEE_LOG.search(message) is not None


def _causes(exception: ChildException) -> Iterator[tuple[str, str]]:
    """Yield the message and traceback of an exception, then of each that it was raised ``from``,
    as ``torch.ops.load_library`` raises; not of one that was only being handled."""
    # All of the traceback: what came out of another process has its frames in what stands before.
    yield exception.message, exception.traceback
    *earlier, _ = _CHAINED.split(exception.traceback)
    while len(earlier) > 1 and earlier.pop().startswith("The above exception"):
        trace = earlier.pop()
        # Source lines are indented, what an exception says is not.
        yield "\n".join(re.findall(r"(?m)^\S.*$", trace)), trace


def _named(words: str, trace: str) -> Missing | None:
    """Return what words name as missing, asked for where a trace ends."""
    if match := _OPERATOR.search(words):
        return Missing(Kind.OPERATOR, match[2], _package(trace), match[1])
    if match := _SYMBOL.search(words):
        return Missing(Kind.SYMBOL, match[2], _package(match[1]))
    if match := _VERSION.search(words):
        # A library that a release brings along is not the system's.
        own = "/site-packages/" in match[1]
        return None if own else Missing(Kind.LIBRARY_VERSION, match[2])
    if _DRIVER.search(words):
        return Missing(Kind.DRIVER)
    return Missing(Kind.GPU_KERNEL) if _GPU_KERNEL.search(words) else None


def _package(trace: str) -> str:
    """Return the package of the last frame that is not torch's own."""
    packages = [name for name in _PACKAGE.findall(trace) if name != _FRAMEWORK]
    return packages[-1] if packages else ""


def classify_missing(
    conclusion: Conclusion,
    missing: Missing,
    builds: Sequence[Build],
    lacking: Sequence[str],
    cpu: str,
) -> Conclusion:
    """Return what a failure means once it is known what was missing.

    ``conclusion`` is what it means by its words alone, ``builds`` the libraries of the release that
    asked for it, ``lacking`` the instruction sets that this CPU has not (``AVX-512``), ``cpu`` what
    it has, in words.
    """
    need: tuple[Reason, str] | None
    match missing.kind:
        case Kind.OPERATOR | Kind.SYMBOL if not builds:
            return conclusion
        case Kind.OPERATOR | Kind.SYMBOL:
            need = _need_of_builds(missing, builds, lacking, cpu)
        case Kind.INSTRUCTION if not lacking:
            return conclusion  # it has all that packages are built for: a trap, and so a crash
        case Kind.INSTRUCTION:
            why = f"an instruction that this CPU ({cpu}) lacks: it has no "
            need = Reason.NO_INSTRUCTION, why + " and no ".join(lacking)
        case Kind.LIBRARY_VERSION:
            need = Reason.NO_LIBRARY, f"{missing.name} of the system"
        case Kind.DRIVER:
            need = Reason.NO_DRIVER, "a newer driver of the GPU"
        case Kind.GPU_KERNEL:
            need = Reason.NO_GPU, "a GPU that it has kernels for"
        case _:
            assert_never(missing.kind)
    if need is None:
        message = f"{conclusion.message} [the {missing.kind} {missing.name} is in "
        if having := [build for build in builds if build.has_it]:
            message += f"{_names(having)}, which this CPU can run and which was not loaded]"
        else:
            message += f"no library of the release ({_names(builds)})]"
        return Conclusion(Outcome.FAILED, Reason.NOT_BUILT, message[:MESSAGE_CHARS])
    words = f" ({conclusion.message})" if conclusion.message else ""
    message = f"needs {need[1]}{words}"[:MESSAGE_CHARS]
    return Conclusion(Outcome.NEEDS_HARDWARE, need[0], message)


def _need_of_builds(
    missing: Missing, builds: Sequence[Build], lacking: Sequence[str], cpu: str
) -> tuple[Reason, str] | None:
    """Return what the lack of an operator or symbol says that this machine needs; ``None`` where it
    is not only in builds that this CPU cannot run, which is the release's own fault."""
    having = [build for build in builds if build.has_it]
    sets = dict.fromkeys(build.instruction_set for build in having if build.instruction_set)
    thing = f"the {missing.kind} {missing.name}"
    if sets and all(name in lacking for name in sets):
        why = f"{' or '.join(sets)}: {thing} is in {_names(having)}, not in the build for {cpu}"
        return Reason.NO_INSTRUCTION, why
    if having and not sets and lacking and any(build.instruction_set for build in builds):
        return Reason.NO_INSTRUCTION, f"another CPU than {cpu}: {thing} is only in {_names(having)}"
    return None


def _names(builds: Sequence[Build]) -> str:
    names = ", ".join(build.library for build in builds[:SHOWN])
    return f"{names} and {len(builds) - SHOWN} more" if len(builds) > SHOWN else names
