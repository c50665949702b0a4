"""Measure how long the page's script takes in a browser, and how wide the page is.

    .venv/bin/python benchmarks/page_speed.py reports/matrix.json [--cells 2664]

The report's cells are repeated under other names until there are as many as wanted. The browser
(``--browser chromium``) is any of Chromium's kin that knows ``--dump-dom``; it is started
``--rounds 3`` times. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import msgspec

from matrix.judge.document import decode
from matrix.judge.results import CellResult, MatrixResult
from matrix.report import PAGE, Material, files

TIMED = """const began = performance.now();
SCRIPT
const loaded = performance.now();
form.querySelector("input[type=search]").value = "vllm";
filter();
const filtered = performance.now();
const width = document.documentElement.scrollWidth;
document.documentElement.innerHTML = JSON.stringify({parsing: began, script: loaded - began,
  filter: filtered - loaded, layout: performance.now() - filtered, width});
"""
"""The page's own script with clocks around it; what it measured takes the place of the page."""


class Measured(NamedTuple):
    """One opening of the page: milliseconds, and pixels."""

    parsing: float
    script: float
    filter: float
    """To show only what holds a word."""
    layout: float
    """To lay all of it out."""
    width: int


def repeated(result: MatrixResult, cells: int) -> MatrixResult:
    """Return a result with so many cells."""
    made: list[CellResult] = []
    for number in range(-(-cells // len(result.cells))):
        for cell in result.cells:
            side = msgspec.structs.replace(cell.quantizer, name=f"{cell.quantizer.name}+{number}")
            made.append(
                msgspec.structs.replace(cell, id=f"{cell.id}/{number}", quantizer=side)
                if number
                else cell
            )
    return msgspec.structs.replace(result, cells=made[:cells])


def timed_page(page: str) -> str:
    """Return the page with clocks; its policy would refuse a script of other bytes."""
    page = re.sub(r"<meta http-equiv=[^>]*>", "", page)
    head, _, rest = page.rpartition("<script>")
    script, _, tail = rest.partition("</script>")
    return f"{head}<script>{TIMED.replace('SCRIPT', script)}</script>{tail}"


def measure(browser: str, file: Path, width: int) -> Measured:
    """Open a page in a window of a width, with a profile of its own."""
    with tempfile.TemporaryDirectory() as profile:
        ended = subprocess.run(
            [
                browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--disable-sync",
                f"--user-data-dir={profile}", f"--window-size={width},1000", "--dump-dom",
                file.resolve().as_uri(),
            ],
            text=True, capture_output=True, check=True, timeout=600,
        )  # fmt: skip
    answer = re.search(r"\{.*\}", ended.stdout)
    if answer is None:
        raise SystemExit(f"{browser} gave no answer: {ended.stderr[-1000:]}")
    return Measured(**json.loads(answer[0]))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("report", type=Path)
    parser.add_argument("--cells", type=int, default=2664)
    parser.add_argument("--browser", default="chromium")
    parser.add_argument("--width", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    result = decode(given.report.read_bytes())
    page = dict(files(Material(repeated(result, given.cells))))[PAGE].decode()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / PAGE
        file.write_text(timed_page(page), encoding="utf-8")
        runs = [measure(given.browser, file, given.width) for _ in range(given.rounds)]
    print(f"| {given.cells} cells, {len(page) / 1e6:.1f} MB | median of {given.rounds} |")
    print("|---|---|")
    for name in ("parsing", "script", "filter", "layout"):
        median = statistics.median(getattr(run, name) for run in runs)
        print(f"| {name} | {median / 1000:.2f} s |")
    wide = max(run.width for run in runs)
    print(f"| width in a window of {given.width} pixels | {wide} pixels |")


if __name__ == "__main__":
    main()
