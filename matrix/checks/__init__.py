"""The checks: pure functions that judge what a stage left behind. Each has a stable id."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from matrix.checks import (
    contents,
    drift,
    formats,
    generation,
    likelihood,
    loading,
    packing,
    weights,
)
from matrix.checks.evidence import Evidence
from matrix.pipeline.outcomes import Finding
from matrix.pipeline.steps import Stage

__all__ = ["CHECKS", "Check", "run_checks"]


class Check(msgspec.Struct, frozen=True):
    """A check: its id as it stands in records, the stage that it judges, and its function."""

    id: str
    stage: Stage
    function: Callable[[Evidence], Finding]

    @property
    def title(self) -> str:
        """The first line of its docstring: what must hold."""
        return (self.function.__doc__ or self.id).strip().splitlines()[0]


# In the order in which the cause of a failure is looked for: what lies deepest, first.
CHECKS: tuple[Check, ...] = (
    Check("checkpoint-readable", Stage.INSPECT, contents.checkpoint_readable),
    Check("checkpoint-complete", Stage.INSPECT, contents.checkpoint_complete),
    Check("packed-layers", Stage.INSPECT, formats.packed_layers),
    Check("stored-formats", Stage.INSPECT, formats.stored_formats),
    Check("tied-embedding", Stage.INSPECT, contents.tied_embedding),
    Check("tied-head", Stage.LOAD, loading.tied_head),
    Check("stored-size", Stage.INSPECT, formats.stored_size),
    Check("scales", Stage.INSPECT, packing.scales),
    Check("zero-points", Stage.INSPECT, packing.zero_points),
    Check("group-size", Stage.INSPECT, packing.group_size),
    Check("tensor-parallel", Stage.INSPECT, packing.tensor_parallel),
    Check("weights-match", Stage.INSPECT, weights.weights_match),
    Check("config-drift", Stage.INSPECT, drift.config_drift),
    Check("tokenizer-drift", Stage.INSPECT, drift.tokenizer_drift),
    Check("load-warnings", Stage.LOAD, loading.load_warnings),
    Check("load-memory", Stage.LOAD, loading.load_memory),
    Check("kernel", Stage.LOAD, loading.kernel),
    Check("tokenizer-ids", Stage.GENERATE, generation.tokenizer_ids),
    Check("greedy-text", Stage.GENERATE, generation.greedy_text),
    Check("logprobs-float", Stage.GENERATE, likelihood.logprobs_float),
    Check("logprobs-reference", Stage.GENERATE, likelihood.logprobs_reference),
    Check("perplexity", Stage.GENERATE, likelihood.perplexity),
    Check("degenerate-output", Stage.GENERATE, generation.degenerate_output),
    Check("speed", Stage.GENERATE, generation.speed),
)


def run_checks(evidence: Evidence, stage: Stage | None = None) -> list[Finding]:
    """Return what every check (of one stage, if given) says of a cell's evidence."""
    return [check.function(evidence) for check in CHECKS if stage in (None, check.stage)]
