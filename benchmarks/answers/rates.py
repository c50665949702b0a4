"""Judge measured answers and print how often the judge of output is wrong, as Markdown.

    .venv/bin/python -m benchmarks.answers.rates RESULTS [RESULTS ...]

RESULTS are files of :mod:`benchmarks.answers.measure`. A cell raises an alarm where a check of the
``generate`` stage that needs no more than held-out texts does not pass, by the limits of the
project's spec. A damage of the float model below the
smallest size in the table is none.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import msgspec

from matrix.checkpoint.inspection import Inspection, Quantization
from matrix.checks import CHECKS
from matrix.checks.evidence import Divergence, Evidence, Generation, Reference, ScoredText
from matrix.judge.cells import thresholds
from matrix.pipeline.outcomes import Judgement
from matrix.spec.loading import DEFAULT_SPEC, load

OUTPUT = ("logprobs-float", "logprobs-reference", "kl-divergence", "perplexity")
SIZES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, math.inf)
"""Nats of divergence that a damage makes in the float model, alone."""


class Cell(msgspec.Struct, frozen=True):
    """What was measured of one planted cell."""

    cell: str
    scheme: str
    expected: list[list[float]] = []
    held_out: list[list[float | None]] = []
    divergence: Divergence | None = None
    memorised: bool = False
    kind: str = ""
    effect: float = 0.0

    @property
    def bits(self) -> int:
        """How many bits a weight has."""
        return int(self.scheme.partition("-")[0])


def alarms(cell: Cell, limits: Evidence) -> dict[str, Judgement]:
    """Return what the checks say of a cell where they do not pass it."""
    texts = [ScoredText("", [0] * (len(text) + 1), text) for text in cell.expected]
    reference = Reference(
        schema=1, prompts=[], held_out=texts, max_new_tokens=1,
        memorised=texts if cell.memorised else [],
    )  # fmt: skip
    sound = Generation(text_ids=[], outputs=[], held_out=[list(text) for text in cell.expected])
    evidence = msgspec.structs.replace(
        limits,
        reference=reference,
        float_generation=sound,
        inspection=Inspection(quantization=Quantization("gptq", bits=cell.bits)),
        generation=Generation([], [], cell.held_out, cell.divergence),
    )
    quiet = (Judgement.PASSED, Judgement.NOT_APPLICABLE)
    return {
        finding.check: finding.judgement
        for check in CHECKS
        if check.id in OUTPUT
        if (finding := check.finding(evidence)).judgement not in quiet
    }


def interval(count: int, whole: int) -> str:
    """Return a share with its Wilson interval of 95 %: ``3 of 1000: 0.3 % (0.1 to 0.9)``."""
    if not whole:
        return "none"
    z, share = 1.96, count / whole
    middle = (share + z * z / (2 * whole)) / (1 + z * z / whole)
    half = math.sqrt(share * (1 - share) / whole + z * z / (4 * whole * whole))
    half *= z / (1 + z * z / whole)
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    return f"{count} of {whole}: {100 * share:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def main() -> None:
    """Print both tables, and which checks raised alarms."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, nargs="+")
    lines = [
        line for file in parser.parse_args().results for line in file.read_bytes().splitlines()
    ]
    cells = [msgspec.json.decode(line, type=Cell) for line in lines]
    limits = Evidence(tied=True, quantized=True, thresholds=thresholds(load(DEFAULT_SPEC)))
    judged = [(cell, alarms(cell, limits)) for cell in cells if cell.held_out]
    print_good([(cell, raised) for cell, raised in judged if not cell.kind])
    damaged = [(cell, raised) for cell, raised in judged if cell.kind]
    print_damaged(damaged)
    small = sum(not cell.held_out for cell in cells)
    print(f"\n{small} more have less effect than {SIZES[0]:g}.")
    print_kinds([(cell, raised) for cell, raised in damaged if cell.effect >= SIZES[0]])


Judged = list[tuple[Cell, dict[str, Judgement]]]


def print_good(judged: Judged) -> None:
    """Print how many good cells raise a false alarm."""
    print("| scheme of good cells | false alarms | divergence | of them by |\n|---|---|---|---|")
    schemes = sorted({cell.scheme for cell, _ in judged})
    for scheme in (*schemes, "all"):
        own = [pair for pair in judged if scheme in (pair[0].scheme, "all")]
        means = sorted(cell.divergence.mean for cell, _ in own if cell.divergence)
        by = checks_of(raised for _, raised in own)
        wrong = sum(bool(raised) for _, raised in own)
        spread = f"{means[0]:.3g} to {means[-1]:.3g}" if means else ""
        print(f"| {scheme} | {interval(wrong, len(own))} | {spread} | {by} |")


def print_damaged(judged: Judged) -> None:
    """Print how many damaged cells raise none, by what the damage does to the float model."""
    print("\n| effect of the damage alone, nats | 4 bits missed | 8 bits missed | caught by |")
    print("|---|---|---|---|")
    for low, high in [*pairwise(SIZES), (SIZES[0], math.inf)]:
        own = [pair for pair in judged if low <= pair[0].effect < high]
        missed = [
            interval(sum(not raised for _, raised in part), len(part))
            for part in ([p for p in own if p[0].bits == 4], [p for p in own if p[0].bits == 8])
        ]
        name = f"{low:g} to {high:g}" if high < math.inf else f"{low:g} and more"
        print(f"| {name} | {missed[0]} | {missed[1]} | {checks_of(r for _, r in own)} |")


def print_kinds(judged: Judged) -> None:
    """Print how many of each kind of damage are missed."""
    print("\n| kind | missed of those with an effect |\n|---|---|")
    for kind in sorted({cell.kind for cell, _ in judged}):
        own = [raised for cell, raised in judged if cell.kind == kind]
        print(f"| {kind} | {interval(sum(not raised for raised in own), len(own))} |")


def checks_of(judged: Iterable[dict[str, Judgement]]) -> str:
    """Return how often each check raised an alarm."""
    counts = Counter(check for raised in judged for check in raised)
    return ", ".join(f"{check} {counts[check]}" for check in OUTPUT if counts[check])


if __name__ == "__main__":
    main()
