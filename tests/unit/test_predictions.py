"""What is predicted of made-up plans, from made-up constants and timings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from matrix.pipeline.steps import Step
from matrix.plan.cell_steps import steps_of_plan
from matrix.plan.cells import Plan, make_plan
from matrix.plan.predictions import (
    GB,
    MB,
    Cost,
    Prediction,
    Timings,
    checkpoint_bytes,
    name_of,
    name_of_cell,
    name_of_checkpoint,
    name_of_environment,
    name_of_model,
    parameters,
    predict,
    torch_of,
)
from matrix.spec.loading import load
from matrix.spec.snapshot import Release, Snapshot
from matrix.spec.tables import DevicePredictions, PredictionsTable
from matrix.store.store import Record
from tests.unit import small_spec

CELL = "tied/awq/maker-1.0/runner-3.0"
OTHER = "tied/awq/maker-2.0/runner-3.0"
TWIN = "tied/float/none/runner-3.0"

CPU = DevicePredictions(
    import_seconds=7, quantize_seconds=11, load_seconds=3, generate_seconds=2,
    quantize_seconds_per_billion={"awq": 1000, "gptq": 100}, load_seconds_per_billion=50,
)  # fmt: skip
CUDA = DevicePredictions(
    import_seconds=70, quantize_seconds=110, load_seconds=30, generate_seconds=20,
    quantize_seconds_per_billion={"awq": 10, "gptq": 1}, load_seconds_per_billion=5,
)  # fmt: skip
CONSTANTS = PredictionsTable(
    download_mb_per_second=10, unpacked=2, torch_mb=1000, packages_mb=10, packages_unpacked=3,
    bytecode_mb=7, brings_mb={"runner": 50}, resolve_seconds=1, install_seconds=4,
    source_build_seconds=30, build_seconds=40, inspect_seconds_per_gb=60, cpu=CPU, cuda=CUDA,
)  # fmt: skip
SNAPSHOT = Snapshot(1, "2026-01-01T00:00:00Z", {
    "maker": [Release("1.0", size=200 * MB, wheels=["py3-none-any"]),
              Release("2.0", size=MB, sdist=True)],
    "runner": [Release("3.0", size=300 * MB, wheels=["py3-none-any"], declares=["torch==9.9"])],
})  # fmt: skip
QWEN = {  # Qwen2.5-0.5B
    "model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
    "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151936,
}  # fmt: skip


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return make_plan(load(small_spec.write(tmp_path_factory.mktemp("spec"))), "all")


def changed(plan: Plan, **fields: Any) -> Plan:
    """Return the plan with each of its models changed."""

    def other(struct: Any, name: str, make: Any) -> Any:
        return msgspec.structs.replace(struct, **{name: make(getattr(struct, name))})

    def model(old: Any) -> Any:
        return msgspec.structs.replace(old, **fields)

    def checkpoint(old: Any) -> Any:
        return other(old, "model", model)

    return msgspec.structs.replace(
        plan,
        models=[model(old) for old in plan.models],
        checkpoints=[checkpoint(old) for old in plan.checkpoints],
        cells=[other(cell, "checkpoint", checkpoint) for cell in plan.cells],
    )


def on_cuda(plan: Plan) -> Plan:
    environments = {
        name: msgspec.structs.replace(environment, device="cuda")
        for name, environment in plan.environments.items()
    }
    return msgspec.structs.replace(plan, environments=environments)


def record(step: str, subject: str, seconds: float, outcome: str = "passed", device: str = "cpu"
           ) -> Record:  # fmt: skip
    return Record(
        run="r", at="2026", subject=subject, step=step, key="k", outcome=outcome, device=device,
        seconds=seconds,
    )  # fmt: skip


def predicted(
    plan: Plan, records: list[Record] | None = None, *, pins: Mapping[str, str] | None = None,
    linked: bool = True, constants: PredictionsTable = CONSTANTS,
) -> Prediction:  # fmt: skip
    return predict(
        plan, constants, Timings(records or []), SNAPSHOT, lambda _: pins or {}, linked=linked
    )


def import_of(plan: Plan, environment: str) -> str:
    """Return the name of what it costs that an environment of one role is imported."""
    (step,) = (
        step
        for step in steps_of_plan(plan)
        if step.step is Step.IMPORT and step.environment == environment
    )
    return name_of(step)


def test_a_cell_stands_on_its_checkpoint_and_engine_and_they_on_environments(plan: Plan) -> None:
    names = set(predicted(plan).names([CELL]))
    assert names == {
        name_of_cell(CELL), "checkpoint tied/awq/maker-1.0", "model tied",
        "environment twins", "environment maker-1.0", "environment runner-3.0",
        *(import_of(plan, name) for name in ("twins", "maker-1.0", "runner-3.0")),
        "wheels of torch 2.0", "wheels of torch of today", "wheels of torch 2.1",
        "wheels of maker 1.0", "wheels of runner 3.0",
    }  # fmt: skip


def test_what_cells_share_is_counted_once(plan: Plan) -> None:
    prediction = predicted(plan)
    total = prediction.of_cells([CELL, OTHER])
    behind_other = set(prediction.names([OTHER])) - set(prediction.names([CELL]))
    assert total == prediction.of_cells([CELL]) + sum(
        (prediction.costs[name] for name in behind_other), Cost()
    )
    assert (
        total.seconds < prediction.of_cells([CELL]).seconds + prediction.of_cells([OTHER]).seconds
    )


def test_an_environment_is_its_wheels_and_what_it_shares_with_none(plan: Plan) -> None:
    costs = predicted(plan).costs
    assert costs["wheels of maker 1.0"] == Cost(200 * MB, 400 * MB, seconds=20)
    assert costs["wheels of runner 3.0"].download == (300 + 50) * MB  # and what it brings along
    assert costs["wheels of torch 2.1"] == Cost(1000 * MB, 2000 * MB, seconds=100)
    # 1 MB in 0.1 s, and built in 30 s, as there is no wheel
    assert costs["wheels of maker 2.0"] == Cost(MB, 2 * MB, seconds=30.1)
    # 10 MB in 1 s, resolved in 1 s, installed in 4 s
    assert costs["environment maker-1.0"] == Cost(10 * MB, 37 * MB, seconds=6)
    assert costs["environment maker-2.0"] == Cost(10 * MB, 37 * MB, seconds=6)


def test_the_first_job_in_an_environment_takes_more_in_the_role_that_does_it(plan: Plan) -> None:
    steps = {step.environment: step for step in steps_of_plan(plan) if step.step is Step.IMPORT}
    maker, runner = name_of(steps["maker-1.0"]), name_of(steps["runner-3.0"])
    once = {"maker": 100.0, "runner": 1000.0}
    constants = replace(CONSTANTS, first_quantize_seconds=once)
    costs = predicted(plan, constants=constants).costs
    assert (costs[maker].seconds, costs[runner].seconds) == (7 + 100, 7)
    over = predicted(plan, [record("import", "maker-1.0", 5)], constants=constants).costs
    assert over[maker].seconds == 5
    costs = predicted(plan, constants=replace(CONSTANTS, first_load_seconds=once)).costs
    assert (costs[maker].seconds, costs[runner].seconds) == (7, 7 + 1000)


def test_copies_take_their_disk_in_each_environment(plan: Plan) -> None:
    name = name_of_environment("maker-1.0")
    linked, copied = (predicted(plan, linked=linked).costs[name].disk for linked in (True, False))
    assert copied - linked == 2 * (1000 + 200) * MB


def test_a_twin_takes_no_download_and_no_time_by_its_size(plan: Plan) -> None:
    costs = predicted(plan).costs
    assert costs["model tied"] == Cost(seconds=40)
    assert costs["checkpoint tied/awq/maker-1.0"] == Cost(seconds=11)
    assert costs[name_of_cell(CELL)] == Cost(seconds=3 + 2)


def test_a_model_takes_two_bytes_a_parameter_where_its_config_is_known(plan: Plan) -> None:
    with_config = changed(plan, config=QWEN)
    model = with_config.models[0]
    assert parameters(model) == 494_032_768  # its model card: 0.49B
    size = 2 * 494_032_768
    cost = predicted(with_config).costs[name_of_model(model)]
    assert (cost.download, cost.disk) == (0, size)
    assert cost.seconds == pytest.approx(40 + 60 * size / GB)
    downloaded = predicted(changed(plan, config=QWEN, recipe={"repository": "Qwen/Qwen2.5-0.5B"}))
    cost = downloaded.costs[name_of_model(model)]
    assert (cost.download, cost.disk) == (size, size)
    assert cost.seconds == pytest.approx(40 + 60 * size / GB + size / (10 * MB))


def test_time_grows_with_the_model_by_method_and_device(plan: Plan) -> None:
    with_config = changed(plan, config=QWEN)
    billions, size = 0.494032768, 2 * 0.494032768
    checkpoint, cell = "checkpoint tied/awq/maker-1.0", name_of_cell(CELL)
    costs = predicted(with_config).costs
    assert costs[checkpoint].seconds == pytest.approx(11 + 1000 * billions + 60 * size)
    assert costs[cell].seconds == pytest.approx(3 + 50 * billions + 2)
    costs = predicted(on_cuda(with_config)).costs
    # Each job imports anew.
    assert costs[checkpoint].seconds == pytest.approx(110 + 10 * billions + 60 * size + 70)
    assert costs[cell].seconds == pytest.approx(30 + 5 * billions + 20 + 70)


def test_a_checkpoint_takes_the_bytes_of_its_scheme(plan: Plan) -> None:
    checkpoint = next(c for c in changed(plan, config=QWEN).checkpoints if c.scheme)
    # Of 494 million parameters, 358 million are in Linears: 4 bits each, and per group of 64 a
    # scale of 16 bits and a zero point of 4.
    linears = 357_826_560
    packed = linears // 2 + linears // 64 * 2 + linears // 64 // 2
    assert checkpoint_bytes(checkpoint) == 2 * (494_032_768 - linears) + packed


@pytest.mark.parametrize("config", [{"hidden_size": "large"}, {"model_type": "mamba"}, {}])
def test_of_a_model_whose_shapes_are_not_known_no_size_is_claimed(
    plan: Plan, config: dict[str, object]
) -> None:
    with_config = changed(plan, config=config)
    assert parameters(with_config.models[0]) == 0
    assert checkpoint_bytes(with_config.checkpoints[-1]) == 0


def test_what_was_timed_here_takes_the_place_of_constants(plan: Plan) -> None:
    records = [
        record("load", CELL, 5), record("load", CELL, 7), record("load", CELL, 6),
        record("generate", CELL, 1), record("quantize", "tied/awq/maker-1.0", 100),
        record("build", "tied", 50), record("import", "maker-1.0", 20),
        record("install", "runner-3.0", 3),
    ]  # fmt: skip
    costs = predicted(plan, records).costs
    assert costs[name_of_cell(CELL)] == Cost(seconds=7, measured=7)
    assert costs["checkpoint tied/awq/maker-1.0"] == Cost(seconds=100, measured=100)
    assert costs["model tied"] == Cost(seconds=50, measured=50)
    assert costs[import_of(plan, "maker-1.0")].seconds == 20
    assert costs["environment runner-3.0"].measured == 3


def test_a_timing_speaks_for_its_like_but_not_for_another_model_or_device() -> None:
    timings = Timings([record("load", CELL, 5), record("import", "maker-1.0", 20)])
    assert timings.seconds("load", OTHER, "cpu") == 5
    assert timings.seconds("load", "tied/awq/maker-1.0/other", "cpu") == 5
    assert timings.seconds("load", "untied/awq/maker-1.0/runner-3.0", "cpu") is None
    assert timings.seconds("load", CELL, "cuda") is None
    assert timings.seconds("import", "maker-2.0", "cpu") == 20
    assert timings.seconds("install", "maker-1.0", "cpu") is None


def test_the_nearest_likeness_speaks_first() -> None:
    other = "tied/awq/maker-1.0/other"
    timings = Timings(
        [record("load", CELL, 5), record("load", OTHER, 9), record("load", other, 100)]
    )
    assert timings.seconds("load", CELL, "cpu") == 5
    assert timings.seconds("load", "tied/awq/maker-3.0/runner-3.0", "cpu") == 7  # the same engine
    assert timings.seconds("load", "tied/awq/maker-3.0/a-third", "cpu") == 9  # the same model


def test_trouble_of_the_machine_is_no_timing() -> None:
    assert Timings([record("load", CELL, 999, "infra")]).seconds("load", CELL, "cpu") is None


def test_a_gpus_timings_are_the_gpus(plan: Plan) -> None:
    timings = Timings([record("load", CELL, 5, device="cuda 8.0")])
    assert timings.seconds("load", CELL, "cuda") == 5
    assert timings.seconds("load", CELL, "cpu") is None
    assert predicted(on_cuda(plan), []).costs[name_of_cell(CELL)].measured == 0


def test_torch_is_told_by_the_lock_then_the_requirements_then_what_a_release_declares(
    plan: Plan,
) -> None:
    runner, maker = plan.environments["runner-3.0"], plan.environments["maker-1.0"]
    assert torch_of(runner, {"torch": "2.1.0"}, SNAPSHOT) == "2.1.0"
    assert torch_of(runner, {}, SNAPSHOT) == "2.1"
    alone = msgspec.structs.replace(runner, requirements=["runner==3.0"])
    assert torch_of(alone, {}, SNAPSHOT) == "9.9"
    assert torch_of(maker, {}, SNAPSHOT) == "of today"
    dated = msgspec.structs.replace(maker, cutoff="2024-03-10T00:00:00Z")
    assert torch_of(dated, {}, SNAPSHOT) == "of 2024-03"


def test_the_float_model_is_its_own_checkpoint(plan: Plan) -> None:
    twin = next(cell.checkpoint for cell in plan.cells if cell.id == TWIN)
    assert name_of_checkpoint(twin) == name_of_model(twin.model)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_more_cells_never_cost_less_and_what_is_paid_never_costs_more(
    plan: Plan, data: st.DataObject
) -> None:
    prediction = predicted(plan)
    ids = st.sets(st.sampled_from([cell.id for cell in plan.cells]))
    some, more = data.draw(ids), data.draw(ids)
    paid = data.draw(st.sets(st.sampled_from(sorted(prediction.costs))))
    assert prediction.of_cells(some).seconds <= prediction.of_cells(some | more).seconds + 1e-9
    assert prediction.of_cells(some, paid).disk <= prediction.of_cells(some).disk


def test_a_spec_may_leave_the_constants_to_the_default_one(tmp_path: Path) -> None:
    assert load(small_spec.write(tmp_path)).spec.predictions is None
