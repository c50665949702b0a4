"""Measure what a report costs: to write it, on disk, and to open its page in Chromium.

    .venv/bin/python benchmarks/page_speed.py reports/matrix.json [--cells 20000]

The report's cells are repeated under other names until there are as many as wanted. The report is
written by a process of its own, whose peak of memory counts the cells too. The page is opened
``--rounds 3`` times from the disk. With ``--lighthouse`` it is also audited as on a phone, served
on this machine; that needs ``npx``, which downloads Lighthouse. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from typing import NamedTuple

import msgspec
from playwright.sync_api import Browser, sync_playwright

from matrix.judge.document import decode
from matrix.judge.results import PAGE, CellResult, MatrixResult
from matrix.report import Material, write

FLAGS = ["--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"]
FILTER = """() => {
  const field = document.querySelector("form.filter input[type=search]");
  const began = performance.now();
  field.value = "vllm";
  field.dispatchEvent(new Event("input", { bubbles: true }));
  document.body.getBoundingClientRect();
  return performance.now() - began;
}"""
"""Type a word, let the page filter and lay itself out again; milliseconds."""


class Opened(NamedTuple):
    """One opening of the page: milliseconds, and pixels."""

    interactive: float
    """Until all is parsed and the page's script has run."""
    loaded: float
    filtered: float
    """From a word in the filter to the page that shows what holds it."""
    width: int


def repeated(result: MatrixResult, cells: int) -> MatrixResult:
    """Return a result with so many cells."""
    made: list[CellResult] = []
    for number in range(-(-cells // len(result.cells))):
        for cell in result.cells:
            side = msgspec.structs.replace(cell.quantizer, name=f"{cell.quantizer.name}+{number}")
            row, _, engine = cell.id.rpartition("/")
            made.append(
                msgspec.structs.replace(cell, id=f"{row}+{number}/{engine}", quantizer=side)
                if number
                else cell
            )
    return msgspec.structs.replace(result, cells=made[:cells])


def write_report(report: Path, cells: int, folder: Path) -> None:
    """Write the report of so many cells; print the seconds and the peak of memory that took.

    CPU seconds say more on a busy machine. Those of the process beside count too, and its memory
    as if it shared none.
    """
    result = repeated(decode(report.read_bytes()), cells)
    began, before = time.perf_counter(), time.process_time()
    write(Material(result), folder)
    seconds, cpu = time.perf_counter() - began, time.process_time() - before
    own, beside = getrusage(RUSAGE_SELF), getrusage(RUSAGE_CHILDREN)
    cpu += beside.ru_utime + beside.ru_stime
    peak = (own.ru_maxrss + beside.ru_maxrss) * 1024
    cost = {"seconds": seconds, "cpu": cpu, "peak": peak, "cells": len(result.cells)}
    print(json.dumps(cost))


def open_page(browser: Browser, file: Path, width: int) -> Opened:
    """Open a page in a window of a width, with nothing kept from before."""
    page = browser.new_page(viewport={"width": width, "height": 1000})
    page.set_default_timeout(600_000)
    page.goto(file.resolve().as_uri())
    timing = page.evaluate("performance.getEntriesByType('navigation')[0].toJSON()")
    wide = page.evaluate("document.documentElement.scrollWidth")
    opened = Opened(timing["domInteractive"], timing["loadEventEnd"], page.evaluate(FILTER), wide)
    page.close()
    return opened


class Compressing(SimpleHTTPRequestHandler):
    """Serves a folder as GitHub Pages does, each file compressed, and says nothing of it."""

    def do_GET(self) -> None:
        """Answer with a compressed file."""
        file = Path(self.translate_path(self.path))
        if not file.is_file():
            self.send_error(404)
            return
        data = gzip.compress(file.read_bytes())
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(file))
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Leave it unsaid."""


def audit(folder: Path, browser: str) -> dict[str, int]:
    """Return category -> score of 100 of the page, as on a phone, by Lighthouse."""
    handler = functools.partial(Compressing, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        ended = subprocess.run(
            ["npx", "--yes", "lighthouse", f"http://127.0.0.1:{server.server_port}/{PAGE}",
             "--quiet", "--output=json", "--chrome-flags=--headless --no-sandbox --disable-quic"],
            text=True, stdout=subprocess.PIPE, check=True, timeout=600,
            env={**os.environ, "CHROME_PATH": browser},
        )  # fmt: skip
        server.shutdown()
    categories = json.loads(ended.stdout)["categories"]
    return {name: round(100 * category["score"]) for name, category in categories.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure what a report costs.")
    parser.add_argument("report", type=Path)
    parser.add_argument("--cells", type=int, default=20_000)
    parser.add_argument("--browser", default="chromium")
    parser.add_argument("--width", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--lighthouse", action="store_true")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.write:
        write_report(given.report, given.cells, given.write)
        return
    browser = shutil.which(given.browser)
    if browser is None:
        raise SystemExit(f"{given.browser} is not on the PATH")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, __file__, str(given.report), "--cells", str(given.cells)]
        ended = subprocess.run(
            [*command, "--write", name], stdout=subprocess.PIPE, check=True, timeout=3600
        )
        cost = json.loads(ended.stdout)
        with sync_playwright() as playwright:
            opened = playwright.chromium.launch(
                executable_path=browser, args=FLAGS, chromium_sandbox=False
            )
            runs = [open_page(opened, folder / PAGE, given.width) for _ in range(given.rounds)]
        print(f"| {cost['cells']:,} cells | |\n|---|---|")
        print(f"| written in | {cost['seconds']:.1f} s, {cost['cpu']:.1f} s of CPU |")
        print(f"| peak of memory | {cost['peak'] / 1e9:.2f} GB |")
        for file in (PAGE, "matrix.json"):
            print(f"| {file} | {(folder / file).stat().st_size / 1e6:.2f} MB |")
        for what in ("interactive", "loaded", "filtered"):
            median = statistics.median(getattr(run, what) for run in runs)
            print(f"| {what} after, median of {given.rounds} | {median / 1000:.2f} s |")
        wide = max(run.width for run in runs)
        print(f"| width in a window of {given.width} pixels | {wide} pixels |")
        if given.lighthouse:
            for category, score in audit(folder, browser).items():
                print(f"| Lighthouse, mobile, {category} | {score} |")


if __name__ == "__main__":
    main()
