"""Environments and roles are selected by facts, and facts that select nothing are named."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from matrix.plan.cells import make_plan
from matrix.spec.loading import load
from matrix.spec.selecting import chosen, has
from matrix.spec.tables import Environment, Facts, SpecError
from tests.unit import small_spec

PAIR = Environment(
    name="a+b", axes={"transformers": "4.51.3", "torch": "2.8.0"}, python="3.11",
    requirements=["transformers==4.51.3", "auto_gptq==0.7.1", "optimum"], constraints=[],
    overrides=[], build_requirements={}, environ={}, departures=[],
)  # fmt: skip
GROUPED = msgspec.structs.replace(PAIR, group="bounds", device="cuda", resolution="released")


@pytest.mark.parametrize(
    ("facts", "holds"),
    [
        (Facts(package="transformers"), True),
        (Facts(package="Transformers>=4.50,<5"), True),
        (Facts(package="transformers>=5"), False),
        (Facts(package="auto-gptq"), False),  # it is not the first
        (Facts(beside=["Auto.GPTQ"]), True),
        (Facts(beside=["auto-gptq<0.7"]), False),
        (Facts(beside=["optimum"]), True),
        (Facts(beside=["optimum>=1"]), False),  # nobody knows which
        (Facts(beside=["auto-gptq", "autoawq"]), False),
        (Facts(without=["autoawq"]), True),
        (Facts(without=["auto-gptq"]), False),
        (Facts(without=["transformers"]), False),
        (Facts(device="cpu", resolution="pinned", group=""), True),
        (Facts(device="cuda"), False),
        (Facts(resolution="today"), False),
        (Facts(group="bounds"), False),
        (Facts(axes={"torch": ">=2.8"}), True),
        (Facts(axes={"torch": ">2.8"}), False),
        (Facts(axes={"vllm": ">0"}), False),
        (Facts(suffix=[""]), True),
        (Facts(suffix=["tp2", "avx2"]), False),
        (Facts(package="transformers", beside=["auto-gptq"], device="cuda"), False),
    ],
)
def test_facts_must_all_hold(facts: Facts, holds: bool) -> None:
    assert has(PAIR, facts, "") is holds


def test_facts_of_the_table_tell_environments_apart() -> None:
    assert has(GROUPED, Facts(group="bounds", device="cuda", resolution="released"))
    assert not has(GROUPED, Facts(group=""))
    axes = msgspec.structs.replace(PAIR, axes={"resolution": "today"})
    assert not has(axes, Facts(axes={"resolution": ">0"}))
    assert not has(msgspec.structs.replace(PAIR, requirements=[]), Facts(package="transformers"))


def test_a_pattern_leaves_out_what_facts_take_in() -> None:
    facts = Facts(package="transformers")
    assert chosen("a+b", PAIR, "", ["none", facts])
    assert not chosen("a+b", PAIR, "", ["none", facts, "!a+*"])
    assert not chosen("a+b", PAIR, "", ["none"])
    assert chosen("a+b+tp2", PAIR, "tp2", [Facts(suffix=["tp2"])])


ENGINES = 'engines = ["runner-*"]'
ROLE = 'environments = "maker-*"'


def test_a_profile_and_a_role_name_facts(tmp_path: Path) -> None:
    changes = [
        (ROLE, 'environments = { package = "maker>=1" }'),
        (ENGINES, 'engines = [{ package = "runner", beside = ["torch"] }]'),
        ('"maker-*"]', '{ package = "maker>1" }]'),
        ('"tied/awq/maker-1.0/runner-3.0" = "garbage"', ""),
    ]
    plan = make_plan(load(small_spec.write(tmp_path, *changes)), "all")
    assert {cell.engine.name for cell in plan.cells} == {"runner-3.0"}
    assert {c.quantizer.name for c in plan.checkpoints if c.scheme} == {"maker-2.0"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (ROLE, 'environments = { package = "marker" }',
         "quantizers[0].environments: no environment is so: package = 'marker'. Leave out"),
        (ROLE, 'environments = { package = "maker", device = "cuda" }',
         "quantizers[0].environments: no environment is so: package = 'maker', device = 'cuda'"),
        (ROLE, "environments = {}", "quantizers[0].environments: no fact is given. Write one"),
        (ROLE, 'environments = { pakage = "maker" }',
         "quantizers[0].environments.pakage: no such key. Did you mean 'package'?"),
        (ROLE, 'environments = { package = "maker=>1" }',
         "quantizers[0].environments.package: 'maker=>1' is no requirement"),
        (ROLE, 'environments = { beside = ["a b"] }',
         "quantizers[0].environments.beside: 'a b' is no requirement"),
        (ROLE, 'environments = { axes = { maker = "1.0" } }',
         "quantizers[0].environments.axes.maker: '1.0' is no specifier"),
        (ENGINES, 'engines = [{ package = "runner", suffix = ["tp2"] }]',
         "profiles.all.engines[0]: no engine is so: package = 'runner', suffix = ['tp2']"),
        (ENGINES, 'engines = [{ group = "" , package = "maker" }]',
         "profiles.all.engines[0]: no engine is so: package = 'maker', group = ''"),
        (ENGINES, "engines = [{}]", "profiles.all.engines[0]: no fact is given"),
        (ENGINES, 'engines = [{ device = "tpu" }]', "profiles.all.engines"),
        ('"none", "maker-*"]', '"none", { without = ["maker"] }]',
         "profiles.all.quantizers[1]: no quantizer is so: without = ['maker']"),
    ],
)  # fmt: skip
def test_wrong_facts_are_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    file = small_spec.write(tmp_path, (old, new))
    with pytest.raises(SpecError) as caught:
        make_plan(load(file), "all")
    assert str(caught.value).removeprefix(f"{file}: ").startswith(message)
