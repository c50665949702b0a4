"""Who may do what at night: the rights and settings of the workflows' jobs."""

from __future__ import annotations

from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests import REPOSITORY

FOLDER = REPOSITORY / ".github" / "workflows"


def jobs(name: str) -> dict[str, dict[str, Any]]:
    document = yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))
    assert document["permissions"] == {}, "a job has what it asks for, and nothing else"
    named: dict[str, dict[str, Any]] = document["jobs"]
    return named


def commands(job: dict[str, Any]) -> str:
    return "\n".join(step.get("run", "") for step in job["steps"])


@pytest.fixture
def nightly() -> dict[str, dict[str, Any]]:
    return jobs("nightly.yml")


def test_what_runs_packages_has_no_right_but_to_read_the_code(
    nightly: dict[str, dict[str, Any]],
) -> None:
    (runner,) = [job for job in nightly.values() if "self-hosted" in job["runs-on"]]
    assert "nox -s matrix" in commands(runner)
    assert runner["permissions"] == {"contents": "read"}
    assert runner["env"]["MATRIX_SANDBOX"] == "required"
    assert runner["env"]["MATRIX_STORE"].startswith("../"), "the checkout is removed every night"
    first, second, third, *_ = runner["steps"]
    assert "id -u" in first["run"]
    assert "-delete" in second["run"]
    assert third["uses"].startswith("actions/checkout@")


def test_the_page_is_written_where_no_package_runs_and_put_there_by_what_runs_nothing(
    nightly: dict[str, dict[str, Any]],
) -> None:
    page, publish = nightly["page"], nightly["publish"]
    assert {page["runs-on"], publish["runs-on"]} == {"ubuntu-24.04"}
    assert page["permissions"] == {"contents": "read"}
    assert "matrix verify --store evidence" in commands(page)
    assert "matrix report --from-light" in commands(page)
    assert "nox" not in commands(page)
    assert "matrix run" not in commands(page)
    assert publish["permissions"] == {"pages": "write", "id-token": "write"}
    assert commands(publish) == ""
    assert (page["needs"], publish["needs"]) == ("matrix", "page")


def test_a_night_that_regressed_or_did_not_run_is_red(nightly: dict[str, dict[str, Any]]) -> None:
    steps = {step["name"]: step for step in nightly["page"]["steps"]}
    for name in ("Write the page", "Write the page for GPUs"):
        assert "--fail-on-regressed" in steps[name]["run"]
        assert "continue-on-error" not in steps[name]
    assert '--fail-on "not run"' in steps["Write the page"]["run"]


def test_no_job_leaves_a_token_in_its_checkout() -> None:
    for file in FOLDER.glob("*.yml"):
        for job in jobs(file.name).values():
            for step in job["steps"]:
                if step.get("uses", "").startswith("actions/checkout@"):
                    assert step["with"]["persist-credentials"] is False
