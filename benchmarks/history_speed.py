"""Seconds and memory that a report's history takes: 400 nights of 2,000 cells, made up.

    python benchmarks/history_speed.py [--nights N] [--cells N] [--keep FOLDER]

Each night a few cells turn, one in twenty nights is void, and each has the packages of 80
environments. Measured is what ``matrix report`` does beside judging: a snapshot more, nights, past
and changes. Peak memory is that of the process, which the making of the nights is not in.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path

from matrix.history.remembering import remember
from matrix.history.snapshots import write
from matrix.history.states import CellState, Head, Snapshot
from matrix.judge.results import CanaryState
from matrix.pipeline.outcomes import Verdict

FIRST = date(2026, 1, 1)
ENVIRONMENTS = 40
"""On each side."""
PACKAGES = 120
TURNING = 0.01
"""The share of cells that turn in a night."""
VERDICTS = [Verdict.WORKS, Verdict.BROKEN, Verdict.GARBAGE, Verdict.INFRA]


def main() -> None:
    """Make a history, and measure in a process of its own what is made of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nights", type=int, default=400)
    parser.add_argument("--cells", type=int, default=2000)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        _measure(arguments.measure, arguments.nights, arguments.cells)
        return
    with tempfile.TemporaryDirectory() as folder:
        for night in range(arguments.nights):
            snapshot = _made_up(night, arguments.cells)
            place = Path(folder, "history", "cpu", snapshot.day, f"{snapshot.run}.parquet")
            write(place, snapshot.head, snapshot.cells)
        size = sum(file.stat().st_size for file in Path(folder).rglob("*.parquet"))
        print(f"{arguments.nights} nights of {arguments.cells} cells: {size / 1e6:.1f} MB of files")
        sizes = ["--nights", str(arguments.nights), "--cells", str(arguments.cells)]
        subprocess.run([sys.executable, __file__, "--measure", folder, *sizes], check=True)


def _measure(store: Path, nights: int, cells: int) -> None:
    snapshot = _made_up(nights, cells)
    before, cpu = time.perf_counter(), time.process_time()
    remembered = remember(store, snapshot, {})
    seconds, cpu = time.perf_counter() - before, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    assert remembered.changes is not None
    assert not remembered.troubles
    turns = sum(map(len, remembered.past.values()))
    groups = len(remembered.changes.groups)
    print(
        f"{seconds:.1f} s ({cpu:.1f} of a core), {peak:.0f} MB: {len(remembered.nights)} nights, "
        f"{turns:,} turns of {len(remembered.past):,} cells, {groups} groups of changes"
    )


def _made_up(night: int, number: int) -> Snapshot:
    rng = random.Random(night)
    day = (FIRST + timedelta(days=night)).isoformat()
    packages = [
        json.dumps({f"package-{p}": f"{p}.{(night + p + e) // 50}" for p in range(PACKAGES)})
        for e in range(ENVIRONMENTS)
    ]
    cells = {}
    for place in range(number):
        usual = VERDICTS[place % 3]
        verdict = rng.choice(VERDICTS) if rng.random() < TURNING else usual
        quantizer, engine = place % ENVIRONMENTS, place // ENVIRONMENTS % ENVIRONMENTS
        cell = CellState(
            id=f"model-{place}/awq/quantizer-{quantizer}/engine-{engine}",
            verdict=verdict,
            message="" if verdict is Verdict.WORKS else f"builtins.ValueError: no {place % 30}",
            device="cpu x86-64-v4",
            tokens_per_second=rng.random() * 90,
            peak_bytes=rng.randrange(10**9),
            perplexity=rng.random() * 9,
            nats=rng.random(),
            divergence=rng.random(),
            high_divergence=rng.random(),
            same_top=rng.random(),
            seconds=rng.random() * 60,
            at=f"{day}T02:{place // 60 % 60:02}:{place % 60:02}Z",
            evidence=f"{rng.getrandbits(64):016x}",
            quantizer_environment=f"quantizer-{quantizer}",
            quantizer_packages=packages[quantizer],
            engine_environment=f"engine-{engine}",
            engine_packages=packages[engine],
        )
        cells[cell.id] = cell
    head = Head(
        profile="cpu", runs=[f"run-{night:04}"], finished=f"{day}T03:00:00Z",
        canaries=CanaryState.VOID if night % 20 == 7 else CanaryState.ESTABLISHED,
        machine={"device": "cpu x86-64-v4"}, judging="made up",
    )  # fmt: skip
    return Snapshot(day, f"run-{night:04}", head, cells)


if __name__ == "__main__":
    main()
