"""Folders and commits that a spec names are looked at before anything is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from matrix.cli.plan import plan
from matrix.cli.run import run
from matrix.run.sources import check_sources
from matrix.spec.tables import SpecError
from tests.unit import small_spec
from tests.unit.test_plan_command import BARE, opened

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def checkpoint(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names or ("config.json", "model.safetensors"):
        (folder / name).write_text("{}")
    return folder


def model_of(recipe: str) -> tuple[str, str]:
    """Return the change of the small spec by which a model comes from a folder or the Hub."""
    old = 'adapter = "./model.py"\ntied = true\nrecipe = { seed = 0 }'
    return old, f'adapter = "hub"\ntied = true\nrecipe = {{ {recipe} }}'


def checkpoint_of(options: str) -> tuple[str, str]:
    """Return the change by which a published checkpoint takes a quantizer's place."""
    return 'adapter = "./maker.py"', f'adapter = "published"\noptions = {{ {options} }}'


def problem(folder: Path, *changes: tuple[str, str]) -> str:
    """Return how the check of a spec's sources ends, with the folder's own name left out."""
    with pytest.raises(SpecError) as caught:
        check_sources(opened(folder, BARE, *changes))
    return str(caught.value).replace(f"{folder}/", "")


@pytest.mark.parametrize(
    "source",
    [
        f'repository = "Qwen/Qwen3-0.6B", revision = "{COMMIT}"',
        'repository = "Qwen/Qwen3-0.6B", revision = "first seen"',
        'directory = "{folder}"',
    ],
)
def test_what_can_be_taken_is_not_refused(tmp_path: Path, source: str) -> None:
    source = source.replace("{folder}", str(checkpoint(tmp_path / "brought")))
    recipe = model_of(f"{source}, max_new_tokens = 16")
    check_sources(opened(tmp_path, BARE, recipe, checkpoint_of(source)))


@pytest.mark.parametrize(
    ("source", "key", "words"),
    [
        ('directory = "mine"', ".directory", "'mine' is no absolute path. Begin it with /"),
        (
            'directory = "/proc/nope"', ".directory",
            "/proc/nope cannot be listed (No such file or directory). Give the folder in which ",
        ),
        (
            'directory = "/proc/nope", revision = "x"', "",
            "no source is directory = '/proc/nope', revision = 'x'. Give directory, or repository ",
        ),
        ('repository = "Qwen/x"', "", "no source is repository = 'Qwen/x'. Give directory, or "),
        ("directory = 3", "", "no source is directory = 3. Give directory, or repository and "),
        (
            'repository = "Qwen/x", revision = "main"', ".revision",
            "'main' is no commit. Give the 40 hexadecimal digits of a commit, or 'first seen'",
        ),
        (
            f'repository = "https://x/Qwen", revision = "{COMMIT}"', ".repository",
            "'https://x/Qwen' is no repository. Write it as owner/name",
        ),
        (
            f'repository = "../..", revision = "{COMMIT}"', ".repository",
            "'../..' is no repository. Write it as owner/name",
        ),
    ],
)  # fmt: skip
def test_what_is_no_source_is_refused_with_its_key_and_what_to_do(
    tmp_path: Path, source: str, key: str, words: str
) -> None:
    recipe = model_of(f"{source}, max_new_tokens = 16")
    assert problem(tmp_path, recipe).startswith(f"spec.toml: models.tied.recipe{key}: {words}")
    options = problem(tmp_path, checkpoint_of(source))
    assert options.startswith(f"spec.toml: quantizers[0].options{key}: {words}")


def test_an_empty_recipe_and_empty_options_name_no_source(tmp_path: Path) -> None:
    ends = ": no source is given. Give directory, or repository and revision"
    assert problem(tmp_path, model_of("max_new_tokens = 16")).endswith(f"recipe{ends}")
    assert problem(tmp_path, checkpoint_of("")).endswith(f"options{ends}")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["model.safetensors"], "has no config.json"),
        (["config.json", "pytorch_model.bin"], "has no *.safetensors"),
    ],
)
def test_a_folder_without_a_model_is_refused(tmp_path: Path, names: list[str], words: str) -> None:
    brought = checkpoint(tmp_path / "brought", *names)
    told = problem(tmp_path, model_of(f'directory = "{brought}", max_new_tokens = 16'))
    assert f"models.tied.recipe.directory: brought {words}" in told.replace(str(brought), "brought")


def test_links_are_refused_where_files_are_copied_and_not_where_they_are_read(
    tmp_path: Path,
) -> None:
    brought = checkpoint(tmp_path / "brought", "config.json")
    (brought / "model.safetensors").symlink_to(tmp_path / "blob")
    source = f'directory = "{brought}"'
    check_sources(opened(tmp_path, BARE, model_of(f"{source}, max_new_tokens = 16")))
    told = problem(tmp_path, checkpoint_of(source))
    assert "quantizers[0].options.directory: brought/model.safetensors is a link" in told
    assert told.endswith("Give a folder without links, such as `hf download --local-dir` makes")


@pytest.mark.parametrize("tokens", ["", "max_new_tokens = 0", 'max_new_tokens = "16"'])
def test_how_long_answers_are_must_be_said(tmp_path: Path, tokens: str) -> None:
    recipe = f'repository = "Qwen/x", revision = "{COMMIT}"' + (f", {tokens}" if tokens else "")
    told = problem(tmp_path, model_of(recipe))
    assert told.startswith("spec.toml: models.tied.recipe.max_new_tokens: is ")
    assert "such as 16" in told


def test_an_adapter_of_ones_own_judges_what_it_is_given(tmp_path: Path) -> None:
    own = ("recipe = { seed = 0 }", 'recipe = { directory = "nowhere" }')
    check_sources(opened(tmp_path, BARE, own))


@pytest.mark.parametrize("command", [plan, run])
def test_the_commands_refuse_at_once(tmp_path: Path, command: Any) -> None:
    spec = small_spec.write(tmp_path, checkpoint_of('directory = "/proc/nope"'))
    app = typer.Typer()
    app.command()(command)
    store = tmp_path / "store"
    options = ["--spec", str(spec), "--profile", "all", "--store", str(store)]
    ended = CliRunner().invoke(app, options).exception
    assert isinstance(ended, SpecError)
    assert "quantizers[0].options.directory" in str(ended)
    assert not store.exists()
