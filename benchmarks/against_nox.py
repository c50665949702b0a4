"""Measure the matrix against a noxfile written by hand, on the same cells, and print a table.

    .venv/bin/python benchmarks/against_nox.py FOLDER [--rounds 2] [--cells 12]

Two AutoAWQ and two GPTQ quantizers, each in three engines, of one model: up to twelve cells. By
hand (``benchmarks/by_hand``) is a nox session for each quantizer with each engine: a fresh uv
environment for the quantizer, a process that quantizes, another environment for the engine, a
process that loads, answers the same prompts, and compares tokens and log-probabilities with the
float model's. Both take the same packages, by the same locks from one cache, and call them through
the same adapters (``matrix/probe``): what is compared is how the work is arranged.

In favour of the noxfile by hand: it is given the float model, which the matrix builds; it makes no
cells of the float model, looks into no file, keeps no evidence, writes no report, and keeps what
packages leave in their home for a whole round. Against it: nox does sessions one after another,
and the matrix as many at once as there are cores; CPU seconds do not see that.

First the matrix runs once without being measured, which fills uv's cache and builds the model that
is given away. Then each round measures by hand and by the matrix in turn, both from nothing but
that cache. What a further cell costs is, by hand, one more session; by the matrix, the slope from
one to all cells of an engine, evaluated again in the finished store, where their checkpoints are.

``FOLDER`` must not exist yet and should lie on the file system of uv's cache, for which it takes
about 20 GB. CPU seconds are of all processes of a command, those that it killed as well.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from typing import Any, NamedTuple

import msgspec

from matrix.environments.uv import uv_settings
from matrix.index.settings import index_settings
from matrix.machine.hardware import machine
from matrix.machine.keeper import PR_SET_CHILD_SUBREAPER, prctl, reap
from matrix.plan.cell_steps import build_of
from matrix.plan.cells import Cell, Role
from matrix.run.context import Context, Settings
from matrix.spec.loading import DEFAULT_SPEC
from matrix.spec.source_builds import locked_builds

REPOSITORY = Path(__file__).resolve().parent.parent
BY_HAND = Path(__file__).resolve().parent / "by_hand"
ADAPTERS = REPOSITORY / "matrix" / "probe"
LIMIT = 3 * 3600
PROFILE = "against"
MODEL = "twin-tied"
QUANTIZERS = (
    "autoawq-0.2.9+transformers-4.51.3",
    "auto-gptq-0.7.1+transformers-4.46.3",
    "autoawq-0.2.7.post3+transformers-4.47.1",
    "gptqmodel-7.6.0+transformers-5.23.0",
)
ENGINES = ("vllm-0.32.0", "transformers-5.23.0+gptqmodel-7.6.0", "vllm-0.19.1")
PART = """
[{header}]
title = "{quantizer} in {engine}"
models = ["{model}"]
schemes = ["awq-4bit-g64", "gptq-4bit-g64"]
quantizers = ["none", "{quantizer}"]
engines = ["{engine}"]
"""


class Cost(NamedTuple):
    """What a command took."""

    wall: float
    cpu: float
    """Seconds of all its processes."""


def main() -> None:
    """Measure both ways in turn and print the table."""
    parser = argparse.ArgumentParser(description="Measure the matrix against a noxfile by hand.")
    parser.add_argument("folder", type=Path, help="a folder that does not exist yet")
    parser.add_argument("--rounds", type=int, default=2, help="how often, each way in turn")
    parser.add_argument("--cells", type=int, default=12, help="how many of the 12 cells")
    parser.add_argument("--engines", nargs="+", default=ENGINES, help="fewer than the three")
    arguments = parser.parse_args()
    folder: Path = arguments.folder.resolve()
    if folder.exists():
        parser.error(f"{folder} exists; name a folder that does not, so that nothing is reused")
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    pairs = [(quantizer, engine) for quantizer in QUANTIZERS for engine in arguments.engines]
    spec = write_spec(folder / "spec", pairs[: arguments.cells])
    warm = folder / "warm"
    run_matrix(spec, warm)
    context = Context(Settings.of({}, spec=spec, profile=PROFILE, store=warm / "store"))
    hand, matrix = [], []
    for number in range(arguments.rounds):
        hand.append(run_by_hand(context, folder / f"hand-{number}"))
        matrix.append(run_matrix(spec, folder / f"matrix-{number}"))
        for name in ("hand", "matrix"):
            if number + 1 < arguments.rounds:
                shutil.rmtree(folder / f"{name}-{number}")
    last = arguments.rounds - 1
    cells = list(quantized(context))
    rows = [*compared(f"{len(cells)} cells", middle(hand), middle(matrix))]
    session = Cost(*(value / len(cells) for value in middle(hand)))
    if (further := further_cell(context, spec, warm)) is not None:
        rows += compared("a further cell", session, further)
    print(
        "\n".join(
            [*head(rows), *answers(cells, folder / f"hand-{last}", folder / f"matrix-{last}")]
        )
    )


def write_spec(folder: Path, pairs: list[tuple[str, str]]) -> Path:
    """Write the project's spec with one profile more, of the pairs of quantizer and engine."""
    shutil.copytree(DEFAULT_SPEC, folder)
    text = ""
    for number, (quantizer, engine) in enumerate(pairs):
        header = f"[profiles.{PROFILE}.parts]" if number else f"profiles.{PROFILE}"
        text += PART.format(header=header, model=MODEL, quantizer=quantizer, engine=engine)
    (folder / "profiles" / f"{PROFILE}.toml").write_text(text, encoding="utf-8")
    return folder


def run_matrix(spec: Path, folder: Path) -> Cost:
    """Return what the matrix takes in a folder; what is done there already is not done again."""
    environ = {
        **host(), "MATRIX_SPEC": str(spec), "MATRIX_PROFILE": PROFILE,
        "MATRIX_STORE": str(folder / "store"), "MATRIX_REPORTS": str(folder / "reports"),
    }  # fmt: skip
    return run([sys.executable, "-m", "nox", "-s", "matrix"], environ)


def run_by_hand(context: Context, folder: Path) -> Cost:
    """Return what the noxfile by hand takes, from an empty folder."""
    (folder / "home").mkdir(parents=True)
    combinations = [combination(context, cell, folder) for cell in quantized(context)]
    file = folder / "combinations.json"
    file.write_text(json.dumps(combinations, indent=1))
    environ = {
        **host(), **uv_settings(os.environ, installing=True),
        "HOME": str(folder / "home"), "BY_HAND": str(file),
    }  # fmt: skip
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL"):
        environ.pop(name, None)  # they would take the place of what uv.toml says of the index
    command = [sys.executable, "-m", "nox", "--noxfile", str(BY_HAND / "sessions.py")]
    return run([*command, "--envdir", str(folder / "nox")], environ)


def host() -> dict[str, str]:
    """Return the host's variables, in which imports leave bytecode as they do for users."""
    return {n: value for n, value in os.environ.items() if n != "PYTHONDONTWRITEBYTECODE"}


def run(command: list[str], environ: dict[str, str]) -> Cost:
    """Return what a command takes; its output goes to standard error."""
    print("$", " ".join(command), file=sys.stderr, flush=True)
    before, start = getrusage(RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environ, stdout=sys.stderr, timeout=LIMIT, check=False
    )
    wall = time.perf_counter() - start
    reap()  # whose parents were killed: they have become ours
    after = getrusage(RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"error: status {done.returncode} from: {' '.join(command)}")
    return Cost(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def quantized(context: Context) -> Iterator[Cell]:
    """Give the cells that are compared: all but the float model's."""
    return (cell for cell in context.plan.cells if cell.checkpoint.scheme is not None)


def combination(context: Context, cell: Cell, folder: Path) -> dict[str, Any]:
    """Return what the noxfile by hand needs to know of a cell, as plain data."""
    key = context.keys.of(build_of(cell.checkpoint.model))
    assert key is not None, "the matrix has built it"
    reference = context.store.reference(key.value)
    assert reference is not None, "the matrix has read it"
    quantizing = {
        "model": str(context.store.model(key.value) / "model"),
        "scheme": msgspec.to_builtins(cell.checkpoint.scheme),
        "calibration": reference.calibration,
    }
    answering = {
        "prompts": [{"text": prompt.text, "ids": prompt.ids} for prompt in reference.prompts],
        "held_out": [{"ids": text.ids} for text in reference.held_out],
        "max_new_tokens": reference.max_new_tokens,
    }
    expected = {
        "tokens": [prompt.greedy_ids for prompt in reference.prompts],
        "logprobs": [text.logprobs for text in reference.held_out],
    }
    return {
        "id": name_of(cell),
        "result": str(folder / f"{name_of(cell)}.json"),
        "quantizer": side(context, cell.checkpoint.quantizer, quantizing, folder),
        "engine": {**side(context, cell.engine, answering, folder), **expected},
    }


def name_of(cell: Cell) -> str:
    """Return a cell's name that may be a file's."""
    return f"{cell.checkpoint.quantizer.name} in {cell.engine.name}"


def side(context: Context, role: Role, job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return how one side is installed, and what it does, as plain data."""
    environment = context.plan.environments[role.environment]
    lock = context.lock(environment)
    assert lock is not None, "the matrix has resolved it"
    own = folder / "inputs" / environment.name
    own.mkdir(parents=True, exist_ok=True)
    built_with = locked_builds(environment, lock.pins)
    settings = [
        *("[[index]]", f"url = {json.dumps(index_settings().default)}", "default = true"),
        'cache-control = { files = "max-age=31536000, immutable" }',
        "[extra-build-dependencies]",
        *(f"{package} = {json.dumps(items)}" for package, items in built_with.items()),
    ]
    (own / "uv.toml").write_text("\n".join([*settings, ""]))
    (own / "lock.txt").write_text(lock.text)
    (own / "override.txt").write_text("\n".join([*environment.overrides, ""]))
    return {
        "install": [
            *environment.requirements, "--constraint", str(own / "lock.txt"),
            "--override", str(own / "override.txt"), "--config-file", str(own / "uv.toml"),
        ],
        "environ": {**environment.environ, **role.environ},
        "adapters": str(ADAPTERS),
        "adapter": f"{role.adapter.parent.name}.{role.adapter.stem}",
        "departures": role.departures,
        "job": {**job, "options": role.options, "departures": role.departures},
    }  # fmt: skip


def further_cell(context: Context, spec: Path, folder: Path) -> Cost | None:
    """Return what the matrix takes for a cell more, over the engines that have several."""
    slopes = []
    for engine in {cell.engine.name: None for cell in quantized(context)}:
        cells = [cell.id for cell in quantized(context) if cell.engine.name == engine]
        if len(cells) < 2:
            continue
        costs = []
        for again in (cells[:1], cells):
            forget(folder / "store", again)
            costs.append(run_matrix(spec, folder))
        steps = len(cells) - 1
        slopes.append(Cost(*((more - fewer) / steps for fewer, more in zip(*costs, strict=True))))
    return Cost(*map(statistics.mean, zip(*slopes, strict=True))) if slopes else None


def forget(store: Path, cells: list[str]) -> None:
    """Remove how cells were loaded and what they answered."""
    for step in ("load", "generate"):
        for file in (store / "observations" / step).glob("*.json"):
            if json.loads(file.read_bytes())["subject"] in cells:
                file.unlink()


def middle(costs: list[Cost]) -> Cost:
    """Return the median of each."""
    return Cost(*map(statistics.median, zip(*costs, strict=True)))


def compared(what: str, hand: Cost, matrix: Cost) -> list[str]:
    """Return the lines of the table for one thing."""
    return [
        f"| {what}, {unit} | {ours:.1f} s | {theirs:.1f} s | {ours / theirs:.1f} |"
        for unit, ours, theirs in zip(("wall", "CPU"), hand, matrix, strict=True)
    ]


def head(rows: list[str]) -> list[str]:
    """Return the table under the machine that it was measured on."""
    named = ", ".join(f"{name} {value}" for name, value in machine().items())
    return [f"{named}.", "", "| what | by hand | matrix | times |", "|" + " --- |" * 4, *rows, ""]


def answers(cells: list[Cell], hand: Path, matrix: Path) -> Iterator[str]:
    """Give a line for each cell: what came of it both ways."""
    table = json.loads((matrix / "reports" / "matrix.json").read_bytes())
    verdicts = {cell["id"]: cell["verdict"] for cell in table["cells"]}
    for cell in cells:
        answer = json.loads((hand / f"{name_of(cell)}.json").read_bytes())
        same = f"{answer['same']} of {answer['of']} answers the same, drift {answer['drift']:.3f}"
        yield f"{name_of(cell)}: by hand {same}; matrix: {verdicts[cell.id]}"


if __name__ == "__main__":
    main()
