"""The table in the formats of other programs: a module each, pure functions of the material,
or of what is made of it once."""

from __future__ import annotations

from collections.abc import Iterator

from matrix.report.exports import badge, csv, ctrf, feed, junit, markdown, parquet
from matrix.report.exports.cases import cases
from matrix.report.exports.frame import frame
from matrix.report.material import Material


def exports(material: Material) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the bytes of each file; the material's result is normalised."""
    cells, listed = frame(material.result), list(cases(material.result))
    yield from csv.files(cells)
    yield from parquet.files(cells)
    yield from junit.files(material, listed)
    yield from ctrf.files(material, listed)
    for kind in (markdown, badge, feed):
        yield from kind.files(material)
