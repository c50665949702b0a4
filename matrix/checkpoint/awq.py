"""Reading the AWQ GEMM layout, independently of the packages that write it.

Layout (casper-hansen/AutoAWQ v0.2.9, ``awq/modules/linear/gemm.py`` and
``awq/utils/packing_utils.py``), for a Linear of ``in`` x ``out`` and groups of ``g`` inputs:

- ``qweight`` int32 [in, out / 8], ``qzeros`` int32 [in / g, out / 8], ``scales`` [in / g, out];
- a word holds eight 4-bit codes; its lowest four bits are output 0 of the eight, the next are
  outputs 2, 4, 6, 1, 3, 5 and 7;
- weight = (code - zero) * scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from matrix.checkpoint.inspection import CheckpointError, Quantization
from matrix.checkpoint.tensors import Floats, Tensors

BITS = 4
ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""Which of a word's eight outputs its bits hold, from the lowest."""

Codes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class PackedLinear:
    """A packed Linear, unpacked but not multiplied out."""

    codes: Codes
    """[in, out], 0 to 15."""
    zeros: Codes
    """[groups, out], 0 to 15."""
    scales: Floats
    """[groups, out]."""

    @property
    def steps(self) -> Floats:
        """The size of one quantization step of each weight, [out, in]."""
        return np.repeat(self.scales, len(self.codes) // len(self.scales), axis=0).T

    @property
    def levels(self) -> Floats:
        """Each weight in steps, ``code - zero``, [out, in]."""
        zeros = np.repeat(self.zeros, len(self.codes) // len(self.zeros), axis=0)
        return (self.codes.astype(np.float32) - zeros).T

    @property
    def ends(self) -> tuple[Mask, Mask]:
        """Which weights are the lowest, and which the highest, of their group, [out, in] each.

        AWQ clips a group on purpose (``apply_clip``), and what it cut off stands there. That need
        not be code 0 or 15: the zero is rounded, so a group may end at 14. A group of one value
        has no ends.
        """
        groups = self.codes.reshape(len(self.scales), -1, self.codes.shape[1])
        low, high = groups.min(axis=1, keepdims=True), groups.max(axis=1, keepdims=True)
        lowest: Mask = ((groups == low) & (low < high)).reshape(self.codes.shape)
        highest: Mask = ((groups == high) & (low < high)).reshape(self.codes.shape)
        return lowest.T, highest.T

    def weight(self) -> Floats:
        """Return the weight that the packed form stands for, [out, in]."""
        # Scales that are not finite are for the caller to find.
        with np.errstate(all="ignore"):
            return self.levels * self.steps


def unpack(packed: npt.NDArray[np.int32]) -> Codes:
    """Return the codes of packed words: int32 [rows, words] -> uint8 [rows, words * 8]."""
    words = np.ascontiguousarray(packed).view(np.uint32)
    codes = np.empty((*words.shape, len(ORDER)), dtype=np.uint8)
    for position, output in enumerate(ORDER):
        codes[..., output] = (words >> np.uint32(BITS * position)) & np.uint32(2**BITS - 1)
    return codes.reshape(len(words), -1)


def read_packed(tensors: Tensors, module: str, quantization: Quantization) -> PackedLinear:
    """Return a packed Linear of a checkpoint.

    Raises:
        CheckpointError: A tensor of it is missing, or types and shapes do not agree with each
            other and with the quantization, or the layout is not the one read here.
    """
    if quantization.method != "awq" or quantization.bits not in (None, BITS):
        found = f"{quantization.bits}-bit {quantization.method}"
        raise CheckpointError(f"is {found}", module, "Only 4-bit AWQ is read here so far.")
    if quantization.version.lower() not in ("", "gemm"):
        problem = f"has AWQ layout {quantization.version}"
        raise CheckpointError(problem, module, "Quantize with version GEMM.")
    qweight: npt.NDArray[Any] = tensors.read(f"{module}.qweight")
    qzeros: npt.NDArray[Any] = tensors.read(f"{module}.qzeros")
    scales = tensors.floats(f"{module}.scales")
    shapes = f"{list(qweight.shape)}, {list(qzeros.shape)}, {list(scales.shape)}"
    if qweight.dtype != np.int32 or qzeros.dtype != np.int32:
        raise CheckpointError("codes or zeros are not int32", module, "Make the checkpoint again.")
    if not (qweight.ndim == qzeros.ndim == scales.ndim == 2 and qweight.size):
        raise CheckpointError(f"shapes {shapes} are not matrices", module, "Make it again.")
    inputs, words = qweight.shape
    size = quantization.group_size if quantization.group_size is not None else -1
    groups = inputs // size if size > 0 else 1
    fits = groups > 0 and inputs % groups == 0 and (size <= 0 or groups * size == inputs)
    if not fits or qzeros.shape != (groups, words) or scales.shape != (groups, words * len(ORDER)):
        problem = f"shapes {shapes} do not agree with groups of {size}"
        raise CheckpointError(problem, module, "config.json and weights must be of one run.")
    return PackedLinear(unpack(qweight), unpack(qzeros), scales)
