"""The shape of a packed Linear by its tensors: of AWQ and GPTQ, and what holds for all layouts."""

from __future__ import annotations

from dataclasses import dataclass

from matrix.checkpoint.inspection import CheckpointError
from matrix.checkpoint.layouts import WORDS, Layout
from matrix.checkpoint.tensors import Tensors

MAX_SIDE = 2**22
MAX_WEIGHTS = 2**30
"""A module beyond these is no Linear of a model; it is not read."""
MIN_GROUP = 8
"""With smaller groups, scales and zeros as numbers would take far more memory than the codes."""
WORD_BITS = 32
REMADE = "Make the checkpoint again."


@dataclass(frozen=True)
class PackedShape:
    """What the shapes of a module's tensors say."""

    layout: Layout
    inputs: int
    outputs: int
    bits: int
    """Of a stored code."""
    groups: int
    group_size: int
    block_rows: int = 1
    """Of how many outputs one scale is: all of them where it is one for the whole."""


def shape_of_words(tensors: Tensors, module: str, group_size: int | None) -> PackedShape:
    """Return the shape of a module packed as AWQ or GPTQ pack.

    Args:
        tensors: The checkpoint.
        module: Name without ``.qweight``.
        group_size: As config.json says. Needed only where the last group is a shorter one.

    Raises:
        CheckpointError: A tensor is missing, is no matrix, has another type, or they disagree, or
            the module or its number of groups is larger than any Linear's.
    """
    infos = [tensors.find(f"{module}.{part}") for part in WORDS[:3]]
    if infos[0].dtype != "I32" or infos[1].dtype != "I32":
        raise CheckpointError("codes or zeros are not int32", module, REMADE)
    qweight, qzeros, scales = (info.shape for info in infos)
    shapes = f"{qweight}, {qzeros}, {scales}"
    if not all(len(shape) == 2 and min(shape) > 0 for shape in (qweight, qzeros, scales)):
        raise CheckpointError(f"shapes {shapes} are not matrices", module, REMADE)
    (rows, words), (groups, outputs) = qweight, scales
    bits, rest = divmod(qzeros[1] * WORD_BITS, outputs)
    # The two layouts pack along different sides.
    by_output = words * WORD_BITS == outputs * bits
    inputs = rows if by_output else rows * WORD_BITS // max(bits, 1)
    size = group_size if group_size is not None and group_size > 0 else inputs
    if -(-inputs // size) != groups or (by_output and inputs % size):
        # Not as config.json says, whose last group may be a shorter one, but not AWQ's.
        size, unequal = divmod(inputs, groups)
        rest = rest or unequal
    if rest or not 1 <= bits <= 8 or qzeros[0] != groups or not (by_output or words == outputs):
        raise CheckpointError(f"shapes {shapes} do not agree", module, REMADE)
    layout = Layout.AWQ if by_output else Layout.GPTQ
    return within_bounds(PackedShape(layout, inputs, outputs, bits, groups, size), module)


def within_bounds(shape: PackedShape, module: str) -> PackedShape:
    """Return the shape, if it can be one of a Linear.

    Raises:
        CheckpointError: It cannot.
    """
    inputs, outputs = shape.inputs, shape.outputs
    if max(inputs, outputs) > MAX_SIDE or inputs * outputs > MAX_WEIGHTS:
        raise CheckpointError(f"{inputs} x {outputs} weights are no Linear", module, REMADE)
    if shape.group_size < MIN_GROUP:
        problem = (
            f"groups of {shape.group_size} are too small; read are {MIN_GROUP} and more inputs"
        )
        raise CheckpointError(problem, module, "Quantize with larger groups.")
    return shape
