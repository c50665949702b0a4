"""``feed.xml``: an Atom feed of the runs in which cells came out otherwise than before."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from typing import NamedTuple
from urllib.parse import quote
from xml.etree import ElementTree as ET

from matrix.history.changes import Changes
from matrix.judge.results import PAGE
from matrix.report.material import Material
from matrix.untrusted.text import counted, visible

FILE = "feed.xml"
ATOM = "http://www.w3.org/2005/Atom"
TAG = "tag:quantization-compatibility-matrix,2026:"
"""How each id begins (RFC 4151): of the project, not of a host."""
TITLE = "Quantization compatibility matrix"
ENTRIES = 60
LINES = 30
"""Of what changed, in one entry."""
LINE_CHARS = 300


class Entry(NamedTuple):
    """One run in which something changed."""

    run: str
    updated: str
    title: str
    lines: list[str]


def files(material: Material) -> Iterator[tuple[str, bytes]]:
    """Yield ``feed.xml``, the newest run first."""
    result = material.result
    profile = visible(result.profile, 60)
    feed = ET.Element("feed", xmlns=ATOM)
    _add(feed, "id", _id(result.profile))
    _add(feed, "title", f"{TITLE}, {profile}")
    _add(feed, "updated", _time(result.finished))
    _add(ET.SubElement(feed, "author"), "name", TITLE)
    ET.SubElement(feed, "link", rel="self", href=FILE)
    ET.SubElement(feed, "link", rel="alternate", type="text/html", href=PAGE)
    for entry in list(_entries(material))[:ENTRIES]:
        element = ET.SubElement(feed, "entry")
        _add(element, "id", _id(result.profile, entry.run))
        _add(element, "title", f"{profile}: {entry.title}")
        _add(element, "updated", entry.updated)
        ET.SubElement(element, "link", rel="alternate", type="text/html", href=PAGE)
        lines = entry.lines[:LINES]
        more = len(entry.lines) - len(lines)
        _add(element, "content", "\n".join([*lines, *([f"and {more} more"] if more else [])]))
    ET.indent(feed, " ")
    yield FILE, ET.tostring(feed, encoding="utf-8", xml_declaration=True) + b"\n"


def _entries(material: Material) -> Iterator[Entry]:
    """Yield the runs in which something changed, the newest first."""
    finished = material.result.finished
    last = material.nights[-1].run if material.nights else "".join(material.result.runs[-1:])
    if material.changes and material.changes.groups:
        yield Entry(last, _time(finished), *_in_words(material.changes))
    changed = _changed(material)
    for night in reversed(material.nights):
        lines = changed.get(night.run, [])
        if lines and night.run != last:
            number = counted(len(lines), "cell")
            yield Entry(night.run, _time(night.day), f"{number} came out otherwise", lines)


def _in_words(changes: Changes) -> tuple[str, list[str]]:
    """Return the title and the lines of an entry, a line for each group."""
    lines = []
    for group in changes.groups:
        cells = ", ".join(visible(cell, 150) for cell in group.cells[:3])
        more = len(group.cells) - 3
        and_more = f" and {more} more" if more > 0 else ""
        title = visible(group.title, LINE_CHARS)
        lines.append(f"{group.kind}: {title}: {cells}{and_more}")
    number = counted(len(lines), "change")
    return f"{number} since {visible(changes.old, 100)}", lines


def _changed(material: Material) -> dict[str, list[str]]:
    """Return run -> a line for each cell that came out otherwise in it than before."""
    changed: dict[str, list[str]] = {}
    for cell, verdicts in sorted(material.past.items()):
        for old, new in pairwise(verdicts):
            line = f"{visible(cell, LINE_CHARS)}: {old.verdict} -> {new.verdict}"
            changed.setdefault(new.run, []).append(line)
    return changed


def _add(parent: ET.Element, name: str, text: str) -> None:
    ET.SubElement(parent, name).text = text


def _id(*words: str) -> str:
    return TAG + "/".join(quote(word[:200], safe="", errors="replace") for word in words)


def _time(text: str) -> str:
    """Return an ISO time or day as Atom wants it; 1970 where it is none."""
    try:
        time = datetime.fromisoformat(text)
        utc = time.replace(tzinfo=time.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        utc = datetime(1970, 1, 1, tzinfo=UTC)
    return utc.isoformat()
