"""The checks: pure functions that judge what a stage left behind. Each has a stable id."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from matrix.checks import (
    contents,
    divergence,
    drift,
    formats,
    generation,
    likelihood,
    loading,
    packing,
    schemes,
    weights,
)
from matrix.checks.evidence import Evidence
from matrix.checks.wording import NotApplicableError, Opinion
from matrix.pipeline.outcomes import Finding, Judgement
from matrix.pipeline.steps import Stage

__all__ = ["CHECKS", "Check", "run_checks"]


class Check(msgspec.Struct, frozen=True):
    """A check: its id as it stands in records, the stage that it judges, and its function."""

    id: str
    stage: Stage
    function: Callable[[Evidence], Opinion]
    threshold: float | Callable[[Evidence], float] | None = None

    @property
    def title(self) -> str:
        """The first line of its docstring: what must hold."""
        return (self.function.__doc__ or self.id).strip().splitlines()[0]

    def finding(self, evidence: Evidence) -> Finding:
        """Return what it says of a cell's evidence."""
        threshold = self.threshold(evidence) if callable(self.threshold) else self.threshold
        try:
            opinion = self.function(evidence)
        except NotApplicableError as error:
            opinion = Opinion(Judgement.NOT_APPLICABLE, message=str(error))
        return Finding(
            self.id, self.stage, opinion.judgement, opinion.value,
            threshold if opinion.threshold is None else opinion.threshold,
            opinion.message, opinion.symptom, opinion.explains,
        )  # fmt: skip


# In the order in which the cause of a failure is looked for: what lies deepest, first.
# fmt: off
CHECKS: tuple[Check, ...] = (
    Check("checkpoint-readable", Stage.INSPECT, contents.checkpoint_readable),
    Check("checkpoint-complete", Stage.INSPECT, contents.checkpoint_complete, 0),
    Check("packed-layers", Stage.INSPECT, formats.packed_layers, 0),
    Check("stored-formats", Stage.INSPECT, formats.stored_formats, 0),
    Check("tied-embedding", Stage.INSPECT, contents.tied_embedding),
    Check("tied-head", Stage.LOAD, loading.tied_head, 1),
    Check("stored-size", Stage.INSPECT, formats.stored_size, lambda e: e.thresholds.stored_size),
    Check("scales", Stage.INSPECT, packing.scales, 0),
    Check("zero-points", Stage.INSPECT, packing.zero_points, 0),
    Check("group-size", Stage.INSPECT, packing.group_size, 0),
    Check("tensor-parallel", Stage.INSPECT, packing.tensor_parallel, lambda e: e.tensor_parallel),
    Check("weights-match", Stage.INSPECT, weights.weights_match),
    Check("scheme", Stage.INSPECT, schemes.scheme, 0),
    Check("config-drift", Stage.INSPECT, drift.config_drift),
    Check("tokenizer-drift", Stage.INSPECT, drift.tokenizer_drift),
    Check("load-warnings", Stage.LOAD, loading.load_warnings, 0),
    Check("load-memory", Stage.LOAD, loading.load_memory, lambda e: e.thresholds.memory_degraded),
    Check("kernel", Stage.LOAD, loading.kernel),
    Check("tokenizer-ids", Stage.GENERATE, generation.tokenizer_ids,
          lambda e: e.thresholds.tokenizer_failed),
    Check("greedy-text", Stage.GENERATE, generation.greedy_text),
    Check("logprobs-float", Stage.GENERATE, likelihood.logprobs_float),
    Check("logprobs-reference", Stage.GENERATE, likelihood.logprobs_reference),
    Check("kl-divergence", Stage.GENERATE, divergence.kl_divergence),
    Check("perplexity", Stage.GENERATE, likelihood.perplexity),
    Check("degenerate-output", Stage.GENERATE, generation.degenerate_output,
          lambda e: e.thresholds.degenerate_failed),
    Check("speed", Stage.GENERATE, generation.speed),
)
# fmt: on


def run_checks(evidence: Evidence, stage: Stage | None = None) -> list[Finding]:
    """Return what every check (of one stage, if given) says of a cell's evidence."""
    return [check.finding(evidence) for check in CHECKS if stage in (None, check.stage)]
