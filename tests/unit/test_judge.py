"""From made-up observations to judged cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from matrix.pipeline.outcomes import Conclusion, Judgement, Outcome, Reason, Verdict
from matrix.pipeline.steps import Blame, Stage
from matrix.spec.loading import load
from tests.unit import small_spec
from tests.unit.made_evidence import right_facts
from tests.unit.made_history import Facts
from tests.unit.made_world import (
    CANARY,
    FLOAT,
    GOOD,
    NO_GPU,
    RAISED,
    STOPPED,
    WORKS,
    World,
    short,
)


def test_what_was_observed_good_works_and_garbage_is_garbage(world: World) -> None:
    cells = world.cells()
    assert short(cells.pop(CANARY))[0] is Verdict.GARBAGE
    assert {short(cell) for cell in cells.values()} == {WORKS}
    assert cells[GOOD].output == cells[GOOD].expected != ""
    assert all(stage.outcome is Outcome.PASSED for stage in cells[GOOD].stages)


def test_answers_of_a_time_when_it_loaded_say_nothing_of_a_cell_that_loads_no_more(
    world: World,
) -> None:
    history = world.history()
    history.change("load", GOOD, outcome=Outcome.FAILED, reason=Reason.EXCEPTION, message="no")
    cell = world.judge(history).cell(GOOD)
    assert short(cell) == (Verdict.BROKEN, Blame.PAIR, Stage.LOAD, "exception")
    assert cell.stages[-1].outcome is Outcome.BLOCKED
    assert not [finding for finding in cell.findings if finding.stage is Stage.GENERATE
                and finding.judgement is not Judgement.NOT_APPLICABLE]  # fmt: skip
    assert cell.output == ""


ENDS: dict[str, tuple[str, str, Conclusion, tuple[Verdict, Blame, Stage, str]]] = {
    "unresolvable quantizer": ("resolve", "maker-2.0", RAISED,
        (Verdict.BROKEN, Blame.QUANTIZER, Stage.QUANTIZER_RESOLVE, "exception")),
    "quantizer that cannot be installed": ("install", "maker-2.0", RAISED,
        (Verdict.BROKEN, Blame.QUANTIZER, Stage.QUANTIZER_INSTALL, "exception")),
    "quantizer that cannot be imported": ("import", "maker-2.0", RAISED,
        (Verdict.BROKEN, Blame.QUANTIZER, Stage.QUANTIZER_IMPORT, "exception")),
    "quantizing raises": ("quantize", "tied/awq/maker-2.0", RAISED,
        (Verdict.BROKEN, Blame.QUANTIZER, Stage.QUANTIZE, "exception")),
    "unreadable checkpoint": ("inspect", "tied/awq/maker-2.0",
        Conclusion(Outcome.FAILED, Reason.UNREADABLE, "truncated"),
        (Verdict.BROKEN, Blame.CHECKPOINT, Stage.INSPECT, "unreadable")),
    "engine that cannot be imported": ("import", "runner-3.0", RAISED,
        (Verdict.BROKEN, Blame.ENGINE, Stage.ENGINE_IMPORT, "exception")),
    "loading raises": ("load", GOOD, RAISED,
        (Verdict.BROKEN, Blame.PAIR, Stage.LOAD, "exception")),
    "generating raises": ("generate", GOOD, RAISED,
        (Verdict.BROKEN, Blame.PAIR, Stage.GENERATE, "exception")),
    "hardware is wanted": ("load", GOOD, NO_GPU,
        (Verdict.UNTESTED, Blame.NOBODY, Stage.LOAD, "no-gpu")),
    "a full disk": ("quantize", "tied/awq/maker-2.0", STOPPED,
        (Verdict.INFRA, Blame.NOBODY, Stage.QUANTIZE, "no-space")),
}  # fmt: skip


@pytest.mark.parametrize("case", ENDS)
def test_each_end_is_judged_by_its_stage(world: World, case: str) -> None:
    step, subject, end, expected = ENDS[case]
    cells = world.cells({(step, subject): end})
    assert short(cells[GOOD]) == expected
    assert end.message in cells[GOOD].message
    if subject != "runner-3.0":
        assert short(cells[FLOAT]) == WORKS


def test_an_engine_in_which_the_float_model_fails_as_well_is_at_fault(world: World) -> None:
    cells = world.cells({("load", GOOD): RAISED, ("load", FLOAT): RAISED})
    assert cells[GOOD].blame is cells[FLOAT].blame is Blame.ENGINE


def test_without_the_float_models_answer_nobody_else_is_accused(world: World) -> None:
    cells = world.cells({("load", GOOD): RAISED, ("load", FLOAT): STOPPED})
    assert (cells[GOOD].blame, cells[FLOAT].verdict) == (Blame.PAIR, Verdict.INFRA)


def test_a_model_that_cannot_be_built_is_no_verdict_about_its_quantizers(world: World) -> None:
    cells = world.cells({("build", "tied"): RAISED})
    assert cells[GOOD].verdict is Verdict.INFRA
    assert cells["untied/awq/maker-2.0/runner-3.0"].verdict is Verdict.WORKS


def test_a_model_whose_build_needs_hardware_is_untested_here(world: World) -> None:
    cells = world.cells({("build", "tied"): NO_GPU})
    assert short(cells[GOOD]) == (Verdict.UNTESTED, Blame.NOBODY, Stage.QUANTIZE, "no-gpu")
    assert cells[GOOD].message == f"the model could not be built: {NO_GPU.message}"


SPOILED: dict[str, tuple[str, str, dict[str, Any], Stage]] = {
    "an answer is missing": ("generate", GOOD, {"outputs": []}, Stage.GENERATE),
    "scores of another shape": ("generate", GOOD, {"held_out": [[0.0]]}, Stage.GENERATE),
    "no facts at all": ("generate", GOOD, {}, Stage.GENERATE),
    "kernels that are no counts": ("load", GOOD, {"kernels": "many"}, Stage.LOAD),
    "an inspection of nonsense": (
        "inspect", "tied/awq/maker-2.0", {"tensors": 3}, Stage.INSPECT),
}  # fmt: skip


@pytest.mark.parametrize("case", SPOILED)
def test_evidence_that_cannot_be_read_fails_its_stage(world: World, case: str) -> None:
    step, subject, spoiled, stage = SPOILED[case]

    def facts(a_step: str, a_subject: str) -> dict[str, Any]:
        usual = world.facts(a_step, a_subject)
        if (a_step, a_subject) != (step, subject):
            return usual
        return {**usual, **spoiled} if spoiled else {}

    cell = world.cells(facts=facts)[GOOD]
    assert (cell.verdict, cell.stage, cell.reason) == (Verdict.BROKEN, stage, "unreadable")


def test_a_damaged_weight_is_a_defect_even_where_the_answer_is_right(world: World) -> None:
    def facts(step: str, subject: str) -> dict[str, Any]:
        usual = world.facts(step, subject)
        if (step, subject) == ("inspect", "tied/awq/maker-2.0"):
            usual["weights"] = [dict(w, strays=9) for w in usual["weights"]]
        return usual

    cell = world.cells(facts=facts)[GOOD]
    assert (cell.verdict, cell.blame) == (Verdict.DEGRADED, Blame.CHECKPOINT)
    assert (cell.stage, cell.reason) == (Stage.INSPECT, "defective-file")


# ------------------------------------------------------------------------- exclusions and canaries


def test_an_excluded_cell_is_unsupported_with_reason_and_source(tmp_path: Path) -> None:
    table = '[[exclusions]]\ncells = "tied/awq/maker-2.0/*"\noutcome = "unsupported"\n'
    table += 'reason = "no kernel"\nsource = "the manual"\n[profiles.all]\n'
    world = World(tmp_path)
    world.loaded = load(small_spec.write(tmp_path, ("[profiles.all]\n", table)))
    cells = world.cells()
    assert short(cells[GOOD]) == (Verdict.UNSUPPORTED, Blame.NOBODY, Stage.LOAD, "declared")
    assert cells[GOOD].message == "no kernel (the manual)"
    assert short(cells[FLOAT]) == WORKS


def right_canary(world: World) -> Facts:
    return lambda s, n: right_facts() if (s, n) == ("generate", CANARY) else world.facts(s, n)


def test_canaries_say_whether_a_run_may_be_believed(world: World) -> None:
    assert world.table(world.history()).canaries == "established"
    works = world.history(facts=right_canary(world))
    void = world.table(works)
    assert (void.canaries, void.specifiers) == ("void", [])
    stopped = world.history({("generate", CANARY): STOPPED})
    assert world.table(stopped).canaries == "not established"
    void_and_stopped = world.history({("generate", GOOD): STOPPED}, right_canary(world))
    assert world.table(void_and_stopped).canaries == "void"
