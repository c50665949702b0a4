"""Measure `nox -s matrix` where nothing has changed, as a user runs it, and print a Markdown table.

    .venv/bin/python benchmarks/unchanged_speed.py FOLDER [--profile cpu] [--rounds 5]

``FOLDER`` must not exist yet; it takes a store in which every step of the profile is observed, made
of the recorded run (``tests/recorded``), and the report. No environment is built, nothing is
downloaded. CPU seconds are those of all processes of the command: on a busy machine they say more.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from typing import NamedTuple

from matrix.machine.hardware import machine

REPOSITORY = Path(__file__).resolve().parent.parent
LIMIT = 600
SAID = "nothing has changed since the report was written"


class Cost(NamedTuple):
    """What a command took."""

    wall: float
    cpu: float
    """Seconds of all its processes."""


def main() -> None:
    """Make the store, write its report, then measure what the same command costs again."""
    parser = argparse.ArgumentParser(description="Measure nox -s matrix with nothing to do.")
    parser.add_argument("folder", type=Path, help="a folder that does not exist yet")
    parser.add_argument("--profile", default="cpu", help="one that tests/recorded has a run of")
    parser.add_argument("--rounds", type=int, default=5, help="how often; the median is told")
    arguments = parser.parse_args()
    folder: Path = arguments.folder.resolve()
    if folder.exists():
        parser.error(f"{folder} exists; name a folder that does not, so that nothing is reused")
    environ = {
        **os.environ,
        "MATRIX_PROFILE": arguments.profile,
        "MATRIX_STORE": str(folder / "store"),
        "MATRIX_REPORTS": str(folder / "reports"),
    }
    environ.pop("PYTHONDONTWRITEBYTECODE", None)  # imports are measured as users have them
    fill = ["-m", "tests.recorded.full_store", str(folder / "store"), arguments.profile]
    run(fill, environ)
    first, output = run(["-m", "nox", "-s", "matrix"], environ)
    if SAID in output or "Running session matrix" not in output:
        sys.exit(f"error: nox did something else than to write a first report:\n{output}")
    again = [measured_again(environ) for _ in range(arguments.rounds)]
    print(table(arguments.profile, first, again), end="")


def measured_again(environ: dict[str, str]) -> Cost:
    """Return what a run costs that finds nothing to do."""
    cost, output = run(["-m", "nox", "-s", "matrix"], environ)
    if SAID not in output:
        sys.exit(f"error: a run with nothing to do did something:\n{output}")
    return cost


def run(arguments: list[str], environ: dict[str, str]) -> tuple[Cost, str]:
    """Return what a Python command takes, and what it says."""
    before, start = getrusage(RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments], cwd=REPOSITORY, env=environ, timeout=LIMIT, check=False,
        capture_output=True, text=True,
    )  # fmt: skip
    wall, after = time.perf_counter() - start, getrusage(RUSAGE_CHILDREN)
    output = done.stdout + done.stderr
    if done.returncode:
        sys.exit(f"error: status {done.returncode} from {' '.join(arguments)}:\n{output}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(wall, cpu), output


def table(profile: str, first: Cost, again: list[Cost]) -> str:
    """Return the figures as Markdown, under the machine they were taken on."""
    named = ", ".join(f"{name} {value}" for name, value in machine().items())
    wall = statistics.median(cost.wall for cost in again)
    cpu = statistics.median(cost.cpu for cost in again)
    rows = [
        ("all observed, the report to write", first, "once"),
        ("nothing changed", Cost(wall, cpu), f"median of {len(again)}"),
        ("nothing changed, the slowest", max(again), "by wall time"),
    ]
    lines = [
        f"Profile `{profile}`; {named}.",
        "",
        "| what | wall | CPU | how |",
        "|" + " --- |" * 4,
    ]
    lines += [f"| {what} | {c.wall:.2f} s | {c.cpu:.2f} s | {how} |" for what, c, how in rows]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
