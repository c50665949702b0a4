"""Comparing packed weights with the originals, with AWQ's folding undone and no damage fitted away.

AWQ multiplies the input columns of a Linear by factors s and divides what comes before by them
(``awq/quantize/scale.py``: ``scale_ln_fcs``, ``scale_fc_fc``), and so does SmoothQuant with a norm.
What comes before is

- a norm, for q, k, v and for gate and up. It is stored, so s is known: old norm over new norm.
  norm x weight is compared, and nothing is estimated.
- another Linear, for down (up) and, where their shapes allow it, o (v). Here s is estimated: one
  factor per channel, from rows of the first and columns of the second at once. Nothing that
  changes one of them alone can hide in it, because the product of the two must come out as it was.

Every weight bounds the scale of its group, and a fold's factor, from both sides: they must be such
that its rounding explains its level (:mod:`matrix.checkpoint.rounding`). A weight that none of what
the others allow explains is a stray. A sound file has none, exactly.

A layer is read in blocks of rows, twice where it is folded into another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from matrix.checkpoint.inspection import WeightComparison
from matrix.checkpoint.layouts import Layout
from matrix.checkpoint.packed import Block, Indices, Mask, PackedLinear
from matrix.checkpoint.rounding import REACH, Rounding, Traces
from matrix.checkpoint.tensors import Floats

UNITS = {"F16": 2.0**-11, "BF16": 2.0**-8, "F32": 2.0**-24}
"""Unit roundoff: by how much of itself a value is off at most after it was rounded to a type."""
FAR = 1e6
"""Stands for any deviation larger than this, so that it can be written as JSON."""
_CASTS = UNITS["BF16"] + UNITS["F16"] + UNITS["F32"]
"""How far a value that is only stored may be off: cast to each of the 16-bit types at most once."""
_LEAST_FLOAT16 = 2.0**-24

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
    unit: float
    """Unit roundoff of the type that it was computed in."""
    roundings: int
    """How often a weight in steps was rounded on its way."""

    def blocks(self) -> Iterator[tuple[slice, Block, Floats]]:
        """Yield rows, what is packed of them, and what the original has, norm folded in.

        Both are [rows, in] with the inputs sorted by group.
        """
        norm = self.packed.sort(self.original_norm)
        for start, stop in self.packed.row_ranges():
            with np.errstate(all="ignore"):
                original = self.packed.sort(self.original(start, stop)) * norm
            yield slice(start, stop), self.packed.block(start, stop), original

    def unfolded(self, wanted: Floats) -> Floats:
        """Return what was quantized, of what :meth:`blocks` yields; NaN under a norm of zero."""
        norm = self.packed.sort(self.stored_norm)
        with np.errstate(all="ignore"):
            return np.where(norm != 0, wanted / norm, np.float32(np.nan))


class _Bounds(NamedTuple):
    """Between which factors of its original each weight is its rounding, [rows, in]."""

    low: Floats
    high: Floats
    strays: Mask
    """Which weights are not with a factor of 1."""


def _bounds(pair: Pair, block: Block, steps: Floats, reach: float) -> _Bounds:
    """Return the bounds of weights whose originals are ``steps`` quantization steps large.

    One at an end of its group may have been clipped, so that its target may lie beyond: it bounds
    from one side only.
    """
    lowest, highest = block.ends
    below, above = _reached(pair, block, reach)
    below = np.where(lowest, np.float32(-np.inf), below)
    above = np.where(highest, np.float32(np.inf), above)
    ends = below / steps, above / steps
    bounded = (steps != 0) & ~np.isnan(ends[0]) & ~np.isnan(ends[1])
    low = np.where(bounded, np.minimum(*ends), np.float32(-np.inf))
    high = np.where(bounded, np.maximum(*ends), np.float32(np.inf))
    # Those roundings grow with the weight, whatever its factor.
    share = np.float32(pair.roundings * pair.unit)
    low = np.where(np.isfinite(low), low - share * np.abs(low), low)
    high = np.where(np.isfinite(high), high + share * np.abs(high), high)
    nothing = (steps == 0) & ((below > 0) | (above < 0))
    return _Bounds(low, high, (low > 1) | (high < 1) | nothing | ~np.isfinite(steps))


def _reached(pair: Pair, block: Block, reach: float) -> tuple[Floats, Floats]:
    """Return between which numbers of steps a weight may be for its level, [rows, in] each."""
    levels, shape = block.levels, pair.packed.shape
    sizes: Floats = np.maximum(np.abs(block.steps), np.float32(_LEAST_FLOAT16))
    least = np.full_like(sizes, pair.roundings * _LEAST_FLOAT16 / 2) / sizes
    if block.values is None:
        within = np.float32(reach) + least
        if shape.layout in (Layout.PACKED, Layout.INTEGERS):
            zeros = block.codes - levels - np.float32(2 ** (shape.bits - 1))
            within += np.float32(pair.unit) * np.abs(zeros)
        return levels - within, levels + within
    # Floats: as far, as a share of the distance to their neighbours. There are two zeros.
    values = np.unique(block.values[np.isfinite(block.values)])
    places = np.searchsorted(values, block.values)
    gaps = np.concatenate([[np.inf], np.diff(values), [np.inf]]).astype(np.float32)
    gaps *= np.float32(reach)
    below, above = gaps[places], gaps[np.minimum(places + 1, len(values))]
    return levels - below[block.codes] - least, levels + above[block.codes] + least


@dataclass
class _Measures:
    """What is known of one Linear after all its blocks were added. Rows [out], columns [in]."""

    outputs: int
    inputs: int
    not_finite: int = 0
    difference: float = 0.0
    size: float = 0.0
    strays: int = 0
    group: float = 0.0
    """How far the scale of any group of any row is from 1 at the least."""
    rows: Doubles = field(init=False)
    """Scale of each row, by least squares."""
    columns: Doubles = field(init=False)
    row_bounds: tuple[Doubles, Doubles] = field(init=False)
    """Between which scales all weights of a row are their roundings."""
    column_bounds: tuple[Doubles, Doubles] = field(init=False)

    def __post_init__(self) -> None:
        self.rows, self.columns = np.ones(self.outputs), np.ones(self.inputs)
        self.row_bounds = np.full(self.outputs, -np.inf), np.full(self.outputs, np.inf)
        self.column_bounds = np.full(self.inputs, -np.inf), np.full(self.inputs, np.inf)


def trace(pair: Pair) -> Traces:
    """Return what rounding left in the first rows of a Linear."""
    _, block, wanted = next(pair.blocks())
    with np.errstate(all="ignore"):
        steps = pair.unfolded(wanted) / block.steps
        nearest, either = (
            _bounds(pair, block, steps, REACH[rounding]).strays
            for rounding in (Rounding.NEAREST, Rounding.EITHER)
        )
        below, above = _reached(pair, block, REACH[Rounding.NEAREST])
        telling = pair.roundings * pair.unit * np.abs(steps) < (above - below) / 8
    if block.values is None:
        telling &= above - below < 1 + 1 / 4
    return Traces(
        nearest=bool(telling.any() and not nearest.any()),
        either=not either.any(),
        both_signs=bool((block.scales < 0).any() and (block.scales > 0).any()),
    )


def compare(pair: Pair, reach: float) -> WeightComparison:
    """Compare a Linear that is folded into nothing but the norm before it."""
    measured = _measure(pair, reach, None, None)
    return _compared(pair, measured, measured.rows)


def compare_folded(
    first: Pair, second: Pair, row_of: Indices, reach: float
) -> tuple[WeightComparison, WeightComparison, Factors]:
    """Compare two Linears of which the first's rows may be folded into the second's columns.

    Args:
        first: up or v.
        second: down or o.
        row_of: For each input column of ``second``, the row of ``first`` that feeds it, [in].
        reach: How many steps a level may be from its original.

    Returns:
        Both comparisons, and the factors by which the rows of ``first`` were multiplied.
    """
    before, after = (_measure(pair, reach, None, None) for pair in (first, second))
    # A fold multiplies a row by f and its columns by 1/f; anything else leaves a product but 1.
    products = before.rows[row_of] * after.columns
    factors = _factors(before, after, row_of)
    before = _measure(first, reach, factors.by_row, None)
    after = _measure(second, reach, None, 1 / factors.by_row[row_of])
    return _compared(first, before, products), _compared(second, after, products), factors


class Factors(NamedTuple):
    """By what the rows of a Linear were multiplied, and how far from it they may have been."""

    by_row: Doubles
    """[out]."""
    share: Doubles
    """As a share of it, [out]."""


def _factors(first: _Measures, second: _Measures, row_of: Indices) -> Factors:
    """Return what the weights of both Linears allow: the second bounds it by its inverse."""
    low, high = (bound.copy() for bound in first.row_bounds)
    with np.errstate(all="ignore"):
        np.maximum.at(low, row_of, 1 / second.column_bounds[1])
        np.minimum.at(high, row_of, 1 / second.column_bounds[0])
        factors = np.sqrt(low * high)
        usable = np.isfinite(factors) & (factors > 0)
        share = np.where(usable, np.maximum(high / factors - 1, 0), np.inf)
    return Factors(np.where(usable, factors, 1.0), share)


def _measure(
    pair: Pair, reach: float, by_row: Doubles | None, by_column: Doubles | None
) -> _Measures:
    """Measure a Linear whose target was multiplied by these factors when it was folded."""
    shape = pair.packed.shape
    measured = _Measures(shape.outputs, shape.inputs)
    measured.not_finite = int(np.count_nonzero(~np.isfinite(pair.stored_norm)))
    sums = np.zeros((2, shape.inputs))
    with np.errstate(all="ignore"):
        for rows, block, wanted in pair.blocks():
            factor = np.ones((1, 1), np.float32)
            if by_row is not None:
                factor = by_row[rows, None].astype(np.float32)
            if by_column is not None:
                factor = pair.packed.sort(by_column)[None, :].astype(np.float32)
            _add_errors(measured, pair, block, wanted, factor)
            steps = pair.unfolded(wanted) * factor / block.steps
            sums += _add_scales(measured, rows, block, steps)
            bounds = _bounds(pair, block, steps, reach)
            _add_bounds(measured, rows, block, bounds, pair.packed.order)
    measured.columns[pair.packed.order] = _mean_scale(sums[0], sums[1])
    return measured


def _add_errors(
    measured: _Measures, pair: Pair, block: Block, wanted: Floats, factor: Floats
) -> None:
    stored = block.weight()
    measured.not_finite += int(np.count_nonzero(~np.isfinite(stored)))
    difference = stored * pair.packed.sort(pair.stored_norm) / factor - wanted
    measured.difference += float(np.square(difference).sum(dtype=np.float64))
    measured.size += float(np.square(wanted).sum(dtype=np.float64))


def _add_scales(measured: _Measures, rows: slice, block: Block, steps: Floats) -> Doubles:
    """Add the scale of each row by least squares; return the sums of each column, [2, in].

    Counted in quantization steps, so that every weight has the same error. Those at the ends of
    their range are left out: they may have been clipped, on purpose.
    """
    ends = block.ends
    kept = np.where(ends[0] | ends[1] | ~np.isfinite(steps), np.float32(0), steps)
    both, square = kept * block.levels, kept * kept
    measured.rows[rows] = _mean_scale(
        both.sum(axis=1, dtype=np.float64), square.sum(axis=1, dtype=np.float64)
    )
    return np.stack([both.sum(axis=0, dtype=np.float64), square.sum(axis=0, dtype=np.float64)])


def _mean_scale(both: Doubles, square: Doubles) -> Doubles:
    # A row of nothing but clipped or zero weights says nothing about its scale.
    usable = (square > 0) & np.isfinite(square) & np.isfinite(both)
    return np.where(usable, both / np.where(usable, square, 1), 1.0)


def _add_bounds(
    measured: _Measures, rows: slice, block: Block, bounds: _Bounds, order: Indices
) -> None:
    """Narrow the bounds by those of each weight, and see how far a group is outside its own."""
    measured.strays += int(np.count_nonzero(bounds.strays))
    group_low = np.maximum.reduceat(bounds.low, block.starts, axis=1)
    group_high = np.minimum.reduceat(bounds.high, block.starts, axis=1)
    outside = np.maximum(group_low - 1, 1 - group_high).max()
    measured.group = max(measured.group, float(np.clip(outside, 0, FAR)))
    measured.row_bounds[0][rows] = group_low.max(axis=1)
    measured.row_bounds[1][rows] = group_high.min(axis=1)
    lowest, highest = measured.column_bounds
    lowest[order] = np.maximum(lowest[order], bounds.low.max(axis=0))
    highest[order] = np.minimum(highest[order], bounds.high.min(axis=0))


def _compared(pair: Pair, measured: _Measures, scales: Doubles) -> WeightComparison:
    """Say what was measured; ``scales`` are those whose median is the layer's."""
    if measured.not_finite:
        return WeightComparison(name=pair.name, packed=True, not_finite=measured.not_finite)
    return WeightComparison(
        name=pair.name,
        packed=True,
        error=relative(measured.difference, measured.size),
        ratio=float(np.clip(np.median(scales), -FAR, FAR)),
        group=measured.group,
        strays=measured.strays,
    )


def farthest(scales: Doubles) -> float:
    """Return the scale that is farthest from 1."""
    return float(np.clip(scales[np.abs(scales - 1).argmax()], -FAR, FAR))


def compare_stored(
    name: str, blocks: Iterator[tuple[Floats, Floats]], share: Doubles | float = 0.0
) -> WeightComparison:
    """Compare a tensor that is only stored, not packed: blocks of it and of the original's.

    A stray is a value that no cast to 16 bits explains, nor a factor off by ``share`` of itself.
    """
    difference = size = 0.0
    not_finite = strays = 0
    for stored, original in blocks:
        value, wanted = stored.astype(np.float64), original.astype(np.float64)
        finite = np.isfinite(value)
        not_finite += int(np.count_nonzero(~finite))
        size += float(np.square(wanted).sum())
        off = np.where(finite, value - wanted, 0)
        difference += float(np.square(off).sum())
        within = (_CASTS + share) * np.abs(wanted) + _LEAST_FLOAT16
        strays += int(np.count_nonzero(~(np.abs(off) <= within)))
    if not_finite:
        return WeightComparison(name=name, packed=False, not_finite=not_finite)
    error = relative(difference, size)
    return WeightComparison(name=name, packed=False, error=error, strays=strays)


def relative(difference: float, size: float) -> float:
    """Return the root of the quotient of two sums of squares; of the first alone over nothing.

    What is not finite, by an original that is not, is as far as can be.
    """
    quotient = difference / size if size else difference
    return min(math.sqrt(quotient), FAR) if math.isfinite(quotient) else FAR
