"""Packed Linears and their weights, a block of rows at a time.

What all layouts share. The layouts themselves are in :mod:`matrix.checkpoint.awq`,
:mod:`matrix.checkpoint.gptq` and :mod:`matrix.checkpoint.compressed_tensors`. A whole module is in
memory only as it is stored, 4 or 8 bits a weight; what is unpacked is a block of its rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar, assert_never

import numpy as np
import numpy.typing as npt

from matrix.checkpoint import awq, compressed_tensors, gptq
from matrix.checkpoint.inspection import COMPRESSED_TENSORS, CheckpointError, Quantization
from matrix.checkpoint.layouts import BITS, WORDS, Layout, Parts, parts_of
from matrix.checkpoint.packed_shapes import REMADE, WORD_BITS, PackedShape, shape_of_words
from matrix.checkpoint.tensors import Floats, Tensors

BLOCK_WEIGHTS = 2**19
NAIVE = "naive-quantized"

Codes = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.intp]
_T = TypeVar("_T", bound=np.generic)
Mask = npt.NDArray[np.bool_]


def shape_of(tensors: Tensors, module: str, scheme: Quantization | None) -> PackedShape:
    """Return the shape of a packed module.

    Args:
        tensors: The checkpoint.
        module: Its name.
        scheme: As config.json says of it. Needed only where the last group is a shorter one.

    Raises:
        CheckpointError: A tensor is missing, has another type, or they disagree, or the module or
            its number of groups is larger than any Linear's.
    """
    if parts_of(module, tensors) == WORDS:
        return shape_of_words(tensors, module, scheme.group_size if scheme else None)
    return compressed_tensors.shape_of(tensors, module, scheme)


@dataclass
class Block:
    """Some rows of a packed Linear, unpacked but not multiplied out; inputs sorted by group."""

    codes: Codes
    """[rows, in]."""
    zeros: Floats
    """[rows, groups]."""
    scales: Floats
    """[rows, groups]."""
    group_of: Indices
    """Group of each input, [in], ascending."""
    starts: Indices
    """Where each group that has inputs begins, [groups with inputs]."""
    size: int
    """How many inputs each group has; 0 where they do not all have as many."""
    values: Floats | None = None
    """The value of each code, ascending, where codes are ranks of floats; ``None`` of integers."""

    @cached_property
    def steps(self) -> Floats:
        """The size of one quantization step of each weight, [rows, in]."""
        return self._spread(self.scales)

    @cached_property
    def levels(self) -> Floats:
        """Each weight in steps, ``code - zero`` or a float's value, [rows, in]."""
        if self.values is not None:
            return self.values[self.codes]
        return self.codes - self._spread(self.zeros)

    def _spread(self, values: Floats) -> Floats:
        """Return for each weight the value of its group: [rows, groups] -> [rows, in]."""
        # Much faster than by index.
        return np.repeat(values, self.size, axis=1) if self.size else values[:, self.group_of]

    def sums(self, one: Floats, other: Floats) -> Floats:
        """Return the sums of products over each group with inputs: [rows, in] twice."""
        if self.size:
            shape = (len(one), -1, self.size)
            found: Floats = np.einsum("rgi,rgi->rg", one.reshape(shape), other.reshape(shape))
            return found
        return np.add.reduceat(one * other, self.starts, axis=1)

    @property
    def ends(self) -> tuple[Mask, Mask]:
        """Which weights are the lowest, and which the highest, of their group, [rows, in] each.

        AWQ clips a group on purpose (``apply_clip``), and what it cut off stands there. That need
        not be code 0 or 15: the zero is rounded, so a group may end at 14. A group of one value
        has no ends.
        """
        low = np.minimum.reduceat(self.codes, self.starts, axis=1)
        high = np.maximum.reduceat(self.codes, self.starts, axis=1)
        which = np.searchsorted(self.starts, np.arange(len(self.group_of)), side="right") - 1
        # A code beyond all others stands for the end of a group that has none.
        low = np.where(low < high, low, 255)[:, which]
        high = np.where(low < 255, high[:, which], 255)
        return self.codes == low, self.codes == high

    def weight(self) -> Floats:
        """Return the weights that the packed form stands for, [rows, in]."""
        # Scales that are not finite are for the caller to find.
        with np.errstate(all="ignore"):
            return self.levels * self.steps


@dataclass
class PackedLinear:
    """A packed Linear as it is stored."""

    shape: PackedShape
    stored: Codes
    """The bytes of the codes as they lie, those of a row of their tensor side by side."""
    zeros: Floats
    """[out, groups]; what is subtracted from a code."""
    scales: Floats
    """[out, groups]."""
    order: Indices
    """The inputs sorted by group, [in]. In the order they are in, but for GPTQ's desc_act."""
    group_of: Indices
    """The group of each input so sorted, [in]."""

    @cached_property
    def starts(self) -> Indices:
        """Where, in ``order``, each group that has inputs begins."""
        return np.flatnonzero(np.diff(self.group_of, prepend=-1))

    @cached_property
    def _equal_size(self) -> int:
        size = self.shape.inputs // self.shape.groups
        regular = np.arange(self.shape.groups) * size
        whole = size * self.shape.groups == self.shape.inputs
        return size if whole and np.array_equal(self.starts, regular) else 0

    @cached_property
    def _in_order(self) -> bool:
        return np.array_equal(self.order, np.arange(self.shape.inputs))

    def sort(self, values: npt.NDArray[_T]) -> npt.NDArray[_T]:
        """Return values whose last axis is the inputs, sorted by group."""
        return values if self._in_order else values[..., self.order]

    def block(self, start: int, stop: int) -> Block:
        """Return rows ``start`` to ``stop``, each a multiple of 32 or the last."""
        match self.shape.layout:
            case Layout.AWQ:
                per_word = WORD_BITS // self.shape.bits
                words = self.stored.view("<i4")[:, start // per_word : -(-stop // per_word)]
                codes = np.ascontiguousarray(awq.unpack(words).T)
            case Layout.GPTQ:
                codes = gptq.unpack(self.stored.view("<i4")[:, start:stop].T, self.shape.bits)
            case _:
                codes = compressed_tensors.codes_of(self.stored[start:stop], self.shape)
        rows = slice(start, stop)
        return Block(
            self.sort(codes),
            self.zeros[rows],
            self.scales[rows],
            self.group_of,
            self.starts,
            self._equal_size,
            compressed_tensors.values_of(self.shape.layout),
        )

    def row_ranges(self) -> Iterator[tuple[int, int]]:
        """Yield start and stop of blocks of rows that are bounded in memory."""
        step = max(BLOCK_WEIGHTS // self.shape.inputs // WORD_BITS, 1) * WORD_BITS
        for start in range(0, self.shape.outputs, step):
            yield start, min(start + step, self.shape.outputs)

    def weight(self) -> Floats:
        """Return all weights, [out, in], in the model's own order of inputs."""
        found = np.empty((self.shape.outputs, self.shape.inputs), np.float32)
        for start, stop in self.row_ranges():
            found[start:stop, self.order] = self.block(start, stop).weight()
        return found


def read_packed(tensors: Tensors, module: str, quantization: Quantization) -> PackedLinear:
    """Return a packed Linear of a checkpoint, read as config.json says it is to be read.

    Raises:
        CheckpointError: A tensor of it is missing, or types and shapes do not agree with each
            other and with the quantization, or the layout is not one read here.
    """
    scheme = quantization.of(module)
    if scheme is None:
        problem = "is packed, but config.json leaves it out"
        raise CheckpointError(problem, module, "Correct ignore or targets in config.json.")
    shape = shape_of(tensors, module, scheme)
    _agree(shape, module, scheme)
    return read_shaped(tensors, module, shape, scheme.checkpoint_format)


def read_shaped(
    tensors: Tensors, module: str, shape: PackedShape, checkpoint_format: str = ""
) -> PackedLinear:
    """Return a packed Linear of a shape that its tensors have.

    Args:
        tensors: The checkpoint.
        module: Its name.
        shape: By :func:`shape_of`.
        checkpoint_format: Of GPTQ: how zero points are stored.

    Raises:
        CheckpointError: A tensor cannot be read, or does not fit the shape.
    """
    parts = parts_of(module, tensors)
    order, group_of = _groups(tensors, module, shape, parts)
    codes = f"{module}.{parts.codes}"
    stored = tensors.raw(codes).reshape(tensors.info(codes).shape[0], -1)
    match shape.layout:
        case Layout.AWQ:
            points = awq.unpack(tensors.read(f"{module}.{parts.zeros}"))
        case Layout.GPTQ:
            zeros = tensors.read(f"{module}.{parts.zeros}")
            points = gptq.zero_points(zeros, shape.bits, checkpoint_format)
        case _:
            zero_points = compressed_tensors.read_zeros(tensors, module, shape)
            scales = compressed_tensors.read_scales(tensors, module, shape)
            return PackedLinear(shape, stored, zero_points, scales, order, group_of)
    return PackedLinear(
        shape,
        stored,
        np.ascontiguousarray(points.T).astype(np.float32),
        np.ascontiguousarray(tensors.floats(f"{module}.{parts.scales}").T),
        order,
        group_of,
    )


def kind_problem(shape: PackedShape, scheme: Quantization) -> str:
    """Return why a module is not of a kind read here, or not of the kind config.json says."""
    layout, form = shape.layout, scheme.checkpoint_format
    match layout:
        case Layout.AWQ | Layout.GPTQ:
            if scheme.method != layout:
                return f"is laid out as {layout}, but config.json says {scheme.method}"
        case Layout.PACKED | Layout.INTEGERS | Layout.FLOATS | Layout.FP4:
            # The plainest of its formats stores integers and floats of a byte alike.
            naive = form == NAIVE and layout in (Layout.INTEGERS, Layout.FLOATS)
            if scheme.method != COMPRESSED_TENSORS or (form not in ("", layout) and not naive):
                wanted = f"{scheme.method} {form}".strip()
                return f"is laid out as {layout}, but config.json says {wanted}"
        case _:
            assert_never(layout)
    widths = BITS.get(layout, (shape.bits,))
    if shape.bits not in widths:
        return f"is {shape.bits}-bit {layout}; read here are {', '.join(map(str, widths))} bits"
    if layout is Layout.AWQ and scheme.version.lower() not in ("", "gemm"):
        return f"has AWQ layout {scheme.version}; only GEMM is read here"
    if layout is Layout.GPTQ and form not in ("", *gptq.FORMATS):
        return f"has checkpoint format {form}; read are gptq, gptq_v2"
    return ""


def _agree(shape: PackedShape, module: str, scheme: Quantization) -> None:
    """Refuse a module of another kind, or of other numbers than config.json has."""
    problem = kind_problem(shape, scheme)
    size = scheme.group_size
    # Integers of fewer bits are stored in bytes, too.
    is_byte = shape.layout is Layout.INTEGERS and (scheme.bits or 8) <= shape.bits
    if not problem and scheme.bits not in (None, shape.bits) and not is_byte:
        problem = f"has {shape.bits} bits, but config.json says {scheme.bits}"
    wanted = shape.inputs if size is None or size <= 0 else size
    if not problem and wanted != shape.group_size:
        problem = f"has groups of {shape.group_size}, but config.json says {size}"
    if problem:
        raise CheckpointError(problem, module, "config.json and weights must be of one run.")


def _groups(
    tensors: Tensors, module: str, shape: PackedShape, parts: Parts
) -> tuple[Indices, Indices]:
    """Return the inputs sorted by group, and the group of each one of these."""
    name = f"{module}.{parts.order}"
    in_order = np.arange(shape.inputs), np.arange(shape.inputs) // shape.group_size
    if shape.layout is Layout.AWQ or name not in tensors:
        return in_order
    info = tensors.find(name)
    if info.dtype != "I32" or info.shape != [shape.inputs]:
        raise CheckpointError(f"is {info.dtype} {info.shape}", name, f"Has {shape.inputs} inputs.")
    index = tensors.read(name).astype(np.intp)
    if parts != WORDS and (index == -1).any():
        return in_order
    if index.min() < 0 or index.max() >= shape.groups:
        raise CheckpointError(f"names groups beyond {shape.groups}", name, REMADE)
    order = np.argsort(index, kind="stable")
    return order, index[order]
