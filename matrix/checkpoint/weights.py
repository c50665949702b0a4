"""Comparing packed weights with the originals, with AWQ's folding undone and no damage fitted away.

AWQ multiplies the input columns of a Linear by factors s and divides what comes before by them
(``awq/quantize/scale.py``: ``scale_ln_fcs``, ``scale_fc_fc``). What comes before is

- a norm, for q, k, v and for gate and up. It is stored, so s is known: old norm over new norm.
  norm x weight is compared, and nothing is estimated.
- another Linear, for down (up) and, where their shapes allow it, o (v). Here s is estimated: one
  factor per channel, from rows of the first and columns of the second at once. Nothing that
  changes one of them alone can hide in it, because the product of the two must come out as it was.

Two measures are taken. Scales (of a layer, its rows, its columns) by least squares over the
weights that are not at the end of their range. And, sharper, the scale of each group of each row:
rounding to nearest leaves at most half a step, so every weight bounds the scale from both sides,
and all of a group's weights together closely. What is outside these bounds no rounding explains.

Measured on the twins as quantized by autoawq 0.2.6, 0.2.7 and 0.2.9 (hidden 256, groups of 64): no
group of any layer is outside. Of scales planted wrong, 95 in 100 are found from these errors on:
1 % in a layer, 1 % in one group of all rows, 3 % in a row, 4 % in one group of one row; for Linears
folded into each other 1.5, 2, 3 and 5 %, because each takes half of it.

A layer is read in blocks of rows, twice where it is folded into another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from matrix.checkpoint.inspection import WeightComparison
from matrix.checkpoint.packed import Block, Indices, PackedLinear
from matrix.checkpoint.tensors import Floats

_HALF_STEP = np.float32(0.53)
"""How far rounding to nearest leaves a weight, in steps: half a step, and a little because the
folded weight, its norm and its scale are each rounded to 16 bits as well (2^-11 of 15 steps)."""
_LEAST_COLUMN = 1.0
"""RMS, in steps, of a column whose scale says something. Of smaller ones most is rounded away: good
columns of SmolLM2-135M come out at 0 to 0.9 of the original's."""
FAR = 1e6
"""Stands for any deviation larger than this, so that it can be written as JSON."""

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pair:
    """A Linear as packed and as it was, with the norms before both."""

    name: str
    packed: PackedLinear
    original: Callable[[int, int], Floats]
    """The original's rows from one to another, [rows, in]."""
    stored_norm: Floats
    """[in]; ones where there is no norm."""
    original_norm: Floats

    def blocks(self) -> Iterator[tuple[slice, Block, Floats]]:
        """Yield rows, what is packed of them, and what the original has, norm folded in.

        Both are [rows, in] with the inputs sorted by group.
        """
        norm = self.packed.sort(self.original_norm)
        for start, stop in self.packed.row_ranges():
            with np.errstate(all="ignore"):
                original = self.packed.sort(self.original(start, stop)) * norm
            yield slice(start, stop), self.packed.block(start, stop), original


@dataclass
class _Measures:
    """What is known of one Linear after all its blocks were added. Rows [out], columns [in]."""

    outputs: int
    inputs: int
    not_finite: int = 0
    difference: float = 0.0
    size: float = 0.0
    group: float = 0.0
    """How far the scale of any group of any row is from 1 at the least."""
    rows: Doubles = field(init=False)
    """Scale of each row, by least squares."""
    columns: Doubles = field(init=False)
    small: npt.NDArray[np.bool_] = field(init=False)
    """Columns of so small weights that their scale says nothing."""
    row_bounds: tuple[Doubles, Doubles] = field(init=False)
    """Between which scales all weights of a row are their roundings."""
    column_bounds: tuple[Doubles, Doubles] = field(init=False)

    def __post_init__(self) -> None:
        self.rows, self.columns = np.ones(self.outputs), np.ones(self.inputs)
        self.small = np.zeros(self.inputs, dtype=bool)
        self.row_bounds = np.full(self.outputs, -np.inf), np.full(self.outputs, np.inf)
        self.column_bounds = np.full(self.inputs, -np.inf), np.full(self.inputs, np.inf)


def compare(pair: Pair) -> WeightComparison:
    """Compare a Linear that is folded into nothing but the norm before it."""
    found = _measure(pair, None, None)
    return _compared(pair, found, found.rows, _telling(pair, found), found.rows)


def compare_folded(
    first: Pair, second: Pair, row_of: Indices
) -> tuple[WeightComparison, WeightComparison, Doubles]:
    """Compare two Linears of which the first's rows may be folded into the second's columns.

    Args:
        first: up or v.
        second: down or o.
        row_of: For each input column of ``second``, the row of ``first`` that feeds it, [in].

    Returns:
        Both comparisons, and the factor by which each row of ``first`` was multiplied, [out].
    """
    one, other = _measure(first, None, None), _measure(second, None, None)
    # A fold multiplies a row by f and its columns by 1/f; anything else leaves a product but 1.
    products = one.rows[row_of] * other.columns
    factors = _factors(one, other, row_of)
    one = _measure(first, factors, None)
    other = _measure(second, None, 1 / factors[row_of])
    products[other.small] = 1.0
    return (
        _compared(first, one, products, _telling(first, one), products),
        _compared(second, other, other.rows, products, products),
        factors,
    )


def _factors(first: _Measures, second: _Measures, row_of: Indices) -> Doubles:
    """Return the fold's factor for each row of ``first``, [out of first].

    It is what the weights of both Linears allow: the second bounds it by its inverse.
    """
    low, high = (bound.copy() for bound in first.row_bounds)
    with np.errstate(all="ignore"):
        np.maximum.at(low, row_of, 1 / second.column_bounds[1])
        np.minimum.at(high, row_of, 1 / second.column_bounds[0])
        factors = np.sqrt(low * high)
    usable = np.isfinite(factors) & (factors > 0)
    return np.where(usable, factors, 1.0)


def _measure(pair: Pair, by_row: Doubles | None, by_column: Doubles | None) -> _Measures:
    """Measure a Linear whose target was multiplied by these factors when it was folded."""
    shape = pair.packed.shape
    found = _Measures(shape.outputs, shape.inputs)
    found.not_finite = int(np.count_nonzero(~np.isfinite(pair.stored_norm)))
    sums = np.zeros((2, shape.inputs))
    with np.errstate(all="ignore"):
        for rows, block, wanted in pair.blocks():
            factor = np.ones((1, 1), np.float32)
            if by_row is not None:
                factor = by_row[rows, None].astype(np.float32)
            if by_column is not None:
                factor = by_column[None, :].astype(np.float32)
            _add_errors(found, pair, block, wanted, factor)
            steps = _over(wanted, pair.stored_norm[None, :]) * factor / block.steps
            ends = block.ends
            sums += _add_scales(found, rows, block.levels, steps, ends[0] | ends[1])
            _add_bounds(found, rows, block, steps, ends)
    found.columns = _mean_scale(sums[0], sums[1])
    found.small = sums[1] < shape.outputs * _LEAST_COLUMN**2
    found.columns[(pair.stored_norm == 0) & (pair.original_norm != 0)] = 0.0
    return found


def _telling(pair: Pair, found: _Measures) -> Doubles:
    """Return the scales of columns; of those that say nothing 1, unless their norm is lost."""
    lost = (pair.stored_norm == 0) & (pair.original_norm != 0)
    return np.where(found.small & ~lost, 1.0, found.columns)


def _over(top: Floats, bottom: Floats) -> Floats:
    """Return the quotient, NaN where there is none."""
    return np.where(bottom != 0, top / bottom, np.float32(np.nan))


def _add_errors(found: _Measures, pair: Pair, block: Block, wanted: Floats, factor: Floats) -> None:
    stored = block.weight()
    found.not_finite += int(np.count_nonzero(~np.isfinite(stored)))
    difference = stored * pair.stored_norm / factor - wanted
    found.difference += float(np.square(difference).sum(dtype=np.float64))
    found.size += float(np.square(wanted).sum(dtype=np.float64))


def _add_scales(
    found: _Measures, rows: slice, levels: Floats, steps: Floats, ends: npt.NDArray[np.bool_]
) -> Doubles:
    """Add the scale of each row by least squares; return the sums of each column, [2, in].

    Counted in quantization steps, so that every weight has the same error. Those at the ends of
    their range are left out: they may have been clipped, on purpose.
    """
    kept = np.where(ends | ~np.isfinite(steps), np.float32(0), steps)
    both, square = kept * levels, kept * kept
    found.rows[rows] = _mean_scale(
        both.sum(axis=1, dtype=np.float64), square.sum(axis=1, dtype=np.float64)
    )
    return np.stack([both.sum(axis=0, dtype=np.float64), square.sum(axis=0, dtype=np.float64)])


def _mean_scale(both: Doubles, square: Doubles) -> Doubles:
    # A row of nothing but clipped or zero weights says nothing about its scale.
    usable = (square > 0) & np.isfinite(square) & np.isfinite(both)
    return np.where(usable, both / np.where(usable, square, 1), 1.0)


def _add_bounds(
    found: _Measures,
    rows: slice,
    block: Block,
    steps: Floats,
    ends: tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]],
) -> None:
    """Narrow the bounds by those of each weight, and find how far a group is outside its own.

    A weight bounds the scales of which it is the rounding. One at an end of its group may have
    been clipped, so that its target may lie beyond: it bounds from one side only.
    """
    levels = block.levels
    one = np.where(ends[0], np.float32(-np.inf), levels - _HALF_STEP) / steps
    other = np.where(ends[1], np.float32(np.inf), levels + _HALF_STEP) / steps
    bounded = (steps != 0) & ~np.isnan(one) & ~np.isnan(other)
    low = np.where(bounded, np.minimum(one, other), np.float32(-np.inf))
    high = np.where(bounded, np.maximum(one, other), np.float32(np.inf))
    group_low = np.maximum.reduceat(low, block.starts, axis=1)
    group_high = np.minimum.reduceat(high, block.starts, axis=1)
    outside = np.maximum(group_low - 1, 1 - group_high).max()
    found.group = max(found.group, float(np.clip(outside, 0, FAR)))
    found.row_bounds[0][rows] = group_low.max(axis=1)
    found.row_bounds[1][rows] = group_high.min(axis=1)
    np.maximum(found.column_bounds[0], low.max(axis=0), out=found.column_bounds[0])
    np.minimum(found.column_bounds[1], high.min(axis=0), out=found.column_bounds[1])


def _compared(
    pair: Pair, found: _Measures, rows: Doubles, columns: Doubles, whole: Doubles
) -> WeightComparison:
    """Say what was measured; ``whole`` holds the scales whose median is the layer's."""
    if found.not_finite:
        return WeightComparison(name=pair.name, packed=True, not_finite=found.not_finite)
    return WeightComparison(
        name=pair.name,
        packed=True,
        error=relative(found.difference, found.size),
        ratio=float(np.median(whole)),
        row=farthest(rows),
        column=farthest(columns),
        group=found.group,
    )


def farthest(scales: Doubles) -> float:
    """Return the scale that is farthest from 1."""
    return float(np.clip(scales[np.abs(scales - 1).argmax()], -FAR, FAR))


def compare_stored(name: str, blocks: Iterator[tuple[Floats, Floats]]) -> WeightComparison:
    """Compare a tensor that is only stored, not packed: blocks of it and of the original's."""
    difference = size = 0.0
    not_finite = 0
    for stored, original in blocks:
        found, wanted = stored.astype(np.float64), original.astype(np.float64)
        finite = np.isfinite(found)
        not_finite += int(np.count_nonzero(~finite))
        size += float(np.square(wanted).sum())
        difference += float(np.square(np.where(finite, found - wanted, 0)).sum())
    if not_finite:
        return WeightComparison(name=name, packed=False, not_finite=not_finite)
    return WeightComparison(name=name, packed=False, error=relative(difference, size))


def relative(difference: float, size: float) -> float:
    """Return the root of the quotient of two sums of squares; of the first alone over nothing.

    What is not finite, by an original that is not, is as far as can be.
    """
    quotient = difference / size if size else difference
    return min(math.sqrt(quotient), FAR) if math.isfinite(quotient) else FAR
