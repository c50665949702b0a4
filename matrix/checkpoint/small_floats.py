"""The values of floats of 8 and 4 bits, which numpy has not, as tables. Of OCP's two definitions:
OFP8 (E4M3, without infinity) and Microscaling Formats (E2M1), both of 2023."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.uint8]


def _values(exponent_bits: int, mantissa_bits: int) -> Floats:
    """Return the value of each code, its sign in the highest bit."""
    magnitudes = np.arange(2 ** (exponent_bits + mantissa_bits))
    exponent, mantissa = np.divmod(magnitudes, 2**mantissa_bits)
    bias = 2 ** (exponent_bits - 1) - 1
    # The least exponent stands for numbers without a leading one.
    significand = mantissa / 2**mantissa_bits + (exponent > 0)
    values = significand * 2.0 ** (np.maximum(exponent, 1) - bias)
    return np.concatenate([values, -values]).astype(np.float32)


E2M1 = _values(2, 1)
E4M3 = _values(4, 3)
E4M3[[0x7F, 0xFF]] = np.nan


def ranks_of(values: Floats) -> tuple[Codes, Floats]:
    """Return the rank of each code, and the value of each rank: both ascend. NaN is the highest."""
    order = np.argsort(values, kind="stable")
    ranks = np.empty(len(values), np.uint8)
    ranks[order] = np.arange(len(values))
    return ranks, values[order]
