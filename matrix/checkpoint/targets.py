"""Which modules the entries of compressed-tensors' ``targets`` and ``ignore`` mean.

An entry is a name, a class (``Linear``), or ``re:`` and a regular expression that the beginning of
a name must match (compressed-tensors 0.18.0, ``utils/match.py``, ``match_name``; of several entries
a name goes before an expression, and that before a class: ``match_targets``).

An expression is a stranger's. Python's would take exponential time for some, so that RE2 runs it,
in linear time and bounded memory; it comes with pyarrow, which is imported only where there is one.
What RE2 has not (looking ahead, back references), and what is too long or too much, is not run:
``unread`` says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

PATTERN = "re:"
MAX_PATTERNS = 32
MAX_PATTERN_CHARS = 1_000
MAX_NAME_CHARS = 500
LINEAR = "Linear"
_NO_LINEARS = ("embed_tokens", "norm")


class Fit(IntEnum):
    """How closely an entry means a module."""

    NONE = 0
    CLASS = 1
    PATTERN = 2
    NAME = 3


class Targets:
    """Some entries, and which modules they mean.

    Attributes:
        unread: There are expressions among them that are not run.
    """

    def __init__(self, entries: Sequence[str]) -> None:
        self._names = frozenset(entries)
        patterns = sorted({entry[len(PATTERN) :] for entry in entries if entry.startswith(PATTERN)})
        self._patterns = [text for text in patterns[:MAX_PATTERNS] if _is_readable(text)]
        self.unread = len(self._patterns) < len(patterns)
        self._fits: dict[str, Fit] = {}

    def fit(self, module: str) -> Fit:
        """Return how closely they mean a module."""
        if module not in self._fits:
            self._fits[module] = self._fit(module)
        return self._fits[module]

    def _fit(self, module: str) -> Fit:
        if module in self._names:
            return Fit.NAME
        if len(module) <= MAX_NAME_CHARS and any(_matches(p, module) for p in self._patterns):
            return Fit.PATTERN
        is_linear = not module.endswith(_NO_LINEARS)
        return Fit.CLASS if is_linear and LINEAR in self._names else Fit.NONE


def _is_readable(text: str) -> bool:
    import pyarrow as pa

    if len(text) > MAX_PATTERN_CHARS:
        return False
    try:
        _matches(text, "")
    except pa.ArrowInvalid:
        return False
    return True


def _matches(pattern: str, text: str) -> bool:
    import pyarrow as pa
    import pyarrow.compute as pc

    return bool(pc.match_substring_regex(pa.scalar(text), f"^(?:{pattern})").as_py())
