"""Count how many planted damages ``matrix inspect`` catches; print a Markdown table.

    .venv/bin/python -m benchmarks.planted_damages [--pair CHECKPOINT ORIGINAL ...] [--all]

A kind of damage is planted in a copy of each real checkpoint in which it has an effect, by default
those of ``tests/checkpoints``. It is caught where the status would be 1 or 2, which it is not for
the copy before. ``--all`` prints a line for each kind, not only for those that are missed.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import NamedTuple

from matrix.cli.inspect import examine
from matrix.spec.loading import LoadedSpec, load
from tests.unit import real_checkpoints as real
from tests.unit.planted_configs import CONFIG
from tests.unit.planted_damages import WEIGHTS, Damage, NoEffectError
from tests.unit.planted_tokenizers import TOKENIZER

KINDS = {"weights": WEIGHTS, "config": CONFIG, "tokenizer": TOKENIZER}


class Pair(NamedTuple):
    """A real checkpoint and the float model that it was made of."""

    checkpoint: Path
    original: Path


class Count(NamedTuple):
    """Of one kind of damage: how often it was planted, and caught with and without original."""

    planted: int = 0
    compared: int = 0
    alone: int = 0


def is_caught(folder: Path, original: Path | None, loaded: LoadedSpec) -> bool:
    """Return whether the status of ``matrix inspect`` would not be 0."""
    try:
        with redirect_stderr(StringIO()):
            return not examine(folder, original, loaded, {}).is_sound
    except SystemExit:
        return True


def plant(damage: Damage, pair: Pair, loaded: LoadedSpec) -> Count:
    """Return what is caught of one damage in one checkpoint."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(shutil.copytree(pair.checkpoint, Path(temporary) / "checkpoint"))
        try:
            damage(folder)
        except NoEffectError:
            return Count()
        return Count(1, is_caught(folder, pair.original, loaded), is_caught(folder, None, loaded))


def main() -> None:
    """Plant all damages and print what is caught."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pair", nargs=2, type=Path, action="append", default=[])
    parser.add_argument("--all", action="store_true", help="a line for each kind")
    options = parser.parse_args()
    names = (real.AWQ, real.AUTO_GPTQ, real.DESC_ACT, real.GPTQ, *real.COMPRESSED)
    pairs = [Pair(*pair) for pair in options.pair] or [
        Pair(real.FOLDER / name, real.FLOAT) for name in names
    ]
    loaded = load()
    for pair in pairs:
        for original in (pair.original, None):
            if is_caught(pair.checkpoint, original, loaded):
                parser.error(f"{pair.checkpoint} is not sound; give one that is")
    print("| damage | planted | caught with the original | without |\n|---|---|---|---|")
    totals: dict[str, Count] = {}
    for group, kinds in KINDS.items():
        counts = {
            kind: sum_up([plant(damage, pair, loaded) for pair in pairs])
            for kind, damage in kinds.items()
        }
        for kind, count in counts.items():
            if count.planted and (options.all or count.compared < count.planted):
                print(line(kind, count))
        totals[f"{group}, {sum(c.planted > 0 for c in counts.values())} kinds"] = sum_up(
            list(counts.values())
        )
    for group, count in [*totals.items(), ("all", sum_up(list(totals.values())))]:
        print(line(group, count))


def sum_up(counts: list[Count]) -> Count:
    """Return the sums of counts."""
    return Count(*(sum(column) for column in zip(*counts, strict=True)))


def line(name: str, count: Count) -> str:
    """Return a row of the table."""
    return f"| {name} | {count.planted} | {count.compared} | {count.alone} |"


if __name__ == "__main__":
    main()
