"""The smallest difference of what went into a cell in two runs, in words. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Literal

from matrix.history.states import CellState, Head
from matrix.untrusted.reading import UnreadableError, decode
from matrix.untrusted.text import visible

OUR_CHECKS = "our checks"
OUR_SPEC = "our spec"
NOTHING = "nothing changed"
NOT_KNOWN = "what else went in is not known"
UNEXPLAINED = (NOTHING, NOT_KNOWN)
MACHINE = "machine"
PACKAGES = 3
"""How many packages of a side are named."""
TEXT_CHARS = 200

Side = Literal["quantizer", "engine"]
_SIDES: tuple[Side, Side] = ("quantizer", "engine")


def differences(old: CellState, new: CellState, heads: tuple[Head, Head]) -> list[str]:
    """Return a line for each input that differs, the machine first, then by sides.

    Where none does, it says so; or that not all is known, as of a published table.
    """
    if same_evidence(old, new):
        return [OUR_CHECKS if heads[0].judging != heads[1].judging else OUR_SPEC]
    lines = list(_machine(old, new, heads))
    lines += [
        f"{word} changed"
        for word, name in (("model", "model"), ("scheme", "scheme"))
        if _differ(getattr(old, name), getattr(new, name))
    ]
    for side in _SIDES:
        lines += _of_side(side, old, new)
    if not old.evidence or not new.evidence:
        lines.append(NOT_KNOWN)
    elif _differ(heads[0].judging, heads[1].judging):
        lines.append(OUR_CHECKS)
    return lines or [NOTHING]


def same_evidence(old: CellState, new: CellState) -> bool:
    """Whether both were judged by the same observations of packages."""
    return bool(old.evidence) and old.evidence == new.evidence


def other_machine(old: CellState, new: CellState) -> bool:
    """Whether the CPU or the cards are others, where it is known what both ran on."""
    return _differ(old.device, new.device) or _differ(old.made_on, new.made_on)


def other_packages(old: CellState, new: CellState) -> bool:
    """Whether the packages of a side are others, as far as they are known."""
    return any(line for side in _SIDES for line in _packages_of(side, old, new))


def _machine(old: CellState, new: CellState, heads: tuple[Head, Head]) -> Iterator[str]:
    if _differ(old.device, new.device):
        yield f"{MACHINE}: {_arrow(old.device, new.device)}"
    if _differ(old.made_on, new.made_on) and (old.device, new.device) != (old.made_on, new.made_on):
        yield f"{MACHINE} of the quantizer: {_arrow(old.made_on, new.made_on)}"
    then, now = (head.machine for head in heads)
    for name in ("system", "driver"):
        if _differ(then.get(name, ""), now.get(name, "")):
            yield f"{name}: {_arrow(then[name], now[name])}"


def _of_side(side: Side, old: CellState, new: CellState) -> Iterator[str]:
    """Yield what differs of one environment; its lock only where no package tells why."""

    def both(name: str) -> tuple[str, str]:
        return getattr(old, f"{side}_{name}"), getattr(new, f"{side}_{name}")

    if _differ(*both("resolution")):
        yield f"{side}: resolution {_arrow(*both('resolution'))}"
    if _differ(*both("python")):
        yield f"{side}: python {_arrow(*both('python'))}"
    packages = list(_packages_of(side, old, new))
    for line in packages[:PACKAGES]:
        yield f"{side}: {line}"
    if len(packages) > PACKAGES:
        yield f"{side}: {len(packages) - PACKAGES} more packages"
    for name, word in (("adapter", "our adapter"), ("setup", "options, variables or departures")):
        if _differ(*both(name)):
            yield f"{side}: {word} changed"
    if not packages and _differ(*both("lock")):
        yield f"{side}: lock changed"


def _packages_of(side: Side, old: CellState, new: CellState) -> Iterator[str]:
    name, all_known = f"{side}_packages", bool(old.evidence and new.evidence)
    return _packages(getattr(old, name), getattr(new, name), all_known=all_known)


def _packages(old: str, new: str, *, all_known: bool) -> Iterator[str]:
    """Yield the packages that differ, those that the spec names first.

    A published table has only some: then those that both have are compared.
    """
    then, now = versions_of(old), versions_of(new)
    if not then or not now:
        return
    for name in dict.fromkeys([*now, *then]):
        if then.get(name) != now.get(name) and (all_known or (name in then and name in now)):
            yield visible(f"{name} {then.get(name, 'none')} -> {now.get(name, 'none')}", TEXT_CHARS)


@lru_cache(maxsize=1000)
def versions_of(text: str) -> dict[str, str]:
    """Return name -> version of a side's packages; none where they are not known."""
    try:
        return decode(text.encode(), dict[str, str])
    except UnreadableError:
        return {}


def _differ(old: str, new: str) -> bool:
    """Whether two values differ, both of which are known."""
    return bool(old) and bool(new) and old != new


def _arrow(old: str, new: str) -> str:
    return visible(f"{old} -> {new}", TEXT_CHARS)
