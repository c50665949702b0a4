"""``matrix.parquet``: the rows of ``matrix.csv`` with types, for data frames."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from matrix.report.exports.frame import COLUMNS, shown
from matrix.untrusted.text import visible

TYPES = {"str": pa.string(), "float64": pa.float64(), "Int64": pa.int64(), "bool": pa.bool_()}
TEXT_CHARS = 2000


def files(cells: pd.DataFrame) -> Iterator[tuple[str, bytes]]:
    """Yield ``matrix.parquet``; the same rows give the same bytes by one release of pyarrow."""
    schema = pa.schema([(name, TYPES[kind]) for name, kind in COLUMNS.items()])
    texts = shown(cells, partial(visible, limit=TEXT_CHARS))
    table = pa.Table.from_pandas(texts, schema=schema, preserve_index=False)
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(), sink, compression="zstd")
    yield "matrix.parquet", sink.getvalue().to_pybytes()
