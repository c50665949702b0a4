"""Snapshots as files: same content, same bytes; each version is read, and damage refused."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import get_type_hints

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix.history import snapshots
from matrix.history.snapshots import SnapshotError, pack, read, read_head, read_verdicts, write
from matrix.history.states import SCHEMA_VERSION, CellState, Head, Snapshot
from matrix.pipeline.outcomes import Verdict
from tests.unit.made_snapshots import cell, snapshot

EARLIER = Path(__file__).parent / "snapshots"
"""A file of each version of the schema, as it was written then: none may ever be made anew."""

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
floats = st.floats(allow_nan=False)
BY_TYPE = {
    str: texts, float: floats, int: st.integers(-(2**63), 2**63 - 1), bool: st.booleans(),
    Verdict: st.sampled_from(Verdict), float | None: st.none() | floats,
    int | None: st.none() | st.integers(0, 2**63 - 1),
}  # fmt: skip
states = st.builds(
    CellState, **{name: BY_TYPE[hint] for name, hint in get_type_hints(CellState).items()}
)


def put(folder: Path, made: Snapshot) -> Path:
    file = folder / made.day / f"{made.run}.parquet"
    write(file, made.head, made.cells)
    return file


@given(st.lists(states, max_size=5, unique_by=lambda state: state.id))
def test_whatever_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, cells: list[CellState]
) -> None:
    made = snapshot(*cells)
    file = put(tmp_path_factory.mktemp("history"), made)
    assert read(file) == made
    assert pack(made.head, made.cells) == file.read_bytes()
    verdicts = read_verdicts(file)
    assert verdicts.ids.to_pylist() == list(made.cells)
    assert [snapshots.VERDICTS[code] for code in verdicts.codes] == [c.verdict for c in cells]


def test_what_cells_share_stands_in_a_file_once(tmp_path: Path) -> None:
    long = json.dumps({f"package-{n}": random.Random(n).random() for n in range(500)})
    cells = [cell(f"m/s/q-{n}/e", engine_packages=long) for n in range(500)]
    assert put(tmp_path, snapshot(*cells)).stat().st_size < 30_000
    assert len({id(state.engine_packages) for state in read(
        tmp_path / "2026-11-30" / "run.parquet").cells.values()}) == 1  # fmt: skip


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION + 1))
def test_each_earlier_version_is_read(version: int) -> None:
    made = read(EARLIER / f"{version}.parquet")
    assert made.head.schema == version
    assert made.head.profile == "cpu"
    assert {state.id: state.verdict for state in made.cells.values()} == {
        "m/awq/maker-1.0/runner-3.0": Verdict.WORKS,
        "m/awq/maker-1.0/runner-4.0": Verdict.BROKEN,
    }
    assert json.loads(made.cells["m/awq/maker-1.0/runner-3.0"].engine_packages)["torch"] == "2.12.0"
    assert len(read_verdicts(EARLIER / f"{version}.parquet").codes) == 2


def test_a_changed_schema_is_a_new_version() -> None:
    names = pq.read_schema(EARLIER / f"{SCHEMA_VERSION}.parquet").names
    assert names == list(CellState.__struct_fields__), "raise SCHEMA_VERSION, and commit a file"


def test_a_newer_version_is_told_with_what_to_do(tmp_path: Path) -> None:
    file = put(tmp_path, snapshot(cell(), schema=SCHEMA_VERSION + 1))
    with pytest.raises(SnapshotError, match=r"written by a newer version .* Install that version"):
        read(file)
    with pytest.raises(SnapshotError, match="newer version"):
        read_head(file)


def test_columns_of_a_later_day_are_passed_over_and_missing_ones_are_not_known(
    tmp_path: Path,
) -> None:
    made = snapshot(cell())
    rows = [
        {**{n: v for n, v in msgspec.to_builtins(state).items() if n in ("id", "verdict")}, "x": 1}
        for state in made.cells.values()
    ]
    file = tmp_path / "few.parquet"
    write_table(file, rows, made.head)
    (state,) = read(file).cells.values()
    assert state == CellState(id=cell().id, verdict=Verdict.WORKS)


def write_table(file: Path, rows: list[dict[str, object]], head: Head) -> None:
    put_table(file, pa.Table.from_pylist(rows), head)


def put_table(file: Path, table: pa.Table, head: Head) -> None:
    with pq.ParquetWriter(file, table.schema, store_schema=False) as writer:
        writer.write_table(table)
        metadata = {b"matrix": msgspec.json.encode(head), snapshots.SHA256: snapshots.NO_DIGEST}
        writer.add_key_value_metadata(metadata)
    file.write_bytes(snapshots.with_digest(file.read_bytes()))


@pytest.mark.parametrize(
    "row", [{"id": 1, "verdict": "works"}, {"id": "a", "verdict": "splendid"}, {"id": None,
            "verdict": "works"}, {"id": "a", "verdict": "works", "flaky": "no"}, {"x": 1}],
)  # fmt: skip
def test_what_has_other_columns_is_refused(tmp_path: Path, row: dict[str, object]) -> None:
    file = tmp_path / "wrong.parquet"
    write_table(file, [row], snapshot().head)
    with pytest.raises(SnapshotError, match="is no snapshot that can be read"):
        read(file)


def test_ids_that_are_no_text_are_refused_at_once(tmp_path: Path) -> None:
    file = tmp_path / "wrong.parquet"
    write_table(file, [{"id": b"\xff\xfe", "verdict": b"works"}], snapshot().head)
    as_text = pa.schema([("id", pa.string()), ("verdict", pa.string())])
    table = pa.Table.from_arrays(
        [c.chunk(0).view(pa.string()) for c in pq.read_table(file)], schema=as_text
    )
    put_table(file, table, snapshot().head)
    for reading in (read, read_verdicts):
        with pytest.raises(SnapshotError, match="is no snapshot that can be read"):
            reading(file)


def test_every_changed_byte_is_refused(tmp_path: Path) -> None:
    whole = pack(snapshot(cell()).head, snapshot(cell()).cells)
    file = tmp_path / "2026-11-30" / "run.parquet"
    file.parent.mkdir()
    for place in range(len(whole)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(SnapshotError):
            read(file)


def test_damage_anywhere_is_refused(tmp_path: Path) -> None:
    made = snapshot(*(cell(f"m/s/q-{n}/e", message=f"m {n}") for n in range(40)))
    whole, rng = pack(made.head, made.cells), random.Random(7)
    file = tmp_path / "2026-11-30" / "run.parquet"
    file.parent.mkdir()
    refused = 0
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        file.write_bytes(data[: rng.randrange(len(data)) if rng.random() < 0.3 else None])
        try:
            read(file)
            assert data == whole
        except SnapshotError:
            refused += 1
    assert refused > 290


def test_what_is_no_file_of_that_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_text("no parquet")
    (tmp_path / "folder.parquet").mkdir()
    (tmp_path / "link.parquet").symlink_to(put(tmp_path, snapshot(cell())))
    for name in ("text", "folder", "link", "none"):
        with pytest.raises(SnapshotError, match=f"{name}.parquet"):
            read(tmp_path / f"{name}.parquet")


def test_more_than_any_run_has_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = put(tmp_path, snapshot(cell(), cell("m/s/q/e")))
    for name, limit in {"MAX_BYTES": 100, "MAX_ROWS": 1, "MAX_UNPACKED_BYTES": 100}.items():
        with monkeypatch.context() as patched:
            patched.setattr(snapshots, name, limit)
            with pytest.raises(SnapshotError):
                read(file)
