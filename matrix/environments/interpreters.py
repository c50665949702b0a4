"""Where the interpreter of a virtualenv lies, for who must show it to a command in a sandbox."""

from __future__ import annotations

from pathlib import Path


def interpreter_folders(python: Path) -> list[Path]:
    """Return the folders outside a virtualenv that its ``python`` needs, as links lead to them.

    Each link on the way counts: uv's lead over a folder that is a link itself.
    """
    places: list[Path] = []
    while python.is_symlink():
        python = python.parent / python.readlink()
        places += _installation(python)
    return list(dict.fromkeys([*places, *_installation(python.resolve())]))


def _installation(python: Path) -> list[Path]:
    """Return the folder of a whole installation, or the program where it stands by itself."""
    prefix = Path(*python.parts[:-2])
    if python.is_absolute() and len(prefix.parts) > 1 and any(prefix.glob("lib/python3*/os.py")):
        return [prefix]
    return []
