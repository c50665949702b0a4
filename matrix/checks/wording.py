"""How a check's message names many things, and amounts."""

from __future__ import annotations

from collections.abc import Sequence

SHOWN = 3
_LONGEST = 300


def some(names: Sequence[str]) -> str:
    """Return the first few names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(plain, names[:SHOWN])) + more


def plain(text: str) -> str:
    """Return a text from a file or a log so that it fits a line and steers no terminal."""
    short = text[:_LONGEST]
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in short)


def count(number: int, thing: str) -> str:
    """Return ``1 layer``, ``2 layers``."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def amount(size: float) -> str:
    """Return bytes in the decimal unit that fits them: ``1.23 MB``."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(size) >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size:.0f} bytes"
