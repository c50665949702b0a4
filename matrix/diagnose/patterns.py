"""Texts that are looked for in logs: plain words, in which ``*`` stands for at most one word."""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

SHORTEST = 8
"""Characters of the longest plain part: a shorter one would be in every log."""
_LOOSE = {"*": r"\S{0,200}?", "`": "`?"}
"""Characters that stand for others: chats take a backtick for the mark of code and leave it out."""


class PatternError(ValueError):
    """A text cannot be looked for. The message says why."""


class Pattern(NamedTuple):
    """A text to look for, within one line."""

    text: str
    expression: re.Pattern[str]
    literal: str
    """Its longest part that stands for itself: where this is not, the text is not."""

    @classmethod
    def of(cls, text: str) -> Pattern:
        """Return the pattern of a text; raise :class:`PatternError`."""
        return _pattern(text)


@cache
def _pattern(text: str) -> Pattern:
    parts = re.split("([*`])", text)
    literal = max(parts, key=len)
    if len(literal) < SHORTEST:
        wanted = f"want {SHORTEST} characters without a * or a backtick"
        raise PatternError(f"{text!r} is in too many logs: {wanted}")
    if "\n" in text:
        raise PatternError(f"{text!r} goes over several lines: write a text for each")
    expression = "".join(_LOOSE.get(part) or re.escape(part) for part in parts)
    return Pattern(text, re.compile(expression), literal)
