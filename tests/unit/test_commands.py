"""The commands as they are listed: each with the line that its own help begins with."""

from __future__ import annotations

import json
import re
import shlex
from fnmatch import fnmatchcase
from importlib.metadata import Distribution, PackageNotFoundError, version

import pytest
from typer.testing import CliRunner

from matrix.cli.app import COMMANDS, app, command
from matrix.cli.examples import EXAMPLES
from matrix.cli.options import as_json
from matrix.diagnose.catalogue import load_issues
from matrix.history import project
from matrix.plan.cells import make_plan
from matrix.spec.loading import DEFAULT_PROFILE, PACKAGE, load


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_what_the_help_of_a_command_begins_with(name: str) -> None:
    assert command(name).name == name
    assert command(name).help.partition("\n")[0] == COMMANDS[name]


def test_the_help_lists_all_commands() -> None:
    lines = CliRunner().invoke(app, ["--help"]).output.splitlines()
    assert [word[1] for line in lines if (word := re.match(r"│ (\w+) ", line))] == [*COMMANDS]


def test_a_mistyped_command_is_told_what_was_meant() -> None:
    done = CliRunner().invoke(app, ["claen"])
    assert done.exit_code == 2
    assert "Did you mean 'clean'" in done.output


def test_the_version_is_that_of_the_package() -> None:
    done = CliRunner().invoke(app, ["--version"])
    assert done.output == f"matrix {version('quantization-compatibility-matrix')}\n"
    assert done.exit_code == 0


def test_a_checkout_that_is_not_installed_has_a_commit_in_place_of_a_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none(name: str) -> Distribution:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(project, "distribution", none)
    monkeypatch.setattr(project, "project", project.project.__wrapped__)
    done = CliRunner().invoke(app, ["--version"])
    assert re.fullmatch(
        r"matrix of a checkout that is not installed, at commit ([0-9a-f]{40}|unknown)\n",
        done.output,
    )
    assert done.exit_code == 0


def test_each_command_has_examples() -> None:
    assert [*EXAMPLES] == [*COMMANDS]
    assert all(EXAMPLES.values())


@pytest.mark.parametrize("line", [line for lines in EXAMPLES.values() for line in lines])
def test_an_example_is_understood(line: str) -> None:
    name, *arguments = shlex.split(line[line.index("matrix ") :].removeprefix("matrix "))
    assert line in EXAMPLES[name]
    command(name).make_context(name, arguments)  # which ends where an option is wrong


def test_examples_name_cells_and_issues_that_there_are() -> None:
    loaded = load()
    cells = [cell.id for cell in make_plan(loaded, DEFAULT_PROFILE).cells]
    words = [word for lines in EXAMPLES.values() for line in lines for word in shlex.split(line)]
    patterns = [word for word in words if word.startswith("twin-") and "/" in word]
    assert len(patterns) > 5
    assert all(any(fnmatchcase(cell, pattern) for cell in cells) for pattern in patterns)
    assert "awq-tied-embedding-dropped" in load_issues()
    assert "matrix issues awq-tied-embedding-dropped" in EXAMPLES["issues"]


def test_the_help_shows_the_examples() -> None:
    shown = " ".join(CliRunner().invoke(app, ["clean", "--help"]).output.split())
    assert "Examples: matrix clean # what could be removed; nothing is" in shown


def test_the_shell_completes_commands_and_options_without_importing_others() -> None:
    def completed(words: str, number: int) -> list[str]:
        asked = {
            "_MATRIX_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(number),
        }
        return CliRunner().invoke(app, [], env=asked, prog_name="matrix").output.split()

    assert completed("matrix is", 1) == ["issues"]
    assert completed("matrix issues --near", 2) == ["--near-miss"]


def test_json_of_commands_is_ascii_whatever_packages_say() -> None:
    shown = as_json({"title": "\x1b[2J \u202e é"}, indent=2)
    assert shown.isascii()
    assert "\x1b" not in shown
    assert json.loads(shown) == {"title": "\x1b[2J \u202e é"}
    for file in (PACKAGE / "cli").glob("*.py"):
        text = file.read_text(encoding="utf-8")
        other_ways = ("json.dumps", "msgspec.json.format")
        assert file.stem in ("options", "proofs") or not any(way in text for way in other_ways)
