"""Packed Linears: their shapes, told from the tensors alone, and their weights, a block at a time.

What AWQ and GPTQ share. The two layouts themselves are in :mod:`matrix.checkpoint.awq` and
:mod:`matrix.checkpoint.gptq`. A whole module is in memory only as it is stored, 4 or 8 bits a
weight; what is unpacked is a block of its rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import TypeVar, assert_never

import numpy as np
import numpy.typing as npt

from matrix.checkpoint import awq, gptq
from matrix.checkpoint.inspection import CheckpointError, Quantization
from matrix.checkpoint.tensors import Floats, Tensors

BITS = (2, 4, 8)
"""Widths that divide a word. GPTQ's 3-bit codes straddle words."""
MAX_SIDE = 2**22
MAX_WEIGHTS = 2**30
"""A module beyond these is no Linear of a model; it is not read."""
MIN_GROUP = 8
"""With smaller groups, scales and zeros as numbers would take far more memory than the codes."""
BLOCK_WEIGHTS = 2**19
WORD_BITS = 32
_REMADE = "Make the checkpoint again."

Codes = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.intp]
Words = npt.NDArray[np.int32]
_T = TypeVar("_T", bound=np.generic)
Mask = npt.NDArray[np.bool_]


class Layout(StrEnum):
    """How codes lie in words."""

    AWQ = "awq"
    GPTQ = "gptq"


@dataclass(frozen=True)
class PackedShape:
    """What the shapes of a module's tensors say."""

    layout: Layout
    inputs: int
    outputs: int
    bits: int
    groups: int
    group_size: int


def shape_of(tensors: Tensors, module: str, group_size: int | None) -> PackedShape:
    """Return the shape of a packed module.

    Args:
        tensors: The checkpoint.
        module: Name without ``.qweight``.
        group_size: As config.json says. Needed only where the last group is a shorter one.

    Raises:
        CheckpointError: A tensor is missing, is no matrix, has another type, or they disagree, or
            the module or its number of groups is larger than any Linear's.
    """
    infos = [tensors.find(f"{module}.{part}") for part in ("qweight", "qzeros", "scales")]
    if infos[0].dtype != "I32" or infos[1].dtype != "I32":
        raise CheckpointError("codes or zeros are not int32", module, _REMADE)
    qweight, qzeros, scales = (info.shape for info in infos)
    shapes = f"{qweight}, {qzeros}, {scales}"
    if not all(len(shape) == 2 and min(shape) > 0 for shape in (qweight, qzeros, scales)):
        raise CheckpointError(f"shapes {shapes} are not matrices", module, _REMADE)
    (rows, words), (groups, outputs) = qweight, scales
    bits, rest = divmod(qzeros[1] * WORD_BITS, outputs)
    # The two layouts pack along different sides.
    by_output = words * WORD_BITS == outputs * bits
    inputs = rows if by_output else rows * WORD_BITS // max(bits, 1)
    size = group_size if group_size is not None and group_size > 0 else inputs
    if -(-inputs // size) != groups or (by_output and inputs % size):
        # Not as config.json says, whose last group may be a shorter one, but not AWQ's.
        size, unequal = divmod(inputs, groups)
        rest = rest or unequal
    if rest or not 1 <= bits <= 8 or qzeros[0] != groups or not (by_output or words == outputs):
        raise CheckpointError(f"shapes {shapes} do not agree", module, _REMADE)
    if max(inputs, outputs) > MAX_SIDE or inputs * outputs > MAX_WEIGHTS:
        raise CheckpointError(f"{inputs} x {outputs} weights are no Linear", module, _REMADE)
    if size < MIN_GROUP:
        problem = f"groups of {size} are too small; read are {MIN_GROUP} and more inputs"
        raise CheckpointError(problem, module, "Quantize with larger groups.")
    layout = Layout.AWQ if by_output else Layout.GPTQ
    return PackedShape(layout, inputs, outputs, bits, groups, size)


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

    @cached_property
    def steps(self) -> Floats:
        """The size of one quantization step of each weight, [rows, in]."""
        return self._spread(self.scales)

    @cached_property
    def levels(self) -> Floats:
        """Each weight in steps, ``code - zero``, [rows, in]."""
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
    qweight: Words
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
        bits = self.shape.bits
        match self.shape.layout:
            case Layout.AWQ:
                per_word = WORD_BITS // bits
                words = self.qweight[:, start // per_word : -(-stop // per_word)]
                codes = np.ascontiguousarray(awq.unpack(words).T)
            case Layout.GPTQ:
                codes = gptq.unpack(self.qweight[:, start:stop].T, bits)
            case _:
                assert_never(self.shape.layout)
        rows = slice(start, stop)
        return Block(
            self.sort(codes),
            self.zeros[rows],
            self.scales[rows],
            self.group_of,
            self.starts,
            self._equal_size,
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
    shape = shape_of(tensors, module, quantization.group_size)
    _agree(shape, module, quantization)
    order, group_of = _groups(tensors, module, shape)
    zeros = tensors.read(f"{module}.qzeros")
    match shape.layout:
        case Layout.AWQ:
            points = awq.unpack(zeros)
        case Layout.GPTQ:
            points = gptq.zero_points(zeros, shape.bits, quantization.checkpoint_format)
        case _:
            assert_never(shape.layout)
    return PackedLinear(
        shape,
        tensors.read(f"{module}.qweight"),
        np.ascontiguousarray(points.T).astype(np.float32),
        np.ascontiguousarray(tensors.floats(f"{module}.scales").T),
        order,
        group_of,
    )


def kind_problem(shape: PackedShape, quantization: Quantization) -> str:
    """Return why a module is not of a kind read here, or not of the kind config.json says."""
    if quantization.method != shape.layout:
        return f"is laid out as {shape.layout}, but config.json says {quantization.method}"
    if shape.bits not in BITS or (shape.layout is Layout.AWQ and shape.bits != awq.BITS):
        return f"is {shape.bits}-bit {shape.layout}; read here are 4-bit AWQ and 2, 4, 8-bit GPTQ"
    if shape.layout is Layout.AWQ and quantization.version.lower() not in ("", "gemm"):
        return f"has AWQ layout {quantization.version}; only GEMM is read here"
    if shape.layout is Layout.GPTQ and quantization.checkpoint_format not in ("", *gptq.FORMATS):
        return f"has checkpoint format {quantization.checkpoint_format}; read are gptq, gptq_v2"
    return ""


def _agree(shape: PackedShape, module: str, quantization: Quantization) -> None:
    """Refuse a module of another kind, or of other numbers than config.json has."""
    problem = kind_problem(shape, quantization)
    size = quantization.group_size
    if not problem and quantization.bits not in (None, shape.bits):
        problem = f"has {shape.bits} bits, but config.json says {quantization.bits}"
    wanted = shape.inputs if size is None or size <= 0 else size
    if not problem and wanted != shape.group_size:
        problem = f"has groups of {shape.group_size}, but config.json says {size}"
    if problem:
        raise CheckpointError(problem, module, "config.json and weights must be of one run.")


def _groups(tensors: Tensors, module: str, shape: PackedShape) -> tuple[Indices, Indices]:
    """Return the inputs sorted by group, and the group of each one of these."""
    name = f"{module}.g_idx"
    if shape.layout is Layout.AWQ or name not in tensors:
        return np.arange(shape.inputs), np.arange(shape.inputs) // shape.group_size
    info = tensors.find(name)
    if info.dtype != "I32" or info.shape != [shape.inputs]:
        raise CheckpointError(f"is {info.dtype} {info.shape}", name, f"Has {shape.inputs} inputs.")
    index = tensors.read(name).astype(np.intp)
    if index.min() < 0 or index.max() >= shape.groups:
        raise CheckpointError(f"names groups beyond {shape.groups}", name, _REMADE)
    order = np.argsort(index, kind="stable")
    return order, index[order]
