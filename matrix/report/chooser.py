"""What a reader may choose: a model, and what quantized it. Pure.

The page's script gives the answer out of the squares of the picture, so nothing is said twice.
"""

from __future__ import annotations

from typing import NamedTuple

from matrix.judge.results import CellResult, MatrixResult
from matrix.pipeline.outcomes import Verdict
from matrix.report.table import group_and_label, grouped, serves_most
from matrix.spec.loading import FLOAT_MODEL


class Choices(NamedTuple):
    """The two lists of the chooser, and which pair stands there at first."""

    models: dict[str, str]
    """Model -> its traits, in words."""
    quantizers: dict[str, dict[str, str]]
    """Release -> name of a quantizer -> what tells it apart in the release."""
    model: str
    quantizer: str


def choices(result: MatrixResult) -> Choices | None:
    """Return what can be chosen; ``None`` where nothing was quantized."""
    cells = [cell for cell in result.cells if cell.quantizer.name != FLOAT_MODEL]
    if not cells:
        return None
    models = {cell.model: traits(cell.model, result) for cell in cells}
    quantizers: dict[str, dict[str, str]] = {}
    for cell in cells:
        release, label = group_and_label(cell.quantizer.name, cell.quantizer.axes)
        quantizers.setdefault(release, {})[cell.quantizer.name] = label
    return Choices(models, quantizers, *_most_telling(cells))


def traits(model: str, result: MatrixResult) -> str:
    """Return what of a model decides who can read it: ``tied embedding, qwen2``."""
    facts = result.models.get(model)
    if facts is None:
        return ""
    tied = "tied embedding" if facts.tied else "untied embedding"
    return ", ".join(filter(None, (tied, facts.model_type)))


def _most_telling(cells: list[CellResult]) -> tuple[str, str]:
    """Return the model and the quantizer of which most cells are garbage in vLLM, where others
    work; the first of them where there are several."""
    by_pair = grouped(cells, lambda cell: (cell.model, cell.quantizer.name))

    def worth(pair: tuple[str, str]) -> tuple[bool, int, int]:
        garbage = [cell for cell in by_pair[pair] if cell.verdict is Verdict.GARBAGE]
        works = any(cell.verdict is Verdict.WORKS for cell in by_pair[pair])
        in_vllm = sum(serves_most(cell.engine.name) for cell in garbage)
        return bool(garbage) and works, in_vllm, len(garbage)

    return max(by_pair, key=worth)
