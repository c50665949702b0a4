"""What must hold of every environment, checkpoint and cell of the matrix."""

from __future__ import annotations

from typing import assert_never

import pytest

from matrix.pipeline.outcomes import Finding, Judgement, Outcome, StageResult


def test_stage(result: StageResult) -> None:
    """The stage was reached and passed."""
    match result.outcome:
        case Outcome.PASSED:
            return
        case Outcome.DEGRADED | Outcome.FAILED | Outcome.INFRA:
            pytest.fail(f"{result.outcome} ({result.reason}): {result.message}", pytrace=False)
        case Outcome.UNSUPPORTED | Outcome.NEEDS_HARDWARE | Outcome.BLOCKED:
            # Neither good nor bad: the stage at fault has failed in a test of its own.
            pytest.skip(f"{result.outcome} ({result.reason}): {result.message}")
        case _:
            assert_never(result.outcome)


def test_check(finding: Finding) -> None:
    """The check found what must be there."""
    match finding.judgement:
        case Judgement.PASSED | Judgement.NOTICE:
            return
        case Judgement.DEGRADED | Judgement.FAILED:
            pytest.fail(f"{finding.judgement}: {finding.message}", pytrace=False)
        case Judgement.NOT_APPLICABLE:
            pytest.skip(finding.message)
        case _:
            assert_never(finding.judgement)
