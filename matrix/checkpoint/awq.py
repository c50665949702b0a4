"""The AWQ GEMM layout, read independently of the packages that write it.

Layout (casper-hansen/AutoAWQ v0.2.9, ``awq/modules/linear/gemm.py`` and
``awq/utils/packing_utils.py``), for a Linear of ``in`` x ``out`` and groups of ``g`` inputs:

- ``qweight`` int32 [in, out / 8], ``qzeros`` int32 [in / g, out / 8], ``scales`` [in / g, out];
- a word holds eight 4-bit codes; its lowest four bits are output 0 of the eight, the next are
  outputs 2, 4, 6, 1, 3, 5 and 7;
- weight = (code - zero) * scale.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

BITS = 4
ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""Which of a word's eight outputs its bits hold, from the lowest."""


def unpack(packed: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
    """Return the codes of packed words: int32 [rows, words] -> uint8 [rows, words * 8]."""
    words = np.ascontiguousarray(packed).view(np.uint32)
    codes = np.empty((*words.shape, len(ORDER)), dtype=np.uint8)
    for position, output in enumerate(ORDER):
        codes[..., output] = (words >> np.uint32(BITS * position)) & np.uint32(2**BITS - 1)
    return codes.reshape(len(words), -1)
