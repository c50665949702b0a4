"""The table in the formats of other programs: a module each, pure functions of the material."""

from __future__ import annotations

from collections.abc import Iterator

from matrix.report.exports import badge, csv, ctrf, feed, junit, markdown, parquet
from matrix.report.material import Material


def exports(material: Material) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the bytes of each file; the material's result is normalised."""
    for kind in (csv, parquet, markdown, junit, ctrf, badge, feed):
        yield from kind.files(material)
