"""Texts that were cut to a width, by a terminal within words or by a mail between them. Pure."""

from __future__ import annotations

import re

NARROWEST, WIDEST = 40, 250
"""Characters of the longest line of a text that may have been cut."""
_HEAD = 6
"""Characters in which lines are alike that each begin a record of a log."""
_RECORD = re.compile(
    r' {4}|\s*(?:Traceback \(|File "|(?:DEBUG|INFO|WARNING|ERROR|CRITICAL)\b'
    r"|(?:\w{1,80}\.){0,8}[A-Z]\w{0,80}(?:Error|Exception)\b)"
)


def unwrapped(text: str) -> list[str]:
    """Return a text with its lines joined in each way in which they may have been cut: full lines
    as they are, and lines that the next word would have made too long, by a space."""
    lines = text.splitlines()
    width = max(map(len, lines), default=0)
    if not NARROWEST <= width <= WIDEST:
        return []
    ways = [_joined(lines, width, is_within_words=way) for way in (True, False)]
    return [joined for joined in dict.fromkeys(ways) if joined != "\n".join(lines)]


def _joined(lines: list[str], width: int, *, is_within_words: bool) -> str:
    records: list[list[str]] = []
    before = ""
    for line in lines:
        last, first = before.rpartition(" ")[2], line.partition(" ")[0]
        is_cut = len(before) == width if is_within_words else len(before) + len(first) >= width
        if records and is_cut and not _is_record(line, records[-1][0]):
            # Between words only one is cut that is longer than a line.
            is_one_word = is_within_words or len(last) + len(first) > width
            records[-1].append(line if is_one_word else f" {line}")
        else:
            records.append([line])
        before = line
    return "\n".join("".join(parts) for parts in records)


def _is_record(line: str, earlier: str) -> bool:
    """Return whether a line begins a record of its own, as the one before it did."""
    return line[:_HEAD] == earlier[:_HEAD] or _RECORD.match(line) is not None
