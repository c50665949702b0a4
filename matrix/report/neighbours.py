"""Reports of other profiles beside a report, as ``reports/`` and ``reports/gpu/`` are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import msgspec

from matrix.judge.results import PAGE
from matrix.untrusted.reading import UnreadableError, decode, read_file
from matrix.untrusted.text import visible

MOST = 200
"""Of a folder, so many entries are looked at."""
MOST_BYTES = 100_000_000
NAME_CHARS = 60


class _Head(msgspec.Struct):
    """What counts of the ``matrix.json`` of another report."""

    profile: str


def neighbours(folder: Path, own: str) -> dict[str, str]:
    """Return profile -> where its page lies from the report in a folder, as a relative link.

    ``own`` is the profile of that report. Looked at are folders in it, the folder that it lies in
    and, where that is a report, the others there. What cannot be read is no report; of two of one
    profile the first by name counts. The names are visible text.
    """
    places = {f"{_quoted(inner)}/{PAGE}": inner for inner in _folders(folder)}
    above = folder.resolve().parent
    if _profile(above) is not None:
        beside = (inner for inner in _folders(above) if inner.name != folder.resolve().name)
        places[f"../{PAGE}"] = above
        places |= {f"../{_quoted(inner)}/{PAGE}": inner for inner in beside}
    listed: dict[str, str] = {}
    for link, place in places.items():
        profile = _profile(place)
        if profile is not None and profile != own:
            listed.setdefault(profile, link)
    return dict(sorted(listed.items()))


def _folders(folder: Path) -> Iterator[Path]:
    try:
        inner = [entry for entry in sorted(folder.iterdir())[:MOST] if entry.is_dir()]
    except OSError:
        return
    yield from inner


def _quoted(folder: Path) -> str:
    return quote(os.fsencode(folder.name))


def _profile(folder: Path) -> str | None:
    """Return the profile of the report in a folder; ``None`` where there is none."""
    try:
        if not (folder / PAGE).is_file():
            return None
        head = decode(read_file(folder / "matrix.json", MOST_BYTES), _Head)
    except (OSError, UnreadableError):
        return None
    return visible(head.profile, NAME_CHARS)
