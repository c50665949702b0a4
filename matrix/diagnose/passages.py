"""The lines of a log that may say what went wrong. A log is untrusted, and may be huge.

All of it is read, in blocks, and only lines that hold a literal are kept, of each a bounded number.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from io import BytesIO
from typing import BinaryIO

import ahocorasick_rs
import msgspec

from matrix.diagnose.endings import EXCEPTION, Ending, ending_of

BLOCK = 1 << 20
BEFORE = 16_000
"""Bytes before a line that are kept with it: a traceback, mostly."""
LINE = 4_000
"""Bytes of a line on each side of what was looked for."""
FIRST, LAST = 2, 4
"""How many lines with the same literal are kept, of those at the beginning and at the end."""
ENDING = 100_000
"""Bytes at the end of a log in which its last exception is looked for."""
_ESCAPE = re.compile(
    rb"\x1b(?:\[[0-?]{0,20}[ -/]{0,4}[@-~]|\][^\x07\x1b]{0,500}(?:\x07|\x1b\\)|[(-/].)"
)
"""Colours, links and whatever else is meant for a terminal."""
_QUOTES = {
    "‘": "'", "’": "'", "“": '"', "”": '"', "&#39;": "'", "&#x27;": "'", "&quot;": '"',
    "&lt;": "<", "&gt;": ">", "&amp;": "&",
}  # fmt: skip
"""What web pages and chats make of plain characters."""
_PLAIN = [(odd.encode(), plain.encode()) for odd, plain in _QUOTES.items()]
_ODD = re.compile(rb"\xe2\x80[\x98-\x9d]|&(?:#|quot|[lg]t);?")
_IN_TRACEBACK = re.compile(
    r"""File\ "[^"\n]{1,1000}",\ line\ \d{1,9},\ in\ .*\n.*\Z   # after the line of a frame
    |   (?:-{1,8}>|❱)\ {0,8}\d{1,9}\ .*\Z                     # as IPython and Rich point to it
    |   Traceback\ \(most\ recent\ call\ last\):\s*\Z          # an error that goes on with one
    """,
    re.VERBOSE,
)


class Passage(msgspec.Struct, frozen=True):
    """A line of a log that holds something looked for, with what stands before it."""

    position: int
    """Bytes before the line, in the log."""
    line: str
    before: str = ""

    @property
    def in_exception(self) -> bool:
        """Whether it belongs to what an exception says, which may have several lines, or to the
        source that a traceback shows."""
        near = [*self.before.splitlines()[-12:], self.line]
        shown = "\n".join(near[-2:])
        return bool(EXCEPTION.search("\n".join(near)) or _IN_TRACEBACK.search(shown))


class Excerpt(msgspec.Struct, frozen=True):
    """What is kept of a log."""

    passages: list[Passage] = []
    """In the order in which they stand."""
    ending: Ending = Ending()


def excerpt_of_text(text: str, literals: Iterable[str]) -> Excerpt:
    """Return what is kept of a text that is at hand."""
    return read_excerpt(BytesIO(text.encode("utf-8", "replace")), literals)


def plain_text(text: str) -> str:
    """Return a text as its lines are compared: no colours, plain quotes."""
    return _text(_plain(text.encode("utf-8", "replace")))


def read_excerpt(stream: BinaryIO, literals: Iterable[str]) -> Excerpt:
    """Return what is kept of a log, which is read to its end: lines that hold one of the literals.

    Bytes that are no UTF-8 are passed over; UTF-16, which PowerShell writes, is told by its mark.
    """
    automaton = _automaton(tuple(dict.fromkeys(literals)))
    hits: dict[int, list[Passage]] = {}
    window, offset, done = b"", 0, 0
    for block, is_last in _with_last(_blocks(stream)):
        window += block
        # A line that goes on in the next block is looked at when all of it is there.
        end = len(window) - (0 if is_last else LINE)
        for number, start in _hits(automaton, window, done, end):
            passages = hits.setdefault(number, [])
            passages.append(_passage(window, start, offset))
            if len(passages) > FIRST + LAST:
                del passages[FIRST]
        cut = max(end - max(BEFORE, ENDING) - LINE, 0)
        window, offset, done = window[cut:], offset + cut, max(end - cut, 0)
    unique = {passage.position: passage for passages in hits.values() for passage in passages}
    passages = [unique[position] for position in sorted(unique)]
    return Excerpt(passages, ending_of(_text(window[-ENDING:])))


def _hits(
    automaton: ahocorasick_rs.BytesAhoCorasick, window: bytes, begin: int, end: int
) -> Iterator[tuple[int, int]]:
    """Yield number and place of the literals that begin between two places of a window, one for
    each line: of each literal the first ones and the last ones."""
    places: dict[int, list[int]] = {}
    lines: dict[int, int] = {}
    line = -1
    for number, start, _ in automaton.find_matches_as_indexes(window[begin:]):
        place = begin + start
        if place >= end:
            break
        if place > line:
            line = window.find(b"\n", place)
            line = line if line >= 0 else len(window)
        if lines.get(number) == line:
            continue
        lines[number] = line
        kept = places.setdefault(number, [])
        kept.append(place)
        if len(kept) > FIRST + LAST:
            del kept[FIRST]
    for number, kept in places.items():
        for place in kept:
            yield number, place


@lru_cache(maxsize=4)
def _automaton(literals: tuple[str, ...]) -> ahocorasick_rs.BytesAhoCorasick:
    return ahocorasick_rs.BytesAhoCorasick(
        [literal.encode() for literal in literals],
        ahocorasick_rs.MatchKind.LeftmostLongest,
        implementation=ahocorasick_rs.Implementation.DFA,
    )


def _blocks(stream: BinaryIO) -> Iterator[bytes]:
    """Yield a log in blocks of plain UTF-8, whatever it is in."""
    block = stream.read(BLOCK)
    if block.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        decoder = codecs.getincrementaldecoder("utf-16")("replace")
        while block:
            yield _plain(decoder.decode(block).encode("utf-8", "replace"))
            block = stream.read(BLOCK)
    while block:
        yield _plain(block)
        block = stream.read(BLOCK)


def _plain(block: bytes) -> bytes:
    """Return a block without colours, with plain quotes."""
    # A single byte is found many times faster than a text, and mostly is not there.
    block = _ESCAPE.sub(b"", block) if b"\x1b" in block else block
    may_differ = b"\xe2" in block or b"&" in block
    if may_differ and b"\0" not in block and _ODD.search(block):
        for odd, plain in _PLAIN:
            block = block.replace(odd, plain)
    return block


def _with_last(blocks: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Yield each block with whether it is the last one."""
    waiting: bytes | None = None
    for block in blocks:
        if waiting is not None:
            yield waiting, False
        waiting = block
    if waiting is not None:
        yield waiting, True


def _passage(window: bytes, start: int, offset: int) -> Passage:
    """Return the passage around a place in a window of a log, which begins at ``offset``."""
    begin = max(window.rfind(b"\n", 0, start) + 1, start - LINE)
    end = window.find(b"\n", start, start + LINE)
    line = window[begin : end if end >= 0 else start + LINE]
    return Passage(offset + begin, _text(line), _text(window[max(begin - BEFORE, 0) : begin]))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace").replace("\r", "")
