"""Specs that are wrong are named in one line; the committed one is what the issue asks for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from matrix.run.context import Context, Settings
from matrix.spec.axes import Combination, combinations
from matrix.spec.tables import SpecError
from tests.unit import small_spec

WRONG = {
    "unknown key at the top": (
        ("schema = 1", "schema = 1\nlimit = 3"), "limit", "Did you mean 'limits'?"),
    "unknown key in a table": (
        ('adapter = "./maker.py"', 'adaptor = "./maker.py"'), "quantizers[0].adaptor",
        "Did you mean 'adapter'?"),
    "unknown key in a named table": (
        ("tied = false", "tide = false"), "models.untied.tide", "Did you mean 'tied'?"),
    "wrong type": (("tied = true", "tied = 1"), "models.tied.tied", "commented example"),
    "another schema": (("schema = 1", "schema = 2"), "schema", "commented example"),
    "missing limit": (("inspect = ", "build2 = "), "limits.build2", "Did you mean 'build'?"),
    "unknown model": (
        ('models = ["tied"', 'models = ["tide"'), "profiles.all.models", "Did you mean 'tied'?"),
    "unknown scheme": (
        ('schemes = ["awq"]', 'schemes = ["gptq"]'), "profiles.all.schemes", "Defined: awq"),
    "unknown quantizer": (
        ('"maker-*"]', '"maker-9.0"]'), "profiles.all.quantizers", "Did you mean 'maker-"),
    "unknown engine": (
        ('engines = ["runner-*"]', 'engines = ["llama"]'), "profiles.all.engines",
        "Defined: runner-3.0"),
    "no engine at all": (
        ('engines = ["runner-*"]', "engines = []"), "profiles.all.engines", "commented example"),
    "no float model": (
        ('["none", "maker-*"]', '["maker-*"]'), "profiles.all.quantizers", "Add it"),
    "impossible version": (
        ('["1.0", "2.0"]', '["1.0", "latest"]'), "environments[1].maker", "Write a release"),
    "impossible version in a variant": (
        ('torch = "2.1" }', 'torch = "2.x" }'), "environments[2].torch", "Write a release"),
    "impossible Python": (
        ('name = "twins"', 'name = "twins"\npython = "three"'), "environments[0].python", "3.11"),
    "bad requirement": (
        ('["torch==2.0"]', '["torch=2.0"]'), "environments[0].requirements", "name==version"),
    "bad constraint": (
        ('["torch==2.0"]', '["torch"]\nconstraints = ["<3"]'), "environments[0].constraints",
        "name==version"),
    "bad build requirement": (
        ('["torch==2.0"]', '["torch"]\nbuild_requirements.torch = ["a b"]'),
        "environments[0].build_requirements.torch", "name==version"),
    "bad package to build": (
        ('["torch==2.0"]', '["torch"]\nbuild_environ."a b" = { A = "1" }'),
        "environments[0].build_environ.a b", "name==version"),
    "override without departure": (
        ('departures = ["shim"]', ""), "environments[1].overrides", "describe it under"),
    "unknown departure": (
        ('departures = ["shim"]', 'departures = ["shims"]'), "environments[1].departures",
        "Did you mean 'shim'?"),
    "departures are no patterns": (
        ('departures = ["shim"]', 'departures = ["shi*"]'), "environments[1].departures",
        "Did you mean 'shim'?"),
    "duplicate environment": (
        ('name = "maker-{maker}"', 'name = "maker"'), "environments[1].name", "{axis}"),
    "a name that is no folder": (
        ('name = "twins"', 'name = "../twins"'), "environments[0].name", "lower-case"),
    "unknown axis in braces": (
        ('"maker=={maker}"', '"maker=={makers}"'), "environments[1].requirements",
        "Known here: maker"),
    "open brace": (('"maker=={maker}"', '"maker=={maker"'), "environments[1].requirements", "{{"),
    "empty braces": (('"maker=={maker}"', '"maker=={}"'), "environments[1].requirements", "{{"),
    "unknown environment of a model": (
        ('environment = "twins"', 'environment = "twin"'), "models.tied.environment",
        "Did you mean 'twins'?"),
    "unknown environment of an engine": (
        ('environments = "runner-*"', 'environments = "ruiner-*"'), "engines[0].environments",
        "Did you mean 'runner-3.0'?"),
    "unknown adapter of ours": (
        ('adapter = "./runner.py"', 'adapter = "vlm"'), "engines[0].adapter", "vllm"),
    "adapter file that is not there": (
        ('adapter = "./model.py"', 'adapter = "./modell.py"'), "models.tied.adapter", "./mine.py"),
    "two roles of one name": (
        ("[[engines]]", '[[quantizers]]\nenvironments = "maker-1.0"\nadapter = "./maker.py"\n'
         "[[engines]]"), "environments", "suffix"),
    "excluded as passed": (
        ("[profiles.all]", '[[exclusions]]\ncells = "*"\noutcome = "passed"\nreason = "r"\n'
         'source = "s"\n[profiles.all]'), "exclusions[0].outcome", "commented example"),
    "a canary that is no verdict": (
        ('= "garbage"', '= "rubbish"'), "profiles.all.canaries", "commented example"),
    "a canary that is no cell": (
        ('"tied/awq/maker-1.0', '"tied/awq/maker-7.0'), "profiles.all.canaries",
        "matrix plan --profile all"),
    "missing threshold": (("stored_size = 0.5\n", ""), "thresholds", "The keys are: "),
    "unknown threshold": (
        ("stored_size = 0.5", "stored_size = 0.5\nwait_error = 1.0"), "thresholds",
        "The keys are: "),
    "threshold that is no number": (
        ("stored_size = 0.5", 'stored_size = "0.5"'), "thresholds.stored_size",
        "commented example"),
    "not TOML": (("schema = 1", "schema = = 1"), "file", "Mend that place"),
}  # fmt: skip


HOSTILE: dict[str, tuple[Any, ...]] = {
    "a list of lists of lists": (
        ("seed = 0", f"seed = {'[' * 90}{']' * 90}"), "models.tied.recipe.seed[0]", "Nest it less"),
    "a list too deep for the parser": (
        ("seed = 0", f"seed = {'[' * 5000}{']' * 5000}"), "file", "nested too deep"),
    "a key of thousands of names": (
        ("schema = 1", f"schema = 1\n{'a.' * 5000}a = 1"), "file",
        "line 3 has a key of over 20 names"),
    "a quoted key of many names": (
        ("schema = 1", "schema = 1\n" + '"a" . ' * 30 + "b = 1"), "file",
        "line 3 has a key of over 20 names"),
    "axes that multiply to millions": (
        ('name = "twins"', 'name = "twins"\n' + "".join(
            f"axes.a{n} = {[str(m) for m in range(40)]}\n" for n in range(5))),
        "environments[0]", "102,400,000 environments"),
    "ranges that multiply in a row": (
        ('name = "twins"', 'name = "twins"\nrows = [{' + ",".join(
            f'a{n} = {{ package = "transformers", since = "0" }}' for n in range(6)) + "}]"),
        "environments[0].rows[0]", "Name fewer versions"),
    "a width in braces": (
        ('"maker=={maker}"', '"maker=={maker:>999999999}"'), "environments[1].requirements",
        "Write {axis} for its value"),
    "an attribute in braces": (
        ('"maker=={maker}"', '"maker=={maker.__class__}"'), "environments[1].requirements",
        "Write {axis} for its value"),
    "a conversion in braces": (
        ('"maker-{maker}"', '"maker-{maker!r}"'), "environments[1].name",
        "Write {axis} for its value"),
    "thousands of digits": (("seed = 0", f"seed = {'1' * 5000}"), "file", "Mend that place"),
    "a number of 65 bits": (("seed = 0", f"seed = {2**64}"), "models.tied.recipe.seed", "64 bits"),
    "NUL in a path": (
        ('"./model.py"', '"./model\\u0000.py"'), "models.tied.adapter", "U+0000. Leave it out"),
    "half a character": (("seed = 0", 'seed = "\\ud800"'), "file", "Mend that place"),
    "a control character in a name": (
        ("[models.untied]", '[models."a\\u001bb"]'), "models.a\u241bb", "cannot be seen"),
    "a variable with its value in its name": (
        ('name = "twins"', 'name = "twins"\nenviron."A=B" = "C"'), "environments[0].environ.A=B",
        "the value behind the '='"),
    "such a variable of a role": (
        ('adapter = "./maker.py"', 'adapter = "./maker.py"\nenviron."A=B" = "C"'),
        "quantizers[0].environ.A=B", "the value behind the '='"),
    "such a variable of a build": (
        ('name = "twins"', 'name = "twins"\nbuild_environ.a."A=B" = "C"'),
        "environments[0].build_environ.a.A=B", "the value behind the '='"),
    "a variable that no process can have": (
        ('name = "twins"', f'name = "twins"\nenviron.A = "{"a" * 40_000}"'),
        "environments[0].environ.A", "Put it into a file"),
    "a date in a recipe": (
        ("seed = 0", "seed = 2026-11-30"), "models.tied.recipe.seed", '"2026-11-30"'),
    "not a number": (("seconds = 10", "seconds = nan"), "limits.resolve.seconds", "is nan"),
    "infinite": (("silence = 10", "silence = inf"), "limits.resolve.silence", "is inf"),
    "less than no time": (
        ("seconds = 10", "seconds = -1"), "limits.resolve.seconds", "`float` > 0"),
    "less than no memory": (
        ("memory_mb = 500", "memory_mb = -1"), "limits.resolve.memory_mb", "`int` >= 1"),
    "groups of nothing": (("group_size = 64", "group_size = 0"), "schemes.awq.group_size", "-1"),
    "TOML in a package's name": (
        ('name = "twins"', """name = "twins"\nbuild_requirements.'x"]; [y' = ["z"]"""),
        'environments[0].build_requirements.x"]', "is no name of a package"),
    "a marker in a package's name": (
        ('name = "twins"', """name = "twins"\nbuild_environ.'x; os_name > "a"'.A = "1\""""),
        "environments[0].build_environ.x; os_name", "is no name of a package"),
    "a line end in the metadata of a release": (
        ("[models.tied]", '[[metadata]]\npackage = "a"\nversion = "1"\nsource = ""\n'
         'requires_dist = ["b\\n[[index]]"]\n[models.tied]'),
        "metadata[0].requires_dist", "name>=version"),
    "no date for a cut-off": (
        ("[models.tied]", '[[released.exceptions]]\npackage = "a"\nreason = ""\n'
         'until = "never"\n[models.tied]'), "released.exceptions[0].until", "regex"),
    "a grace of a million years": (
        ("[models.tied]", "[released]\ngrace_days = 365000000\n[models.tied]"),
        "released.grace_days", "`int` <= 40000"),
    "a model in another folder": (
        ("[models.untied]", '[models."../untied"]'), "models.../untied", "Use up to 100 letters"),
    "a suffix in another folder": (
        ('adapter = "./maker.py"', 'adapter = "./maker.py"\nsuffix = "../x"'),
        "quantizers[0].suffix", "Use up to 100 letters"),
    "a scheme with a name of 10,000 letters": (
        ("[schemes.awq]", f"[schemes.{'a' * 10_000}]"), "schemes.aaa", "Use up to 100 letters"),
    "a requirement of 100,000 letters": (
        ('"torch==2.0"', f'"{"a" * 100_000}"'), "environments[0].requirements", "may have 1000"),
    "a Python of 5,000 digits": (
        ('name = "twins"', f'name = "twins"\npython = "3.{"1" * 5000}"'),
        "environments[0].python", "Write it as 3.11"),
    "a set in thousands of lists": (
        ("[models.tied]", f"[sets]\ns = {['runner-3.0'] * 1000}\n[models.tied]"),
        ('engines = ["runner-*"]', f"engines = {['@s'] * 1000}"),
        "profiles.all.engines", "100,000 keys and items"),
    "bases upon bases": (
        ("[models.tied]", "".join(f'[bases.b{n}]\nbase = "b{n + 1}"\n' for n in range(2000))
         + "[bases.b2000]\n[models.tied]"), ('name = "twins"', 'name = "twins"\nbase = "b0"'),
        "bases.b50", "Put some of them together"),
}  # fmt: skip
"""What no spec of a person's has -> changes, where the error is, a part of its text."""


def open_spec(file: Path, profile: str = "all") -> Context:
    return Context(Settings.of({}, spec=file, profile=profile, store=file.parent / "store"), {})


def error_of(file: Path, profile: str = "all") -> str:
    with pytest.raises(SpecError) as caught:
        open_spec(file, profile)
    return str(caught.value)


@pytest.mark.parametrize("case", HOSTILE)
def test_what_no_spec_can_hold_is_one_short_line(tmp_path: Path, case: str) -> None:
    *changes, key, text = HOSTILE[case]
    file = small_spec.write(tmp_path, *changes)
    error = error_of(file)
    assert error.startswith(f"{file}: {key}")
    assert text in error
    assert error.isprintable()
    assert len(error) < 3000


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_spec_is_one_line_with_file_key_and_remedy(tmp_path: Path, case: str) -> None:
    change, key, remedy = WRONG[case]
    file = small_spec.write(tmp_path, change)
    text = error_of(file)
    assert text.startswith(f"{file}: {key}")
    assert remedy in text
    assert "\n" not in text
    assert not (tmp_path / "store").exists()


def test_the_small_spec_itself_is_right(tmp_path: Path) -> None:
    plan = open_spec(small_spec.write(tmp_path)).plan
    assert len(plan.cells) == 2 * (1 + 2)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    text = error_of(tmp_path / "none.toml")
    assert text == f"{tmp_path / 'none.toml'}: file: cannot be read (No such file or directory). " \
        "Check --spec"  # fmt: skip


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    file = tmp_path / "spec.toml"
    file.write_bytes(b"schema = '\xff'")
    assert "is not TOML" in error_of(file)


RECIPE = ('adapter = "./maker.py"', 'adapter = "./maker.py"\noptions.recipe = "./recipe.yaml"')


@pytest.mark.parametrize("name", ["./recipe.yaml", "recipe.yaml", "{folder}/recipe.yaml"])
def test_a_recipe_in_a_file_is_given_as_its_text(tmp_path: Path, name: str) -> None:
    (tmp_path / "recipe.yaml").write_text("bits: 4\n")
    named = RECIPE[1].replace("./recipe.yaml", name.format(folder=tmp_path))
    plan = open_spec(small_spec.write(tmp_path, (RECIPE[0], named))).plan
    quantizers = [c.quantizer for c in plan.checkpoints if c.scheme is not None]
    assert {str(role.options["recipe"]) for role in quantizers} == {"bits: 4\n"}


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda _: None, "cannot be read (No such file or directory). Put the recipe there"),
        (lambda file: file.write_bytes(b"\xff"), "is no text. Write it in UTF-8"),
        (lambda file: file.write_bytes(b"x" * 100_001), "has more than 100000 bytes"),
        (lambda file: file.symlink_to("/etc/hostname"), "is a link"),
    ],
    ids=["missing", "bytes", "large", "a link"],
)
def test_a_recipe_that_cannot_be_read_is_named(
    tmp_path: Path, make: Callable[[Path], object], problem: str
) -> None:
    make(tmp_path / "recipe.yaml")
    text = error_of(small_spec.write(tmp_path, RECIPE))
    assert "quantizers[0].options.recipe: " in text
    assert problem in text


def test_an_unknown_profile_is_named_with_those_there_are(tmp_path: Path) -> None:
    file = small_spec.write(tmp_path)
    text = error_of(file, "cuda")
    assert text == f"{file}: profiles.cuda: there is no such profile. Defined: all"
    assert error_of(file, "al").endswith("there is no such profile. Did you mean 'all'?")


def test_environments_that_wait_for_each_other_are_named(tmp_path: Path) -> None:
    more = "\n".join(
        f'[[{role}]]\nenvironments = "{name}"\nadapter = "./{adapter}.py"'
        for role, name, adapter in (
            ("quantizers", "runner-3.0", "maker"),
            ("engines", "maker-1.0", "runner"),
        )
    )
    changes = [
        ("[profiles.all]", f"{more}\n[profiles.all]"),
        ('"maker-*"]', '"maker-*", "runner-*"]'),
        ('engines = ["runner-*"]', 'engines = ["runner-*", "maker-*"]'),
    ]
    text = error_of(small_spec.write(tmp_path, *changes))
    assert "profiles.all: environments wait for each other" in text
    assert "maker-1.0, runner-3.0" in text


def test_profiles_name_models_and_schemes_by_pattern_as_well(tmp_path: Path) -> None:
    changes = [('["tied", "untied"]', '["*tied"]'), ('["awq"]', '["a*"]')]
    named = open_spec(small_spec.write(tmp_path)).plan
    by_pattern = open_spec(small_spec.write(tmp_path, *changes)).plan
    assert [cell.id for cell in by_pattern.cells] == [cell.id for cell in named.cells]


def test_an_environment_that_no_cell_stands_on_is_not_in_the_plan(tmp_path: Path) -> None:
    changes = [('schemes = ["awq"]', "schemes = []"),
               (small_spec.TEXT.partition("[profiles.all.canaries]")[2], "")]  # fmt: skip
    plan = open_spec(small_spec.write(tmp_path, *changes)).plan
    assert list(plan.environments) == ["twins", "runner-3.0"]


def test_every_variant_meets_every_combination_of_the_axes() -> None:
    variants = [Combination({"v": "x"}), Combination({"v": "y"})]
    rows = combinations({"a": ["1", "2"], "b": ["3", "4"]}, variants)
    assert len({tuple(row.values.items()) for row in rows}) == len(rows) == 8
    assert combinations({}, []) == [Combination({})]


def test_a_profile_that_names_what_is_gone_is_no_other_profiles_trouble(tmp_path: Path) -> None:
    other = small_spec.TEXT.partition("[profiles.all]")[2].partition("[profiles.all.canaries]")[0]
    wrong = "[profiles.other]" + other.replace("runner-*", "runner-9.0")
    file = small_spec.write(
        tmp_path, ("[profiles.all.canaries]", wrong + "[profiles.all.canaries]")
    )
    assert open_spec(file).plan.cells
    assert "no engine 'runner-9.0' is defined" in error_of(file, "other")
