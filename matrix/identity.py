"""Names for things by what went into them: digests of plain data and of files."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import msgspec

_encoder = msgspec.json.Encoder(order="sorted")


def digest(value: object) -> str:
    """Return 16 hex digits that name plain data (JSON types, structs, enums) by its content."""
    return hashlib.sha256(_encoder.encode(value)).hexdigest()[:16]


@cache
def file_digest(path: Path) -> str:
    """Return 16 hex digits that name a file by its content; read once per process."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def code_digest(directory: Path) -> str:
    """Return 16 hex digits that name all Python files under a directory."""
    files = sorted(directory.rglob("*.py"))
    return digest({str(file.relative_to(directory)): file_digest(file) for file in files})
