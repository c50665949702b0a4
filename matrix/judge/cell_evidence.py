"""The evidence of a cell: what its stages left behind, read for the checks. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import TypeVar

import msgspec

from matrix.checkpoint.inspection import Inspection
from matrix.checks.evidence import (
    Evidence,
    EvidenceError,
    Generation,
    Reference,
    Thresholds,
    read_generation,
    read_load,
)
from matrix.checks.likelihood import perplexity_of
from matrix.judge.results import Measures
from matrix.pipeline.outcomes import Finding, Outcome, Reason, StageResult
from matrix.pipeline.steps import Stage
from matrix.plan.cells import Cell
from matrix.plan.needs import tensor_parallel
from matrix.store.facts import read_facts
from matrix.store.observations import Observation

_T = TypeVar("_T")


def read_evidence(
    cell: Cell,
    observations: Mapping[Stage, Observation],
    reference: Reference,
    thresholds: Thresholds,
    engine: dict[str, str],
    float_generate: Observation | None,
) -> tuple[Evidence, list[StageResult]]:
    """Return a cell's evidence, and the failure of each stage whose facts cannot be read.

    ``engine`` is what is installed in its engine's environment, ``float_generate`` the float
    model's answers there, where it gave some.
    """
    passed = {s: o for s, o in observations.items() if o.outcome is Outcome.PASSED}
    unreadable: list[StageResult] = []

    def read(stage: Stage, reader: Callable[[Observation], _T]) -> _T | None:
        try:
            return reader(passed[stage]) if stage in passed else None
        except (EvidenceError, msgspec.ValidationError) as error:
            failed = StageResult(Outcome.FAILED, Reason.UNREADABLE, str(error), stage=stage)
            unreadable.append(failed)
            return None

    def read_answers(observation: Observation) -> Generation:
        return read_generation(observation.facts, reference)

    evidence = Evidence(
        tied=cell.checkpoint.model.tied,
        quantized=cell.checkpoint.scheme is not None,
        scheme=cell.checkpoint.scheme,
        reference=reference,
        thresholds=thresholds,
        engine=engine,
        loader=cell.engine.adapter.stem,
        dtype=str(cell.engine.options.get("dtype", "")),
        tensor_parallel=tensor_parallel(cell.engine),
        log=observations[Stage.LOAD].log if Stage.LOAD in observations else "",
        inspection=read(Stage.INSPECT, lambda inspect: read_facts(inspect, Inspection)),
        load=read(Stage.LOAD, lambda load: read_load(load.facts, load.warnings)),
        generation=read(Stage.GENERATE, read_answers),
        facts={stage: observation.facts for stage, observation in passed.items()},
    )
    with suppress(EvidenceError):  # the float model's own cell says so
        if float_generate is not None:
            answers = read_answers(float_generate)
            evidence = msgspec.structs.replace(evidence, float_generation=answers)
    return evidence, unreadable


def measures_of(
    evidence: Evidence | None, findings: Iterable[Finding], load: Observation | None
) -> Measures:
    """Return what was measured of a cell; nothing where it did not load."""
    if evidence is None or evidence.load is None or load is None:
        return Measures()
    answers = evidence.generation
    divergence = answers.divergence if answers else None
    differences = (finding.value for finding in findings if finding.check == "logprobs-float")
    return Measures(
        kernel=evidence.load.kernel or "",
        tokens_per_second=(answers.tokens_per_second or None) if answers else None,
        peak_bytes=load.peak_bytes or None,
        perplexity=perplexity_of(answers.held_out) if answers else None,
        nats=next(differences, None),
        divergence=divergence.mean if divergence else None,
        high_divergence=divergence.high if divergence else None,
        same_top=divergence.same_top if divergence else None,
    )
