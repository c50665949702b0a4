"""From judged cells to the report: ``index.html``, pages of the cells, ``matrix.json`` with its
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
from matrix.report.at_once import at_once
from matrix.report.exports import exports
from matrix.report.locks import FOLDER as LOCKS
from matrix.report.material import Material
from matrix.report.neighbours import neighbours
from matrix.report.pairs import FILE as PAIRS
from matrix.report.pairs_page import pairs_page
from matrix.report.plots import FOLDER as PLOTS
from matrix.report.plots import SHEET, plots
from matrix.report.rendering import page
from matrix.report.summary import summary
from matrix.report.table import normalise
from matrix.store.store import write_atomically

FIRSTS = tuple(of.FIRST.encode() for of in (locks, cell_pages, reproducers))
MANY = 2000
"""So many cells are written by a process of their own, beside the rest."""

__all__ = ["PAGE", "Material", "files", "summary", "write"]


def files(material: Material) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the bytes of each file of a report; the page, which links to the others,
    is last."""
    material = material._replace(result=normalise(material.result))
    names = []
    for name, data in chain(cell_pages.cell_files(material), _beside(material)):
        names.append(name)
        yield name, data
    yield PAGE, page(material, names).encode()


def _beside(material: Material) -> Iterator[tuple[str, bytes]]:
    """Yield the files that are neither the page nor of one cell."""
    result = material.result
    yield "matrix.json", encode(result)
    yield SCHEMA_FILE, Path(__file__).with_name(SCHEMA_FILE).read_bytes()
    yield from exports(material)
    for name, lock in locks.lock_files(result).items():
        yield name, lock.encode()
    if material.pairs:
        yield PAIRS, pairs_page(material.pairs).encode()
    yield from plots(material)


def write(material: Material, directory: str | os.PathLike[str]) -> list[str]:
    """Write the report into ``directory``, each file whole or not at all, the page last.

    Returns the names of the files. Those of an earlier report that are in this one no more are
    removed.
    """
    folder, names = Path(directory), []
    beside = neighbours(folder, material.result.profile)
    material = material._replace(result=normalise(material.result), neighbours=beside)
    many = len(material.result.cells) >= MANY
    with at_once(lambda: _write_cells(material, folder), forked=many) as cells:
        for name, data in _beside(material):
            write_atomically(folder / name, data)
            names.append(name)
        index = page(material, names).encode()
        names += cells()
    write_atomically(folder / PAGE, index)
    names.append(PAGE)
    written = set(names)
    for file in chain.from_iterable((folder / of).glob("*") for of in (LOCKS, CELLS, PLOTS)):
        if f"{file.parent.name}/{file.name}" not in written and _is_ours(file):
            file.unlink()
    return names


def _write_cells(material: Material, folder: Path) -> list[str]:
    """Write the files of the cells, each whole or not at all, but those that are there with the
    same bytes; return their names.

    They are not synced: after a crash of the machine they are made again, as the page is.
    """
    names: list[str] = []
    if not material.result.cells:
        return names
    there = {f"{CELLS}/{file.name}" for file in (folder / CELLS).glob("*")}
    unfinished = folder / CELLS / f".{os.getpid()}.unfinished"
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    for name, data in cell_pages.cell_files(material):
        names.append(name)
        file = folder / name
        if name not in there or file.read_bytes() != data:
            unfinished.write_bytes(data)
            unfinished.replace(file)
    return names


def _is_ours(file: Path) -> bool:
    """Return whether an earlier report left a file; somebody else's are let be."""
    if not file.is_file():
        return False
    with file.open("rb") as handle:
        begin = handle.read(2000)
    return begin.startswith(FIRSTS) or SHEET in begin
