"""Which way a checkpoint's weights were rounded, and how far each may so be from its original.

Let t be an original weight in quantization steps, ``weight / scale``, and L the level that is
stored for it, ``code - zero``. Then, in exact numbers,

- rounding to nearest (AWQ, W8A8 and float8 by rounding) leaves ``|L - t| <= 1/2``;
- rounding up or down as was learnt (AutoRound: ``L = round(t + v)``, ``|v| <= 1/2``) leaves
  ``|L - t| <= 1``;
- GPTQ rounds what is left of t after the errors of the columns before were moved in. Nothing
  bounds that; :mod:`matrix.checkpoint.gptq_weights` compares it by statistics.

A weight at the lowest or highest code of its group may have been clipped: it is bounded from the
inside only. Numbers were not exact where they were rounded on the way, in a type of unit roundoff
u (2^-11 of float16, 2^-8 of bfloat16): the weight when it was loaded, the quotient ``weight /
scale``, and the scale when it was stored; with folding also the norm when it was loaded, and the
products of both with a factor. So ``|L - t| <= reach + n (u |t| + 2^-25 / scale) + u |zero|``, with
n = 3 or 6. 2^-25 is what float16 loses of the smallest numbers. The last is of compressed-tensors
alone, which adds the zero, a signed number there, before it rounds. Nothing in it was tuned.

So that a damaged layer does not make its own bounds, they are of the file. In one that was rounded
to nearest, a sound layer has not a single weight outside the first bound; of AutoRound's 2 to 7 in
100 are, of GPTQ's 16 to 35 in 100 (twins, and ``tests/checkpoints``). So a quarter of the layers
proves what all are, by weights that were not off by an eighth of a step on the way already: the
others are damaged. That layers are within a step proves nothing, since
GPTQ may move little, but where GPTQ cannot be. AutoRound is known by its name in config.json, or by
scales of both signs, as only it writes them: the largest weight of a symmetric group becomes the
lowest code.

That the stored codes come back where dequantized weights are quantized again by the stored scales
is true of every file whose scales are finite and not zero (a product of 8 by 11 bits is exact in
float32). It tells nothing of damage; what does is to quantize the original by the stored scales.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple


class Rounding(StrEnum):
    """The ways a weight becomes a level."""

    NEAREST = "to nearest"
    EITHER = "up or down"
    MOVED = "with errors moved on"


REACH = {Rounding.NEAREST: 0.5, Rounding.EITHER: 1.0}
"""How many steps a level may be from its original."""


class Traces(NamedTuple):
    """What rounding left in some rows of a layer."""

    nearest: bool
    """All weights were rounded to nearest, and some so exactly that nothing else does it."""
    either: bool
    """All were rounded up or down."""
    both_signs: bool
    """There are scales of both signs."""


def rounding_of(layers: Iterable[Traces], *, moved: bool, autoround: bool) -> Rounding:
    """Return which way the weights of a file were rounded.

    Args:
        layers: Of those of its layers of which all folding can be undone.
        moved: The method may be GPTQ.
        autoround: config.json names AutoRound, which never moves errors.
    """
    traces = list(layers)
    most = 3 * len(traces) / 4
    if sum(not layer.nearest for layer in traces) <= most:
        return Rounding.NEAREST
    if autoround or sum(layer.both_signs for layer in traces) >= most:
        return Rounding.EITHER
    if moved:
        return Rounding.MOVED
    within = sum(not layer.either for layer in traces) <= most
    return Rounding.EITHER if within else Rounding.NEAREST
