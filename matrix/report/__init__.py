"""From judged cells to the report: ``index.html``, a page for each cell, ``matrix.md``,
``matrix.csv``, ``matrix.json`` with its schema, ``plots/``, and ``locks/``, by which environments
can be installed again.

Pure rendering: the same material gives the same bytes, whatever the order of its cells, the clock
or the machine. Whatever came out of a package, a model or a log is shown as text and nothing else
(:mod:`matrix.untrusted.text`).
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from matrix.judge.results import PAGE, SCHEMA_FILE, MatrixResult
from matrix.report.locks import FIRST, FOLDER, lock_files
from matrix.report.material import Material
from matrix.report.plots import plots
from matrix.report.rendering import documents
from matrix.report.summary import summary
from matrix.report.table import frame, normalise
from matrix.store.store import write_atomically
from matrix.untrusted.text import csv_text

__all__ = ["PAGE", "Material", "files", "summary", "write"]


def files(material: Material) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the bytes of each file of a report; the page, which links to the others,
    is last."""
    material = material._replace(result=normalise(material.result))
    result = material.result
    text, page = documents(material)
    yield "matrix.json", _json(result).encode()
    yield SCHEMA_FILE, Path(__file__).with_name(SCHEMA_FILE).read_bytes()
    yield "matrix.csv", _csv(result).encode()
    yield "matrix.md", text.encode()
    for name, lock in lock_files(result).items():
        yield name, lock.encode()
    yield from plots(material)
    yield PAGE, page.encode()


def write(material: Material, directory: str | os.PathLike[str]) -> list[str]:
    """Write the report into ``directory``, each file whole or not at all, the page last.

    Returns the names of the files.
    """
    folder, names = Path(directory), []
    for name, data in files(material):
        write_atomically(folder / name, data)
        names.append(name)
    for file in (folder / FOLDER).glob("*"):
        if f"{FOLDER}/{file.name}" not in names and _is_ours(file):
            file.unlink()
    return names


def _is_ours(file: Path) -> bool:
    """Return whether an earlier report left a lock; somebody else's in that folder are let be."""
    if not file.is_file():
        return False
    with file.open("rb") as handle:
        return handle.read(len(FIRST)) == FIRST.encode()


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
