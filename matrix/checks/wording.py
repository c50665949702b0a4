"""How a check's message names many things, and amounts. Who shows it makes it visible."""

from __future__ import annotations

from collections.abc import Sequence

SHOWN = 3
_LONGEST = 300


def some(names: Sequence[str]) -> str:
    """Return the first few names, each bounded, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(name[:_LONGEST] for name in names[:SHOWN]) + more


def count(number: int, thing: str) -> str:
    """Return ``1 layer``, ``2 layers``."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def amount(size: float) -> str:
    """Return bytes in the decimal unit that fits them: ``1.23 MB``."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(size) >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size:.0f} bytes"
