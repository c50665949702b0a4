"""The profile ``gpu`` of our own spec: it names real models, and only what goes together."""

from __future__ import annotations

import re

import pytest

from matrix.checkpoint.shapes import indivisible
from matrix.index.hub import FIRST_SEEN
from matrix.plan.cells import Plan, make_plan
from matrix.plan.needs import of_evaluation
from matrix.plan.predictions import parameters
from matrix.spec.loading import DEFAULT_SPEC, LoadedSpec, load

PUBLISHED_PARAMETERS = {
    "qwen2.5-0.5b-instruct": 494_032_768,
    "qwen2.5-1.5b-instruct": 1_543_714_304,
    "qwen2.5-7b-instruct": 7_615_616_512,
    "qwen3-0.6b": 596_049_920,
    "qwen1.5-14b-chat": 14_167_290_880,
    "qwen2-7b-instruct": 7_615_616_512,
    "qwen2-72b-instruct": 72_706_203_648,
}
"""As the Hub counts them; the cards say 0.49B, 1.54B, 7.61B, 0.6B, 14B, 7B, 72B."""


@pytest.fixture(scope="module")
def loaded() -> LoadedSpec:
    return load(DEFAULT_SPEC)


@pytest.fixture(scope="module")
def plan(loaded: LoadedSpec) -> Plan:
    return make_plan(loaded, "gpu")


def test_the_configs_of_the_models_count_their_parameters(loaded: LoadedSpec) -> None:
    models = {
        model.name: model
        for profile in ("gpu", "published")
        for model in make_plan(loaded, profile).models
    }
    assert {name: parameters(model) for name, model in models.items()} == PUBLISHED_PARAMETERS


def test_every_engine_and_quantizer_of_it_wants_a_gpu_and_departs_from_nothing_for_a_cpu(
    plan: Plan,
) -> None:
    for cell in plan.cells:
        for role in (cell.engine, cell.checkpoint.quantizer):
            environment = plan.environments[role.environment]
            assert environment.device == "cuda" or role.environment == "hub", cell.id
            assert role.departures == []
            assert set(environment.departures) <= {"no-ipex", "no-pyairports"}


def test_it_stays_within_a_few_thousand_cells(plan: Plan) -> None:
    assert len(plan.cells) < 4_000


def test_every_vllm_since_0_3_3_is_an_engine_of_it(plan: Plan, loaded: LoadedSpec) -> None:
    releases = {release.version for release in loaded.snapshot.packages["vllm"]}
    engines = {cell.engine.name for cell in plan.cells}
    assert "vllm-0.3.3+cuda" in engines
    wanted = {f"vllm-{version}+cuda" for version in releases if _since(version, (0, 3, 3))}
    assert len(wanted & engines) > 70
    assert not {name for name in loaded.environments if name in wanted} - engines


def _since(version: str, first: tuple[int, ...]) -> bool:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3]) >= first


def test_new_number_formats_ask_for_cards_that_multiply_by_them(plan: Plan) -> None:
    needed: dict[tuple[str, str], set[str]] = {}
    for cell in plan.cells:
        package = cell.engine.name.partition("-")[0]
        needs = of_evaluation(cell, plan.environments[cell.engine.environment])
        needed.setdefault((cell.checkpoint.scheme_name, package), set()).add(needs.capability)
    engines = {"vllm": "7.5", "sglang": "8.0"}
    for package, capability in engines.items():
        assert needed["w4a16-g128", package] == {capability}
        assert needed["w8a8-fp8", package] == {"8.9"}
        assert needed["w4a4-nvfp4", package] == {"10.0"}


def test_a_published_checkpoint_goes_with_its_own_model_and_scheme(plan: Plan) -> None:
    of_the_hub = [c for c in plan.checkpoints if c.quantizer.environment == "hub" and c.scheme]
    assert of_the_hub
    for checkpoint in of_the_hub:
        repository = str(checkpoint.quantizer.options["repository"])
        float_model = str(checkpoint.model.recipe["repository"])
        kind = repository.removeprefix(f"{float_model}-")
        assert checkpoint.scheme is not None
        bits = {"AWQ": 4, "GPTQ-Int4": 4, "GPTQ-Int8": 8}[kind]
        method = kind.partition("-")[0].lower()
        assert (checkpoint.scheme.method, checkpoint.scheme.bits) == (method, bits)


def test_a_revision_is_a_commit_or_first_seen(loaded: LoadedSpec) -> None:
    given = [model.recipe.get("revision") for model in loaded.spec.models.values()]
    given += [table.options.get("revision") for table in loaded.spec.quantizers]
    commits = [str(revision) for revision in given if revision not in (None, FIRST_SEEN)]
    assert all(re.fullmatch("[0-9a-f]{40}", commit) for commit in commits)
    assert len(commits) == len(set(commits))


def test_14b_is_divided_where_its_groups_are_not(plan: Plan) -> None:
    tables = [part for part in plan.parts if "14B" in part]
    cells = [cell for cell in plan.cells if set(cell.parts) & set(tables)]
    assert {cell.engine.options.get("tensor_parallel_size", 1) for cell in cells} == {1, 2}
    config = next(m for m in plan.models if m.name == "qwen1.5-14b-chat").config
    width = config["intermediate_size"]
    assert isinstance(width, int)
    assert not indivisible({"mlp.down_proj": (5120, width)}, 128)
    assert indivisible({"mlp.down_proj": (5120, width // 2)}, 128)
