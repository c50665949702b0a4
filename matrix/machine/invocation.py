"""How this program is started again, as words of a command line."""

from __future__ import annotations

import shutil
import sys
from functools import cache
from pathlib import Path


@cache
def invocation(python: Path = Path(sys.executable), folder: Path | None = None) -> list[str]:
    """Return the words that start this program where it runs now.

    No absolute path is in them, since a report is read on other machines too: where the program is
    neither on the ``PATH`` nor below the folder, its environment has to be activated first.

    Args:
        python: The interpreter, in whose environment the command may be installed.
        folder: The working directory, where it is another one than that of this process.
    """
    script, folder = python.with_name("matrix"), folder or Path.cwd()
    if not script.exists():  # a checkout that is not installed
        return [_from(folder, python), "-m", "matrix"]
    on_path = shutil.which(script.name)
    if on_path is not None and Path(on_path).samefile(script):
        return [script.name]
    return [_from(folder, script)]


def _from(folder: Path, program: Path) -> str:
    """Return a program's path from a folder that it lies below, else its name alone."""
    below = program.is_relative_to(folder)
    return str(program.relative_to(folder)) if below else program.name
