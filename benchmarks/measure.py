"""Measure what a run of the matrix costs, and print it as a Markdown table with the machine named.

    .venv/bin/python benchmarks/measure.py FOLDER [--cold]

``FOLDER`` must not exist yet; it takes the stores, the reports and, with ``--cold``, a package
cache of its own, and should lie on the file system of uv's cache, or nothing can be hard-linked.
Without ``--cold`` uv's usual cache is used: run the profile once before, or "warm" is not warm.
``MATRIX_PROFILE`` chooses the profile, ``cpu`` by default.
"""

from __future__ import annotations

import argparse
import json
import os
import stat
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from matrix.judge.document import decode
from matrix.machine.hardware import machine

REPOSITORY = Path(__file__).resolve().parent.parent
RUN_SECONDS = 2 * 3600
CELL_SECONDS = 600
FORKED = ("load", "generate")
"""The stages that a forked child goes through; a fresh process imports the engine as well."""

ANSWERED = ("works", "degraded", "garbage")


class Row(NamedTuple):
    """One line of the table."""

    what: str
    value: str
    how: str


def main() -> None:
    """Run the matrix as often as asked and print the table."""
    parser = argparse.ArgumentParser(description="Measure what a run of the matrix costs.")
    parser.add_argument("folder", type=Path, help="a folder that does not exist yet")
    parser.add_argument("--cold", action="store_true", help="also with nothing downloaded")
    arguments = parser.parse_args()
    folder: Path = arguments.folder.resolve()
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        parser.error(f"{folder} exists; name a folder that does not, so that nothing is reused")
    rows = list(measure(folder, cold=arguments.cold))
    print(table(rows), end="")


def measure(folder: Path, *, cold: bool) -> Iterator[Row]:
    """Give each figure as soon as it is known."""
    environ = {**os.environ, "MATRIX_REPORTS": str(folder / "reports")}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)  # imports are measured as users have them
    if cold:
        environ["UV_CACHE_DIR"] = str(folder / "uv-cache")
        seconds = run_matrix(environ, folder / "cold")
        yield Row("cold", duration(seconds), "nothing downloaded, nothing observed")
    store = folder / "warm"
    yield Row("warm", duration(run_matrix(environ, store)), "packages cached, nothing observed")
    yield Row("unchanged", duration(run_matrix(environ, store)), "the same command again")
    table = decode((folder / "reports" / "matrix.json").read_bytes())
    cells = msgspec.to_builtins(table)["cells"]
    yield Row("cells", str(len(cells)), ", ".join(verdicts(cells)))
    yield from quantizing(cells)
    for engine, answered in by_engine(cells).items():
        forked = [sum(cell["timings"][stage] for stage in FORKED) for cell in answered]
        yield Row(f"cell in {engine}, forked", duration(statistics.median(forked)),
                  f"median of {len(forked)}, load and generate")  # fmt: skip
        fresh = run_cell_alone(environ, store, answered[-1]["id"])
        yield Row(f"cell in {engine}, fresh process", duration(fresh),
                  "the command of that one cell, from start to end")  # fmt: skip
    yield from disk(store)


def run_matrix(environ: dict[str, str], store: Path) -> float:
    """Return the seconds that the main job takes with a store of its own."""
    command = [sys.executable, "-m", "nox", "-s", "matrix"]
    return timed(command, {**environ, "MATRIX_STORE": str(store)}, RUN_SECONDS)


def run_cell_alone(environ: dict[str, str], store: Path, cell: str) -> float:
    """Return the seconds of one cell whose checkpoint is there but which was not run yet."""
    for stage in FORKED:
        for file in (store / "observations" / stage).glob("*.json"):
            if json.loads(file.read_bytes())["subject"] == cell:
                file.unlink()
    command = [sys.executable, "-m", "matrix", "run", "--cell", cell]
    return timed(command, {**environ, "MATRIX_STORE": str(store)}, CELL_SECONDS)


def timed(command: list[str], environ: dict[str, str], limit: float) -> float:
    """Return the wall seconds of a command; its output goes to standard error."""
    print("$", " ".join(command), file=sys.stderr, flush=True)
    start = time.perf_counter()
    try:
        done = subprocess.run(
            command, cwd=REPOSITORY, env=environ, stdout=sys.stderr, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        sys.exit(f"error: not done after {limit:.0f} s: {' '.join(command)}")
    if done.returncode not in (0, 1):  # 1 is of a cell that does not work
        sys.exit(f"error: status {done.returncode} from: {' '.join(command)}")
    return time.perf_counter() - start


def verdicts(cells: list[dict[str, Any]]) -> list[str]:
    """Return how many cells have each verdict, in words."""
    names = [cell["verdict"] for cell in cells]
    return [f"{names.count(verdict)} {verdict}" for verdict in sorted(set(names))]


def by_engine(cells: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return the cells that gave an answer, right or wrong, by engine."""
    engines: dict[str, list[dict[str, Any]]] = {}
    for cell in cells:
        if cell["verdict"] in ANSWERED and cell["timings"].keys() >= set(FORKED):
            engines.setdefault(cell["engine"]["name"], []).append(cell)
    return dict(sorted(engines.items()))


def quantizing(cells: Iterable[dict[str, Any]]) -> Iterator[Row]:
    """Give the seconds of a quantization, each counted once and not once per engine."""
    seconds = {
        (cell["model"], cell["quantizer"]["name"]): cell["timings"]["quantize"]
        for cell in cells
        if cell["quantizer"]["name"] != "none" and outcome(cell, "quantize") == "passed"
    }
    if seconds:
        values = list(seconds.values())
        how = f"median of {len(values)}; the slowest took {duration(max(values))}"
        yield Row("quantizing a model", duration(statistics.median(values)), how)


def outcome(cell: dict[str, Any], stage: str) -> str:
    """Return how a stage of a cell ended."""
    return next((str(e["outcome"]) for e in cell["stages"] if e["stage"] == stage), "")


def disk(store: Path) -> Iterator[Row]:
    """Give what an environment takes that it does not share with uv's cache by hard links."""
    sizes = {
        folder.name: own_bytes(folder) / 1e6
        for folder in (store / "environments").iterdir()
        if folder.is_dir()
    }
    if sizes:
        largest = max(sizes, key=lambda name: sizes[name])
        yield Row("disk of an environment", f"{statistics.median(sizes.values()):.0f} MB",
                  f"median of {len(sizes)} beyond uv's cache, after the first import; "
                  f"at most {sizes[largest]:.0f} MB ({largest})")  # fmt: skip


def own_bytes(folder: Path) -> int:
    """Return the bytes on disk below a folder that no other name refers to."""
    statuses = (path.lstat() for path in folder.rglob("*"))
    return sum(s.st_blocks * 512 for s in statuses if stat.S_ISREG(s.st_mode) and s.st_nlink == 1)


def duration(seconds: float) -> str:
    """Return seconds as a person reads them."""
    return f"{seconds / 60:.1f} min" if seconds >= 100 else f"{seconds:.1f} s"


def table(rows: list[Row]) -> str:
    """Return the figures as Markdown, under the machine they were taken on."""
    named = ", ".join(f"{name} {value}" for name, value in machine().items())
    profile = os.environ.get("MATRIX_PROFILE", "cpu")
    lines = [f"Profile `{profile}`; {named}.", "", "| what | value | how |", "| --- | --- | --- |"]
    return "\n".join([*lines, *(f"| {r.what} | {r.value} | {r.how} |" for r in rows), ""])


if __name__ == "__main__":
    main()
