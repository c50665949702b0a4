"""The commands as they are listed: each with the line that its own help begins with."""

from __future__ import annotations

import re
from importlib.metadata import version

import pytest
from typer.testing import CliRunner

from matrix.cli.app import COMMANDS, app, command


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
