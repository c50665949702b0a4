"""``matrix.json`` and snapshots of runs, from wherever they come: read, or refused in a line."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import date
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import strategies as st

from matrix.history.folder import History
from matrix.history.snapshots import SnapshotError, pack, read
from matrix.history.states import Snapshot, folder_of
from matrix.judge.advising import Advice, advice_to
from matrix.judge.document import decode, encode
from matrix.judge.likeness import Wish
from matrix.judge.readings import readings
from matrix.judge.results import MatrixResult, SchemeFacts
from matrix.report.table import normalise
from matrix.untrusted.reading import UnreadableError
from tests.fuzz.fuzzing import fuzzed
from tests.fuzz.mutations import as_json, like, like_json
from tests.unit.advice_results import METADATA, TIED, cell, maker, result, vllm
from tests.unit.made_snapshots import cell as state
from tests.unit.made_snapshots import snapshot
from tests.unit.report_results import realistic

FEW = msgspec.structs.replace(realistic(), cells=realistic().cells[::40])
ADVISING = result(cell(maker("autoawq 0.2.9"), vllm("0.32.0")))
FIRST = Path(__file__).parents[1] / "data" / "matrix_schema_1.json"
SAMPLES = [*(encode(normalise(sample)) for sample in (FEW, ADVISING)), FIRST.read_bytes()]
WISH = Wish(model=TIED, scheme=SchemeFacts(method="awq"))
RUN = snapshot(state("a"), state("b"), alarms=["an alarm"])


@fuzzed("documents", like_json(*map(json.loads, SAMPLES)) | like(*SAMPLES))
def test_a_table_is_one_or_refused(data: bytes) -> None:
    with suppress(UnreadableError):
        table = decode(data)
        assert isinstance(table, MatrixResult)
        assert isinstance(advice_to(WISH, table, METADATA, date(2026, 11, 30), 90), Advice)
        assert all(isinstance(line, str) for line in readings(table, TIED, WISH.scheme))
        assert decode(encode(normalise(table)))


TABLE = pq.read_table(pa.BufferReader(pack(RUN.head, RUN.cells)))
HEAD = {**msgspec.to_builtins(RUN.head), "schema": 2}
KINDS = [pa.int64(), pa.float32(), pa.binary(), pa.list_(pa.string()), pa.bool_(), pa.null()]


def written(table: pa.Table, head: bytes) -> bytes:
    """Return a snapshot as it was written before there were digests."""
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({b"matrix": head}), sink)
    return bytes(sink.getvalue())


@st.composite
def tables(draw: st.DrawFn) -> bytes:
    """Give a snapshot with columns of other names and types, and another head."""
    table = TABLE
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, table.num_columns - 1))
        name = draw(st.sampled_from([*table.column_names, "", "x"]))
        empty = pa.nulls(len(table), draw(st.sampled_from(KINDS)))
        table = draw(st.sampled_from([
            table.set_column(place, name, empty), table.set_column(place, name, table[place]),
            table.remove_column(place), pa.concat_tables([table, table]),
        ]))  # fmt: skip
    return written(table, draw(like_json(HEAD)))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("history")


@fuzzed("history", tables() | like(written(TABLE, as_json(HEAD)), pack(RUN.head, RUN.cells)))
def test_a_snapshot_is_one_or_passed_over(data: bytes, store: Path) -> None:
    file = folder_of(store, "cpu") / "2026-11-30" / "run.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    with suppress(SnapshotError):
        assert isinstance(read(file), Snapshot)
    history = History(store, "cpu")
    history.nights()
    history.past(history.entries)
    for entry in history.entries:
        history.read(entry)
    assert all(isinstance(line, str) for line in history.troubles)
