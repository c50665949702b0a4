"""An outcome has reasons of its own, and nothing can be made or read that mixes them."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator

import msgspec
import pytest

from matrix.pipeline.outcomes import PASSED, REASONS, Conclusion, Outcome, Reason, StageResult
from matrix.pipeline.steps import Stage
from matrix.spec.loading import PACKAGE
from matrix.store.observations import Observation
from matrix.untrusted.reading import UnreadableError, decode

PAIRS = list(itertools.product(Outcome, Reason))
POSSIBLE = [(outcome, reason) for outcome, reasons in REASONS.items() for reason in reasons]


@pytest.mark.parametrize(("outcome", "reason"), PAIRS)
def test_only_a_reason_of_the_outcome_can_be_made_or_read(outcome: Outcome, reason: Reason) -> None:
    fields = {"outcome": outcome, "reason": reason, "message": ""}
    step = {**fields, "key": "k", "inputs": {}, "step": "load", "subject": "s"}
    data = msgspec.json.encode(step)
    if (outcome, reason) in POSSIBLE:
        assert Conclusion(outcome, reason).reason is reason
        assert decode(data, Observation).reason is reason
        return
    with pytest.raises(ValueError, match=f"{outcome} for the reason {reason}: want one of"):
        Conclusion(outcome, reason)
    with pytest.raises(ValueError, match="want one of"):
        StageResult(outcome, reason, stage=Stage.LOAD)
    with pytest.raises(UnreadableError, match="want one of"):
        decode(data, Observation)


def test_each_outcome_has_reasons_and_what_passed_has_none() -> None:
    assert REASONS.keys() == set(Outcome)
    assert all(REASONS.values())
    assert len(POSSIBLE) == 43
    assert (Outcome.PASSED, Reason.OOM) not in POSSIBLE
    assert REASONS[Outcome.PASSED] == {PASSED.reason} == {Reason.NONE}
    # Of a cell as a whole: what its engine is not suited for is seen by no stage alone.
    assert set(Reason) - {reason for _, reason in POSSIBLE} == {Reason.UNSUITED_FILE}


def test_a_conclusion_cannot_be_changed_into_one_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="want one of"):
        msgspec.structs.replace(PASSED, reason=Reason.OOM)


def written(name: str) -> Iterator[tuple[str, str]]:
    """Give the (outcome, reason) that stand beside each other in calls in the code."""
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == name:
                words = [ast.unparse(argument) for argument in node.args[:2]]
                outcome, reason = (*words, "Reason.NONE")[:2]
                if outcome.startswith("Outcome.") and reason.startswith("Reason."):
                    yield outcome.removeprefix("Outcome."), reason.removeprefix("Reason.")


def test_no_code_makes_a_conclusion_that_cannot_be() -> None:
    made = {*written("Conclusion"), *written("StageResult")}
    assert len(made) > 20
    possible = {(outcome.name, reason.name) for outcome, reason in POSSIBLE}
    assert made - possible == set()
