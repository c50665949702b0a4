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
from matrix.checkpoint.layouts import BITS, Layout, Parts, codes_in
from matrix.checkpoint.packed import kind_problem, read_shaped, shape_of
from matrix.checkpoint.packed_shapes import PackedShape
from matrix.checkpoint.shapes import packed_parts, unread_width
from matrix.checkpoint.tensors import BYTES, Tensors

BUFFER_BYTES = 2**19
"""Small enough to stay in a core's cache, where what was read is looked at again."""

# For each floating type: bytes of a value, and the bits of infinity. Others are taken as bytes.
_FLOATS = {
    "F16": (2, 0x7C00),
    "BF16": (2, 0x7F80),
    "F32": (4, 0x7F800000),
    "F64": (8, 0x7FF0000000000000),
    # Without infinity: the highest code is NaN.
    "F8_E4M3": (1, 0x7F),
    "F8_E5M2": (1, 0x7C),
}


@dataclass
class Scan:
    """What was read."""

    modules: list[PackedLinearInfo] = field(default_factory=list)
    unread: dict[str, str] = field(default_factory=dict)
    """Packed module of a width that is not read here -> its format and width, by config.json."""
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
        result = np.zeros(2**bits, np.int64)
        for shift in range(0, 8, bits):
            np.add.at(result, np.arange(256) >> shift & 2**bits - 1, self.bytes)
        return {str(point): int(count) for point, count in enumerate(result) if count}


class _GroupIndex:
    """Compares the group of each input with that of groups in order."""

    def __init__(self, shape: PackedShape) -> None:
        self.shape = shape
        self.counts = np.zeros(shape.groups, np.int64)
        self.ordered = self.in_range = True
        self.is_unset = False
        self.position = 0

    def add(self, block: memoryview) -> None:
        index = np.frombuffer(block, "<i4")
        # Of compressed-tensors, such a one counts for nothing.
        self.is_unset |= self.shape.layout is not Layout.GPTQ and bool((index == -1).any())
        if index.min() < 0 or index.max() >= self.shape.groups:
            self.in_range = False
            return
        self.counts += np.bincount(index, minlength=self.shape.groups)
        places = np.arange(self.position, self.position + len(index))
        self.ordered &= bool(np.array_equal(index, places // self.shape.group_size))
        self.position += len(index)

    @property
    def order(self) -> GroupOrder:
        if self.is_unset:
            return "in order"
        if not self.in_range or (self.counts != self.shape.group_size).any():
            return "wrong"
        return "in order" if self.ordered else "permuted"


@dataclass
class _Module:
    """A packed module, and the readers of its parts by their names."""

    name: str
    parts: Parts
    scheme: Quantization | None
    shape: PackedShape | None = None
    note: str = ""
    readers: dict[str, _Reader] = field(default_factory=dict)


def scan(tensors: Tensors, quantization: Quantization | None) -> Scan:
    """Return what the tensors say by themselves, whatever is wrong with them."""
    result = Scan()
    modules: dict[str, _Module] = {}
    for name in tensors:
        if packed := codes_in(name, tensors.info(name).dtype, tensors):
            scheme = quantization.of(packed[0]) if quantization else None
            if scheme is None or packed_parts(scheme):
                modules[packed[0]] = _Module(*packed, scheme)
    for module in modules.values():
        try:
            module.shape = shape_of(tensors, module.name, module.scheme)
        except CheckpointError as error:
            module.note = str(error)
    result.unread = {name: form for name, it in modules.items() if (form := _unread(it))}
    modules = {name: it for name, it in modules.items() if name not in result.unread}
    _read_all(tensors, modules, result)
    for _, module in sorted(modules.items()):
        if module.shape is None:
            result.modules.append(PackedLinearInfo(name=module.name, note=module.note))
        else:
            info = _described(tensors, module, module.shape)
            result.modules.append(_with_zero_scales(tensors, info, module, module.shape))
    return result


def _unread(module: _Module) -> str:
    """Return its format and width, where config.json names one that is not read here, and the file
    has no other; else ""."""
    if module.scheme is None or (module.shape and module.shape.bits != module.scheme.bits):
        return ""
    return unread_width(module.scheme)


def _read_all(tensors: Tensors, modules: Mapping[str, _Module], result: Scan) -> None:
    """Read every byte of every tensor; give modules their readers, keep what others say."""
    buffer = memoryview(bytearray(BUFFER_BYTES))
    unreadable: set[str] = set()
    for info in tensors.in_file_order():
        if info.file in unreadable:
            continue
        name, _, part = info.name.rpartition(".")
        module = modules.get(name)
        if module is not None and part not in module.parts.names:
            module = None
        reader = _reader(info, part, module)
        try:
            for block in tensors.raw_blocks(info.name, buffer):
                reader.add(block)
        except CheckpointError as error:
            unreadable.add(info.file)
            result.problems.append(error.problem)
            continue
        if module is not None:
            module.readers[part] = reader
        if isinstance(reader, _Values) and not isinstance(reader, _Scales):
            if reader.not_finite:
                result.not_finite[info.name] = reader.not_finite
            if reader.all_zero and module is None:
                result.zero.add(info.name)


def _reader(info: TensorInfo, part: str, module: _Module | None) -> _Reader:
    if module is None or module.shape is None:
        return _Values(info.dtype) if module is None else _Codes()
    parts, shape = module.parts, module.shape
    if part == parts.codes:
        return _Values(info.dtype) if shape.layout is Layout.FLOATS else _Codes()
    if part == parts.zeros:
        return _ZeroPoints()
    if part == parts.scales or info.dtype == "F32":
        return _Scales(info.dtype)
    if part == parts.order and info.dtype == "I32" and info.shape == [shape.inputs]:
        return _GroupIndex(shape)
    return _Codes()


def _described(tensors: Tensors, module: _Module, shape: PackedShape) -> PackedLinearInfo:
    """Return what the parts of a module say; those that could not be read say nothing."""
    name, parts, readers = module.name, module.parts, module.readers
    stored = [f"{name}.{part}" for part in parts.names if f"{name}.{part}" in tensors]
    infos = [tensors.info(tensor) for tensor in stored]
    bits = 8 * sum(math.prod(info.shape) * BYTES[info.dtype] for info in infos)
    index, scales = readers.get(parts.order), readers.get(parts.scales)
    order: GroupOrder = "in order"
    if index is not None:
        # Of another type or shape it says nothing that can be right.
        order = index.order if isinstance(index, _GroupIndex) else "wrong"
    whole = [readers.get(part) for part in parts.others]
    note = ""
    if any(isinstance(reader, _Scales) and reader.any_zero for reader in whole):
        note = f"{name}: the scale of its scales is 0"
    if module.scheme is not None:
        problem = kind_problem(shape, module.scheme)
        note = f"{name}: {problem}" if problem else note
    if not _is_read(shape):
        note = f"{name}: codes of {shape.bits} bits are not read here"
    return PackedLinearInfo(
        name=name,
        layout=shape.layout,
        inputs=shape.inputs,
        outputs=shape.outputs,
        bits=shape.bits,
        group_size=shape.group_size,
        bits_per_weight=bits / (shape.inputs * shape.outputs),
        zero_points=_points(tensors, module, shape),
        not_finite_scales=scales.not_finite if isinstance(scales, _Scales) else 0,
        group_order=order,
        note=note,
    )


def _is_read(shape: PackedShape) -> bool:
    return shape.bits in BITS.get(shape.layout, (shape.bits,))


def _points(tensors: Tensors, module: _Module, shape: PackedShape) -> dict[str, int]:
    """Return stored zero point -> how many; those of a byte each have a sign."""
    reader = module.readers.get(module.parts.zeros)
    if not isinstance(reader, _ZeroPoints) or not _is_read(shape):
        return {}
    info = tensors.info(f"{module.name}.{module.parts.zeros}")
    if info.dtype == "I8":
        return {str((int(p) + 128) % 256 - 128): n for p, n in reader.counts(8).items()}
    points = reader.counts(shape.bits)
    if shape.layout is Layout.PACKED:
        # A column ends with a whole word, filled up with zeros.
        spare = -shape.outputs % (32 // shape.bits) * shape.groups
        points["0"] = points.get("0", 0) - spare
    return {point: count for point, count in points.items() if count > 0}


def _with_zero_scales(
    tensors: Tensors, info: PackedLinearInfo, module: _Module, shape: PackedShape
) -> PackedLinearInfo:
    """Return the module's facts with its zero scales, for which its codes are read if need be."""
    scales = module.readers.get(module.parts.scales)
    if not isinstance(scales, _Scales) or not scales.any_zero or info.note:
        return info
    form = module.scheme.checkpoint_format if module.scheme else ""
    try:
        linear = read_shaped(tensors, info.name, shape, form)
        lost = 0
        for start, stop in linear.row_ranges():
            block = linear.block(start, stop)
            used = np.logical_or.reduceat(block.levels != 0, block.starts, axis=1)
            present = block.group_of[block.starts]
            lost += int(np.count_nonzero(used & (block.scales[:, present] == 0)))
    except CheckpointError as error:
        return msgspec.structs.replace(info, note=str(error))
    return msgspec.structs.replace(info, zero_scales=lost)
