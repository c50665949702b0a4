"""Which schemes there can be: what each format stores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from matrix.checkpoint.formats import Format
from matrix.spec.tables import Activations, ErrorAt, SchemeTable

_PACKED_BITS = (2, 3, 4, 8)
_ALL_BITS = tuple(range(1, 9))
_NVFP4_GROUP = 16


class _Stored(NamedTuple):
    """What a format stores."""

    bits: tuple[int, ...]
    activations: tuple[Activations, ...] = ("",)
    is_of_floats: bool = False
    """Floats have no zero point."""
    has_order: bool = False
    """Groups may follow the order of the activations."""


_FORMATS = {
    Format.AWQ: _Stored(_PACKED_BITS),
    Format.GPTQ: _Stored(_PACKED_BITS, has_order=True),
    Format.GPTQ_V2: _Stored(_PACKED_BITS, has_order=True),
    Format.PACK_QUANTIZED: _Stored(_ALL_BITS, ("", "int8", "fp8"), has_order=True),
    Format.INT_QUANTIZED: _Stored(_ALL_BITS, ("", "int8")),
    Format.FLOAT_QUANTIZED: _Stored((8,), ("", "fp8"), is_of_floats=True),
    Format.NAIVE_QUANTIZED: _Stored(_ALL_BITS, ("", "int8", "fp8")),
    Format.NVFP4_PACK_QUANTIZED: _Stored((4,), ("", "fp4"), is_of_floats=True),
}


def check_schemes(error: ErrorAt, schemes: Mapping[str, SchemeTable]) -> None:
    """Raise :class:`SpecError` with the first scheme that its format cannot store."""
    for name, scheme in schemes.items():
        for key, problem, remedy in _contradictions(scheme):
            raise error(f"schemes.{name}.{key}", f"{scheme.format} {problem}", remedy)


def _contradictions(scheme: SchemeTable) -> Iterator[tuple[str, str, str]]:
    """Give key, what its format has to say against its value, and what to write."""
    stored = _FORMATS[scheme.format]
    if scheme.bits not in stored.bits:
        remedy = f"Write one of {', '.join(map(str, stored.bits))}"
        yield "bits", f"has no weights of {scheme.bits} bits", remedy
    if scheme.format is Format.NVFP4_PACK_QUANTIZED and scheme.group_size != _NVFP4_GROUP:
        yield "group_size", f"has groups of {_NVFP4_GROUP}", f"Write {_NVFP4_GROUP}"
    if scheme.group_size < 1 and scheme.group_size != -1:
        remedy = "Write how many inputs have one scale, or -1 for a whole row"
        yield "group_size", f"has no groups of {scheme.group_size}", remedy
    if scheme.activations not in stored.activations:
        remedy = "Leave it out, or choose the format that an engine multiplies so"
        yield "activations", f"says nothing of inputs rounded to {scheme.activations}", remedy
    if scheme.desc_act and not stored.has_order:
        yield "desc_act", "has no groups in another order", "Leave it out"
    if not scheme.sym and stored.is_of_floats:
        yield "sym", "is of floats, which have no zero point", "Leave it out"
    if scheme.format is Format.AWQ and not scheme.sym:
        yield "sym", "has zero_point for that", "Write zero_point = true in its place"
    if scheme.format is not Format.AWQ and not scheme.zero_point:
        yield "zero_point", "has sym for that", "Write sym = true in its place"
    if scheme.format is not Format.AWQ and scheme.version != "GEMM":
        yield "version", "has no version", "Leave it out: only AWQ has one"
