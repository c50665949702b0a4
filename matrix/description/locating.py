"""Where the model lies that a person names: a folder, a file in one, or an id of the Hub."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from matrix.checkpoint.files import CONFIG
from matrix.untrusted.reading import UnreadableError, read_file

_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_MAX_REF_BYTES = 100


class NotHereError(Exception):
    """What is named does not lie on this machine. The text says what to do."""


def locate(name: str, host: Mapping[str, str], home: Path) -> Path:
    """Return the folder of a model: itself, that of a safetensors file, or the Hub's cached copy.

    Args:
        name: As a person writes it.
        host: The host's variables; ``HF_HUB_CACHE`` and ``HF_HOME`` say where the cache is.
        home: The home folder, below which it is otherwise.

    Raises:
        NotHereError: It is a file without a config.json beside it, or an id that is not cached.
    """
    path = Path(name)
    if path.suffix == ".safetensors" and path.is_file():
        if not (path.parent / CONFIG).exists():
            raise NotHereError(
                f"{name}: there is no {CONFIG} beside it, without which no weight has a meaning. "
                "Put it into the folder of its model"
            )
        return path.parent
    if path.exists() or not _ID.fullmatch(name):
        return path
    folder = _cache(host, home) / f"models--{name.replace('/', '--')}"
    try:
        commit = read_file(folder / "refs" / "main", _MAX_REF_BYTES).decode(errors="replace")
    except (OSError, UnreadableError):
        commit = ""
    snapshot = folder / "snapshots" / commit.strip()
    if not _COMMIT.fullmatch(commit.strip()) or not (snapshot / CONFIG).exists():
        raise NotHereError(
            f"{name} is no folder here, and the Hub's cache has not all of it. Nothing is "
            f"downloaded: run hf download {name}"
        )
    return snapshot


def _cache(host: Mapping[str, str], home: Path) -> Path:
    """Return the folder of the Hub's cache, as huggingface_hub finds it."""
    if own := host.get("HF_HUB_CACHE"):
        return Path(own)
    if hub := host.get("HF_HOME"):
        return Path(hub) / "hub"
    return Path(host.get("XDG_CACHE_HOME") or home / ".cache") / "huggingface" / "hub"
