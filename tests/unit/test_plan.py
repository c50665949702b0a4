"""What a plan holds, for made-up specs of every shape."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix.checkpoint.formats import Format
from matrix.plan import cells
from matrix.plan.cells import Plan, float_id, make_plan, requirements_of, select
from matrix.spec.loading import FLOAT_MODEL, LoadedSpec, load
from matrix.spec.snapshot import EMPTY
from matrix.spec.tables import (
    Environment,
    ExclusionTable,
    ModelTable,
    ProfileTable,
    RoleTable,
    SchemeTable,
    Spec,
    SpecError,
    StageLimits,
)
from tests.unit import small_spec

DEFAULT = load()


def environment(name: str) -> Environment:
    return Environment(
        name=name, python="3.11", requirements=[], constraints=[], overrides=[],
        build_requirements={}, environ={}, departures=[],
    )  # fmt: skip


@st.composite
def loaded_specs(draw: st.DrawFn) -> LoadedSpec:
    """Make a spec with any number of models, schemes, quantizers and engines."""
    counts = st.integers(1, 4)
    makers = [f"maker-{i}" for i in range(draw(counts))]
    runners = [f"runner-{i}" for i in range(draw(counts))]
    homes = [f"home-{i}" for i in range(draw(st.integers(1, 2)))]
    suffixes = draw(st.lists(st.sampled_from(["", "stock", "eager"]), unique=True, min_size=1))
    models = {
        f"model-{i}": ModelTable(
            environment=draw(st.sampled_from(homes)), adapter="./m.py", tied=draw(st.booleans())
        )
        for i in range(draw(counts))
    }
    schemes = {
        f"scheme-{i}": SchemeTable(format=Format.AWQ, bits=4, group_size=64)
        for i in range(draw(st.integers(0, 2)))
    }
    profile = ProfileTable(
        title="", models=["model-*"], schemes=list(schemes), quantizers=["*"], engines=["*"]
    )
    spec = Spec(
        schema=1,
        limits=DEFAULT.spec.limits,
        thresholds={},
        environments=[],
        models=models,
        schemes=schemes,
        quantizers=[
            RoleTable(environments="maker-*", adapter="./q.py", suffix=suffix)
            for suffix in suffixes
        ],
        engines=[RoleTable(environments="runner-*", adapter="./e.py")],
        profiles={"all": profile},
    )
    assert isinstance(spec.limits, StageLimits)
    environments = {name: environment(name) for name in (*homes, *makers, *runners)}
    return LoadedSpec(Path("/nowhere/spec.toml"), spec, EMPTY, environments)


@given(loaded_specs())
def test_cells_are_the_whole_product_and_each_has_its_own_id(loaded: LoadedSpec) -> None:
    spec, plan = loaded.spec, make_plan(loaded, "all")
    makers = [name for name in loaded.environments if name.startswith("maker-")]
    quantizers = len(makers) * len(spec.quantizers)
    engines = len([name for name in loaded.environments if name.startswith("runner-")])
    checkpoints = len(spec.models) * (1 + len(spec.schemes) * quantizers)
    assert len(plan.checkpoints) == checkpoints
    assert len(plan.cells) == checkpoints * engines
    assert len({cell.id for cell in plan.cells}) == len(plan.cells)
    assert len({checkpoint.id for checkpoint in plan.checkpoints}) == checkpoints


@given(loaded_specs(), st.data())
def test_a_cell_alone_brings_its_float_twin_and_all_they_stand_on(
    loaded: LoadedSpec, data: st.DataObject
) -> None:
    plan = make_plan(loaded, "all")
    cell = data.draw(st.sampled_from(plan.cells))
    selection = select(plan, cells=[cell.id])
    twin = next(other for other in selection.cells if other.id == float_id(cell))
    assert (twin.checkpoint.scheme, twin.engine) == (None, cell.engine)
    assert {other.id for other in selection.cells} == {cell.id, twin.id}
    assert cell.checkpoint in selection.checkpoints
    wanted = {cell.checkpoint.model.environment, cell.checkpoint.quantizer.environment,
              cell.engine.environment}  # fmt: skip
    assert set(selection.environments) == wanted


@given(loaded_specs())
def test_the_parts_of_all_environments_are_the_whole(loaded: LoadedSpec) -> None:
    plan = make_plan(loaded, "all")
    parts = [select(plan, environments=[name]) for name in plan.environments]
    assert sorted(c.id for part in parts for c in part.cells) == sorted(c.id for c in plan.cells)
    made = sorted(c.id for part in parts for c in part.checkpoints)
    assert made == sorted(c.id for c in plan.checkpoints)


@given(loaded_specs())
def test_environments_come_after_those_they_wait_for(loaded: LoadedSpec) -> None:
    plan = make_plan(loaded, "all")
    order = select(plan).environments
    assert sorted(order) == sorted(plan.environments)
    for name, needed in requirements_of(plan).items():
        assert name not in needed
        assert all(order.index(other) < order.index(name) for other in needed)


@pytest.mark.parametrize("part", [{"environments": ["vllm-9"]}, {"cells": ["a/b/c/d"]}])
def test_what_is_not_in_the_plan_is_named(tmp_path: Path, part: dict[str, list[str]]) -> None:
    with pytest.raises(KeyError, match=r"vllm-9|a/b/c/d"):
        select(small(small_spec.write(tmp_path)), **part)


def test_the_first_exclusion_that_matches_stands_with_the_cell(tmp_path: Path) -> None:
    table = '[[exclusions]]\ncells = "{}"\noutcome = "unsupported"\nreason = "{}"\nsource = "s"\n'
    tables = table.format("*/awq/maker-1.0/*", "first") + table.format("*/awq/*", "second")
    file = small_spec.write(tmp_path, ("[profiles.all]\n", f"{tables}[profiles.all]\n"))
    reasons = {c.id: reason_of(c.exclusion) for c in small(file).cells}
    assert reasons["tied/awq/maker-1.0/runner-3.0"] == "first"
    assert reasons["tied/awq/maker-2.0/runner-3.0"] == "second"
    assert reasons[f"tied/float/{FLOAT_MODEL}/runner-3.0"] == ""


def reason_of(exclusion: ExclusionTable | None) -> str:
    return exclusion.reason if exclusion else ""


def small(file: Path) -> Plan:
    return make_plan(load(file), "all")


PARTS = """
[schemes.gptq]
format = "gptq"
bits = 8
group_size = 128

[[quantizers]]
environments = "maker-1.0"
suffix = "gptq"
adapter = "./maker.py"
formats = ["gptq"]

[[engines]]
environments = "runner-*"
suffix = "own"
adapter = "./runner.py"
formats = ["awq"]

[[profiles.all.parts]]
title = "More"
models = ["tied"]
schemes = ["*"]
quantizers = ["none", "maker-*", "!maker-2*"]
engines = ["*"]

[profiles.all.canaries]"""


def test_a_profile_is_the_union_of_its_parts_and_a_cell_knows_which_name_it(tmp_path: Path) -> None:
    file = small_spec.write(
        tmp_path,
        ('adapter = "./maker.py"', 'adapter = "./maker.py"\nformats = ["awq"]'),
        ('engines = ["runner-*"]', 'engines = ["runner-3.0"]'),
        ("[profiles.all.canaries]", PARTS),
    )
    plan = make_plan(load(file), "all")
    parts = {cell.id: cell.parts for cell in plan.cells}
    assert len(parts) == len(plan.cells)
    assert parts == {
        "tied/float/none/runner-3.0": ["All", "More"],
        "tied/awq/maker-1.0/runner-3.0": ["All", "More"],
        "tied/awq/maker-2.0/runner-3.0": ["All"],
        "untied/float/none/runner-3.0": ["All"],
        "untied/awq/maker-1.0/runner-3.0": ["All"],
        "untied/awq/maker-2.0/runner-3.0": ["All"],
        # An engine that reads AWQ only reads the float model all the same, and no GPTQ.
        "tied/float/none/runner-3.0+own": ["More"],
        "tied/awq/maker-1.0/runner-3.0+own": ["More"],
        # A quantizer makes what its formats say and nothing else.
        "tied/gptq/maker-1.0+gptq/runner-3.0": ["More"],
    }
    assert plan.parts == ["All", "More"]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ([('adapter = "./maker.py"', 'adapter = "./maker.py"\nformats = ["gptq"]')],
         "the part 'All' has no quantizer that makes 'awq'"),
        ([('adapter = "./runner.py"', 'adapter = "./runner.py"\nformats = ["gptq"]')],
         "the part 'All' has no engine that reads 'awq'"),
        ([('schemes = ["awq"]', 'schemes = ["a*"]'),
          ('adapter = "./maker.py"', 'adapter = "./maker.py"\nformats = ["gptq"]')],
         "the part 'All' has no quantizer that makes 'a*'"),
        ([('quantizers = ["none", "maker-*"]', 'quantizers = ["none"]'),
          ('adapter = "./runner.py"', 'adapter = "./runner.py"\nformats = ["gptq"]')],
         "the part 'All' has no engine that reads 'awq'"),
    ],
)  # fmt: skip
def test_a_scheme_that_brings_no_cell_is_an_error(
    tmp_path: Path, changes: list[tuple[str, str]], problem: str
) -> None:
    with pytest.raises(SpecError) as raised:
        small(small_spec.write(tmp_path, *changes))
    assert f": profiles.all.schemes: {problem}. Add one whose formats name awq" in str(raised.value)


def test_beside_the_float_model_alone_schemes_say_which_engines_are_meant(tmp_path: Path) -> None:
    file = small_spec.write(
        tmp_path,
        ('quantizers = ["none", "maker-*"]', 'quantizers = ["none"]'),
        ('"tied/awq/maker-2.0/runner-3.0" = "works"\n', ""),
        ('"tied/awq/maker-1.0/runner-3.0" = "garbage"\n', ""),
    )
    assert [cell.id for cell in small(file).cells] == [
        "tied/float/none/runner-3.0", "untied/float/none/runner-3.0",
    ]  # fmt: skip


def test_a_profile_of_too_many_cells_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells, "MOST_CELLS", 5)
    with pytest.raises(SpecError, match=r"profiles\.all: has more than 5 cells\. Choose fewer"):
        make_plan(load(small_spec.write(tmp_path)), "all")
