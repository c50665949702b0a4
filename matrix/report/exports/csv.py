"""``matrix.csv``: a row for each cell, of which no spreadsheet computes anything."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from matrix.report.exports.rows import COLUMNS, rows
from matrix.report.material import Material
from matrix.untrusted.text import csv_text


def files(material: Material) -> Iterator[tuple[str, bytes]]:
    """Yield ``matrix.csv``."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writeheader()
    for row in rows(material.result):
        writer.writerow(
            {
                name: csv_text(value) if isinstance(value, str) else value
                for name, value in row.items()
            }
        )
    yield "matrix.csv", text.getvalue().encode()
