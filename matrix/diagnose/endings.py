"""How a log ends: the exception that ended it, and from where on it is about that. Pure.

A program goes on after many exceptions: packages catch them and log them. What ended it is the
last one that is no consequence of an earlier one.
"""

from __future__ import annotations

import re

import msgspec

EXCEPTION = re.compile(
    r'(?:^|(?<!except)(?<!raise)[\s\])}|:"]|\\n)(?:[A-Za-z_]\w{0,80}\.){0,8}'
    r"(?:Exception|[A-Z]\w{0,80}(?:Error|Exception|Interrupt|Exit|Expired|Timeout|OutOfResources))"
    r"(?::.{0,1000}|$|\\n)"
    r"|^.{0,200}?(?:Segmentation fault|Fatal Python error: .{0,200}|\(core dumped\))",
    re.MULTILINE,
)
"""A line that says which exception was raised, behind whatever a logger puts before it, or that
the process crashed."""
_TRACEBACK = "Traceback (most recent call last)"
_FRAME = re.compile(r'(?:", line \d|\.py(?::\d{1,9})?[:,]? in )')
"""A frame of a traceback of which the beginning was cut off."""
_CHAIN = (
    "The above exception was the direct cause of the following exception",
    "During handling of the above exception, another exception occurred",
)
"""What Python writes between an exception and the one that came of it."""
_CONSEQUENCE = re.compile(
    r"\b(?:SystemExit|KeyboardInterrupt|CancelledError|EOFError|BrokenPipeError"
    r"|Connection\w{0,20}Error|CalledProcessError|ChildFailedError|ProcessRaisedException"
    r"|ActorDiedError|EngineDeadError|RayTaskError|\w{0,20}DeadError)\b"
    r"|\b(?:above|root cause|died|is dead|terminated|exited|crashed|was killed"
    r"|initialization failed|failed to start|could not be started|startup failed)\b"
    r"|Fatal Python error: Aborted\b",
    re.IGNORECASE,
)
"""An exception that says of another process, or of an earlier exception, that it ended; and what
Python writes where compiled code ended the process, which says why before."""
_UNRAISABLE = "Exception ignored in"
"""What Python writes where a destructor fails, mostly of what was not made whole."""
_NEAR = 300
"""Characters before a traceback in which Python says what it came of."""


class Ending(msgspec.Struct, frozen=True):
    """The end of a log."""

    text: str = ""
    exception: str = ""
    """The last line that says which exception was raised; empty where none does."""
    failure: str = ""
    """From the beginning of what ended it: the traceback of the last exception that is no
    consequence, with those that it came of. Empty where there is no such."""

    def is_about(self, line: str) -> bool:
        """Return whether a line belongs to what ended the log, or nothing is told apart there."""
        return not self.failure or line in self.failure


def ending_of(text: str) -> Ending:
    """Return what the end of a log says of how it ended."""
    exceptions = list(EXCEPTION.finditer(text))
    if not exceptions:
        return Ending(text)
    last = exceptions[-1][0].strip()
    begins = [_begin(text, exceptions, number) for number in range(len(exceptions))]
    for number in reversed(range(len(exceptions))):
        near = text[max(begins[number] - _NEAR, 0) : begins[number]]
        if _UNRAISABLE in near or _CONSEQUENCE.search(exceptions[number][0]):
            continue
        begin = begins[number]
        while number and any(mark in text[max(begin - _NEAR, 0) : begin] for mark in _CHAIN):
            number -= 1
            begin = begins[number]
        return Ending(text, last, text[begin:])
    return Ending(text, last)


def _begin(text: str, exceptions: list[re.Match[str]], number: int) -> int:
    """Return where the traceback of an exception begins; where it has none, its line."""
    start = exceptions[number].start()
    earlier = exceptions[number - 1].end() if number else 0
    traceback = text.rfind(_TRACEBACK, earlier, start)
    if traceback < 0 and (frame := _FRAME.search(text, earlier, start)):
        traceback = frame.start()
    return text.rfind("\n", 0, traceback if traceback >= 0 else start + 1) + 1
