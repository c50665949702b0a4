"""``matrix.csv``: a row for each cell, of which no spreadsheet computes anything."""

from __future__ import annotations

import csv
from collections.abc import Iterator

import pandas as pd

from matrix.report.exports.frame import shown
from matrix.untrusted.text import csv_text


def files(cells: pd.DataFrame) -> Iterator[tuple[str, bytes]]:
    """Yield ``matrix.csv``."""
    text: str = shown(cells, csv_text).to_csv(
        index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC
    )
    yield "matrix.csv", text.encode()
