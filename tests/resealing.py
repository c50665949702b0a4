"""Stored files changed as their writers would have written them: sealed anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from matrix.store.sealing import seal, seal_text, unseal, unseal_text

Change = Callable[[bytes], bytes]


def resealed(change: Change) -> Change:
    """Return what changes the content of a stored file, text, object or lines of objects."""

    def changed(data: bytes) -> bytes:
        if not data.startswith(b"{"):
            return seal_text(change(unseal_text(data)))
        if b"\n{" not in data:
            return seal(change(unseal(data)))
        return b"".join(seal(change(unseal(line))) + b"\n" for line in data.splitlines())

    return changed


def replace_in(file: Path, old: str, new: str) -> None:
    """Replace a text, which is there, in a stored file, whose digest is right afterwards."""

    def change(content: bytes) -> bytes:
        assert old.encode() in content
        return content.replace(old.encode(), new.encode())

    file.write_bytes(resealed(change)(file.read_bytes()))
