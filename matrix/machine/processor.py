"""What the CPU is and which instructions it has: what packages choose their kernels by.

The level (``x86-64-v3`` has AVX2, ``x86-64-v4`` AVX-512) comes from archspec, which knows the ABI's
levels; what lies beyond a level is read in the kernel's own words.
"""

from __future__ import annotations

import platform
from pathlib import Path

import archspec.cpu  # type: ignore[import-untyped]

from matrix.spec.tables import InstructionSet

_FEATURES = (
    "avx2", "avx512f", "avx512_bf16", "avx512_fp16", "avx512_vnni", "avx_vnni", "amx_bf16",
    "amx_int8", "amx_tile", "f16c", "asimd", "bf16", "i8mm", "sve",
)  # fmt: skip
"""What kernels for CPUs are chosen by."""

_BEYOND = (
    "avx512_bf16", "avx512_fp16", "avx512_vnni", "avx_vnni", "amx_tile", "bf16", "i8mm", "sve",
)  # fmt: skip
"""Those of them that no level contains and by which kernels differ."""

_INSTRUCTION_SETS: dict[InstructionSet, str] = {
    "AVX2": "avx2", "AVX-512": "avx512f", "AVX-512 BF16": "avx512_bf16", "AMX": "amx_tile",
}  # fmt: skip
"""What packages are built for, and the kernel's word for the part that all of it needs."""


def name() -> str:
    """Return the name that the CPU gives itself."""
    return _of_cpu("model name") or platform.processor()


def features() -> list[str]:
    """Return what kernels are chosen by and this CPU has, in the kernel's words."""
    words = (_of_cpu("flags") or _of_cpu("Features")).split()
    return [word for word in _FEATURES if word in words]


def instruction_set(cpu_features: list[str]) -> str:
    """Return this CPU's level and what it has beyond it: ``x86-64-v4, avx512_bf16``."""
    level = archspec.cpu.host().generic.name.replace("_", "-")
    return ", ".join([level, *(word for word in _BEYOND if word in cpu_features)])


def lacking(cpu_features: list[str]) -> list[InstructionSet]:
    """Return the instruction sets that packages are built for and this CPU lacks: ``AVX-512``."""
    return [title for title, word in _INSTRUCTION_SETS.items() if word not in cpu_features]


def _of_cpu(field: str) -> str:
    """Return a field of the first processor in the kernel's words."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    fields = (line.partition(":") for line in lines)
    return next((value.strip() for key, _, value in fields if key.strip() == field), "")
