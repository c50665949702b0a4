"""Count false alarms and misses of ``weights-match`` in files made for it; print Markdown tables.

    .venv/bin/python -m benchmarks.weights_truth [--files 1000] [--jobs 2] [--seed 0] [--list]

Of each format, so many sound files are made from small random models, and in a copy of each one
damage is planted at random. A false alarm is a sound file that fails, a miss a damaged one that
does not. Behind a share stands its 95 % confidence interval (Wilson's). ``--list`` also names the
seeds of all that came out wrong. Interrupted, it prints what came until then.
"""

from __future__ import annotations

import argparse
import copy
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from matrix.checkpoint.inspecting import inspect
from matrix.checks.evidence import Evidence, Thresholds
from matrix.checks.weights import weights_match
from matrix.judge.cells import thresholds
from matrix.pipeline.outcomes import Judgement
from matrix.spec.loading import load
from tests.unit.made_checkpoints import (
    E4M3,
    HIDDEN,
    SHAPES,
    Array,
    Kind,
    Linear,
    Model,
    float_model,
    nearest,
    quantized,
    rounded,
    write,
)

KINDS = [
    Kind("awq", "nearest", symmetric=False, fold="AWQ"),
    Kind("awq", "up or down", symmetric=False),
    *(
        Kind(form, *rest)
        for form in ("gptq", "gptq_v2")
        for rest in (("nearest",), ("up or down",), ("GPTQ",), ("GPTQ", 8))
    ),
    Kind("gptq", "GPTQ", desc_act=True),
    Kind("pack-quantized", "nearest"),
    Kind("pack-quantized", "nearest", symmetric=False, fold="AWQ"),
    Kind("pack-quantized", "up or down"),
    Kind("pack-quantized", "GPTQ"),
    Kind("pack-quantized", "nearest", 8, symmetric=False),
    Kind("pack-quantized", "GPTQ", 8),
    Kind("int-quantized", "nearest", 8, fold="SmoothQuant"),
    Kind("int-quantized", "GPTQ", 8, fold="SmoothQuant"),
    Kind("float-quantized", "nearest", 8),
    Kind("nvfp4-pack-quantized", "nearest"),
]
NORMAL_95 = 1.96


class Place(NamedTuple):
    """A damaged checkpoint, and where in it the damage lies."""

    model: Model
    random: np.random.Generator
    module: str

    @property
    def linear(self) -> Linear:
        """The Linear that is damaged."""
        return self.model.linears[self.module]

    def scale(self, factor: float, where: Any) -> None:
        """Multiply scales by a factor, or by as much less than 1."""
        scales = self.linear.scales
        scales[where] *= factor if self.random.random() < 0.5 else 2 - factor
        is_fp8 = self.model.kind.form == "nvfp4-pack-quantized"
        self.linear.scales = nearest(scales, E4M3) if is_fp8 else rounded(scales, self.model.dtype)

    def row(self) -> int:
        """Return one of its rows."""
        return int(self.random.integers(len(self.linear.codes)))

    def group(self) -> int:
        """Return one of its groups."""
        return int(self.random.integers(self.linear.scales.shape[1]))


class NoEffectError(Exception):
    """A damage changes nothing in such a checkpoint."""


def _whole_scale(place: Place, factor: float) -> None:
    if place.model.kind.form == "nvfp4-pack-quantized":
        place.linear.whole *= factor
    else:
        place.scale(factor, ...)


def _group_scale(place: Place, factor: float) -> None:
    place.scale(factor, (slice(None), place.group()))


def _row_scale(place: Place, factor: float) -> None:
    place.scale(factor, place.row())


def _one_scale(place: Place, factor: float) -> None:
    place.scale(factor, (place.row(), place.group()))


def _zeros(place: Place, *, everywhere: bool) -> None:
    kind = place.model.kind
    if kind.is_float or (kind.symmetric and kind.form not in ("awq", "gptq", "gptq_v2")):
        raise NoEffectError
    where = ... if everywhere else (place.row(), place.group())
    zeros = place.linear.zeros
    up = zeros[where] < 2**kind.bits - 1
    zeros[where] += np.where(up, 1, -1)


def _swap_codes(place: Place, *, everywhere: bool) -> None:
    rows = slice(None) if everywhere else slice(row := place.row(), row + 1)
    codes = place.linear.codes[rows]
    place.linear.codes[rows] = codes.reshape(len(codes), -1, 2)[:, :, ::-1].reshape(codes.shape)


def _swap_rows(place: Place) -> None:
    pair = place.random.choice(len(place.linear.codes), 2, replace=False)
    place.linear.codes[pair] = place.linear.codes[pair[::-1]]


def _swap_names(place: Place) -> None:
    """Exchange two Linears of one shape, with their biases."""
    others = set(place.model.linears) - {place.module}
    names = sorted(name for name in others if _shape(name) == _shape(place.module))
    if not names:
        raise NoEffectError
    other = str(place.random.choice(names))
    linears, tensors = place.model.linears, place.model.tensors
    linears[place.module], linears[other] = linears[other], linears[place.module]
    here, there = f"{place.module}.bias", f"{other}.bias"
    if here in tensors and there in tensors:
        tensors[here], tensors[there] = tensors[there], tensors[here]


def _shape(module: str) -> tuple[int, int]:
    return SHAPES[module.split(".", 3)[3]]


def _zero_codes(place: Place) -> None:
    """Set the codes of eight rows of a group to 0."""
    start = place.row() // 8 * 8
    inputs = place.linear.group_of == place.group()
    place.linear.codes[start : start + 8, inputs] = 0


def _move_code(place: Place) -> None:
    """Move a code by a quarter of its range."""
    linear, bits = place.linear, place.model.kind.bits
    where = place.row(), int(place.random.integers(linear.codes.shape[1]))
    linear.codes[where] = (linear.codes[where] + 2 ** (bits - 2)) % 2**bits


def _other_order(place: Place) -> None:
    if not place.model.kind.desc_act:
        raise NoEffectError
    place.linear.group_of = np.sort(place.linear.group_of)


def _tensor(place: Place, last: str) -> Array:
    names = [name for name in place.model.tensors if name.endswith(last)]
    return place.model.tensors[str(place.random.choice(names))]


def _scale_tensor(place: Place, last: str, *, everywhere: bool) -> None:
    tensor = _tensor(place, last)
    where = ... if everywhere else int(place.random.integers(HIDDEN))
    tensor[where] = rounded(tensor[where] * 1.05, place.model.dtype)


def _swap_tokens(place: Place) -> None:
    tensor = _tensor(place, "embed_tokens.weight")
    pair = place.random.choice(len(tensor), 2, replace=False)
    tensor[pair] = tensor[pair[::-1]]


DAMAGES: dict[str, Callable[[Place], None]] = {
    "scales of a layer, 5 %": partial(_whole_scale, factor=1.05),
    "scales of a group of all rows, 5 %": partial(_group_scale, factor=1.05),
    "scales of a row, 5 %": partial(_row_scale, factor=1.05),
    "scales of a row, 60 %": partial(_row_scale, factor=1.6),
    "scale of a group of a row, 5 %": partial(_one_scale, factor=1.05),
    "scale of a group of a row, 100 %": partial(_one_scale, factor=2.0),
    "zero points of a layer, by one": partial(_zeros, everywhere=True),
    "zero point of a group of a row, by one": partial(_zeros, everywhere=False),
    "neighbouring codes of a layer swapped": partial(_swap_codes, everywhere=True),
    "neighbouring codes of a row swapped": partial(_swap_codes, everywhere=False),
    "two rows of codes swapped": _swap_rows,
    "two Linears swapped": _swap_names,
    "codes of a group of eight rows 0": _zero_codes,
    "a code by a quarter of its range": _move_code,
    "the order of desc_act lost": _other_order,
    "a norm, 5 %": partial(_scale_tensor, last="norm.weight", everywhere=True),
    "a channel of a norm, 5 %": partial(_scale_tensor, last="norm.weight", everywhere=False),
    "a value of a bias, 5 %": partial(_scale_tensor, last=".bias", everywhere=False),
    "two rows of the embedding swapped": _swap_tokens,
}


class Result(NamedTuple):
    """What came of one sound file and of the damaged copy of it."""

    kind: Kind
    seed: int
    damage: str
    alarm: str
    """What was said of the sound one; empty where nothing was."""
    caught: bool


@cache
def _limits() -> Thresholds:
    return thresholds(load())


def _fault(checkpoint: Path, original: Path) -> str:
    """Return what ``weights-match`` says against a checkpoint; empty where it passes."""
    evidence = Evidence(
        tied=True, quantized=True, thresholds=_limits(), inspection=inspect(checkpoint, original)
    )
    opinion = weights_match(evidence)
    return "" if opinion.judgement is Judgement.PASSED else opinion.message


def try_one(kind: Kind, seed: int) -> Result:
    """Return what comes of one sound file and one damage."""
    random = np.random.default_rng([KINDS.index(kind), seed])
    original = float_model(random, kind, "F16" if seed % 3 else "BF16")
    sound = quantized(random, original)
    with tempfile.TemporaryDirectory() as folder:
        source = write(Path(folder) / "original", original)
        checkpoint = Path(folder) / "checkpoint"
        alarm = _fault(write(checkpoint, sound), source)
        damaged, damage = _damaged(random, sound)
        return Result(kind, seed, damage, alarm, bool(_fault(write(checkpoint, damaged), source)))


def _damaged(random: np.random.Generator, sound: Model) -> tuple[Model, str]:
    """Return a copy with a damage that changes it, and its name."""
    while True:
        model = copy.deepcopy(sound)
        damage = str(random.choice(list(DAMAGES)))
        try:
            DAMAGES[damage](Place(model, random, str(random.choice(list(model.linears)))))
        except NoEffectError:
            continue
        if _content(model) != _content(sound):
            return model, damage


def _content(model: Model) -> list[bytes]:
    parts = [*model.tensors.values()]
    for linear in model.linears.values():
        parts += [
            linear.codes,
            linear.zeros,
            linear.scales,
            linear.group_of,
            np.array(linear.whole),
        ]
    return [part.tobytes() for part in parts]


def share(wrong: int, of: int) -> str:
    """Return a count, and its share with its confidence interval, in per cent."""
    z2 = NORMAL_95**2
    middle = (wrong + z2 / 2) / (of + z2)
    half = NORMAL_95 * math.sqrt(wrong * (of - wrong) / of + z2 / 4) / (of + z2)
    low, high = (
        max(middle - half, 0) if wrong else 0.0,
        min(middle + half, 1) if wrong < of else 1.0,
    )
    return f"{wrong} of {of}: {100 * wrong / of:.2f} % ({100 * low:.2f} to {100 * high:.2f})"


def tables(results: list[Result]) -> Iterator[str]:
    """Give the lines of the tables: by format and rounding, then by damage."""
    ways = [*dict.fromkeys((kind.format, kind.rounding) for kind in KINDS)]
    yield "| format | rounding | false alarms | misses |\n|---|---|---|---|"
    for form, rounding in [*ways, ("all", "")]:
        part = [r for r in results if (r.kind.format, r.kind.rounding) == (form, rounding)]
        part = part or results
        alarms, misses = sum(bool(r.alarm) for r in part), sum(not r.caught for r in part)
        yield f"| {form} | {rounding} | {share(alarms, len(part))} | {share(misses, len(part))} |"
    columns = [("nearest", 0), ("up or down", 0), ("GPTQ", 4), ("GPTQ", 8)]
    heads = [f"{rounding}, {bits} bits" if bits else rounding for rounding, bits in columns]
    yield "\n| damage, missed | " + " | ".join(heads) + " |\n|---|" + "---|" * len(heads)
    for damage in DAMAGES:
        cells = []
        for rounding, bits in columns:
            caught = [
                r.caught
                for r in results
                if (r.damage, r.kind.rounding) == (damage, rounding) and bits in (0, r.kind.bits)
            ]
            cells.append(share(caught.count(False), len(caught)) if caught else "")
        yield f"| {damage} | " + " | ".join(cells) + " |"


def main() -> None:
    """Make all files, judge them and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1000, help="sound and damaged, a format")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="the first")
    parser.add_argument("--list", action="store_true", help="name what came out wrong")
    options = parser.parse_args()
    kinds = Counter(kind.format for kind in KINDS)
    work = [
        (kind, options.seed + number)
        for kind in KINDS
        for number in range(-(-options.files // kinds[kind.format]))
    ]
    # In another order, so that what came before an interruption stands for all.
    np.random.default_rng(options.seed).shuffle(work)
    results: list[Result] = []
    with ProcessPoolExecutor(options.jobs) as pool:
        try:
            results.extend(pool.map(try_one, *zip(*work, strict=True), chunksize=4))
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
    print("\n".join(tables(results)))
    print(f"\n{len(results)} of {len(work)} sound files, and as many damaged ones.")
    for result in results if options.list else ():
        if result.alarm or not result.caught:
            print(result.kind, result.seed, result.alarm or f"missed: {result.damage}")


if __name__ == "__main__":
    main()
