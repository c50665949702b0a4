"""``python -m matrix specifiers``: what it prints of a result, and of none."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
import typer
from packaging.requirements import Requirement
from typer.testing import CliRunner, Result

from matrix.cli import specifiers as command
from matrix.judge.results import CanaryState, MatrixResult, Specifier
from tests.unit import small_spec
from tests.unit.report_results import realistic


def ask(*arguments: str) -> Result:
    app = typer.Typer()
    app.command()(command.specifiers)
    return CliRunner().invoke(app, list(arguments))


def specifier(release: str, holds: str) -> Specifier:
    return Specifier(
        package="autoawq", release=release, partner="transformers", holds=holds,
        declared=">=4.45\x1b[31m", differs=["forbidden by metadata, but works: 5.23.0"],
        worked=["4.46.3"], failed=["4.51.3"], unknown=["4.57.6"], untried=["4.48", "4.49", "4.50"],
        devices=["cpu"],
    )  # fmt: skip


@pytest.fixture
def observed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Have something be observed: two releases, one of which works with nothing."""
    specifiers = [specifier("0.2.7", ">=4.46,<4.47"), specifier("0.2.8", "")]

    class MadeUpContext:
        def __init__(self, _settings: object) -> None:
            self.table_judge = lambda: self

        def table(self) -> MatrixResult:
            result = realistic()
            return MatrixResult(
                profile=result.profile, runs=[], finished=result.finished, machine={},
                departures={}, canaries=CanaryState.NONE, environments=[], cells=[],
                specifiers=specifiers,
            )  # fmt: skip

    monkeypatch.setattr(command, "Context", MadeUpContext)
    return ["--spec", str(small_spec.write(tmp_path)), "--store", str(tmp_path)]


def test_a_line_for_each_release_and_what_differs(observed: list[str]) -> None:
    shown = ask(*observed).stdout
    assert "autoawq 0.2.7                transformers>=4.46,<4.47" in shown
    assert "no transformers " in shown
    for words in ("1 worked, 1 did not, 1 without an answer",
                 "not tried: older than 4.46.3, 4.48-4.50",
                 "forbidden by metadata, but works: 5.23.0"):  # fmt: skip
        assert words in shown
    assert "\x1b" not in shown


def test_constraints_of_one_release_can_be_used_as_they_are(observed: list[str]) -> None:
    shown = ask(*observed, "--format", "constraints", "--package", "AutoAWQ==0.2.7").stdout
    lines = [line for line in shown.splitlines() if line and not line.startswith("#")]
    assert [Requirement(line).name for line in lines] == ["autoawq", "transformers"]
    several = ask(*observed, "--format", "constraints").stdout
    assert all(line.startswith("#") for line in several.splitlines() if line)


def test_a_long_specifier_is_told_in_short_and_kept_whole_for_programs(
    observed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    holds = ">=4.51,<5.24," + ",".join(f"!=5.{minor}.*" for minor in range(23))
    monkeypatch.setattr(command, "_of", lambda *_: [specifier("0.2.9", holds)])
    assert "transformers>=4.51,<5.24 without 5.0-5.22 " in ask(*observed, "--package", "x").stdout
    arguments = (*observed, "--package", "x", "--format")
    assert f"\ntransformers{holds}\n" in ask(*arguments, "constraints").stdout
    assert json.loads(ask(*arguments, "json").stdout)["specifiers"][0]["holds"] == holds


def test_json_is_for_programs(observed: list[str]) -> None:
    document = json.loads(ask(*observed, "--format", "json").stdout)
    assert document["schema"] == 1
    assert [entry["release"] for entry in document["specifiers"]] == ["0.2.7", "0.2.8"]


@pytest.mark.parametrize("output", ["table", "constraints", "json"])
def test_a_void_run_gives_none_and_says_which_canary(
    monkeypatch: pytest.MonkeyPatch, observed: list[str], output: str
) -> None:
    class MadeUpContext:
        def __init__(self, _settings: object) -> None:
            self.table_judge = lambda: self

        def table(self) -> MatrixResult:
            troubles = ["a/b/c/d: expected garbage, came works\x1b[31m"]
            return msgspec.structs.replace(
                realistic(), canaries=CanaryState.VOID, canary_troubles=troubles
            )

    monkeypatch.setattr(command, "Context", MadeUpContext)
    done = ask(*observed, "--format", output)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("no specifiers: the canaries are void")
    assert "  a/b/c/d: expected garbage, came works␛[31m" in done.stderr


def test_an_unknown_package_names_the_known_ones(observed: list[str]) -> None:
    done = ask(*observed, "--package", "autoawq==9.9")
    assert done.exit_code == 2
    assert "nothing is known of 'autoawq==9.9'" in done.stderr
    assert "autoawq==0.2.7, autoawq==0.2.8" in done.stderr


def test_where_nothing_was_observed_the_command_says_so(tmp_path: Path) -> None:
    file = small_spec.write(tmp_path)
    options = ("--spec", str(file), "--profile", "all", "--store", str(tmp_path / "store"))
    (tmp_path / "store").mkdir()
    done = ask(*options)
    assert done.exit_code == 0
    assert done.stdout.startswith("Nothing was observed")
    (tmp_path / "store").rmdir()
    done = ask(*options)
    assert (done.exit_code, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {tmp_path / 'store'}: there is no store here")
    assert "--store or MATRIX_STORE" in line
