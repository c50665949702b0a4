"""What a result says of models, schemes and evidence, by which advice matches them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from matrix.checkpoint.formats import Format
from matrix.checkpoint.inspection import ConfigFacts
from matrix.judge.results import MatrixResult, ModelFacts, SchemeFacts
from matrix.judge.table import model_facts, scheme_facts
from matrix.pipeline.outcomes import Conclusion, Outcome, Reason
from matrix.plan.cells import Model
from matrix.spec.tables import SchemeTable
from tests.unit.made_history import Ends
from tests.unit.made_world import GOOD, World

ADAPTER = Path("model.py")


def model(recipe: dict[str, object], config: dict[str, object] | None = None) -> Model:
    return Model("m", "twins", ADAPTER, tied=True, recipe=recipe, config=config or {})


def test_a_model_is_what_its_files_say_before_what_was_asked_for() -> None:
    recipe = model({"architecture": "qwen2", "hidden_size": 256, "intermediate_size": 448})
    config = ConfigFacts(model_type="qwen2", hidden_size=256, intermediate_size=512)
    padded = ModelFacts(tied=True, model_type="qwen2", hidden_size=256, intermediate_size=512)
    assert model_facts(recipe, config) == padded
    assert model_facts(recipe, ConfigFacts()).intermediate_size == 448
    assert model_facts(recipe).intermediate_size == 448


def test_a_model_of_the_hub_is_what_the_spec_says_of_its_config() -> None:
    config: dict[str, object] = {"model_type": "qwen3", "hidden_size": 1024, "vocab_size": 5}
    facts = model_facts(model({"repository": "x/y", "revision": "first seen"}, config))
    assert facts == ModelFacts(
        tied=True, model_type="qwen3", hidden_size=1024, repository="x/y", revision="first seen"
    )


def test_what_a_model_is_comes_from_the_spec_whether_or_not_it_was_built() -> None:
    described = msgspec.structs.replace(model({}), about="Small.")
    config = ConfigFacts(model_type="qwen2")
    assert model_facts(described).about == model_facts(described, config).about == "Small."


@pytest.mark.parametrize("odd", ["256", None, 2.5, [256], {}])
def test_a_recipe_of_somebody_s_own_words_says_nothing_of_sizes(odd: object) -> None:
    recipe = {"architecture": odd if odd != "256" else 7, "hidden_size": odd}
    assert model_facts(model(recipe)) == ModelFacts(tied=True)


def test_a_scheme_has_the_parameters_of_its_method() -> None:
    table = SchemeTable(format=Format.AWQ, bits=4, group_size=64)
    assert scheme_facts(table) == SchemeFacts(
        method="awq", bits=4, group_size=64, zero_point=True, format="gemm"
    )
    table = SchemeTable(format=Format.GPTQ, bits=8, group_size=128, desc_act=True)
    assert scheme_facts(table) == SchemeFacts(
        method="gptq", bits=8, group_size=128, sym=True, desc_act=True, format="gptq"
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def table(world: World) -> MatrixResult:
    return world.table(world.history())


def test_a_table_says_it_of_all_that_its_cells_name(table: MatrixResult) -> None:
    assert set(table.models) == {cell.model for cell in table.cells}
    assert (table.models["tied"].tied, table.models["untied"].tied) == (True, False)
    assert list(table.schemes) == ["awq"]


def test_the_float_model_s_own_files_say_what_it_is_as_far_as_they_can_be_read(
    world: World,
) -> None:
    def model_type(own: object, ends: Ends | None = None) -> str:
        def facts(step: str, subject: str) -> dict[str, Any]:
            config = own if "/float/" in subject else {"model_type": "of a quantizer"}
            kept = world.facts(step, subject)
            return {**kept, "config": config} if step == "inspect" else kept

        return world.table(world.history(ends, facts)).models["tied"].model_type

    qwen = {"model_type": "qwen2"}
    assert model_type(qwen) == "qwen2"
    assert model_type(5) == ""
    failed = Conclusion(Outcome.FAILED, Reason.EXCEPTION, "no")
    assert model_type(qwen, {("inspect", "tied/float/none"): failed}) == ""


def test_a_cell_says_when_and_in_which_runs_it_was_observed(
    world: World, table: MatrixResult
) -> None:
    good = next(cell for cell in table.cells if cell.id == GOOD)
    observations = world.judge(world.history()).observations(GOOD).values()
    assert good.at == max(observation.at for observation in observations)
    assert set(good.runs) == {observation.run for observation in observations}
    assert (good.attempts, good.made_on) == (1, "cpu")
    assert (good.quantizer.adapter, good.engine.adapter) == ("maker", "runner")


def test_a_cell_of_which_nothing_was_made_names_no_device_for_it(world: World) -> None:
    failed = Conclusion(Outcome.FAILED, Reason.EXCEPTION, "no")
    cells = world.cells({("import", "maker-2.0"): failed})
    assert cells[GOOD].made_on == ""


def test_a_quantizer_is_asked_as_before_newer_fields_so_that_keys_stay() -> None:
    old = SchemeTable(format=Format.GPTQ, bits=4, group_size=64)
    new = SchemeTable(format=Format.INT_QUANTIZED, bits=8, group_size=-1, activations="int8")
    assert set(new.request) - set(old.request) == {"format", "activations"}
    assert (old.request["method"], new.request["method"]) == ("gptq", "compressed-tensors")
