"""Values of tensors that no quantizer leaves behind, by a second look at a part of each file."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from matrix.checkpoint.files import CheckpointFiles
from matrix.checkpoint.inspection import CheckpointError, Inspection
from matrix.checkpoint.layouts import parts_of
from matrix.checkpoint.shapes import EMBEDDING, HEAD
from matrix.checkpoint.tensors import Tensors

LARGEST_SCALE = 10.0
LARGEST_RATIO = 1000.0
"""A scale beyond both, the second against the middle one of its layer, is damage: the largest of
a real layer was 17 times its middle one, and 0.13."""
LARGEST_WEIGHT = 10_000.0
"""Of a norm or a bias; a float16 ends at 65504."""
SCALES_THAT_TELL = 32
MOST_STRAYED = 0.02
"""Relative error of a row that was only stored in another 16-bit type, which is at most 0.004."""
LEAST_PART = 0.01
"""Of the size of a vector, up to which an error of one of its numbers says nothing."""
BLOCK_ROWS = 256
LOOK_BYTES = 2**16
Look = Callable[[Tensors, str], Iterator[str]]
UNCHANGED = (EMBEDDING, HEAD, "model.norm.weight")
"""What AWQ folds nothing into."""


def value_faults(files: CheckpointFiles, inspection: Inspection) -> list[str]:
    """Return which tensors hold values that make no model. Scales, norms and biases are read."""
    tensors = Tensors(files)
    faults: list[str] = []
    for name, look in _looks(tensors, inspection):
        try:
            faults += look(tensors, name)
        except CheckpointError:
            continue  # who reads every tensor has said why
    return faults


def _looks(tensors: Tensors, inspection: Inspection) -> Iterator[tuple[str, Look]]:
    """Yield the tensors whose values are looked at, and how."""
    packed = {m.name for m in inspection.modules}
    for module in inspection.modules:
        if module.inputs and not module.note:
            parts = parts_of(module.name, tensors)
            yield f"{module.name}.{parts.scales}", _scale_faults
            yield f"{module.name}.{parts.codes}", _code_faults
    for tensor in inspection.tensors:
        module_name, _, part = tensor.name.rpartition(".")
        if module_name not in packed and tensor.name in (EMBEDDING, HEAD):
            yield tensor.name, _zero_faults
        elif len(tensor.shape) == 1 and part == "bias":
            yield tensor.name, _size_faults
        elif len(tensor.shape) == 1 and part == "weight" and module_name not in packed:
            yield tensor.name, _vector_faults


def _code_faults(tensors: Tensors, name: str) -> Iterator[str]:
    if _is_constant(tensors, name):
        yield f"{name}: all its codes are equal"


def _zero_faults(tensors: Tensors, name: str) -> Iterator[str]:
    if _is_constant(tensors, name, zero=True):
        yield f"{name} is 0 everywhere"


def _vector_faults(tensors: Tensors, name: str) -> Iterator[str]:
    faults = list(_zero_faults(tensors, name))
    yield from faults or _size_faults(tensors, name)


def _is_constant(tensors: Tensors, name: str, *, zero: bool = False) -> bool:
    """Whether all bytes are those of the first word, or 0; of a good tensor, a block tells."""
    first: bytes | None = bytes(4) if zero else None
    for block in tensors.raw_blocks(name, memoryview(bytearray(LOOK_BYTES))):
        first = first or bytes(block[:4])
        if bytes(block) != first * (len(block) // 4) + first[: len(block) % 4]:
            return False
    return first is not None


def _scale_faults(tensors: Tensors, name: str) -> Iterator[str]:
    largest, middle, negative, count = 0.0, 0.0, 0, 0
    for block in tensors.float_blocks(name):
        sizes = np.abs(block[np.isfinite(block)])
        middle = middle or float(np.median(sizes)) if len(sizes) else middle
        largest = max(largest, float(sizes.max(initial=0)))
        negative, count = negative + int(np.count_nonzero(block < 0)), count + len(block)
    if largest > LARGEST_SCALE and largest > LARGEST_RATIO * middle:
        yield f"{name} has a scale of {largest:.3g}; the middle one is {middle:.3g}"
    if count >= SCALES_THAT_TELL and negative == count:
        yield f"{name}: all its scales are negative"


def _size_faults(tensors: Tensors, name: str) -> Iterator[str]:
    blocks = (np.abs(block[np.isfinite(block)]) for block in tensors.float_blocks(name))
    largest = max((float(sizes.max(initial=0)) for sizes in blocks), default=0.0)
    if largest > LARGEST_WEIGHT:
        yield f"{name} has a value of {largest:.3g}, near what float16 can hold"


def stray_faults(
    files: CheckpointFiles, source: CheckpointFiles, inspection: Inspection
) -> list[str]:
    """Return which tensors that no quantizer changes have rows that are not the original's.

    A few wrong rows of a large embedding are too small a share of it to show in its whole.
    """
    tensors, originals = Tensors(files), Tensors(source)
    quantization = inspection.quantization
    folded = quantization is not None and quantization.method != "gptq"
    names = [name for name in tensors if not folded or name in UNCHANGED]
    faults: list[str] = []
    for name in names:
        counterpart = EMBEDDING if name == HEAD and HEAD not in originals else name
        if counterpart not in originals:
            continue
        try:
            if strayed := _strayed_rows(tensors, name, originals, counterpart):
                faults.append(f"{name} has {strayed} rows that are not the original's")
        except CheckpointError:
            continue  # the comparison of weights has said why
    return faults


def _strayed_rows(tensors: Tensors, name: str, originals: Tensors, counterpart: str) -> int:
    """Return how many rows of a matrix, or numbers of a vector, are not the original's."""
    shape = tensors.info(name).shape
    if (
        shape != originals.info(counterpart).shape
        or len(shape) not in (1, 2)
        or not math.prod(shape)
    ):
        return 0
    if len(shape) == 1:
        have, want = tensors.floats(name), originals.floats(counterpart)
        least = LEAST_PART * float(np.sqrt(np.square(want, dtype=np.float64).mean()))
        return int(np.count_nonzero(np.abs(have - want) > MOST_STRAYED * np.abs(want) + least))
    strayed = 0
    for start in range(0, shape[0], BLOCK_ROWS):
        rows = start, min(start + BLOCK_ROWS, shape[0])
        have, want = tensors.float_rows(name, *rows), originals.float_rows(counterpart, *rows)
        error, size = np.linalg.norm(have - want, axis=1), np.linalg.norm(want, axis=1)
        strayed += int(np.count_nonzero(error > MOST_STRAYED * size))
    return strayed
