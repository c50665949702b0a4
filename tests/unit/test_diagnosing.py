"""Which known issue a cell has, which group it is in, and which issues a table contradicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import pytest

from matrix.diagnose.catalogue import Confidence, Effect, Issue, Log, Signature, Traits, Versions
from matrix.judge.diagnosing import Diagnoser, Diagnosis
from matrix.judge.issue_evidence import contradictions, issues_of
from matrix.judge.results import CellResult, Side
from matrix.judge.sides import Installed
from matrix.judge.verdict import JudgedCell, fold, stage_results
from matrix.pipeline.outcomes import (
    PASSED,
    Conclusion,
    Explanation,
    Finding,
    Judgement,
    Outcome,
    Reason,
    StageResult,
    Symptom,
    Verdict,
)
from matrix.pipeline.steps import STAGES, Blame, Stage, Step
from matrix.plan.cells import Cell, make_plan
from matrix.spec.loading import load
from matrix.store.observations import Observation
from tests.unit import small_spec

WORDS = "the layout of maker is not supported"
TRACEBACK = f"""Traceback (most recent call last):
  File "<environment>/lib/python3.11/site-packages/runner/loader.py", line 3, in read
    raise ValueError
ValueError: {WORDS}
"""
CELL = "tied/awq/maker-1.0/runner-3.0"
INSTALLED = Installed({"maker": "1.0", "torch": "2.0"}, {"runner": "3.0", "torch": "2.1"})
DROPPED = Finding(
    "tied-embedding", Stage.INSPECT, Judgement.NOTICE, message="only lm_head.weight is stored",
    explains=Explanation([Symptom.ERROR], errors=["layout"]),
)  # fmt: skip


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> Cell:
    plan = make_plan(load(small_spec.write(tmp_path_factory.mktemp("spec"))), "all")
    return next(cell for cell in plan.cells if cell.id == CELL)


def issue(name: str, **changes: object) -> Issue:
    made = Issue(
        title=name, steps=[Step.LOAD], cause="", fix="", sources=[], id=name,
        confidence=Confidence.CONFIRMED, signatures=[Signature(texts=[WORDS])],
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def observed(
    failed: Stage, message: str = f"ValueError: {WORDS}", traceback: str = TRACEBACK, log: str = ""
) -> dict[Stage, Observation]:
    """Return what was observed of all stages up to one that failed."""
    observations = {}
    for stage in Stage:
        end = PASSED
        if stage is failed:
            reason = Reason.EXCEPTION if traceback else Reason.CRASH
            end = Conclusion(Outcome.FAILED, reason, message)
        observations[stage] = Observation(
            outcome=end.outcome, reason=end.reason, message=end.message, key=stage.value, inputs={},
            step=STAGES[stage].step, subject="", log=log,
            exception="builtins.ValueError" if traceback and stage is failed else "",
            traceback=traceback if stage is failed else "",
        )  # fmt: skip
        if stage is failed:
            break
    return observations


def diagnose(
    cell: Cell,
    observations: Mapping[Stage, Observation],
    issues: Sequence[Issue],
    findings: Sequence[Finding] = (),
) -> Diagnosis:
    results = {
        stage: StageResult(o.outcome, o.reason, o.message, stage=stage)
        for stage, o in observations.items()
    }
    stages = stage_results(results, findings)
    cell_verdict: JudgedCell = fold(stages, findings, float_works=True)
    diagnoser = Diagnoser(lambda: {issue.id: issue for issue in issues})
    return diagnoser.diagnose(cell, cell_verdict, stages, findings, observations, INSTALLED)


def test_the_exception_that_ended_a_cell_names_its_issue(cell: Cell) -> None:
    versions = [Versions(packages={"runner": "<4"}, maker={"maker": "*"})]
    fitting = issue("layout", versions=versions, traits=Traits(tied=True, methods=["awq"]))
    assert diagnose(cell, observed(Stage.LOAD), [fitting]) == Diagnosis(issue="layout")


def test_what_fails_in_other_versions_looks_like_it_and_has_a_group(cell: Cell) -> None:
    newer = issue("layout", versions=[Versions(packages={"runner": ">=4"})])
    assert diagnose(cell, observed(Stage.LOAD), [newer]) == Diagnosis(
        looks_like="layout", group="1:ValueError in runner/loader.py, read"
    )


def test_the_environment_in_which_it_failed_has_the_versions(cell: Cell) -> None:
    of_maker = issue("layout", versions=[Versions(packages={"maker": "==1.0"})])
    assert diagnose(cell, observed(Stage.QUANTIZE), [of_maker]).issue == "layout"
    assert diagnose(cell, observed(Stage.LOAD), [of_maker]).looks_like == "layout"


def test_the_finding_that_explains_a_failure_comes_before_its_exception(cell: Cell) -> None:
    of_file = issue("file", signatures=[Signature(check="tied-embedding")], steps=[Step.INSPECT])
    issues = [issue("layout"), of_file]
    assert diagnose(cell, observed(Stage.LOAD), issues, [DROPPED]).issue == "file"
    assert diagnose(cell, observed(Stage.LOAD), issues).issue == "layout"


def test_the_log_counts_only_where_there_is_no_exception(cell: Cell) -> None:
    other = TRACEBACK.replace(WORDS, "something else")
    logged = observed(Stage.LOAD, "ValueError: something else", other, log=WORDS)
    assert diagnose(cell, logged, [issue("layout")]).issue == ""
    crashed = observed(Stage.LOAD, "killed by signal 11", "", log=WORDS)
    assert diagnose(cell, crashed, [issue("layout")]).issue == "layout"
    refused = observed(Stage.LOAD, f"error: {WORDS}", "")
    assert diagnose(cell, refused, [issue("layout")]).issue == "layout"
    pointing = observed(Stage.LOAD, "RuntimeError: See root cause above", other, log=WORDS)
    assert diagnose(cell, pointing, [issue("layout")]).issue == "layout"


def result(cell: Cell, verdict: Verdict, stages: list[StageResult], name: str = "") -> CellResult:
    side = Side(name="", environment="")
    return CellResult(
        id=cell.id, model="", scheme="", quantizer=side, engine=side, verdict=verdict, issue=name,
        blame=Blame.NOBODY, stage=None, reason=Reason.NONE, message="", stages=stages, findings=[],
    )  # fmt: skip


def passed(last: Stage) -> list[StageResult]:
    stages = list(Stage)
    return [StageResult(Outcome.PASSED, stage=stage) for stage in stages[: stages.index(last) + 1]]


ABOUT_IT = issue(
    "layout", versions=[Versions(packages={"runner": "<4"})],
    logs=[Log(source=f"load of {CELL}, 2026-11-30", text=WORDS, observed="a key")],
)  # fmt: skip


def lines(
    cell: Cell, known: Issue, *, reached: Stage = Stage.GENERATE, name: str = ""
) -> list[str]:
    judged = result(cell, Verdict.WORKS, passed(reached), name)
    return contradictions([(cell, judged)], [known], lambda _: INSTALLED)


def test_an_issue_whose_cells_all_pass_is_reported(cell: Cell) -> None:
    assert lines(cell, ABOUT_IT) == [f"layout: observed of {CELL}, which pass"]
    for subject in ("tied/awq/maker-1.0", "maker-1.0", "runner-3.0"):
        log = Log(source=f"quantize of {subject}, 2026-11-30", text=WORDS, observed="a key")
        assert lines(cell, msgspec.structs.replace(ABOUT_IT, logs=[log]))


@pytest.mark.parametrize(
    "changes",
    [
        {"versions": [Versions(packages={"runner": ">=4"})]},
        {"traits": Traits(tied=False)},
        {"hardware": "an old GPU"},
        {"logs": [Log(source="https://example.org", text=WORDS)]},
        {
            "logs": [
                Log(
                    source="load of untied/awq/maker-1.0/runner-3.0, 2026-11-30",
                    text=WORDS,
                    observed="a key",
                )
            ]
        },
        {"effect": Effect.HARMLESS},
    ],
)
def test_an_issue_is_held_only_to_cells_that_it_is_about(
    cell: Cell, changes: dict[str, object]
) -> None:
    assert lines(cell, msgspec.structs.replace(ABOUT_IT, **changes)) == []


def test_an_issue_is_not_held_to_cells_that_did_not_get_there_or_have_it(cell: Cell) -> None:
    assert lines(cell, ABOUT_IT, reached=Stage.QUANTIZE) == []
    assert lines(cell, ABOUT_IT, name="layout") == []


def test_a_table_has_the_issues_that_its_cells_name_with_their_number(cell: Cell) -> None:
    cells = [result(cell, Verdict.BROKEN, [], "layout")] * 2 + [result(cell, Verdict.WORKS, [])]
    listed = issues_of(cells, {"layout": ABOUT_IT, "other": issue("other")})
    assert {name: entry.cells for name, entry in listed.items()} == {"layout": 2}
