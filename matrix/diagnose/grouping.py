"""Failures that no known issue explains, grouped by what they have in common. Pure."""

from __future__ import annotations

import re

VERSION = 1
"""Of the way in which a signature is made: those of two versions cannot be compared."""
_FRAME = re.compile(
    r'File "[^"\n]{0,1000}?(?:site|dist)-packages/([^"\n]{1,1000})", line \d{1,9}, in (.{0,200})'
)
"""A frame of a traceback in an installed package: its path there, and the function."""
_UNUSUAL = re.compile(r"[^\w<>.]")
_FRAMEWORK = "torch/"
"""Its frames are on the way to every failure; what came to fail stands before them."""


def signature_of(exception: str, traceback: str) -> str:
    """Return what failures by one cause share: the exception's type, and the innermost frame of a
    package that raised it; empty where no package did.

    Line numbers, addresses and the message are left out: they differ from release to release, and
    from model to model.
    """
    frames = _FRAME.findall(traceback)
    inner = [frame for frame in frames if not frame[0].startswith(_FRAMEWORK)]
    if not exception or not inner:
        return ""
    path, function = inner[-1]
    return f"{VERSION}:{exception.rpartition('.')[2]} in {path}, {_UNUSUAL.sub('', function)}"
