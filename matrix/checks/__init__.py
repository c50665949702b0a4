"""The checks: pure functions that judge what a stage left behind. Each has a stable id."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from matrix.checks import checkpoint, generation, loading
from matrix.checks.evidence import Evidence
from matrix.outcomes import Finding, Stage

__all__ = ["CHECKS", "Check", "judge"]


class Check(msgspec.Struct, frozen=True):
    """A check: its id as it stands in records, the stage it judges, and what judges."""

    id: str
    stage: Stage
    function: Callable[[Evidence], Finding]

    @property
    def title(self) -> str:
        """The first line of its docstring: what must hold."""
        return (self.function.__doc__ or self.id).strip().splitlines()[0]


CHECKS: tuple[Check, ...] = (
    Check("checkpoint-readable", Stage.INSPECT, checkpoint.checkpoint_readable),
    Check("checkpoint-complete", Stage.INSPECT, checkpoint.checkpoint_complete),
    Check("packed-layers", Stage.INSPECT, checkpoint.packed_layers),
    Check("tied-embedding", Stage.INSPECT, checkpoint.tied_embedding),
    Check("weights-match", Stage.INSPECT, checkpoint.weights_match),
    Check("load-warnings", Stage.LOAD, loading.load_warnings),
    Check("tokenizer-ids", Stage.GENERATE, generation.tokenizer_ids),
    Check("greedy-text", Stage.GENERATE, generation.greedy_text),
    Check("logprobs-float", Stage.GENERATE, generation.logprobs_float),
    Check("logprobs-reference", Stage.GENERATE, generation.logprobs_reference),
    Check("degenerate-output", Stage.GENERATE, generation.degenerate_output),
)


def judge(evidence: Evidence, stage: Stage | None = None) -> list[Finding]:
    """Return what every check (of one stage, if given) says of a cell."""
    return [check.function(evidence) for check in CHECKS if stage in (None, check.stage)]
