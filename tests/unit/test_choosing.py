"""Which cells and environments ``matrix run`` is asked for, and the status it ends with."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest
from typer.testing import CliRunner

from matrix.cli.app import app
from matrix.cli.choosing import chosen_cells, chosen_environments
from matrix.cli.run import Status, status_of
from matrix.judge.results import CanaryState
from matrix.pipeline.outcomes import NO_ANSWER, Verdict
from matrix.plan.cells import Plan, make_plan
from matrix.spec.loading import load
from tests.unit import small_spec


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    return small_spec.write(tmp_path)


@pytest.fixture
def plan(spec: Path) -> Plan:
    return make_plan(load(spec), "all")


def test_patterns_and_ids_name_cells_once_and_in_the_order_of_the_plan(plan: Plan) -> None:
    patterns = ["untied/*/maker-1*", "tied/awq/*/runner-*", "tied/awq/maker-1.0/runner-3.0"]
    assert chosen_cells(plan, patterns) == [
        "tied/awq/maker-1.0/runner-3.0",
        "tied/awq/maker-2.0/runner-3.0",
        "untied/awq/maker-1.0/runner-3.0",
    ]


def test_patterns_name_environments(plan: Plan) -> None:
    assert chosen_environments(plan, ["twins", "maker-*"]) == ["twins", "maker-1.0", "maker-2.0"]


def test_a_pattern_of_several_must_name_something(
    plan: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        chosen_cells(plan, ["tied/*", "tied/gptq/*"])
    assert "has no cell 'tied/gptq/*'" in capsys.readouterr().err


def test_near_names_are_suggested_on_one_line(
    plan: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        chosen_cells(plan, ["tied/awq/maker-1.1/runner-3.0"])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: profile 'all' has no cell 'tied/awq/maker-1.1/runner-3.0'. Did")
    assert "Did you mean tied/awq/maker-1.0/runner-3.0 or " in line
    with pytest.raises(SystemExit):
        chosen_environments(plan, ["makr-1.0"])
    assert "Did you mean maker-1.0 or maker-2.0? " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("pattern", "meant"),
    [
        ("tyed/*", "tied/*"),
        ("*/makr-1*/runner-*", "*/maker-1.0/runner-*"),
        ("tied/awq/maker-1*/runer-3*", "tied/awq/maker-1*/runner-3.0"),
    ],
)
def test_near_patterns_are_suggested(
    plan: Plan, capsys: pytest.CaptureFixture[str], pattern: str, meant: str
) -> None:
    with pytest.raises(SystemExit):
        chosen_cells(plan, [pattern])
    told = capsys.readouterr().err.partition("Did you mean ")[2].partition("?")[0]
    assert meant in told.split(" or ")
    assert all(chosen_cells(plan, [other]) for other in told.split(" or "))


def test_a_pattern_that_is_near_nothing_suggests_nothing(
    plan: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        chosen_cells(plan, ["zzzzzz/*"])
    assert "Did you mean" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        ["tied/*", "--environment", "twins"],
        ["tied/*", "--minutes", "1"],
        ["--disk", "1", "--cell", "x"],
    ],
)
def test_two_ways_of_choosing_are_one_too_many(
    spec: Path, options: list[str], tmp_path: Path
) -> None:
    base = ["run", "--spec", str(spec), "--profile", "all", "--store", str(tmp_path / "store")]
    done = CliRunner().invoke(app, [*base, *options])
    assert done.exit_code == 2
    assert done.output.startswith("error: ")
    assert "Leave out " in done.output


def completed(words: str, number: int) -> list[str]:
    """Return what bash is offered for a word of a line."""
    asked = {"_MATRIX_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(number)}
    return CliRunner().invoke(app, [], env=asked, prog_name="matrix").output.split()


def test_a_shell_completes_cells_and_environments_of_the_profile(spec: Path) -> None:
    line = f"matrix run --spec {spec} --profile all"
    assert completed(f"{line} untied/awq", 6) == [
        "untied/awq/maker-1.0/runner-3.0",
        "untied/awq/maker-2.0/runner-3.0",
    ]
    assert completed(f"{line} --environment ma", 7) == ["maker-1.0", "maker-2.0"]
    assert completed("matrix run --spec none.toml x", 4) == []


def test_the_status_is_of_the_gravest_that_keeps_an_answer_back() -> None:
    fine = CanaryState.ESTABLISHED
    assert status_of({Verdict.WORKS}, fine) is Status.WORKS
    for verdict in Verdict:
        expected = (
            Status.WORKS if verdict is Verdict.WORKS
            else Status.TROUBLE if verdict in NO_ANSWER
            else Status.WORKS_NOT
        )  # fmt: skip
        assert status_of({verdict}, CanaryState.NONE) is expected
        assert status_of({verdict}, CanaryState.VOID) is Status.VOID
    for pair in combinations(Verdict, 2):
        if NO_ANSWER.isdisjoint(pair):
            assert status_of(set(pair), fine) is Status.WORKS_NOT, "one of them does not"
        else:
            assert status_of(set(pair), fine) is Status.TROUBLE
    assert status_of(set(), CanaryState.NOT_ESTABLISHED) is Status.WORKS
