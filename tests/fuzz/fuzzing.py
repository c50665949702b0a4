"""What each property here is held to: its corpus first, a bound on work, and what broke it kept."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import Any

from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis.strategies import SearchStrategy

CORPUS = Path(__file__).parent / "corpus"
BROKE = Path(".hypothesis") / "fuzz"
"""Where the smallest input lies that broke a property, which git ignores."""
CALLS, CALLS_PER_BYTE = 400_000, 100
"""Calls that reading an input may take: a count, because it is the same on every machine."""
MOST_BYTES = 300_000_000
"""What it may add to the memory of this process."""
MOST_RESERVED = 3_000_000_000
"""What it may ask the system for; pyarrow asks for a gigabyte and leaves most of it unused."""
STATM = Path("/proc/self/statm")
Property = Callable[..., None]
_EXAMPLES = {"quick": 40, "minute": 240, "long": 600}
_EFFORT = os.environ.get("MATRIX_FUZZ", "quick")
"""``quick`` among the unit tests, ``minute`` in CI; ``long`` tries others each time."""
SETTINGS = settings(
    max_examples=_EXAMPLES[_EFFORT],
    derandomize=_EFFORT != "long",
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[phase for phase in Phase if phase is not Phase.explain],
    print_blob=False,
    report_multiple_bugs=False,
)


class TooMuchWork(BaseException):
    """Reading took more calls than it may; no ``except Exception`` hides it."""


def fuzzed(
    kind: str, inputs: SearchStrategy[bytes], calls: int = CALLS
) -> Callable[[Property], Property]:
    """Return a decorator of a property of bytes, ``data``: it must hold for whatever they are.

    Those in ``corpus/<kind>`` come first. ``calls`` is what the smallest input may take.
    """

    def decorate(holds: Property) -> Property:
        @wraps(holds)
        def kept(data: bytes, **fixtures: Any) -> None:
            try:
                with bounded(calls + CALLS_PER_BYTE * len(data)):
                    holds(data, **fixtures)
            except (Exception, SystemExit, TooMuchWork) as error:
                error.add_note(f"add it to tests/fuzz/corpus/{kind}: {_keep(kind, data)}")
                raise

        test = SETTINGS(given(data=inputs)(kept))
        for file in sorted((CORPUS / kind).glob("*")):
            test = example(data=file.read_bytes())(test)
        return test

    return decorate


def _keep(kind: str, data: bytes) -> Path:
    """Write down what broke a property, in place of what did before: the smallest comes last."""
    file = BROKE / kind
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return file


@contextmanager
def bounded(calls: int) -> Iterator[None]:
    """Raise :class:`TooMuchWork` after so many calls, and where memory grew beyond its bound.

    ``MemoryError`` is raised where it would have grown far beyond.
    """
    left = calls

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal left
        if event in ("call", "c_call"):
            left -= 1
            if left < 0:
                sys.setprofile(None)
                raise TooMuchWork(f"more than {calls} calls")

    reserved, resident = _pages(5), _pages(1)
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (reserved + MOST_RESERVED, hard))
    peak, before = _peak(), sys.getprofile()
    sys.setprofile(count)
    try:
        yield
    finally:
        sys.setprofile(before)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
    if _peak() > max(peak, resident + MOST_BYTES):
        raise TooMuchWork(f"{(_peak() - resident) // 10**6} MB of memory")


def _pages(column: int) -> int:
    """Return a number of ``/proc/self/statm`` in bytes: 1 what is in memory, 5 all data."""
    return int(STATM.read_text("ascii").split()[column]) * resource.getpagesize()


def _peak() -> int:
    """Return the most bytes that this process ever had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
