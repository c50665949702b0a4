"""How the weights of packed Linears lie in their tensors, by name and type. Data, without numpy."""

from __future__ import annotations

from collections.abc import Container
from enum import StrEnum
from typing import NamedTuple


class Layout(StrEnum):
    """How codes lie, which a file alone says. Those of compressed-tensors have its names."""

    AWQ = "awq"
    GPTQ = "gptq"
    PACKED = "pack-quantized"
    """Integers of 4 or 8 bits, packed into int32 words along the inputs."""
    INTEGERS = "int-quantized"
    """Integers of 8 bits, a byte each."""
    FLOATS = "float-quantized"
    """Floats of 8 bits (E4M3), a byte each."""
    FP4 = "nvfp4-pack-quantized"
    """Floats of 4 bits (E2M1), two in a byte; scales of 8 bits for each 16 inputs, and one of
    32 bits by which all are divided."""


BITS = {Layout.AWQ: (4,), Layout.GPTQ: (2, 4, 8), Layout.PACKED: (4, 8)}
"""Layout of integers in words -> the widths that are read: they divide a word, and somebody writes
them. GPTQ's 3-bit codes straddle words."""


class Parts(NamedTuple):
    """The last words of the names of a packed module's tensors."""

    codes: str
    zeros: str
    scales: str
    order: str
    """The group of each input."""
    others: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        return (self.codes, self.zeros, self.scales, self.order, *self.others)


WORDS = Parts("qweight", "qzeros", "scales", "g_idx")
"""Of AWQ and GPTQ."""
BYTES = Parts("weight", "weight_zero_point", "weight_scale", "weight_g_idx")
"""Of compressed-tensors where a code is a byte."""
PACKED = BYTES._replace(codes="weight_packed", others=("weight_shape", "weight_global_scale"))
"""Of compressed-tensors where a byte holds several codes, or a code not all of one."""
TYPES = {
    "qweight": ("I32",),
    "qzeros": ("I32",),
    "g_idx": ("I32",),
    "scales": ("F16", "BF16"),
    "weight": ("I8", "F8_E4M3"),
    "weight_packed": ("I32", "U8"),
    "weight_zero_point": ("I32", "I8"),
    "weight_scale": ("F16", "BF16", "F32", "F64", "F8_E4M3"),
    "weight_g_idx": ("I32",),
    "weight_shape": ("I64", "I32"),
    "weight_global_scale": ("F32",),
}
"""Part of a packed Linear -> the types that it may have."""
ACTIVATION_PARTS = (
    "input_scale", "input_zero_point", "input_global_scale", "output_scale", "output_zero_point",
    "q_scale", "k_scale", "v_scale", "q_zero_point", "k_zero_point", "v_zero_point",
)  # fmt: skip
"""What compressed-tensors stores for activations and for the cache of keys and values."""
_BYTE_CODES = ("I8", "F8_E4M3")


def codes_in(name: str, dtype: str, names: Container[str]) -> tuple[str, Parts] | None:
    """Return the module whose codes a tensor holds, and its parts; ``None`` where it holds none.

    Args:
        name: The tensor's.
        dtype: Its type.
        names: Those of all tensors.
    """
    module, _, last = name.rpartition(".")
    for parts in (WORDS, PACKED):
        if last == parts.codes:
            return module, parts
    if last == BYTES.codes and (dtype in _BYTE_CODES and f"{module}.{BYTES.scales}" in names):
        return module, BYTES
    return None


def parts_of(module: str, names: Container[str]) -> Parts:
    """Return the parts of a packed module, by what there is of it."""
    return next((parts for parts in (WORDS, PACKED) if f"{module}.{parts.codes}" in names), BYTES)
