"""Comparing GPTQ's weights with the originals by statistics, since no rounding bounds them.

GPTQ folds nothing, but moves the error of each column into later ones (AutoGPTQ v0.7.1,
``auto_gptq/quantization/gptq.py``, ``fasterquant``), so that a good weight may be several steps
off: up to 6.3 were measured. Such errors hardly depend on the weights, so a scale is found by least
squares, with a standard error known from what is left over. Taken are the scales of the layer, of
each row, of each group over all rows, and of each group of each row. How far one is off at the
least is its distance from 1, less seven standard errors, less what good layers shrink by.

A zero point that is off by one moves all weights of a group by a step, and so their mean. Columns
tell nothing: where AWQ would scale one up, GPTQ leaves it below a step, and it becomes zero.

Measured on 19 checkpoints of twins (auto-gptq 0.7.1, gptqmodel 2.2.0 and 7.6.0; Qwen2 and Llama; 4
and 8 bits, groups of 64 and 128, also one of 64 for the last of 448 inputs, with and without
desc_act; 399 layers of 256 to 512 inputs): ``group`` is 0 in all, ``error`` at most 0.224,
``ratio`` within 0.006 of 1, ``row`` within 0.06, ``offset`` at most 0.47. On SmolLM2-135M as made
by auto-gptq and gptqmodel 7.6.0 (420 layers) at most 0, 0.33, 0.006, 0.37 and 0.79. So with the
bounds 0.002, 0.4, 0.02, 0.5 and 0.9 all good ones pass, and these scales planted wrong are found:
of a layer 3 % and of one group of all rows 5 %, always; of a row 60 %, always, and of one group of
one row 100 % in 95 places of 100 (at 8 bits 5 % in 29, 60 % always). What GPTQ does to single rows
of a real model by itself is as large, so no less can be told from it. A layer's
zero point that is off by one is always found.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from matrix.checkpoint.inspection import WeightComparison
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
    """How many weights, the same for all rows."""

    def over(self, axis: int | tuple[int, int]) -> _Sums:
        """Return the sums over rows (0), groups (1) or both."""
        count = np.broadcast_to(self.count, self.both.shape)
        return _Sums(
            self.both.sum(axis=axis),
            self.original.sum(axis=axis),
            self.difference.sum(axis=axis),
            count.sum(axis=axis),
        )

    @property
    def deviations(self) -> Doubles:
        """How far the scale of what is stored is from 1; 0 where the original is all zero."""
        return np.where(
            self.original > 0, self.both / np.where(self.original > 0, self.original, 1), 0
        )

    def deviation(self, shrinkage: float) -> float:
        """Return how far the scale that is farthest off is from 1 at the least; 0 for none."""
        usable = (self.original > 0) & (self.count > 0)
        left_over = np.maximum(self.difference - self.deviations * self.both, 0)
        variance = left_over / np.where(usable, self.original * self.count, 1)
        least = np.abs(self.deviations) - shrinkage - _STANDARD_ERRORS * np.sqrt(variance)
        return float(np.clip(np.where(usable, least, 0).max(), 0, FAR))


def compare(pair: Pair) -> WeightComparison:
    """Compare a Linear as GPTQ packed it. ``column`` stays unsaid."""
    shape = pair.packed.shape
    starts = pair.packed.starts
    present = pair.packed.group_of[starts]
    count = np.diff(starts, append=shape.inputs).astype(np.float64)
    offsets = np.zeros((shape.outputs, len(starts)))
    sums = _Sums(offsets.copy(), offsets.copy(), offsets.copy(), count)
    not_finite = 0
    with np.errstate(all="ignore"):
        for rows, block, original in pair.blocks():
            stored = block.weight()
            difference = stored - original
            not_finite += int(np.count_nonzero(~np.isfinite(stored)))
            sums.both[rows] = block.sums(difference, original)
            sums.original[rows] = block.sums(original, original)
            sums.difference[rows] = block.sums(difference, difference)
            offsets[rows] = block.sums(difference, np.ones_like(difference)) / count
    if not_finite:
        return WeightComparison(name=pair.name, packed=True, not_finite=not_finite)
    steps = np.abs(pair.packed.scales[:, present].astype(np.float64))
    return _compared(pair.name, sums, offsets, steps)


def _compared(name: str, raw: _Sums, offsets: Doubles, steps: Doubles) -> WeightComparison:
    """Say what was measured; ``steps`` are the sizes of a step, like ``offsets`` by row and group.

    In one group of one row all weights have the same step. Groups are added up counted in steps,
    so that every weight has about the same error.
    """
    # A scale of zero has no steps. It shows in its own group.
    per_step = np.where(steps > 0, 1 / np.where(steps > 0, steps, 1), 0)
    weight = per_step**2
    counted = _Sums(raw.both * weight, raw.original * weight, raw.difference * weight, raw.count)
    error = relative(float(raw.difference.sum()), float(raw.original.sum()))
    rows, layer = counted.over(1), counted.over((0, 1))
    shrinkage = _SHRINKAGE * min(error, 1) ** 2 + _CLIPPED
    over_rows = max(one.deviation(shrinkage) for one in (counted.over(0), layer))
    of_rows = max(one.deviation(shrinkage + _ODD_ROWS * error) for one in (raw, rows))
    return WeightComparison(
        name=name,
        packed=True,
        error=error,
        ratio=float(np.clip(1 + layer.deviations, -FAR, FAR)),
        row=farthest(1 + rows.deviations),
        group=max(over_rows, of_rows),
        offset=float(np.clip(np.abs(offsets * per_step).max(), 0, FAR)),
    )
