"""``matrix.csv``: a row for each cell, of which no spreadsheet computes anything."""

from __future__ import annotations

import csv
from collections.abc import Iterator

from matrix.report.exports.frame import frame
from matrix.report.material import Material
from matrix.untrusted.text import csv_text


def files(material: Material) -> Iterator[tuple[str, bytes]]:
    """Yield ``matrix.csv``."""
    cells = frame(material.result, csv_text)
    text: str = cells.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    yield "matrix.csv", text.encode()
