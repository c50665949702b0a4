"""Stored files changed as their writers would have written them: sealed anew."""

from __future__ import annotations

from pathlib import Path

from matrix.store.sealing import seal, seal_text, unseal, unseal_text


def replace_in(file: Path, old: str, new: str) -> None:
    """Replace a text, which is there, in a stored file, whose digest is right afterwards."""
    data = file.read_bytes()
    is_object = data.startswith(b"{")
    content = unseal(data) if is_object else unseal_text(data)
    assert old.encode() in content
    content = content.replace(old.encode(), new.encode())
    file.write_bytes(seal(content) if is_object else seal_text(content))
