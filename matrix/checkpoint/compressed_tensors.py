"""The layouts of compressed-tensors, read independently of the package that writes them.

Of a Linear of ``in`` x ``out`` and groups of ``g`` inputs (compressed-tensors 0.18.0; what is said
of older releases was read in theirs):

- ``pack-quantized`` (``compressors/pack_quantized``): ``weight_packed`` int32
  [out, in * bits / 32], a word holds the codes of 32 / bits inputs, the first in its lowest bits,
  and a row ends with a whole word; ``weight_shape`` is [out, in]. A code is the integer plus
  2^(bits-1).
- ``int-quantized``, ``float-quantized``, ``naive-quantized`` (``compressors/naive_quantized``):
  ``weight`` [out, in], int8 or float8_e4m3fn.
- ``nvfp4-pack-quantized`` (``compressors/nvfp4``): ``weight_packed`` uint8 [out, in / 2], the first
  of two codes in the lower half; ``weight_scale`` float8_e4m3fn, ``weight_global_scale`` float32
  [1], by which the scales are divided.
- ``weight_scale`` is [out, in / g], [out, 1] for the strategy ``channel``, [1] for ``tensor``, and
  [out / h, in / g] for blocks of h outputs, of which the last may be a smaller one
  (``quantization/lifecycle/initialize.py``).
- ``weight_zero_point`` is there only for asymmetric weights. It has the shape of the scales and is
  int8; but of ``pack-quantized`` with groups or channels it is packed along the outputs, int32
  [out * bits / 32, in / g], as codes are. Releases before 0.9.4 did not pack it.
- ``weight_g_idx`` int32 [in] is there with ``actorder`` ``group``, which 0.19.0 no longer writes.
  One with -1 in it counts for nothing (``lifecycle/forward_helpers.py``, ``_process_group``).
- weight = (code - zero) * scale.
"""

from __future__ import annotations

import math

import numpy as np

from matrix.checkpoint import gptq
from matrix.checkpoint.inspection import CheckpointError, Quantization, TensorInfo
from matrix.checkpoint.layouts import BITS, BYTES, PACKED, Layout, parts_of
from matrix.checkpoint.packed_shapes import REMADE, WORD_BITS, PackedShape, within_bounds
from matrix.checkpoint.small_floats import E2M1, E4M3, Codes, Floats, ranks_of
from matrix.checkpoint.tensors import Tensors

RANKS_8, VALUES_8 = ranks_of(E4M3)
RANKS_4, VALUES_4 = ranks_of(E2M1)


def shape_of(tensors: Tensors, module: str, scheme: Quantization | None) -> PackedShape:
    """Return the shape of a module.

    Args:
        tensors: The checkpoint.
        module: Its name.
        scheme: As config.json says. Needed only where a last group or block is a smaller one.

    Raises:
        CheckpointError: A tensor is missing, has another type or an impossible shape, or the module
            is larger than any Linear.
    """
    codes = tensors.find(f"{module}.{parts_of(module, tensors).codes}")
    if len(codes.shape) != 2 or min(codes.shape) <= 0:
        raise CheckpointError(f"codes of shape {codes.shape} are no matrix", module, REMADE)
    outputs, width = codes.shape
    match codes.dtype:
        case "I32":
            layout = Layout.PACKED
            inputs, bits = _unpacked(tensors, module, codes, scheme)
        case "U8":
            layout, inputs, bits = Layout.FP4, 2 * width, 4
        case "I8":
            layout, inputs, bits = Layout.INTEGERS, width, 8
        case "F8_E4M3":
            layout, inputs, bits = Layout.FLOATS, width, 8
        case _:
            raise CheckpointError(f"codes are {codes.dtype}", module, REMADE)
    scales = tensors.find(f"{module}.{BYTES.scales}")
    _check_types(tensors, module, layout, scales)
    rows, groups = _sides(scales, module)
    size = scheme.group_size if scheme is not None and scheme.group_size else -1
    size = _step(inputs, groups, size)
    height = _step(outputs, rows, min(scheme.block_rows, outputs) if scheme is not None else 1)
    if not size or not height:
        shapes = f"{codes.shape}, {scales.shape}"
        raise CheckpointError(f"shapes {shapes} of codes and scales do not agree", module, REMADE)
    shape = PackedShape(layout, inputs, outputs, bits, groups, size, height)
    return within_bounds(shape, module)


def _unpacked(
    tensors: Tensors, module: str, codes: TensorInfo, scheme: Quantization | None
) -> tuple[int, int]:
    """Return how many inputs packed words hold for a row, and the bits of each."""
    name = f"{module}.{PACKED.others[0]}"
    info = tensors.find(name)
    if info.dtype not in ("I64", "I32") or info.shape != [2]:
        raise CheckpointError(f"is {info.dtype} {info.shape}", name, "It holds two sides.")
    outputs, inputs = (int(side) for side in tensors.read(name))
    widths = [bits for bits in range(1, 9) if -(-inputs * bits // WORD_BITS) == codes.shape[1]]
    if outputs != codes.shape[0] or inputs <= 0 or not widths:
        problem = f"says {outputs} x {inputs} weights, but the codes are {codes.shape}"
        raise CheckpointError(problem, name, REMADE)
    meant = [scheme.bits] if scheme is not None else []
    return inputs, next(bits for bits in (*meant, *BITS[Layout.PACKED], *widths) if bits in widths)


def _check_types(tensors: Tensors, module: str, layout: Layout, scales: TensorInfo) -> None:
    wanted = ("F8_E4M3",) if layout is Layout.FP4 else ("F16", "BF16", "F32", "F64")
    if scales.dtype not in wanted:
        problem = f"is {scales.dtype} beside codes of {layout}"
        raise CheckpointError(problem, scales.name, f"Read are {', '.join(wanted)}.")
    name = f"{module}.{PACKED.others[1]}"
    if layout is Layout.FP4 and math.prod(tensors.find(name).shape) != 1:
        raise CheckpointError("is not one number", name, REMADE)


def _sides(scales: TensorInfo, module: str) -> tuple[int, int]:
    """Return the sides of the scales; of one for the whole, 1 and 1."""
    if math.prod(scales.shape) == 1:
        return 1, 1
    if len(scales.shape) != 2 or min(scales.shape) <= 0:
        raise CheckpointError(f"scales of shape {scales.shape} are no matrix", module, REMADE)
    return scales.shape[0], scales.shape[1]


def _step(side: int, parts: int, meant: int) -> int:
    """Return how long each part of a side is; 0 where it has no such parts.

    The length that is meant, if there are so many of it, so that the last may be a shorter one.
    """
    if meant > 0 and -(-side // meant) == parts:
        return meant
    return 0 if side % parts else side // parts


def read_scales(tensors: Tensors, module: str, shape: PackedShape) -> Floats:
    """Return the scales, [out, groups].

    Raises:
        CheckpointError: A tensor cannot be read.
    """
    scales = _spread(tensors.floats(f"{module}.{BYTES.scales}"), shape)
    if shape.layout is Layout.FP4:
        whole = tensors.floats(f"{module}.{PACKED.others[1]}").reshape(())
        # A divisor of 0 is for the caller to find.
        with np.errstate(all="ignore"):
            scales = scales / whole
    return np.ascontiguousarray(scales)


def read_zeros(tensors: Tensors, module: str, shape: PackedShape) -> Floats:
    """Return what is subtracted from a code, [out, groups].

    Raises:
        CheckpointError: A tensor cannot be read, or has another shape.
    """
    name = f"{module}.{BYTES.zeros}"
    if shape.layout in (Layout.FLOATS, Layout.FP4):
        # Their codes stand for numbers of both signs as they are.
        return np.zeros((shape.outputs, shape.groups), np.float32)
    middle = np.float32(2 ** (shape.bits - 1))
    if name not in tensors:
        return np.full((shape.outputs, shape.groups), middle)
    info = tensors.info(name)
    words = -(-shape.outputs * shape.bits // WORD_BITS)
    if info.dtype == "I32" and info.shape == [words, shape.groups]:
        points = gptq.unpack(tensors.read(name).T, shape.bits)[:, : shape.outputs]
        return np.ascontiguousarray(points.T).astype(np.float32)
    if info.dtype == "I8" and info.shape == tensors.info(f"{module}.{BYTES.scales}").shape:
        return np.ascontiguousarray(_spread(tensors.floats(name), shape) + middle)
    problem = f"is {info.dtype} {info.shape}, which fits no layout of {shape.layout}"
    raise CheckpointError(problem, name, REMADE)


def _spread(values: Floats, shape: PackedShape) -> Floats:
    """Return for each output the values of its block: [rows, groups] -> [out, groups]."""
    rows = values.reshape(-1, shape.groups)
    return np.repeat(rows, shape.block_rows, axis=0)[: shape.outputs]


def codes_of(stored: Codes, shape: PackedShape) -> Codes:
    """Return the codes of some rows, [rows, in]: those of floats as ranks, so that they ascend."""
    match shape.layout:
        case Layout.PACKED:
            return gptq.unpack(stored.view("<i4"), shape.bits)[:, : shape.inputs]
        case Layout.INTEGERS:
            return stored ^ np.uint8(0x80)
        case Layout.FLOATS:
            return RANKS_8[stored]
        case Layout.FP4:
            halves = np.stack([stored & np.uint8(15), stored >> np.uint8(4)], axis=-1)
            return RANKS_4[halves.reshape(len(stored), -1)]
        case _:
            raise ValueError(shape.layout)


def values_of(layout: Layout) -> Floats | None:
    """Return the value of each code; ``None`` where that is the code itself."""
    match layout:
        case Layout.FLOATS:
            return VALUES_8
        case Layout.FP4:
            return VALUES_4
        case _:
            return None
