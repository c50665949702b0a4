"""From judged cells to the report: ``index.html``, a page for each cell, ``matrix.json`` with its
schema, the formats of other programs (:mod:`matrix.report.exports`), and ``locks/``, by which
environments can be installed again.

Pure rendering: the same material gives the same bytes, whatever the order of its cells, the clock
or the machine. Whatever came out of a package, a model or a log is shown as text and nothing else
(:mod:`matrix.untrusted.text`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from matrix.judge.document import encode
from matrix.judge.results import PAGE, SCHEMA_FILE
from matrix.report.exports import exports
from matrix.report.locks import FIRST, FOLDER, lock_files
from matrix.report.material import Material
from matrix.report.neighbours import neighbours
from matrix.report.rendering import page
from matrix.report.summary import summary
from matrix.report.table import normalise
from matrix.store.store import write_atomically

__all__ = ["PAGE", "Material", "files", "summary", "write"]


def files(material: Material) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the bytes of each file of a report; the page, which links to the others,
    is last."""
    material = material._replace(result=normalise(material.result))
    result = material.result
    yield "matrix.json", encode(result)
    yield SCHEMA_FILE, Path(__file__).with_name(SCHEMA_FILE).read_bytes()
    yield from exports(material)
    for name, lock in lock_files(result).items():
        yield name, lock.encode()
    yield PAGE, page(material).encode()


def write(material: Material, directory: str | os.PathLike[str]) -> list[str]:
    """Write the report into ``directory``, each file whole or not at all, the page last.

    Returns the names of the files.
    """
    folder, names = Path(directory), []
    material = material._replace(neighbours=neighbours(folder, material.result.profile))
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
