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

from collections.abc import Collection, Sequence
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
        self._is_matched: dict[str, bool] = {}

    def fit(self, module: str) -> Fit:
        """Return how closely they mean a module."""
        if module in self._names:
            return Fit.NAME
        if self._patterns and module not in self._is_matched:
            self.match([module])
        if self._is_matched.get(module):
            return Fit.PATTERN
        is_linear = not module.endswith(_NO_LINEARS)
        return Fit.CLASS if is_linear and LINEAR in self._names else Fit.NONE

    def match(self, modules: Collection[str]) -> None:
        """Run the expressions on many modules: each is compiled anew whenever it is run."""
        new = [module for module in modules if module not in self._is_matched]
        if not self._patterns or not new:
            return
        short = [module for module in new if len(module) <= MAX_NAME_CHARS]
        self._is_matched |= dict.fromkeys(new, False)
        for pattern in self._patterns:
            self._is_matched |= dict.fromkeys(_matching(pattern, short), True)


def _is_readable(text: str) -> bool:
    import pyarrow as pa

    if len(text) > MAX_PATTERN_CHARS:
        return False
    try:
        _matching(text, [""])
    except pa.ArrowInvalid:
        return False
    return True


def _matching(pattern: str, texts: Sequence[str]) -> list[str]:
    """Return the texts whose beginning an expression matches."""
    import pyarrow as pa
    import pyarrow.compute as pc

    matched = pc.match_substring_regex(pa.array(texts, pa.string()), f"^(?:{pattern})").to_pylist()
    return [text for text, is_matched in zip(texts, matched, strict=True) if is_matched]
