"""The GPTQ layout, read independently of the packages that write it.

Layout (AutoGPTQ v0.7.1, ``auto_gptq/nn_modules/qlinear/qlinear_cuda_old.py``, ``pack`` and
``forward``; the same in GPTQModel), for a Linear of ``in`` x ``out`` and groups of ``g`` inputs:

- ``qweight`` int32 [in * bits / 32, out], ``qzeros`` int32 [groups, out * bits / 32], ``scales``
  [groups, out], ``g_idx`` int32 [in], the group of each input;
- a word holds 32 / bits codes, the first in its lowest bits: of as many inputs in ``qweight``, of
  as many outputs in ``qzeros``;
- weight = (code - zero) * scale. Checkpoint format ``gptq`` (v1), which is meant where
  quantization_config has none, stores zero - 1; ``gptq_v2`` stores zero.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FORMATS = ("gptq", "gptq_v2")


def unpack(packed: npt.NDArray[np.int32], bits: int) -> npt.NDArray[np.uint8]:
    """Return the codes of packed words: int32 [rows, words] -> uint8 [rows, words * 32 / bits].

    ``bits`` is 2, 4 or 8.
    """
    words = np.ascontiguousarray(packed).astype("<i4", copy=False).view(np.uint8)
    if bits == 8:
        return words
    per_byte = 8 // bits
    codes = np.empty((*words.shape, per_byte), dtype=np.uint8)
    for position in range(per_byte):
        codes[..., position] = (words >> np.uint8(bits * position)) & np.uint8(2**bits - 1)
    return codes.reshape(len(words), -1)


def zero_points(
    packed: npt.NDArray[np.int32], bits: int, checkpoint_format: str
) -> npt.NDArray[np.uint8]:
    """Return what is subtracted from a code: int32 [groups, words] -> uint8 [groups, out]."""
    stored = unpack(packed, bits)
    if checkpoint_format == "gptq_v2":
        return stored
    # AutoGPTQ masks the sum as well, so that a stored -1 stands for 0.
    return (stored + np.uint8(1)) & np.uint8(2**bits - 1)
