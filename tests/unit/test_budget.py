"""Which cells a budget buys, for made-up costs of every kind."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from matrix.pipeline.outcomes import Outcome
from matrix.pipeline.steps import Stage, Step
from matrix.plan.budget import (
    Candidate,
    Choice,
    Worth,
    candidates,
    choose,
    differences,
    ignoring,
    in_order,
    in_words,
    narrowed,
    read_choice,
)
from matrix.plan.cell_steps import by_stage, steps_of, steps_of_checkpoint
from matrix.plan.cells import Plan, float_id, make_plan
from matrix.plan.predictions import (
    GB,
    Cost,
    Prediction,
    name_of_cell,
    name_of_checkpoint,
    name_of_environment,
)
from matrix.spec.loading import load
from matrix.spec.tables import SpecError
from matrix.store.store import Record
from tests.unit import small_spec
from tests.unit.made_history import History

CELL = "tied/awq/maker-1.0/runner-3.0"
OTHER = "tied/awq/maker-2.0/runner-3.0"
TWIN = "tied/float/none/runner-3.0"
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
BUDGETS = st.none() | st.floats(0, 60)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return make_plan(load(small_spec.write(tmp_path_factory.mktemp("spec"))), "all")


def costs_of(plan: Plan, seconds: float = 60.0, disk: int = GB) -> Prediction:
    """Make a prediction: each cell stands on its checkpoint and on two environments."""
    needs: dict[str, tuple[str, ...]] = {}
    for cell in plan.cells:
        checkpoint = name_of_checkpoint(cell.checkpoint)
        quantizer = name_of_environment(cell.checkpoint.quantizer.environment)
        needs[checkpoint] = (quantizer,)
        needs[name_of_cell(cell.id)] = (
            checkpoint, name_of_environment(cell.engine.environment),
        )  # fmt: skip
    names = {*needs, *(name for behind in needs.values() for name in behind)}
    return Prediction({name: Cost(disk=disk, seconds=seconds) for name in names}, needs)


def new(at: str = "2026-01-01") -> Candidate:
    return Candidate(Worth.NEW, at)


def record(subject: str, step: str, outcome: str = "passed", at: str = "2026-01-01") -> Record:
    return Record(run="r", at=at, subject=subject, step=step, key="k", outcome=outcome)


def worth_of(plan: Plan, records: list[Record], finished: bool = False) -> dict[str, Candidate]:
    return candidates(plan.cells, records, lambda _: not finished, lambda _: "2025-05-05")


def test_a_cell_never_seen_is_new_and_dated_by_its_release(plan: Plan) -> None:
    assert worth_of(plan, [])[CELL] == Candidate(Worth.NEW, "2025-05-05")


def test_a_cell_that_was_loaded_before_is_stale_while_it_is_unfinished(plan: Plan) -> None:
    offers = worth_of(plan, [record(CELL, "load"), record(CELL, "generate", at="2026-02-02")])
    assert offers[CELL] == Candidate(Worth.STALE, "2026-02-02")
    assert offers[OTHER].worth is Worth.NEW


@pytest.mark.parametrize(
    ("subject", "step"),
    [("maker-1.0", "import"), ("runner-3.0", "install"), ("tied/awq/maker-1.0", "quantize")],
)
def test_what_a_cell_stands_on_and_that_failed_is_evidence_of_it(
    plan: Plan, subject: str, step: str
) -> None:
    assert worth_of(plan, [record(subject, step, "failed")])[CELL].worth is Worth.STALE
    assert worth_of(plan, [record(subject, step, "passed")])[CELL].worth is Worth.NEW


@pytest.mark.parametrize(("step", "outcome"), [("check", "failed"), ("load", Outcome.INFRA)])
def test_what_a_check_said_or_the_machine_spoilt_is_no_evidence(
    plan: Plan, step: str, outcome: str
) -> None:
    assert worth_of(plan, [record(CELL, step, outcome)])[CELL].worth is Worth.NEW


def test_a_settled_cell_is_checked_again_only_where_it_was_loaded(plan: Plan) -> None:
    offers = worth_of(plan, [record(CELL, "load")], finished=True)
    assert offers == {CELL: Candidate(Worth.RECHECK, "2026-01-01")}


def test_a_cell_that_does_not_run_here_is_no_candidate(plan: Plan) -> None:
    cells = [msgspec.structs.replace(cell, unmet="needs a GPU") for cell in plan.cells]
    assert worth_of(msgspec.structs.replace(plan, cells=cells), []) == {}


def test_new_comes_first_by_the_newest_release_then_stale_then_the_oldest_again() -> None:
    offers = {
        "again-late": Candidate(Worth.RECHECK, "2026-02"),
        "again-early": Candidate(Worth.RECHECK, "2026-01"),
        "stale-late": Candidate(Worth.STALE, "2026-02"),
        "stale-early": Candidate(Worth.STALE, "2026-01"),
        "new-old": Candidate(Worth.NEW, "2024"),
        "new-new": Candidate(Worth.NEW, "2026"),
    }
    assert in_order(offers) == [
        "new-new", "new-old", "stale-early", "stale-late", "again-early", "again-late",
    ]  # fmt: skip


def test_a_cell_brings_its_float_twin_along_and_both_fit_or_neither(plan: Plan) -> None:
    offers = {CELL: new("2026"), TWIN: new("2020")}
    # Of the twin: an environment that builds, a checkpoint, the cell; of the other as many more;
    # the engine's environment once: 7 minutes.
    bought = choose(plan.cells, offers, costs_of(plan), (), minutes=7)
    assert list(bought.cells) == [TWIN, CELL]
    assert bought.cost.seconds == 7 * 60
    poorer = choose(plan.cells, offers, costs_of(plan), (), minutes=6.9)
    assert list(poorer.cells) == [TWIN]  # by itself, when its own turn comes
    assert list(poorer.left_out) == [CELL]


def test_a_settled_twin_is_not_brought_along(plan: Plan) -> None:
    offers = {CELL: new(), TWIN: Candidate(Worth.RECHECK, "2026")}
    assert list(choose(plan.cells, offers, costs_of(plan), (), minutes=4).cells) == [CELL]


def test_what_is_there_costs_nothing(plan: Plan) -> None:
    prediction = costs_of(plan)
    paid = set(prediction.names([CELL])) - {name_of_cell(CELL)}
    assert list(choose(plan.cells, {CELL: new()}, prediction, paid, minutes=1).cells) == [CELL]
    assert choose(plan.cells, {CELL: new()}, prediction, (), minutes=1).cells == {}


def test_nothing_behind_what_is_there_is_paid(plan: Plan) -> None:
    prediction = costs_of(plan)
    cell = next(cell for cell in plan.cells if cell.id == CELL)
    paid = {name_of_checkpoint(cell.checkpoint)}  # whose environment may have been removed
    assert set(prediction.names([CELL], paid)) == {
        name_of_cell(CELL), name_of_environment(cell.engine.environment),
    }  # fmt: skip


def test_disk_is_held_to_as_well(plan: Plan) -> None:
    offers = {CELL: new()}
    assert choose(plan.cells, offers, costs_of(plan), (), disk_gb=3.9).cells == {}
    assert list(choose(plan.cells, offers, costs_of(plan), (), disk_gb=4).cells) == [CELL]


def test_a_cell_too_dear_is_passed_over_for_cheaper_ones(plan: Plan) -> None:
    prediction = costs_of(plan)
    prediction.costs[name_of_cell(OTHER)] = Cost(seconds=10**6)
    bought = choose(plan.cells, {CELL: new("2020"), OTHER: new("2026")}, prediction, (), minutes=10)
    assert list(bought.cells) == [CELL]


def drawn(data: st.DataObject, plan: Plan) -> tuple[dict[str, Candidate], Prediction, set[str]]:
    """Draw candidates, costs and what is paid for."""
    ids = data.draw(st.lists(st.sampled_from([cell.id for cell in plan.cells]), unique=True))
    dates = st.sampled_from(["2024", "2025", "2026"])
    offers = {i: Candidate(data.draw(st.sampled_from(Worth)), data.draw(dates)) for i in ids}
    prediction = costs_of(plan)
    for name in prediction.costs:
        seconds, disk = data.draw(st.integers(0, 600)), data.draw(st.integers(0, 5)) * GB
        prediction.costs[name] = Cost(seconds=seconds, disk=disk)
    return offers, prediction, data.draw(st.sets(st.sampled_from(sorted(prediction.costs))))


def bought(plan: Plan, market: tuple[dict[str, Candidate], Prediction, set[str]],
           minutes: float | None, disk_gb: float | None) -> Choice:  # fmt: skip
    offers, prediction, paid = market
    return choose(plan.cells, offers, prediction, paid, minutes=minutes, disk_gb=disk_gb)


@patient
@given(st.data(), BUDGETS, BUDGETS)
def test_no_budget_is_exceeded_and_nothing_is_counted_twice(
    plan: Plan, data: st.DataObject, minutes: float | None, disk_gb: float | None
) -> None:
    market = drawn(data, plan)
    choice = bought(plan, market, minutes, disk_gb)
    assert minutes is None or choice.cost.seconds <= minutes * 60
    assert disk_gb is None or choice.cost.disk <= disk_gb * GB
    assert choice.cost == market[1].of_cells(choice.cells, market[2])
    assert choice.cells.keys() | choice.left_out.keys() == market[0].keys()
    assert not choice.cells.keys() & choice.left_out.keys()


@patient
@given(st.data(), BUDGETS, BUDGETS)
def test_no_cell_comes_without_its_due_float_twin(
    plan: Plan, data: st.DataObject, minutes: float | None, disk_gb: float | None
) -> None:
    market = drawn(data, plan)
    order = list(bought(plan, market, minutes, disk_gb).cells)
    for cell in plan.cells:
        twin = market[0].get(float_id(cell))
        if cell.id in order and twin and twin.worth is not Worth.RECHECK:
            assert order.index(float_id(cell)) <= order.index(cell.id)


@patient
@given(st.data(), st.floats(0, 30), st.floats(0, 30), st.booleans())
def test_a_larger_budget_never_gives_up_a_cell_for_one_worth_less(
    plan: Plan, data: st.DataObject, small: float, more: float, disk: bool
) -> None:
    market = drawn(data, plan)
    budgets = [(None, amount) if disk else (amount, None) for amount in (small, small + more)]
    poor, rich = (bought(plan, market, *budget).cells for budget in budgets)
    for cell in in_order(market[0]):
        if (cell in poor) != (cell in rich):
            assert cell in rich
            break


@patient
@given(st.data())
def test_without_limits_everything_is_chosen(plan: Plan, data: st.DataObject) -> None:
    market = drawn(data, plan)
    assert bought(plan, market, None, None).cells.keys() == market[0].keys()


def test_a_narrowed_plan_holds_what_its_cells_stand_on_and_nothing_else(plan: Plan) -> None:
    part = narrowed(plan, {CELL})
    assert [cell.id for cell in part.cells] == [TWIN, CELL]  # the twin is what it is compared with
    assert [c.id for c in part.checkpoints] == ["tied/float/none", "tied/awq/maker-1.0"]
    assert [model.name for model in part.models] == ["tied"]
    assert list(part.environments) == ["twins", "maker-1.0", "runner-3.0"]


def test_a_cell_checked_again_is_unfinished_until_this_run_has_loaded_it(plan: Plan) -> None:
    history = History(plan)
    history.finish()
    cell = next(cell for cell in plan.cells if cell.id == CELL)
    load_key, generate_key = (
        history.keys.of(by_stage(steps_of(cell))[stage]) for stage in (Stage.LOAD, Stage.GENERATE)
    )
    assert load_key is not None
    assert generate_key is not None
    look = ignoring(history.lookup, {CELL}, "run-2")
    assert look(Step.LOAD, load_key.value) is None
    assert look(Step.GENERATE, generate_key.value) is None
    assert ignoring(history.lookup, {CELL}, "run-1")(Step.LOAD, load_key.value) is not None
    assert ignoring(history.lookup, {OTHER}, "run-2")(Step.LOAD, load_key.value) is not None


def test_nothing_that_a_cell_stands_on_is_repeated(plan: Plan) -> None:
    history = History(plan)
    history.finish()
    made = next(checkpoint for checkpoint in plan.checkpoints if checkpoint.scheme)
    inspect = history.keys.of(steps_of_checkpoint(made)[-1])
    assert inspect is not None
    assert ignoring(history.lookup, {inspect.subject}, "run-2")(Step.INSPECT, inspect.value)


def test_a_choice_is_read_as_it_was_written(tmp_path: Path) -> None:
    choice = Choice(
        minutes=5, disk_gb=None, cells={CELL: Worth.RECHECK}, left_out={OTHER: Worth.NEW},
        cost=Cost(1, 2, 3.5, 0.5), before={CELL: "works"},
    )  # fmt: skip
    file = tmp_path / "choice.json"
    file.write_bytes(msgspec.json.encode(choice))
    assert read_choice(file) == choice
    assert choice.again == {CELL}


@pytest.mark.parametrize("text", ["", "[]", '{"cells": {"a": "dear"}}'])
def test_a_file_that_holds_no_choice_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "choice.json"
    file.write_text(text)
    with pytest.raises(SpecError, match=r"choice\.json: cells: no choice can be read"):
        read_choice(file)


def test_what_was_left_out_is_told_with_the_budget() -> None:
    choice = Choice(
        minutes=5, disk_gb=10, cells={CELL: Worth.NEW},
        left_out={OTHER: Worth.NEW, TWIN: Worth.RECHECK}, cost=Cost(disk=2 * GB, seconds=90),
    )  # fmt: skip
    assert in_words(choice) == [
        "budget of 5 minutes and 10 GB of disk: 1 cell (1 new) chosen, "
        "1.5 minutes of work and 2.0 GB predicted",
        "left out because of the budget: 2 cells (1 new, 1 re-check)",
    ]


def test_a_budget_too_small_for_any_cell_says_where_to_look() -> None:
    left_out = {CELL: Worth.NEW}
    choice = Choice(minutes=1, disk_gb=None, cells={}, left_out=left_out, cost=Cost())
    assert "too little for any cell" in in_words(choice)[-1]
    assert "too little" not in in_words(msgspec.structs.replace(choice, left_out={}))[-1]


def test_a_cell_that_comes_out_otherwise_is_told() -> None:
    choice = Choice(
        minutes=5, disk_gb=None, cells={}, left_out={}, cost=Cost(),
        before={CELL: "works", OTHER: "garbage"},
    )  # fmt: skip
    assert differences(choice, lambda _: "garbage") == [
        f"checked again, {CELL} is garbage and was works, with the same inputs"
    ]
