"""From judged cells to the report: ``index.html``, ``matrix.md``, ``matrix.csv``, ``matrix.json``
with its schema, and ``locks/``, by which what works can be installed again.

Pure rendering: the same ``MatrixResult`` gives the same bytes, whatever the
order of its cells, the clock or the machine. Whatever came out of a package, a model or a log is
shown as text and nothing else (:mod:`matrix.untrusted.text`).
"""

from __future__ import annotations

import csv
import json
import os
import re
from pathlib import Path

import msgspec

from matrix.judge.results import PAGE, SCHEMA_FILE, CanaryState, MatrixResult
from matrix.pipeline.outcomes import Verdict
from matrix.report.causes import Cause, causes
from matrix.report.locks import FIRST, FOLDER, lock_files
from matrix.report.rendering import documents
from matrix.report.table import SYMBOLS, counts, frame, new_releases, normalise
from matrix.store.store import write_atomically
from matrix.untrusted.text import csv_text, visible

SUMMARY_CAUSES = 5
LINE_CHARS = 300
CAUSE_CHARS = 200

__all__ = ["PAGE", "render", "summary", "write"]


def render(result: MatrixResult) -> dict[str, str]:
    """Return the report's texts by file name; the page, which links to the others, is last."""
    ordered = normalise(result)
    text, page = documents(ordered)
    return {
        "matrix.json": _json(ordered),
        SCHEMA_FILE: Path(__file__).with_name(SCHEMA_FILE).read_text(encoding="utf-8"),
        "matrix.csv": _csv(ordered),
        "matrix.md": text,
        **lock_files(ordered),
        PAGE: page,
    }


def write(result: MatrixResult, directory: str | os.PathLike[str]) -> list[str]:
    """Write the report into ``directory``, each file whole or not at all, the page last.

    Returns the names of the files.
    """
    folder = Path(directory)
    texts = render(result)
    for name, text in texts.items():
        write_atomically(folder / name, text.encode())
    for file in (folder / FOLDER).glob("*"):
        if f"{FOLDER}/{file.name}" not in texts and _is_ours(file):
            file.unlink()
    return list(texts)


def _is_ours(file: Path) -> bool:
    """Return whether an earlier report left a lock; somebody else's in that folder are let be."""
    if not file.is_file():
        return False
    with file.open("rb") as handle:
        return handle.read(len(FIRST)) == FIRST.encode()


def summary(result: MatrixResult, directory: str | os.PathLike[str] = "reports") -> list[str]:
    """Return the last lines that a run prints, each safe for a terminal."""
    ordered = normalise(result)
    number = counts(ordered.cells)
    listed = causes(ordered)
    is_void = ordered.canaries is CanaryState.VOID
    new = new_releases(ordered)
    lines = [
        *([visible(ordered.going_on, LINE_CHARS)] if ordered.going_on else []),
        *(visible(line, LINE_CHARS) for line in ordered.budget),
        f"{len(ordered.cells)} cells in profile {visible(ordered.profile, 60)}: "
        + ", ".join(f"{SYMBOLS[verdict]} {number[verdict]} {verdict}" for verdict in Verdict),
        f"canaries: {visible(ordered.canaries, 60) or 'none in this profile'}"
        + ("; trust no verdict before this is explained" if is_void else ""),
        *(f"  {visible(line, LINE_CHARS)}" for line in ordered.canary_troubles),
    ]
    if new:
        lines.append(f"new releases: {visible(', '.join(new), LINE_CHARS)}")
    if listed:
        lines.append(f"main causes ({min(len(listed), SUMMARY_CAUSES)} of {len(listed)}):")
        for cause in listed[:SUMMARY_CAUSES]:
            lines += _cause_lines(cause, ordered)
    lines += [
        f"known issue that this run contradicts: {visible(line, LINE_CHARS)}"
        for line in ordered.issue_troubles
    ]
    return [*lines, f"report: {Path(directory) / PAGE}"]


def _cause_lines(cause: Cause, result: MatrixResult) -> list[str]:
    """Return a line for a cause, and one for its fix where it is a known issue."""
    first, more = visible(cause.subjects[0], 100), len(cause.subjects) - 1
    where = f"{first} and {more} more" if more else first
    number = len(cause.cells)
    cells = "cell" if number == 1 else "cells"
    known = result.issues.get(cause.issue)
    what = known.title if known else visible(cause.message, CAUSE_CHARS) or cause.reason
    lines = [f"  {number:4} {cells:5}  {what} ({cause.stage or 'no stage'}: {where})"]
    if known:
        lines.append(f"{'':14}fix: {visible(' '.join(known.fix.split()), LINE_CHARS)}")
    return lines


def _json(result: MatrixResult) -> str:
    encoded = msgspec.json.format(msgspec.json.encode(result, order="sorted"), indent=2)
    # ASCII only: a direction mark in a message must not reorder what a pager or a diff shows.
    escaped = re.sub(r"[^\x00-\x7e]", lambda match: json.dumps(match[0])[1:-1], encoded.decode())
    return escaped + "\n"


def _csv(result: MatrixResult) -> str:
    cells = frame(result.cells, result.issues)
    for name in cells.columns:
        if cells[name].dtype.kind != "f":
            cells[name] = [csv_text(value) for value in cells[name]]
    text: str = cells.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    return text
