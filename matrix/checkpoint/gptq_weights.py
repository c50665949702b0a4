"""Comparing GPTQ's weights with the originals by statistics, since no rounding bounds them.

GPTQ folds nothing, but moves the error of each column into later ones (AutoGPTQ v0.7.1,
``auto_gptq/quantization/gptq.py``, ``fasterquant``), so that a good weight may be several steps
off: up to 6.3 were measured. Such errors hardly depend on the weights, so a scale is found by least
squares, with a standard error known from what is left over. Taken are the scales of the layer, of
each row, of each group over all rows, and of each group of each row. How far one is off at the
least is its distance from 1, less seven standard errors, less what good layers shrink by.

A zero point that is off by one moves all weights of a group by a step, and so their mean; how far
that is off at the least is told likewise. Columns tell nothing: where AWQ would scale one up, GPTQ
leaves it below a step, and it becomes zero.

A g_idx that lost its order, or got another, gives inputs the scales of groups that are not theirs.
What is left over is then larger than with the scales of another group, which it hardly ever is.

Measured on the twins as made by auto-gptq 0.7.1, gptqmodel 2.2.0 to 7.7.0 and llm-compressor 0.7.1
and 0.14.0.1 (1869 layers of 256 to 512 inputs; 4 and 8 bits, groups of 64 and 128, with and without
desc_act): ``group`` and ``row`` are 0 off in all, ``error`` at most 0.218, ``ratio`` within 0.007
of 1, ``offset`` at most 0.031, ``misplaced`` at most 0.004, and a row at most 1.4 steps off in the
mean square (``moved``). On SmolLM2-135M as made by llm-compressor (420 layers) at most 0, 0.2,
0.343, 0.007, 0.1, 0.018 and 6.7: GPTQ moves a row of a down_proj by three times its size, and
leaves a third of its scale. By auto-gptq and gptqmodel (420 layers) ``error`` was 0.33 and
``misplaced`` 0.144. On the four of ``tests/checkpoints`` (56 layers of 128 and 256 inputs, less to
calibrate on) ``ratio`` is within 0.0203 of 1. A lost or made up order makes ``misplaced`` 0.25 to
0.99. So with the bounds 0.002, 0.3, 0.4, 0.03, 0.3, 0.2 and 12 all good ones pass, and these scales
planted wrong are found: of a layer 5 %, always (at 8 bits 2 %); of one group of all rows 5 %,
always (with desc_act in 22 places of 28, 10 % always); of a row 60 %, always; of one group of one
row 100 % in 95 places of 100 (at 8 bits 60 % always), and 0 always. What GPTQ does to single rows
of a real model by itself is as large, so no less can be told from it. A zero point that is off by
one in a layer is always found, and so is a lost order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from matrix.checkpoint.inspection import WeightComparison
from matrix.checkpoint.packed import Block
from matrix.checkpoint.tensors import Floats
from matrix.checkpoint.weights import FAR, Doubles, Pair, farthest, relative

_STANDARD_ERRORS = 7.0
"""5.0 was measured among the groups of the twins' good layers."""
_SHRINKAGE = 0.5
"""Rounding draws a scale towards 0 by a share of the squared relative error; 0.3 was measured."""

_CLIPPED = 0.0005
"""The largest weight of a symmetric group is 127.5 steps at 8 bits, and 127 at most is stored."""

_ODD_ROWS = 3.0
"""In a real model GPTQ moves a few rows by more than rounding explains, by this many relative
errors at the most; 2.2 was measured (SmolLM2-135M, a row of down_proj whose scale is 0.63)."""

_FITTED_ROWS = 128
"""So many tell which group an input is of, and cost little where there are many groups."""


@dataclass(frozen=True)
class _Sums:
    """Sums of products over each group of each row, [rows, groups with inputs]."""

    both: Doubles
    """Difference from the original, times the original."""
    original: Doubles
    """Original squared."""
    difference: Doubles
    """Difference squared."""
    count: Doubles
    """How many weights."""

    def over(self, axis: int | tuple[int, int]) -> _Sums:
        """Return the sums over rows (0), groups (1) or both."""
        return _Sums(
            self.both.sum(axis=axis),
            self.original.sum(axis=axis),
            self.difference.sum(axis=axis),
            self.count.sum(axis=axis),
        )

    @property
    def deviations(self) -> Doubles:
        """How far the scale of what is stored is from 1; 0 where the original is all zero."""
        return np.where(
            self.original > 0, self.both / np.where(self.original > 0, self.original, 1), 0
        )

    def least(self, shrinkage: float) -> Doubles:
        """Return how far each scale is from 1 at the least; 0 where nothing tells."""
        usable = (self.original > 0) & (self.count > 0)
        left_over = np.maximum(self.difference - self.deviations * self.both, 0)
        variance = left_over / np.where(usable, self.original * self.count, 1)
        least = np.abs(self.deviations) - shrinkage - _STANDARD_ERRORS * np.sqrt(variance)
        return np.where(usable, np.clip(least, 0, FAR), 0)


def compare(pair: Pair, *, clipped: bool = False) -> WeightComparison:
    """Compare a Linear by the statistics of its differences.

    Args:
        pair: The Linear.
        clipped: It may have been clipped on purpose: leave out what is at the ends of a group.
    """
    starts = pair.packed.starts
    present = pair.packed.group_of[starts]
    offsets = np.zeros((pair.packed.shape.outputs, len(starts)))
    sums = _Sums(*(offsets.copy() for _ in range(4)))
    not_finite = 0
    misplaced = 0.0
    with np.errstate(all="ignore"):
        for rows, block, wanted in pair.blocks():
            original = pair.unfolded(wanted)
            if not rows.start:
                misplaced = _misplaced(block, original)
            stored = block.weight()
            not_finite += int(np.count_nonzero(~np.isfinite(stored)))
            difference, kept = stored - original, np.ones_like(original)
            if clipped:
                lowest, highest = block.ends
                kept[lowest | highest] = 0
                # Beside a large weight all others may be below a step, and tell no scale.
                within = block.sums(original * kept, original) < block.sums(kept, block.steps**2)
                kept[np.repeat(within, np.diff(starts, append=kept.shape[1]), axis=1)] = 0
                original, difference = original * kept, difference * kept
            sums.both[rows] = block.sums(difference, original)
            sums.original[rows] = block.sums(original, original)
            sums.difference[rows] = block.sums(difference, difference)
            sums.count[rows] = block.sums(kept, kept)
            if block.values is None:  # floats have no zero points
                offsets[rows] = block.sums(difference, kept) / np.maximum(sums.count[rows], 1)
    if not_finite:
        return WeightComparison(name=pair.name, packed=True, not_finite=not_finite)
    steps = np.abs(pair.packed.scales[:, present].astype(np.float64))
    # A scale of zero has no steps. It shows in its own group.
    per_step = np.where(steps > 0, 1 / np.where(steps > 0, steps, 1), 0)
    offset = _offset(sums, offsets * per_step, per_step)
    return _compared(pair.name, sums, offset, per_step, misplaced)


def _offset(sums: _Sums, offsets: Doubles, per_step: Doubles) -> float:
    """Return the largest offset, at the least, of a group of a row, or that of half of the rows.

    Where its inputs hardly count, GPTQ moves a group by steps, but not all its weights alike: 2.4
    in the mean were measured, of 6.5 in the mean square.
    """
    count = np.maximum(sums.count, 1)
    spread = np.sqrt(np.maximum(sums.difference * per_step**2 / count - offsets**2, 0))
    single = np.abs(offsets) - _STANDARD_ERRORS * spread / np.sqrt(count)
    return float(np.clip(max(single.max(), np.abs(np.median(offsets, axis=0)).max()), 0, FAR))


def _misplaced(block: Block, original: Floats) -> float:
    """Return how much of the squared difference goes if each input has its best group's scales.

    GPTQ chose each code for the scale of its own group, and the error it moves is the same under
    any scale, so that over some rows hardly an input fits another group better than its own.
    """
    levels = block.levels[:_FITTED_ROWS].astype(np.float64)
    wanted = original[:_FITTED_ROWS].astype(np.float64)
    scales = block.scales[:_FITTED_ROWS].astype(np.float64)
    size = np.square(wanted).sum(axis=0)[:, None]
    # The square multiplied out: [in, groups], without one of [rows, in, groups].
    left_over = size - 2 * (levels * wanted).T @ scales + np.square(levels).T @ np.square(scales)
    own = left_over[np.arange(len(block.group_of)), block.group_of]
    if not np.isfinite(left_over).all() or own.sum() <= 0:
        return 0.0
    return float(1 - left_over.min(axis=1).sum() / own.sum())


def _compared(
    name: str, raw: _Sums, offset: float, per_step: Doubles, misplaced: float
) -> WeightComparison:
    """Say what was measured; ``per_step`` holds steps to a unit of weight, by row and group.

    In one group of one row all weights have the same step. Groups are added up counted in steps,
    so that every weight has about the same error.
    """
    weight = per_step**2
    counted = _Sums(raw.both * weight, raw.original * weight, raw.difference * weight, raw.count)
    error = relative(float(raw.difference.sum()), float(raw.original.sum()))
    rows, layer = counted.over(1), counted.over((0, 1))
    shrinkage = _SHRINKAGE * min(error, 1) ** 2 + _CLIPPED
    over_rows = max(one.least(shrinkage).max() for one in (counted.over(0), layer))
    of_rows = max(one.least(shrinkage + _ODD_ROWS * error).max() for one in (raw, rows))
    return WeightComparison(
        name=name,
        packed=True,
        error=error,
        ratio=float(np.clip(1 + layer.deviations, -FAR, FAR)),
        row=farthest(1 + np.sign(rows.deviations) * rows.least(0)),
        group=float(max(over_rows, of_rows)),
        offset=offset,
        moved=float(np.clip(np.sqrt(rows.difference / np.maximum(rows.count, 1)).max(), 0, FAR)),
        misplaced=misplaced,
    )
