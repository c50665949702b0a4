"""Names for things by what went into them: digests of plain data and of files."""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from pathlib import Path

import msgspec

_encoder = msgspec.json.Encoder(order="sorted")


def digest(value: object) -> str:
    """Return 16 hex digits that name plain data (JSON types, structs, enums) by its content."""
    return hashlib.sha256(_encoder.encode(value)).hexdigest()[:16]


def key_of(step: str, inputs: object, departures: list[str]) -> str:
    """Return the key under which a step stands that was given these inputs."""
    return digest([step, inputs, departures])


@cache
def file_digest(path: Path) -> str:
    """Return 16 hex digits that name a file by its content; read once per process."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


@cache
def code_digest(directory: Path) -> str:
    """Return 16 hex digits that name all Python files under a directory; read once per process."""
    files = sorted(directory.rglob("*.py"))
    return digest({str(file.relative_to(directory)): file_digest(file) for file in files})


@cache
def adapter_digest(path: Path) -> str:
    """Return 16 hex digits that name an adapter: its file, and those from beside it that it or
    one of them imports; read once per process."""
    files = [path]
    for file in files:  # which grows meanwhile
        files += [new for new in _beside(file) if new.is_file() and new not in files]
    return digest({file.name: file_digest(file) for file in files})


def _beside(path: Path) -> list[Path]:
    try:
        nodes = list(ast.walk(ast.parse(path.read_bytes())))
    except (SyntaxError, ValueError):
        return []  # it cannot be imported, which is a result and none of this module's business
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.level == 1]
    names = [name for node in imports for name in [node.module, *(a.name for a in node.names)]]
    return [path.with_name(f"{name}.py") for name in names if name]
