"""``python -m matrix`` as a user starts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from matrix.context import REPOSITORY
from tests.unit import small_spec

HEAVY = ("torch", "transformers", "vllm", "pandas", "jinja2", "numpy")


def matrix(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("MATRIX_")}
    return subprocess.run(
        [sys.executable, "-m", "matrix", *arguments],
        cwd=REPOSITORY, env=ours | environ, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_a_plan_as_json_lists_the_cells_with_their_parts() -> None:
    done = matrix("plan", "--profile", "smoke", "--format", "json")
    assert (done.returncode, done.stderr) == (0, "")
    plan = json.loads(done.stdout)
    assert plan["profile"] == "smoke"
    assert len(plan["cells"]) == 3
    for cell in plan["cells"]:
        parts = [cell[name] for name in ("model", "scheme", "quantizer", "engine")]
        assert cell["id"] == "/".join(parts)
    assert [environment["name"] for environment in plan["environments"]] == [
        "twins", "autoawq-0.2.7+transformers-4.47.1", "autoawq-0.2.9+transformers-4.51.3",
        "vllm-0.32.0",
    ]  # fmt: skip


def test_a_plan_is_shown_for_a_person_by_default_and_builds_nothing(tmp_path: Path) -> None:
    file = small_spec.write(tmp_path)
    store = tmp_path / "store"
    variables = {"MATRIX_SPEC": str(file), "MATRIX_PROFILE": "all", "MATRIX_STORE": str(store)}
    done = matrix("plan", **variables)
    assert done.returncode == 0
    assert "4 environments" in done.stdout
    assert "tied/awq/maker-2.0/runner-3.0" in done.stdout
    assert not store.exists()


def test_an_option_goes_before_a_variable(tmp_path: Path) -> None:
    file = small_spec.write(tmp_path)
    done = matrix("plan", "--spec", str(file), "--profile", "all", MATRIX_PROFILE="cpu")
    assert done.returncode == 0


WRONG = {
    "a wrong spec": (("limit", "Did you mean 'limits'"), ("plan",)),
    "a spec that is not there": (("none.toml", "cannot be read"), ("plan", "--spec", "none.toml")),
    "an unknown profile": (("profiles.gpu", "Defined: all"), ("plan", "--profile", "gpu")),
    "an unknown cell": (("'a/b/c/d'", "lists the ids"), ("run", "--cell", "a/b/c/d")),
    "an unknown environment": (("'maker-9'", "lists"), ("run", "--environment", "maker-9")),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_one_line_and_status_2(tmp_path: Path, case: str) -> None:
    words, arguments = WRONG[case]
    change = [("schema = 1", "schema = 1\nlimit = 1")] if case == "a wrong spec" else []
    variables = {
        "MATRIX_SPEC": str(small_spec.write(tmp_path, *change)),
        "MATRIX_PROFILE": "all",
        "MATRIX_STORE": str(tmp_path / "store"),
    }
    done = matrix(*arguments, **variables)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert all(word in line for word in words)


def test_a_report_of_nothing_observed_says_so_and_fails_only_if_asked(tmp_path: Path) -> None:
    variables = {
        "MATRIX_SPEC": str(small_spec.write(tmp_path)),
        "MATRIX_PROFILE": "all",
        "MATRIX_STORE": str(tmp_path / "store"),
        "MATRIX_REPORTS": str(tmp_path / "reports"),
    }
    done = matrix("report", **variables)
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "reports") in done.stdout
    made = {file.name for file in (tmp_path / "reports").iterdir()}
    assert made >= {"index.html", "matrix.md", "matrix.csv", "matrix.json"}
    table = json.loads((tmp_path / "reports" / "matrix.json").read_text())
    assert {cell["verdict"] for cell in table["cells"]} == {"infra"}
    assert matrix("report", "--fail-on", "infra", **variables).returncode == 1
    assert matrix("report", "--fail-on", "garbage", **variables).returncode == 0


def test_starting_imports_nothing_heavy() -> None:
    code = f"import sys, matrix.cli; print(sorted({set(HEAVY)} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
