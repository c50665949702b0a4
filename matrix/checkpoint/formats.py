"""How quantized weights are stored: the formats that quantizers make and engines read."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

Method = Literal["awq", "gptq", "compressed-tensors"]
"""``quant_method`` of config.json: by it an engine chooses the code that reads a checkpoint."""


class Format(StrEnum):
    """How quantized weights are stored.

    What they were computed by (GPTQ, AWQ's scale search, rounding) is another matter: AutoRound
    stores what it computes in most of these. Those of compressed-tensors have its own names
    (compressed-tensors 0.17.0, ``config/base.py``, ``CompressionFormat``).
    """

    AWQ = "awq"
    """AutoAWQ's GEMM."""
    GPTQ = "gptq"
    """AutoGPTQ's, with each zero point less one; what is meant where a file names no other."""
    GPTQ_V2 = "gptq_v2"
    """The same with zero points as they are."""
    PACK_QUANTIZED = "pack-quantized"
    INT_QUANTIZED = "int-quantized"
    FLOAT_QUANTIZED = "float-quantized"
    NAIVE_QUANTIZED = "naive-quantized"
    NVFP4_PACK_QUANTIZED = "nvfp4-pack-quantized"

    @property
    def method(self) -> Method:
        """What config.json calls it."""
        match self:
            case Format.AWQ:
                return "awq"
            case Format.GPTQ | Format.GPTQ_V2:
                return "gptq"
            case _:
                return "compressed-tensors"
