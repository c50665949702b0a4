"""``matrix.parquet``: the rows of ``matrix.csv`` with types, for data frames."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from matrix.report.exports.rows import COLUMNS, rows
from matrix.report.material import Material
from matrix.untrusted.text import visible

TYPES = {str: pa.string(), float: pa.float64(), int: pa.int64(), bool: pa.bool_()}
TEXT_CHARS = 2000


def files(material: Material) -> Iterator[tuple[str, bytes]]:
    """Yield ``matrix.parquet``; the same rows give the same bytes by one release of pyarrow."""
    schema = pa.schema([(name, TYPES[kind]) for name, kind in COLUMNS.items()])
    shown = [
        {
            name: visible(value, TEXT_CHARS) if isinstance(value, str) else value
            for name, value in row.items()
        }
        for row in rows(material.result)
    ]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(shown, schema=schema), sink, compression="zstd")
    yield "matrix.parquet", sink.getvalue().to_pybytes()
