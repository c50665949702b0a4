"""Folders that strangers wrote to, removed whatever is in them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path


def remove(folder: Path) -> None:
    """Remove a folder where it is there; of a link, only the link.

    Folders within each other by the thousand, and those that their owner may not look into, are
    left to the system's own tools: Python gives up on them. What stays all the same is passed over.
    """
    if folder.is_symlink():
        folder.unlink()
        return
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except (OSError, RecursionError):
        for command in (["chmod", "-R", "u+rwx"], ["rm", "-rf"]):
            subprocess.run([*command, "--", folder.absolute()], capture_output=True, check=False)
