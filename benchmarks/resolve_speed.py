"""Measure how long it takes to resolve every environment of the spec; print a Markdown table.

    .venv/bin/python benchmarks/resolve_speed.py FOLDER [--jobs 2]

``FOLDER`` must not exist yet; it takes a store and a cache of uv of its own, so that nothing is
known at first. Then the same command runs again three times, with all answers at hand. Needs the
index; locks that are committed beside the spec are read, not resolved.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from matrix.machine.hardware import machine

REPOSITORY = Path(__file__).resolve().parent.parent
SECONDS = 3600
WARM_ROUNDS = 3


def main() -> None:
    """Resolve everything cold, then warm, and print the table."""
    parser = argparse.ArgumentParser(description="Measure how long it takes to resolve it all.")
    parser.add_argument("folder", type=Path, help="a folder that does not exist yet")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="at once")
    arguments = parser.parse_args()
    folder: Path = arguments.folder.resolve()
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        parser.error(f"{folder} exists; name a folder that does not, so that nothing is known")
    print("\n".join(table(folder, arguments.jobs)))


def table(folder: Path, jobs: int) -> list[str]:
    """Return the lines of the table."""
    cold, cold_load, document = resolve(folder, jobs)
    requests = sum(1 for _ in (folder / "store" / "locks").glob("*.txt"))
    warm = [resolve(folder, jobs) for _ in range(WARM_ROUNDS)]
    counts = "; ".join(
        f"{resolution} {', '.join(f'{n} {state}' for state, n in states.items())}"
        for resolution, states in document["counts"].items()
    )
    facts = machine()
    rows = {
        "environments": f"{len(document['environments'])}",
        "pairs of quantizer and engine": f"{document['pairs']}",
        "answers": counts,
        "of which asked of uv": f"{requests}, {jobs} at once",
        "cold": f"{cold:.0f} s (load before it {cold_load:.1f})",
        "warm": f"{statistics.median(seconds for seconds, _, _ in warm):.1f} s "
        f"(median of {WARM_ROUNDS}, load {max(load for _, load, _ in warm):.1f})",
        "uv's cache afterwards": f"{megabytes(folder / 'uv'):.0f} MB",
        "the answers": f"{megabytes(folder / 'store'):.1f} MB",
        "machine": f"{facts['processor']}, {facts['cores']} cores, {facts['memory']}",
    }
    return ["| what | value |", "|---|---|", *(f"| {what} | {rows[what]} |" for what in rows)]


def resolve(folder: Path, jobs: int) -> tuple[float, float, dict[str, Any]]:
    """Run the command; return seconds, the machine's load before it, and what it found."""
    load = os.getloadavg()[0]
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "matrix", "resolve", "--store", str(folder / "store"),
         "--jobs", str(jobs), "--format", "json"],
        cwd=REPOSITORY, env=os.environ | {"UV_CACHE_DIR": str(folder / "uv")},
        stdout=subprocess.PIPE, check=True, timeout=SECONDS,
    )  # fmt: skip
    return time.monotonic() - started, load, json.loads(done.stdout)


def megabytes(folder: Path) -> float:
    """Return the megabytes (10^6 bytes) of a folder's files."""
    return sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


if __name__ == "__main__":
    main()
