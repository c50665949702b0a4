"""``matrix.md``: what to believe, what changed and why, as short as GitHub takes it.

An issue there has 65,536 characters at most, and the summary of a job 1 MiB. So each table ends at
a row where there is no room for all, and says how many more there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from matrix.judge.results import PAGE
from matrix.report.exports.markdown import overview, tables
from matrix.report.exports.markdown.rows import Section
from matrix.report.material import Material
from matrix.report.table import devices, markers, parts
from matrix.untrusted.text import markdown

LIMIT = 60_000
"""Characters of the whole file."""
HEAD_CHARS = 15_000
LAST_CHARS = 1_000
"""Kept for the line that names what was left out."""
MORE_CHARS = 100
"""Kept for the line below a table that is cut."""


def files(material: Material) -> Iterator[tuple[str, bytes]]:
    """Yield ``matrix.md``."""
    first, listed = _first(overview.head(material.result)), list(_sections(material))
    text, is_whole = _text(first, listed, share=1)
    if not is_whole:
        text, _ = _text(first, listed, share=2)
    yield "matrix.md", text.encode()


def _sections(material: Material) -> Iterator[Section]:
    """Yield the sections of a normalised result, the most telling first."""
    result = material.result
    listed, marks = parts(result), markers(result)
    if material.changes is not None:
        yield overview.changes_section(material.changes)
    yield overview.causes_section(result)
    if result.issue_troubles:
        yield overview.contradictions(result)
    yield from (tables.together_section(part, marks) for part in listed)
    yield overview.departures_section(result, marks)
    yield overview.verdicts_section(result)
    has_devices = len(devices(result.cells)) > 1
    yield from (tables.part_section(part, marks, has_devices=has_devices) for part in listed)
    yield tables.installs_section(result)
    yield tables.standings_section(result)
    yield tables.specifiers_section(result)
    yield tables.cells_section(result)


def _text(first: str, listed: list[Section], share: int) -> tuple[str, bool]:
    """Return the text, and whether no section but the last had to be cut.

    Of the room that is left, each section gets a share, and the last one all: so what stands first
    has most room, and something of all is shown.
    """
    pieces, left_out, is_whole = [first], [], True
    left = LIMIT - LAST_CHARS - len(first)
    for number, section in enumerate(listed, start=1):
        is_last = number == len(listed)
        piece, shown = _cut(section, left if is_last else left // share)
        is_whole = is_whole and (shown == section.number or (is_last and shown > 0))
        if piece:
            pieces.append(piece)
            left -= len(piece) + 1
        else:
            left_out.append(section.title)
    if left_out:
        pieces.append(f"Left out here, see {PAGE}: {markdown(', '.join(left_out), 60)}.\n")
    return "\n".join(pieces), is_whole


def _first(lines: Iterable[str]) -> str:
    """Return the lines above the first heading, as far as there is room."""
    text = ""
    for line in lines:
        if len(text) + len(line) > HEAD_CHARS:
            return f"{text}\nand more: see {PAGE}.\n"
        text += line + "\n"
    return text


def _cut(section: Section, room: int) -> tuple[str, int]:
    """Return a section's text and how many rows it has of all; nothing where none has room."""
    text, shown = f"## {section.title}\n\n{section.before}", 0
    for row in section.rows():
        if len(text) + len(row) + MORE_CHARS > room:
            break
        text, shown = f"{text}{row}\n", shown + 1
    if len(text) + MORE_CHARS > room or (section.number and not shown):
        return "", shown
    more = section.number - shown
    return text + (f"\nand {more} more: see {PAGE}\n" if more else ""), shown
