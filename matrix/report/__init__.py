"""From judged cells to the report: ``index.html``, a page for each cell, ``matrix.json`` with its
schema, the formats of other programs (:mod:`matrix.report.exports`), ``plots/``, and
``locks/``, by which environments can be installed again.

Pure rendering: the same material gives the same bytes, whatever the order of its cells, the clock
or the machine. Whatever came out of a package, a model or a log is shown as text and nothing else
(:mod:`matrix.untrusted.text`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from matrix.judge.document import encode
from matrix.judge.results import PAGE, SCHEMA_FILE
from matrix.report import cell_pages, locks, reproducers
from matrix.report.addresses import CELLS
from matrix.report.exports import exports
from matrix.report.locks import FOLDER as LOCKS
from matrix.report.material import Material
from matrix.report.neighbours import neighbours
from matrix.report.plots import FOLDER as PLOTS
from matrix.report.plots import SHEET, plots
from matrix.report.rendering import page
from matrix.report.summary import summary
from matrix.report.table import normalise
from matrix.store.store import write_atomically

FIRSTS = tuple(of.FIRST.encode() for of in (locks, cell_pages, reproducers))

__all__ = ["PAGE", "Material", "files", "summary", "write"]


def files(material: Material) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the bytes of each file of a report; the page, which links to the others,
    is last."""
    material = material._replace(result=normalise(material.result))
    names = []
    for name, data in _beside(material):
        names.append(name)
        yield name, data
    yield PAGE, page(material, names).encode()


def _beside(material: Material) -> Iterator[tuple[str, bytes]]:
    result = material.result
    yield "matrix.json", encode(result)
    yield SCHEMA_FILE, Path(__file__).with_name(SCHEMA_FILE).read_bytes()
    yield from exports(material)
    for name, lock in locks.lock_files(result).items():
        yield name, lock.encode()
    yield from cell_pages.cell_files(material)
    yield from plots(material)


def write(material: Material, directory: str | os.PathLike[str]) -> list[str]:
    """Write the report into ``directory``, each file whole or not at all, the page last.

    Returns the names of the files. Those of an earlier report that are in this one no more are
    removed.
    """
    folder, names = Path(directory), []
    material = material._replace(neighbours=neighbours(folder, material.result.profile))
    for name, data in files(material):
        write = _write_unless_there if name.startswith(f"{CELLS}/") else write_atomically
        write(folder / name, data)
        names.append(name)
    kept = set(names)
    for file in chain.from_iterable((folder / of).glob("*") for of in (LOCKS, CELLS, PLOTS)):
        if f"{file.parent.name}/{file.name}" not in kept and _is_ours(file):
            file.unlink()
    return names


def _write_unless_there(file: Path, data: bytes) -> None:
    """Write one of many files whole or not at all, unless it is there with the same bytes.

    It is not synced: after a crash of the machine it is made again, as the page is.
    """
    try:
        if file.stat().st_size == len(data) and file.read_bytes() == data:
            return
    except FileNotFoundError:
        file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{os.getpid()}.unfinished")
    unfinished.write_bytes(data)
    unfinished.replace(file)


def _is_ours(file: Path) -> bool:
    """Return whether an earlier report left a file; somebody else's are let be."""
    if not file.is_file():
        return False
    with file.open("rb") as handle:
        begin = handle.read(2000)
    return begin.startswith(FIRSTS) or SHEET in begin
