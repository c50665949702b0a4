"""Snapshots as Parquet files: written whole, read within bounds, a damaged one refused.

A column of texts is kept as a dictionary, so that what cells share, such as all packages of an
environment, stands in a file once. The head stands in the file's metadata, as JSON; beside it,
from schema 3 on, the digest of the whole file, taken while there were zeros in its place.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from matrix.history.states import SCHEMA_VERSION, CellState, Head, Snapshot
from matrix.pipeline.outcomes import Verdict
from matrix.store.store import write_atomically
from matrix.untrusted.reading import UnreadableError, decode, read_file

SUFFIX = ".parquet"
MAX_BYTES = 50_000_000
MAX_UNPACKED_BYTES = 500_000_000
MAX_ROWS = 200_000
"""A profile of 2,000 cells has 90 kB and 2,000 rows."""
MAX_HEAD_BYTES = 5_000_000
_HEAD = b"matrix"
SHA256 = b"sha256"
NO_DIGEST = b"0" * 64
_FIRST_SEALED = 3
"""The first schema with a digest."""
_KINDS: dict[object, Any] = {
    str: pa.string(), Verdict: pa.string(), float: pa.float64(), int: pa.int64(), bool: pa.bool_(),
}  # fmt: skip
_UNREADABLE = (OSError, ValueError, LookupError, ArithmeticError, TypeError, pa.ArrowException)
"""What reading a damaged file raises."""
VERDICTS = tuple(Verdict)
_NO_TEXTS = pa.array([], pa.string())


class SnapshotError(ValueError):
    """A file is no snapshot that can be read. The text names it, and says what to do."""


class Verdicts(msgspec.Struct, frozen=True):
    """The ids and verdicts of a snapshot, as columns."""

    ids: Any
    """An array of texts."""
    codes: np.ndarray[Any, np.dtype[np.int8]]
    """Of each id, the place of its verdict in ``VERDICTS``."""


def pack(head: Head, cells: dict[str, CellState]) -> bytes:
    """Return the bytes of a snapshot's file: the same content gives the same bytes."""
    rows = msgspec.to_builtins(list(cells.values()))
    table = pa.Table.from_pylist(rows, schema=_schema())
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink, table.schema, compression="zstd", write_page_checksum=True, store_schema=False,
        dictionary_pagesize_limit=MAX_BYTES, write_statistics=False,
    ) as writer:  # fmt: skip
        writer.write_table(table, row_group_size=MAX_ROWS)
        encoded = msgspec.json.encode(head, order="sorted")
        writer.add_key_value_metadata({_HEAD: encoded, SHA256: NO_DIGEST})
    return with_digest(bytes(sink.getvalue()))


def with_digest(data: bytes) -> bytes:
    """Return a file's bytes with their digest where zeros were written for it."""
    before, _, after = data.rpartition(NO_DIGEST)
    return before + _digest(data) + after


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()


def _is_sealed(data: bytes, digest: bytes) -> bool:
    if len(digest) != len(NO_DIGEST):
        return False
    before, _, after = data.rpartition(digest)
    return _digest(before + NO_DIGEST + after) == digest


def write(file: Path, head: Head, cells: dict[str, CellState]) -> None:
    """Write a snapshot, whole or not at all."""
    write_atomically(file, pack(head, cells))


def read_head(file: Path) -> Head:
    """Return what a snapshot says of its run; raise :class:`SnapshotError` where it is none."""
    return _opened(file)[1]


def read_verdicts(file: Path) -> Verdicts:
    """Return the ids and verdicts of a snapshot, without making an object of each."""
    table = _table(file, _opened(file)[0], ["id", "verdict"])
    try:
        ids, words = (
            pa.concat_arrays([_NO_TEXTS, *table[name].cast(pa.string()).chunks])
            for name in ("id", "verdict")
        )
        ids.validate(full=True)  # that all are texts: they are read later, by whoever wants them
        codes = pc.index_in(words, pa.array(VERDICTS))
        if codes.null_count or ids.null_count:
            raise ValueError("a verdict is none")
        return Verdicts(ids, codes.to_numpy().astype(np.int8))
    except _UNREADABLE as error:
        raise _refused(file, error) from None


def read(file: Path) -> Snapshot:
    """Return all of a snapshot; its day and run are the names of its folder and of the file."""
    opened, head = _opened(file)
    names = [name for name in CellState.__struct_fields__ if name in opened.schema_arrow.names]
    if not {"id", "verdict"} <= {*names}:
        raise _refused(file, "it has no ids and verdicts")
    table = _table(file, opened, names)
    try:
        columns = [_values(table[name]) for name in names]
        rows = [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
        cells = msgspec.convert(rows, list[CellState])
    except _UNREADABLE as error:
        raise _refused(file, error) from None
    return Snapshot(file.parent.name, file.stem, head, {cell.id: cell for cell in cells})


def _schema() -> Any:
    hints = get_type_hints(CellState)
    fields = []
    for name in CellState.__struct_fields__:
        kind = next((a for a in get_args(hints[name]) if a is not type(None)), hints[name])
        fields.append(pa.field(name, _KINDS[kind]))
    return pa.schema(fields)


def _opened(file: Path) -> tuple[Any, Head]:
    """Open a file whose size, rows and version are such as can be read."""
    try:
        raw = read_file(file, MAX_BYTES)
        data = pa.BufferReader(raw)
        limits = {"thrift_string_size_limit": MAX_HEAD_BYTES, "thrift_container_size_limit": 10_000}
        metadata = pq.ParquetFile(data, **limits).metadata
        texts = [name for name in _text_columns() if name in metadata.schema.names]
        opened = pq.ParquetFile(
            data, metadata=metadata, page_checksum_verification=True, read_dictionary=texts
        )
        texts_of_file: dict[bytes, bytes] = metadata.metadata or {}
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    except _UNREADABLE as error:
        raise _refused(file, error) from None
    if metadata.num_rows > MAX_ROWS or sum(g.total_byte_size for g in groups) > MAX_UNPACKED_BYTES:
        raise _refused(file, "it is larger than any that is written")
    head, digest = _head(file, texts_of_file.get(_HEAD, b"")), texts_of_file.get(SHA256, b"")
    if (head.schema >= _FIRST_SEALED or digest) and not _is_sealed(raw, digest):
        raise _refused(file, "it is not what was written: its digest is another")
    return opened, head


def _head(file: Path, raw: bytes) -> Head:
    try:
        version = decode(raw, _Version).schema
        if version <= SCHEMA_VERSION:
            return decode(raw, Head)
    except UnreadableError as error:
        raise _refused(file, error) from None
    raise SnapshotError(
        f"{file}: was written by a newer version of this project (schema {version}, and "
        f"{SCHEMA_VERSION} is the newest that this one reads). Install that version"
    )


class _Version(msgspec.Struct):
    schema: int


def _table(file: Path, opened: Any, names: list[str]) -> Any:
    try:
        return opened.read(columns=names, use_threads=False)
    except _UNREADABLE as error:
        raise _refused(file, error) from None


def _values(column: Any) -> list[Any]:
    """Return a column's values; texts that are the same are one object."""
    values: list[Any] = []
    for chunk in column.chunks:
        if not pa.types.is_dictionary(chunk.type):
            values += chunk.to_pylist()
            continue
        words = chunk.dictionary.to_pylist()
        values += [None if place is None else words[place] for place in chunk.indices.to_pylist()]
    return values


def _text_columns() -> list[str]:
    return [field.name for field in _schema() if field.type == pa.string()]


def _refused(file: Path, why: object) -> SnapshotError:
    return SnapshotError(f"{file}: is no snapshot that can be read ({why}). It may be removed")
