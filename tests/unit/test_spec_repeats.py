"""What a spec says once: bases, sets, reasons; and what is wrong with a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest

from matrix.plan.cells import make_plan
from matrix.spec.loading import LoadedSpec, load
from matrix.spec.snapshot import SNAPSHOT, encode
from matrix.spec.tables import RangeTable, SpecError
from tests.unit import small_spec
from tests.unit.test_axes import snapshot

BASES = """
[bases.model]
environment = "twins"
adapter = "./model.py"
tied = true
recipe = { seed = 0, layers = 3, deep = { a = 1, b = 2 } }

[bases.untied]
base = "model"
tied = false
"""
TIED = small_spec.TEXT.partition("[models.tied]\n")[2].partition("\n\n")[0]
UNTIED = small_spec.TEXT.partition("[models.untied]\n")[2].partition("\n\n")[0]
BEFORE = '[[environments]]\nname = "twins"'


def opened(folder: Path, *changes: tuple[str, str]) -> LoadedSpec:
    (folder / SNAPSHOT).write_bytes(encode(snapshot()))
    return load(small_spec.write(folder, *changes))


def with_bases(tied: str = 'base = "model"', bases: str = BASES) -> list[tuple[str, str]]:
    return [(BEFORE, bases + BEFORE), (f"[models.tied]\n{TIED}", f"[models.tied]\n{tied}")]


def test_a_table_has_what_its_base_says_and_its_own_over_it(tmp_path: Path) -> None:
    own = 'base = "untied"\nrecipe = { seed = 7, deep = { b = 3 } }'
    model = opened(tmp_path, *with_bases(own)).spec.models["tied"]
    assert (model.environment, model.adapter, model.tied) == ("twins", "./model.py", False)
    assert model.recipe == {"seed": 7, "layers": 3, "deep": {"a": 1, "b": 3}}


def test_lists_of_a_base_are_not_added_to(tmp_path: Path) -> None:
    base = '[bases.all]\nrequirements = ["maker==1.0"]\npins = ["torch==2.1"]\n'
    added = '[[environments]]\nbase = "all"\nname = "more"\nrequirements = ["maker==2.0"]\n'
    environment = opened(tmp_path, (BEFORE, base + added + BEFORE)).environments["more"]
    assert environment.requirements == ["maker==2.0", "torch==2.1"]


def test_the_axes_of_a_table_vary_before_those_of_its_base(tmp_path: Path) -> None:
    base = '[bases.pair]\nname = "{a}-{b}"\naxes.b = ["1", "2"]\nrequirements = ["maker=={a}"]\n'
    added = '[[environments]]\nbase = "pair"\naxes.a = ["3", "4"]\n'
    names = list(opened(tmp_path, (BEFORE, base + added + BEFORE)).environments)
    assert names[:4] == ["3-1", "3-2", "4-1", "4-2"]


def test_roles_build_on_bases_as_well(tmp_path: Path) -> None:
    base = '[bases.reader]\nadapter = "./runner.py"\nneeds_hardware = ["GPU, please"]\n'
    loaded = opened(
        tmp_path,
        (BEFORE, base + BEFORE),
        ('adapter = "./runner.py"\nneeds_hardware = ["GPU, please"]', 'base = "reader"'),
    )
    assert loaded.spec.engines[0].needs_hardware == ["GPU, please"]


def error_of(folder: Path, *changes: tuple[str, str]) -> str:
    with pytest.raises(SpecError) as caught:
        make_plan(opened(folder, *changes), "all")
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (with_bases('base = "modle"'),
         "models.tied.base: no base 'modle' is defined. Did you mean 'model'?"),
        (with_bases(bases=BASES.replace('"model"', '"untied"').replace(
            "[bases.model]", '[bases.model]\nbase = "untied"'), tied='base = "model"'),
         "bases.untied: bases build on each other in a circle (untied -> untied)"),
        (with_bases(bases=BASES.replace("[bases.model]", '[bases.model]\nbase = "untied"')),
         "bases.model: bases build on each other in a circle (model -> untied -> model)"),
        (with_bases(bases=BASES.replace("adapter =", "adaptor =")),
         "models.tied.adaptor: no such key (it comes from the base 'model'). Did you mean 'adapt"),
        (with_bases(bases=BASES.replace("tied = true", 'tied = "yes"')),
         "models.tied.tied: Expected `bool`, got `str` (it comes from the base 'model')"),
        ([("seed = 0 }", 'seed = 0 }\nbase = 3')], "models.tied.base: Expected `str`, got `int`"),
        ([(BEFORE, "[bases]\nmodel = 3\n" + BEFORE)], "bases.model: Expected `object`, got `int`"),
    ],
)  # fmt: skip
def test_a_wrong_base_is_named(tmp_path: Path, changes: list[tuple[str, str]], text: str) -> None:
    assert error_of(tmp_path, *changes).removeprefix(f"{tmp_path / 'spec.toml'}: ").startswith(text)


SETS = '[sets]\nversions = ["1.0", "2.0"]\nreaders = ["runner-*"]\n'


def test_a_set_stands_for_all_that_it_holds(tmp_path: Path) -> None:
    loaded = opened(
        tmp_path,
        (BEFORE, SETS + BEFORE),
        ('axes.maker = ["1.0", "2.0"]', 'axes.maker = ["0.9", "@versions"]'),
        ('engines = ["runner-*"]', 'engines = ["@readers"]'),
    )
    makers = [name for name in loaded.environments if name.startswith("maker-")]
    assert makers == ["maker-0.9", "maker-1.0", "maker-2.0"]
    assert {cell.engine.name for cell in make_plan(loaded, "all").cells} == {"runner-3.0"}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ([(BEFORE, SETS + BEFORE), ('engines = ["runner-*"]', 'engines = ["@raeders"]')],
         "profiles.all.engines: no set 'raeders' is defined. Did you mean 'readers'?"),
        ([('engines = ["runner-*"]', 'engines = ["@readers"]')],
         "profiles.all.engines: no set 'readers' is defined. Defined: none"),
        ([(BEFORE, '[sets]\nreaders = ["@others"]\nothers = []\n' + BEFORE),
          ('engines = ["runner-*"]', 'engines = ["@readers"]')],
         "sets.readers: a set names no other set, and it names '@others'"),
        ([(BEFORE, '[sets]\nreaders = "runner-*"\n' + BEFORE)],
         "sets.readers: Expected `array`, got `str`"),
    ],
)  # fmt: skip
def test_a_wrong_set_is_named(tmp_path: Path, changes: list[tuple[str, str]], text: str) -> None:
    assert error_of(tmp_path, *changes).removeprefix(f"{tmp_path / 'spec.toml'}: ").startswith(text)


REASONS = '[reasons.maker]\n"1.0" = "the first"\n"1.1" = "yanked, and still in use"\n'
RANGE = 'axes.maker = { since = "2.0", always = ["1.0", "1.1"] }'


def test_a_range_takes_always_what_has_its_reason_elsewhere(tmp_path: Path) -> None:
    changes = [(BEFORE, REASONS + BEFORE), ('axes.maker = ["1.0", "2.0"]', RANGE)]
    loaded = opened(tmp_path, *changes)
    makers = [name for name in loaded.environments if name.startswith("maker-")]
    assert makers == ["maker-1.0", "maker-1.1", "maker-2.0"]
    rule = loaded.spec.environments[1].axes["maker"]
    assert isinstance(rule, RangeTable)
    assert rule.always == {"1.0": "the first", "1.1": "yanked, and still in use"}


@pytest.mark.parametrize("package", ["maker", "other"])
def test_a_release_without_a_reason_is_named(tmp_path: Path, package: str) -> None:
    text = REASONS.replace('"1.1"', '"1.2"').replace("maker", package)
    changes = [(BEFORE, text + BEFORE), ('axes.maker = ["1.0", "2.0"]', RANGE)]
    version = "1.1" if package == "maker" else "1.0"
    assert (
        f"environments[1].axes.maker.always: [reasons.maker] does not say why {version} is taken"
        in error_of(tmp_path, *changes)
    )
