"""What a checkpoint's files say by themselves: every tensor is read once, in small blocks.

Two things are read a second time: a module with a scale that is zero, here, and a tied embedding
and head of which both are stored, in :mod:`matrix.checkpoint.inspecting`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
import numpy as np

from matrix.checkpoint.inspection import (
    CheckpointError,
    GroupOrder,
    PackedLinearInfo,
    Problem,
    Quantization,
    TensorInfo,
)
from matrix.checkpoint.packed import BITS, PackedShape, kind_problem, read_packed, shape_of
from matrix.checkpoint.tensors import BYTES, Tensors

BUFFER_BYTES = 2**19
"""Small enough to stay in a core's cache, where what was read is looked at again."""
MODULE_PARTS = ("qweight", "qzeros", "scales", "g_idx")

# For each floating type: bytes of a value, and the bits of infinity. Others are taken as bytes.
_FLOATS = {
    "F16": (2, 0x7C00),
    "BF16": (2, 0x7F80),
    "F32": (4, 0x7F800000),
    "F64": (8, 0x7FF0000000000000),
}


@dataclass
class Scan:
    """What was found."""

    modules: list[PackedLinearInfo] = field(default_factory=list)
    not_finite: dict[str, int] = field(default_factory=dict)
    """Floating tensor of no packed module -> how many of its values are not finite, if any."""
    zero: set[str] = field(default_factory=set)
    """Tensors that hold nothing but zeros."""
    problems: list[Problem] = field(default_factory=list)


class _Reader(Protocol):
    """Is shown a tensor, a block of its bytes after the other."""

    def add(self, block: memoryview) -> None: ...


class _Values:
    """Finds out whether all values are zero, and counts those that are not finite."""

    def __init__(self, dtype: str) -> None:
        self.size, self.infinity = _FLOATS.get(dtype, (1, 0))
        self.sign = 1 << 8 * self.size - 1
        self.not_finite = 0
        self.all_zero = True

    def add(self, block: memoryview) -> None:
        bits = np.frombuffer(block, f"<u{self.size}")
        # As signed numbers, all with a sign are below 0; as unsigned ones, above all without.
        positive, largest = int(bits.view(f"<i{self.size}").max()), int(bits.max())
        if not self.infinity:
            self.all_zero &= largest == 0
            return
        self.all_zero &= positive <= 0 and largest in (0, self.sign)
        if positive >= self.infinity or largest >= self.sign | self.infinity:
            self.not_finite += int(np.count_nonzero(bits & self.sign - 1 >= self.infinity))


class _Scales(_Values):
    """Finds out as well whether any is zero."""

    def __init__(self, dtype: str) -> None:
        super().__init__(dtype)
        self.any_zero = False

    def add(self, block: memoryview) -> None:
        super().add(block)
        bits = np.frombuffer(block, f"<u{self.size}")
        self.any_zero |= not (bits & self.sign - 1).all()


class _Codes:
    """Codes need only be readable."""

    def add(self, block: memoryview) -> None:
        pass


class _ZeroPoints:
    """Counts packed zero points, wherever in a word they lie."""

    def __init__(self) -> None:
        self.bytes = np.zeros(256, np.int64)

    def add(self, block: memoryview) -> None:
        self.bytes += np.bincount(np.frombuffer(block, np.uint8), minlength=256)

    def counts(self, bits: int) -> dict[str, int]:
        """Return stored zero point -> how many, of points of 2, 4 or 8 bits."""
        found = np.zeros(2**bits, np.int64)
        for shift in range(0, 8, bits):
            np.add.at(found, np.arange(256) >> shift & 2**bits - 1, self.bytes)
        return {str(point): int(count) for point, count in enumerate(found) if count}


class _GroupIndex:
    """Compares a g_idx with that of groups in order."""

    def __init__(self, shape: PackedShape) -> None:
        self.shape = shape
        self.counts = np.zeros(shape.groups, np.int64)
        self.ordered = self.in_range = True
        self.position = 0

    def add(self, block: memoryview) -> None:
        index = np.frombuffer(block, "<i4")
        if index.min() < 0 or index.max() >= self.shape.groups:
            self.in_range = False
            return
        self.counts += np.bincount(index, minlength=self.shape.groups)
        places = np.arange(self.position, self.position + len(index))
        self.ordered &= bool(np.array_equal(index, places // self.shape.group_size))
        self.position += len(index)

    @property
    def order(self) -> GroupOrder:
        if not self.in_range or (self.counts != self.shape.group_size).any():
            return "wrong"
        return "in order" if self.ordered else "permuted"


def scan(tensors: Tensors, quantization: Quantization | None) -> Scan:
    """Return what the tensors say by themselves, whatever is wrong with them."""
    found = Scan()
    modules = [name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight")]
    shapes: dict[str, PackedShape] = {}
    notes: dict[str, str] = {}
    for module in modules:
        try:
            size = quantization.group_size if quantization else None
            shapes[module] = shape_of(tensors, module, size)
        except CheckpointError as error:
            notes[module] = str(error)
    packed = {f"{module}.{part}" for module in modules for part in MODULE_PARTS}
    readers: dict[str, _Reader] = {}
    _read_all(tensors, shapes, packed, readers, found)
    for module in sorted(modules):
        shape = shapes.get(module)
        if shape is None:
            found.modules.append(PackedLinearInfo(name=module, note=notes[module]))
        else:
            info = _module(tensors, module, shape, readers)
            if quantization is not None and not info.note:
                note = kind_problem(shape, quantization)
                info = msgspec.structs.replace(info, note=note and f"{module}: {note}")
            found.modules.append(_with_zero_scales(tensors, info, shape, readers, quantization))
    return found


def _read_all(
    tensors: Tensors,
    shapes: Mapping[str, PackedShape],
    packed: set[str],
    readers: dict[str, _Reader],
    found: Scan,
) -> None:
    """Read every byte of every tensor; keep the readers of packed ones, and what others say."""
    buffer = memoryview(bytearray(BUFFER_BYTES))
    unreadable: set[str] = set()
    for info in tensors.in_file_order():
        if info.file in unreadable:
            continue
        reader = _reader(info, shapes)
        try:
            for block in tensors.raw_blocks(info.name, buffer):
                reader.add(block)
        except CheckpointError as error:
            unreadable.add(info.file)
            found.problems.append(error.problem)
            continue
        if info.name in packed:
            readers[info.name] = reader
        elif isinstance(reader, _Values):
            if reader.not_finite:
                found.not_finite[info.name] = reader.not_finite
            if reader.all_zero:
                found.zero.add(info.name)


def _reader(info: TensorInfo, shapes: Mapping[str, PackedShape]) -> _Reader:
    module, _, part = info.name.rpartition(".")
    shape = shapes.get(module)
    if shape is None:
        return _Values(info.dtype)
    if part == "qweight":
        return _Codes()
    if part == "qzeros":
        return _ZeroPoints()
    if part == "scales":
        return _Scales(info.dtype)
    if part == "g_idx" and info.dtype == "I32" and info.shape == [shape.inputs]:
        return _GroupIndex(shape)
    return _Values(info.dtype)


def _module(
    tensors: Tensors, module: str, shape: PackedShape, readers: Mapping[str, _Reader]
) -> PackedLinearInfo:
    """Return what the parts of a module say; those that could not be read say nothing."""
    infos = [
        tensors.info(f"{module}.{part}") for part in MODULE_PARTS if f"{module}.{part}" in tensors
    ]
    bits = 8 * sum(math.prod(info.shape) * BYTES[info.dtype] for info in infos)
    zeros, scales, index = (readers.get(f"{module}.{part}") for part in MODULE_PARTS[1:])
    known = shape.bits in BITS
    order: GroupOrder = "in order"
    if index is not None:
        # Of another type or shape it says nothing that can be right.
        order = index.order if isinstance(index, _GroupIndex) else "wrong"
    points = zeros.counts(shape.bits) if isinstance(zeros, _ZeroPoints) and known else {}
    return PackedLinearInfo(
        name=module,
        inputs=shape.inputs,
        outputs=shape.outputs,
        bits=shape.bits,
        group_size=shape.group_size,
        bits_per_weight=bits / (shape.inputs * shape.outputs),
        zero_points=points,
        not_finite_scales=scales.not_finite if isinstance(scales, _Scales) else 0,
        group_order=order,
        note="" if known else f"{module}: codes of {shape.bits} bits are not read here",
    )


def _with_zero_scales(
    tensors: Tensors,
    info: PackedLinearInfo,
    shape: PackedShape,
    readers: Mapping[str, _Reader],
    quantization: Quantization | None,
) -> PackedLinearInfo:
    """Return the module's facts with its zero scales, for which its codes are read if need be."""
    scales = readers.get(f"{info.name}.scales")
    if not isinstance(scales, _Scales) or not scales.any_zero or info.note:
        return info
    form = quantization.checkpoint_format if quantization else ""
    scheme = Quantization(shape.layout, shape.bits, shape.group_size, checkpoint_format=form)
    try:
        linear = read_packed(tensors, info.name, scheme)
        lost = 0
        for start, stop in linear.row_ranges():
            block = linear.block(start, stop)
            used = np.logical_or.reduceat(block.levels != 0, block.starts, axis=1)
            present = block.group_of[block.starts]
            lost += int(np.count_nonzero(used & (block.scales[:, present] == 0)))
    except CheckpointError as error:
        return msgspec.structs.replace(info, note=str(error))
    return msgspec.structs.replace(info, zero_scales=lost)
