"""Weights written anew: the header with other names and places, the tensors block by block."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import numpy as np

from matrix.checkpoint.inspection import CheckpointError, TensorInfo
from matrix.checkpoint.tensors import BYTES, Tensors
from matrix.repair.edits import DropTensor, LowerZeros, RenameTensor, TensorEdit

BUFFER_BYTES = 2**20
_LENGTH_BYTES = 8
_METADATA = "__metadata__"

Edits = Mapping[str, TensorEdit]
"""Name of a tensor -> what is done with it."""


def size_of(info: TensorInfo) -> int:
    """Return the bytes of a tensor."""
    return math.prod(info.shape) * BYTES[info.dtype]


def kept_tensors(tensors: Tensors, file: str, edits: Edits) -> list[TensorInfo]:
    """Return the tensors of a file that are not dropped, in their order in it."""
    infos = (info for info in tensors.in_file_order() if info.file == file)
    return [info for info in infos if not isinstance(edits.get(info.name), DropTensor)]


def write_shard(tensors: Tensors, file: str, edits: Edits, target: Path) -> None:
    """Write a file's tensors as the edits say; its metadata and all other bytes are kept.

    Raises:
        CheckpointError: The file became shorter, or a zero point to be lowered is 0.
        OSError: The system does not let us write it.
    """
    kept = kept_tensors(tensors, file, edits)
    header = _header(tensors, file, edits, kept)
    buffer = memoryview(bytearray(BUFFER_BYTES))
    with target.open("xb") as output:
        output.write(len(header).to_bytes(_LENGTH_BYTES, "little"))
        output.write(header)
        for info in kept:
            edit = edits.get(info.name)
            for block in tensors.raw_blocks(info.name, buffer):
                if isinstance(edit, LowerZeros):
                    _lower(block, edit)
                output.write(block)


def _header(tensors: Tensors, file: str, edits: Edits, kept: list[TensorInfo]) -> bytes:
    """Return the new header, filled up with spaces to a multiple of eight as the library does."""
    entries: dict[str, object] = {}
    with tensors.files.open(file) as handle:
        length = int.from_bytes(handle.read(_LENGTH_BYTES), "little")
        old = msgspec.json.decode(handle.read(length), type=dict[str, msgspec.Raw])
    if _METADATA in old:
        entries[_METADATA] = old[_METADATA]
    for info, begin in zip(kept, _begins(kept), strict=True):
        edit = edits.get(info.name)
        name = edit.new_name if isinstance(edit, RenameTensor) else info.name
        place = [begin, begin + size_of(info)]
        entries[name] = {"dtype": info.dtype, "shape": info.shape, "data_offsets": place}
    header = msgspec.json.encode(entries)
    return header + b" " * (-len(header) % _LENGTH_BYTES)


def _begins(kept: list[TensorInfo]) -> Iterator[int]:
    begin = 0
    for info in kept:
        yield begin
        begin += size_of(info)


def _lower(block: memoryview, edit: LowerZeros) -> None:
    """Take 1 from each zero point of a block of packed words, in place."""
    ones = sum(1 << shift for shift in range(0, 8, edit.bits))
    packed = np.frombuffer(block, np.uint8)
    for shift in range(0, 8, edit.bits):
        if not (packed >> np.uint8(shift) & np.uint8(2**edit.bits - 1)).all():
            problem = "has a zero point of 0, which cannot be lowered"
            raise CheckpointError(problem, edit.name[:200], "Quantize again in the format gptq.")
    packed -= np.uint8(ones)
