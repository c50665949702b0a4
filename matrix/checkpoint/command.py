"""``python -m matrix.checkpoint DIR [--original DIR] --output FILE``: inspect one checkpoint.

Run in a process of its own, because what it reads may be large or made to be. Ends with 0 whenever
an inspection was written, however bad the checkpoint, whose problems are also printed, a line each;
with 2, and nothing written, where the original is unreadable.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec

from matrix.checkpoint.inspecting import inspect
from matrix.checkpoint.inspection import CheckpointError


def main() -> int:
    """Inspect as the command line says; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m matrix.checkpoint", description=__doc__)
    parser.add_argument("directory", type=Path, help="the checkpoint")
    parser.add_argument("--original", type=Path, help="the float model it is of")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args()
    try:
        inspection = inspect(options.directory, options.original)
    except CheckpointError as error:
        print(error, file=sys.stderr)
        return 2
    for problem in inspection.problems:
        print(problem, file=sys.stderr)
    unfinished = options.output.with_name(options.output.name + ".unfinished")
    unfinished.write_bytes(msgspec.json.encode(inspection))
    unfinished.replace(options.output)
    return 0
