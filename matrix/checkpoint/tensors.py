"""Reading safetensors: the header checked in full before a byte of a tensor is used.

Written from the format's description (https://github.com/huggingface/safetensors, README, "Format")
because the library's numpy reader knows no bfloat16, and so that a file is read in blocks.
"""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, BinaryIO, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from matrix.checkpoint.files import INDEX, CheckpointFiles
from matrix.checkpoint.inspection import CheckpointError, Problem, TensorInfo
from matrix.checkpoint.small_floats import E4M3

MAX_HEADER_BYTES = 32 * 1024 * 1024
MAX_ALL_HEADERS_BYTES = 64 * 1024 * 1024
MAX_TENSORS = 200_000
"""These two are of all files together. A GPTQ model of 235B with 128 experts has 150,000."""
MAX_DIMENSIONS = 8
MAX_ABSENT = 100
"""Of so many tensors it is said one by one that they are not where the index says."""
BLOCK_VALUES = 2**20
_LENGTH_BYTES = 8
_REMEDY = "The file is damaged or was written by something else; make the checkpoint again."

BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}
_NUMPY = {
    "BOOL": "?",
    "U8": "u1",
    "I8": "i1",
    "F8_E4M3": "u1",
    "U16": "<u2",
    "I16": "<i2",
    "F16": "<f2",
    "BF16": "<u2",
    "U32": "<u4",
    "I32": "<i4",
    "F32": "<f4",
    "U64": "<u8",
    "I64": "<i8",
    "F64": "<f8",
}

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]


class _Entry(msgspec.Struct, frozen=True):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


class _Place(NamedTuple):
    info: TensorInfo
    offset: int
    """First byte in the file."""


class _TooLargeError(CheckpointError):
    """All headers together are more than is read. No further one is."""


class Tensors:
    """All tensors of a checkpoint, by name, read one or a part of one at a time.

    Attributes:
        files: Where they lie.
        problems: Why some or all cannot be read. Those that can are there all the same.
    """

    def __init__(self, files: CheckpointFiles) -> None:
        self.files = files
        self.problems: list[Problem] = []
        self._places: dict[str, _Place] = {}
        self._header_bytes = 0
        self._opened: tuple[str, BinaryIO] | None = None
        self._open = ExitStack()
        weakref.finalize(self, self._open.close)
        try:
            index = files.weight_map()
        except CheckpointError as error:
            self.problems.append(error.problem)
            index = None
        shards = sorted(set(index.values())) if index is not None else self._unindexed()
        for shard in shards:
            try:
                self._add(shard)
            except _TooLargeError as error:
                self.problems.append(error.problem)
                self._places.clear()
                return
            except CheckpointError as error:
                self.problems.append(error.problem)
        self._compare_index(index or {})
        if not shards:
            problem = "holds no safetensors file"
            self.problems.append(Problem(problem, "checkpoint", "Save the model as safetensors."))

    def _compare_index(self, index: dict[str, str]) -> None:
        """Add of each tensor that is not where the index says that it is, up to a number."""
        absent = [
            (name, shard)
            for name, shard in index.items()
            if name not in self._places or self._places[name].info.file != shard
        ]
        for name, shard in absent[:MAX_ABSENT]:
            problem = f"the index says it is in {shard}, but it is not"
            self.problems.append(Problem(problem, name[:200], _REMEDY))
        if len(absent) > MAX_ABSENT:
            more = len(absent) - MAX_ABSENT
            problem = f"names {more} more tensors that are not where it says"
            self.problems.append(Problem(problem, INDEX, _REMEDY))

    def _unindexed(self) -> list[str]:
        return [name for name in self.files.sizes if name.endswith(".safetensors")]

    def _add(self, shard: str) -> None:
        with self.files.open(shard) as handle:
            size, length = _header_size(handle, shard)
            self._header_bytes += length
            if self._header_bytes > MAX_ALL_HEADERS_BYTES:
                problem = f"all headers up to this one have {self._header_bytes} bytes"
                remedy = f"At most {MAX_ALL_HEADERS_BYTES} are read; give one checkpoint."
                raise _TooLargeError(problem, shard, remedy)
            for place in _read_header(handle, shard, size, length, MAX_TENSORS - len(self._places)):
                name = place.info.name
                if name in self._places:
                    other = self._places[name].info.file
                    problem = f"is stored both in {other} and in {shard}"
                    raise CheckpointError(problem, name[:200], _REMEDY)
                self._places[name] = place

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def info(self, name: str) -> TensorInfo:
        """Return dtype, shape and file of a tensor that is there."""
        return self._places[name].info

    def find(self, name: str) -> TensorInfo:
        """Return dtype, shape and file of a tensor that may not be there.

        Raises:
            CheckpointError: It is not.
        """
        if name not in self._places:
            raise CheckpointError("is missing", name, "Make the checkpoint again.")
        return self._places[name].info

    def in_file_order(self) -> list[TensorInfo]:
        """Return all tensors as they lie in their files, so that these are read front to back."""
        places = sorted(self._places.values(), key=lambda place: (place.info.file, place.offset))
        return [place.info for place in places]

    def read(self, name: str) -> Array:
        """Return a tensor in its own type; bfloat16 and E4M3, which numpy has not, as float32.

        Raises:
            CheckpointError: There is no such tensor, its type has no numpy form, or the file
                became shorter or cannot be read.
        """
        info = self.find(name)
        return self._values(info, 0, math.prod(info.shape)).reshape(info.shape)

    def raw(self, name: str) -> npt.NDArray[np.uint8]:
        """Return the bytes of a tensor, flat.

        Raises:
            CheckpointError: As :meth:`read`, of any type.
        """
        info = self.find(name)
        data = np.empty(_size(info), np.uint8)
        self._fill(data.data, info.file, self._places[name].offset)
        return data

    def floats(self, name: str) -> Floats:
        """Return a tensor as float32.

        Raises:
            CheckpointError: As :meth:`read`.
        """
        return _as_float32(self.read(name))

    def float_rows(self, name: str, start: int, stop: int) -> Floats:
        """Return rows ``start`` to ``stop`` of a matrix as float32.

        Raises:
            CheckpointError: As :meth:`read`.
        """
        info = self.find(name)
        width = info.shape[1]
        flat = self._values(info, start * width, (stop - start) * width)
        return _as_float32(flat.reshape(-1, width))

    def float_blocks(self, name: str) -> Iterator[Floats]:
        """Yield all of a tensor as float32, in flat blocks of bounded size.

        Raises:
            CheckpointError: As :meth:`read`.
        """
        info = self.find(name)
        count = math.prod(info.shape)
        for start in range(0, count, BLOCK_VALUES):
            yield _as_float32(self._values(info, start, min(BLOCK_VALUES, count - start)))

    def raw_blocks(self, name: str, buffer: memoryview) -> Iterator[memoryview]:
        """Yield the bytes of a tensor as they lie in the file, as much at a time as fits.

        Args:
            name: A tensor that is there.
            buffer: Filled again for each block. Its size is a multiple of 8.

        Raises:
            CheckpointError: The file became shorter or cannot be read.
        """
        place = self._places[name]
        size = _size(place.info)
        for start in range(0, size, len(buffer)):
            block = buffer[: min(size - start, len(buffer))]
            self._fill(block, place.info.file, place.offset + start)
            yield block

    def _values(self, info: TensorInfo, start: int, count: int) -> Array:
        """Return values ``start`` to ``start + count`` of a tensor, flat."""
        if info.dtype not in _NUMPY:
            problem = f"has type {info.dtype}"
            raise CheckpointError(problem, info.name, "This type is not read here.")
        flat = np.empty(count, dtype=_NUMPY[info.dtype])
        offset = self._places[info.name].offset + start * flat.itemsize
        self._fill(flat.view(np.uint8).data, info.file, offset)
        if info.dtype == "F8_E4M3":
            return E4M3[flat]
        if info.dtype == "BF16":
            # The upper half of a float32.
            flat = (flat.astype(np.uint32) << np.uint32(16)).view(np.float32)
        return flat

    def _fill(self, buffer: memoryview, file: str, offset: int) -> None:
        """Fill a buffer from a place in a file.

        The file stays open until another is read: there may be 200,000 tensors in one.
        """
        if self._opened is None or self._opened[0] != file:
            self._open.close()
            self._opened = None
            self._opened = file, self._open.enter_context(self.files.open(file))
        _fill(self._opened[1], buffer, file, offset)


def _as_float32(values: Array) -> Floats:
    # Overflow to infinity is for the caller to find, not for numpy to warn of.
    with np.errstate(over="ignore"):
        return values.astype(np.float32, copy=False)


def _fill(handle: BinaryIO, buffer: memoryview, file: str, offset: int) -> None:
    """Fill a buffer from a place in an open file, wherever others read it."""
    filled = 0
    while filled < len(buffer):
        try:
            count = os.preadv(handle.fileno(), [buffer[filled:]], offset + filled)
        except OSError as error:
            raise CheckpointError(error.strerror or str(error), file, _REMEDY) from error
        if not count:
            raise CheckpointError("became shorter while it was read", file, _REMEDY)
        filled += count


def _header_size(handle: BinaryIO, file: str) -> tuple[int, int]:
    """Return the bytes of an open file and of its header, which comes next."""
    size = os.fstat(handle.fileno()).st_size
    length = int.from_bytes(handle.read(_LENGTH_BYTES), "little")
    if size < _LENGTH_BYTES or length > min(size - _LENGTH_BYTES, MAX_HEADER_BYTES):
        problem = f"its header should have {length} bytes; the file has {size}"
        raise CheckpointError(problem, file, _REMEDY)
    return size, length


def _read_header(handle: BinaryIO, file: str, size: int, length: int, most: int) -> list[_Place]:
    """Return where at most so many tensors lie; they fill the file exactly and do not overlap."""
    try:
        raw = msgspec.json.decode(handle.read(length), type=dict[str, msgspec.Raw])
        raw.pop("__metadata__", None)
        if len(raw) > most:
            problem = f"all files up to this one hold more than {MAX_TENSORS} tensors"
            raise _TooLargeError(problem, file, "Give one checkpoint.")
        entries = {name: msgspec.json.decode(text, type=_Entry) for name, text in raw.items()}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CheckpointError(f"its header is not as it must be: {error}", file, _REMEDY) from error
    start = _LENGTH_BYTES + length
    expected = 0
    places = []
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        begin, end = entry.data_offsets
        info = TensorInfo(name, entry.dtype, entry.shape, file)
        if begin != expected or end != begin + _size(info):
            problem = f"{name[:200]} lies at bytes {begin} to {end}, where it cannot"
            raise CheckpointError(problem, file, _REMEDY)
        expected = end
        places.append(_Place(info, start + begin))
    if start + expected != size:
        problem = f"its tensors need {start + expected} bytes; the file has {size}"
        raise CheckpointError(problem, file, _REMEDY)
    return places


def _size(info: TensorInfo) -> int:
    """Return how many bytes a tensor takes."""
    name = info.name[:200]
    if info.dtype not in BYTES:
        raise CheckpointError(f"{name} has unknown type {info.dtype[:20]}", info.file, _REMEDY)
    if len(info.shape) > MAX_DIMENSIONS or any(dimension < 0 for dimension in info.shape):
        raise CheckpointError(f"{name} has an impossible shape", info.file, _REMEDY)
    return math.prod(info.shape) * BYTES[info.dtype]
