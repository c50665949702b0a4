"""Compiles sources to bytecode that Python uses only for the very same text.

Run by path as ``python -I -S compiler.py PAIRS``; standard library only. Each line of the file
``PAIRS`` is a source and its target with a tab between. What cannot be compiled is passed over.
"""

from __future__ import annotations

import contextlib
import py_compile
import sys
from pathlib import Path

CHECKED = py_compile.PycInvalidationMode.CHECKED_HASH
REFUSED = (OSError, ValueError, SyntaxError, RecursionError, py_compile.PyCompileError)


def main() -> None:
    """Compile what a file names."""
    with Path(sys.argv[1]).open(encoding="utf-8") as pairs:
        for line in pairs:
            source, _, target = line.rstrip("\n").partition("\t")
            with contextlib.suppress(*REFUSED):
                py_compile.compile(source, target, doraise=True, invalidation_mode=CHECKED)


if __name__ == "__main__":
    main()
