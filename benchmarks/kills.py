"""Runs of made-up packages that are killed (SIGKILL) at random moments, and what comes of them.

    .venv/bin/python -m benchmarks.kills FOLDER [--kills 100] [--seed 1] [--nox]

After each kill the store is verified, and every process of the run must end. Runs that come to
their end are compared with one that nobody killed: the same verdicts, each step once, nothing left.
Exits with status 1 and the first thing that is wrong.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil

from matrix.judge.results import MatrixResult
from matrix.pipeline.steps import Step
from matrix.run.context import Context, Settings
from matrix.run.verifying import damages
from matrix.store.store import Store
from tests.provoked.runs import SPEC
from tests.provoked.test_going_on import SECTIONS, TURNING

PATIENCE_SECONDS = 60
"""Within which the keepers end all processes of a run that was killed."""


class Project:
    """A folder with a spec of made-up packages, and the command that runs it."""

    def __init__(self, folder: Path, *, with_nox: bool) -> None:
        self.folder = folder.resolve()
        self._module = ["nox", "-s", "matrix", "-j", "2"] if with_nox else ["matrix", "run"]
        self.folder.mkdir(parents=True)
        head = SPEC.read_text().partition("[[environments]]")[0]
        spec = head + SECTIONS.replace("FOLDER", str(self.folder))
        (self.folder / "spec.toml").write_text(spec)
        (self.folder / "turning.py").write_text(TURNING)
        (self.folder / "seen.json").touch()
        shutil.copy(SPEC.parent / "builder.py", self.folder)

    def start(self, store: Path) -> subprocess.Popen[bytes]:
        """Return a run that was begun, as the leader of a group of its own."""
        environ = {
            **os.environ, "MATRIX_SPEC": str(self.folder / "spec.toml"), "MATRIX_PROFILE": "all",
            "MATRIX_STORE": str(store), "MATRIX_REPORTS": str(store / "reports"),
        }  # fmt: skip
        return subprocess.Popen(
            [sys.executable, "-m", *self._module], env=environ, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def table(self, store: Path) -> MatrixResult:
        """Return what the store says."""
        settings = Settings.of({}, spec=self.folder / "spec.toml", profile="all", store=store)
        return Context(settings).table_judge().table()


def processes_of(store: Path) -> list[psutil.Process]:
    """Return the processes whose arguments or working folder name a store."""
    there = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and str(store) in " ".join(
                [*process.cmdline(), process.cwd()]
            ):
                there.append(process)
        except psutil.Error:
            continue
    return there


def end_of(project: Project, store: Path, verdicts: dict[str, str]) -> None:
    """Exit where a finished store differs from that of a run which nobody killed."""
    told = {cell.id: str(cell.verdict) for cell in project.table(store).cells}
    if told != verdicts:
        sys.exit(f"wrong: {told}, and {verdicts} without a kill")
    steps = [(r.step, r.subject, r.key) for r in Store(store).records() if r.outcome != "infra"]
    if doubled := sorted({step for step in steps if steps.count(step) > 1}):
        sys.exit(f"doubled: {doubled}")
    # A kill between an answer and the end of its note leaves that, and nobody begins it again.
    begun = [note for note in (store / "begun").glob("*/*")
             if Store(store).observation(Step(note.parent.name), note.name) is None]  # fmt: skip
    unfinished = [*(store / "work").iterdir(), *begun]
    unfinished += list(store.glob("*/*/.*-????????"))
    if unfinished:
        sys.exit(f"left: {unfinished}")


def main() -> None:
    """Kill runs until there were enough."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--nox", action="store_true")
    options = parser.parse_args()
    rng, project = random.Random(options.seed), Project(options.folder, with_nox=options.nox)
    began = time.monotonic()
    project.start(project.folder / "whole").wait()
    longest = time.monotonic() - began
    verdicts = {c.id: str(c.verdict) for c in project.table(project.folder / "whole").cells}
    print(f"{longest:.0f} s without a kill: {verdicts}", flush=True)
    kills = finished = 0
    while kills < options.kills or finished == 0:
        store = project.folder / f"store-{finished}"
        run = project.start(store)
        try:
            seconds = rng.uniform(0, longest / 4) if kills < options.kills else None
            run.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            run.kill()
            run.wait()
            kills += 1
            _check(store, kills)
            continue
        end_of(project, store, verdicts)
        finished += 1
        print(f"{kills} kills, {finished} runs came to their end", flush=True)
        shutil.rmtree(store)
    print(f"{kills} kills and {finished} ends: nothing lost, wrong, doubled or left")


def _check(store: Path, kills: int) -> None:
    """Exit where a kill left a process, or something that nobody can rely on."""
    _, alive = psutil.wait_procs(processes_of(store), timeout=PATIENCE_SECONDS)
    if alive := processes_of(store):
        sys.exit(f"kill {kills}: {PATIENCE_SECONDS} s later there are {alive}")
    if store.is_dir() and (wrong := list(damages(store, {"reports"}))):
        sys.exit(f"kill {kills}: {wrong}")


if __name__ == "__main__":
    main()
