"""Measure how fast logs are explained, and in how much memory; print a Markdown table.

    .venv/bin/python benchmarks/explain_speed.py FOLDER [--megabytes 100]

``FOLDER`` takes made-up logs, removed at the end: lines of an engine with a known failure in their
middle, random bytes, one character again and again, and a line that a signature nearly fits. Each
is explained by a process of its own; its seconds are those of all CPUs, start included.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from matrix.machine.hardware import machine

FAILURE = b"""Traceback (most recent call last):
  File "/opt/env/lib/python3.11/site-packages/awq/models/base.py", line 14, in <module>
ImportError: cannot import name 'shard_checkpoint' from 'transformers.modeling_utils' (x.py)
"""
LINE = b"INFO 11-30 07:45:47 [core.py:700] Avg generation throughput: 102.7 tokens/s, Running: 3\n"
NEARLY = b"ValueError: The input size is not aligned with the quantized weight, so what\n"


MEGABYTE = 1_000_000


def _megabyte(line: bytes) -> bytes:
    return (line * (MEGABYTE // len(line) + 1))[:MEGABYTE]


RANDOM = random.Random(1)
LOGS: dict[str, Callable[[int], bytes]] = {
    "a failure in the middle": lambda at: (FAILURE if at == 0 else b"") + _megabyte(LINE),
    "random bytes": lambda _: RANDOM.randbytes(MEGABYTE),
    "one character": lambda _: b"!" * MEGABYTE,
    "a line that nearly fits": lambda _: _megabyte(NEARLY),
    "nothing": lambda _: b"",
}
"""Log -> a megabyte of it, by its place: 0 is the middle."""


def measure(log: Path) -> tuple[float, int, int]:
    """Return CPU seconds, peak memory in bytes and the status of explaining a log."""
    command = [sys.executable, "-m", "matrix", "explain", str(log)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, process.returncode


def main() -> None:
    """Write the logs, explain each, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--megabytes", type=int, default=100)
    arguments = parser.parse_args()
    print(f"{arguments.megabytes} MB each, on {machine()['processor']}\n")
    print("| log | CPU seconds | peak memory (MB) | status |\n| --- | --- | --- | --- |")
    for name, make in LOGS.items():
        log = arguments.folder / "explain-speed.log"
        with log.open("wb") as opened:  # in parts: what this process holds counts for its children
            half = arguments.megabytes // 2
            opened.writelines(make(place) for place in range(-half, half))
        seconds, peak, status = measure(log)
        log.unlink()
        print(f"| {name} | {seconds:.2f} | {peak / 1e6:.0f} | {status} |")


if __name__ == "__main__":
    main()
