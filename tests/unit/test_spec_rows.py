"""Rows of an environment table: pairings one by one, with extras of their own and with ranges."""

from __future__ import annotations

from pathlib import Path

import pytest

from matrix.cli.releases import tracked
from matrix.spec.loading import LoadedSpec, load
from matrix.spec.snapshot import EMPTY, SNAPSHOT, encode
from matrix.spec.tables import SpecError
from tests.unit import small_spec
from tests.unit.test_axes import snapshot

AXIS = 'axes.maker = ["1.0", "2.0"]\n'


def opened(folder: Path, *changes: tuple[str, str]) -> LoadedSpec:
    (folder / SNAPSHOT).write_bytes(encode(snapshot()))
    return load(small_spec.write(folder, *changes))


def with_rows(*rows: str, axis: str = AXIS) -> tuple[str, str]:
    return AXIS, f"{axis}rows = [{', '.join(rows)}]\n"


def makers(loaded: LoadedSpec) -> list[str]:
    return [name for name in loaded.environments if name.startswith("maker-")]


def test_a_row_is_one_environment_beside_what_the_axes_give(tmp_path: Path) -> None:
    assert makers(opened(tmp_path, with_rows('{ maker = "3.0" }'))) == [
        "maker-1.0", "maker-2.0", "maker-3.0",
    ]  # fmt: skip


def test_rows_do_not_multiply(tmp_path: Path) -> None:
    two_axes = 'axes.maker = ["1.0", "2.0"]\naxes.torch = ["2.0", "2.1"]\n'
    named = ('name = "maker-{maker}"', 'name = "maker-{maker}+torch-{torch}"')
    canaries = [(f"maker-{version}/runner", f"maker-{version}+torch-2.0/runner")
                for version in ("1.0", "2.0")]  # fmt: skip
    row = '{ maker = "3.0", torch = "2.2" }'
    loaded = opened(tmp_path, with_rows(row, axis=two_axes), named, *canaries)
    assert len(makers(loaded)) == 2 * 2 + 1


def test_without_axes_there_are_only_the_rows(tmp_path: Path) -> None:
    rows = ('{ maker = "1.0" }', '{ maker = "2.0" }')
    assert makers(opened(tmp_path, with_rows(*rows, axis=""))) == ["maker-1.0", "maker-2.0"]


def test_a_row_adds_to_the_lists_of_its_table(tmp_path: Path) -> None:
    row = """{ maker = "3.0", requirements = ["torch=={maker}"], pins = ["a==1"],
        constraints = ["b<2"], overrides = ["c<3"], departures = ["other"] }"""
    row = " ".join(row.split())
    loaded = opened(
        tmp_path,
        with_rows(row),
        ("[departures.shim]", '[departures.other]\nwhat = "o"\nwhy = "o"\n[departures.shim]'),
    )
    made = loaded.environments["maker-3.0"]
    assert made.requirements == ["maker==3.0", "torch==3.0", "a==1"]
    assert (made.constraints, made.overrides) == (["b<2"], ["numpy<2", "c<3"])
    assert made.departures == ["shim", "other"]
    assert loaded.environments["maker-2.0"].requirements == ["maker==2.0"]
    today = loaded.at("maker-3.0", "today")
    assert (today.requirements, today.constraints) == (["maker==3.0", "torch==3.0"], [])


def test_a_range_in_a_row_is_an_environment_for_each_release(tmp_path: Path) -> None:
    rows = ('{ maker = { since = "1.0", until = "1.0" }, torch = "2.0" }',
            '{ maker = { since = "2.0" }, torch = "2.1" }')  # fmt: skip
    requirements = ('"maker=={maker}"]', '"maker=={maker}", "torch=={torch}"]')
    loaded = opened(tmp_path, with_rows(*rows, axis=""), requirements)
    assert {name: loaded.environments[name].requirements[1] for name in makers(loaded)} == {
        "maker-1.0": "torch==2.0", "maker-1.0.post1": "torch==2.0", "maker-2.0": "torch==2.1",
    }  # fmt: skip


def test_an_item_is_left_out_of_rows_without_its_key(tmp_path: Path) -> None:
    rows = ('{ maker = "1.0", triton = "3.0" }', '{ maker = "2.0" }')
    overrides = ('overrides = ["numpy<2"]', 'overrides = ["triton=={triton}", "numpy<2"]')
    loaded = opened(tmp_path, with_rows(*rows, axis=""), overrides)
    assert loaded.environments["maker-1.0"].overrides == ["triton==3.0", "numpy<2"]
    assert loaded.environments["maker-2.0"].overrides == ["numpy<2"]
    assert loaded.environments["maker-2.0"].axes == {"maker": "2.0"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([with_rows('{ maker = "latest" }')],
         "environments[1].maker: 'latest' is no version. Write a release"),
        ([with_rows('{ maker = "3.0", environ = ["A"] }')],
         "environments[1].rows[0].environ: a row adds to no such list. It may add to requirements"),
        ([with_rows('{ maker = "3.0", pins = "a==1" }')],
         "environments[1].pins: 'a==1' is no version"),
        ([with_rows('{ maker = { since = "1", package = "nobody" } }')],
         "environments[1].rows[0].maker: the snapshot of the index has no package 'nobody'"),
        ([with_rows('{ maker = { sinse = "1" } }')],
         "environments[1].rows[0].maker.sinse: no such key. Did you mean 'since'?"),
        ([with_rows('{ maker = "2.0" }')], "environments[1].name: 'maker-2.0' is defined twice"),
        ([with_rows('{ torch = "2.0" }')], "environments[1].name: {maker} is no axis and no key"),
        ([with_rows('{ maker = "3.0", departures = ["gone"] }')],
         "environments[1].departures: no departure 'gone' is defined"),
        ([with_rows('{ maker = "3.0" }'), ('"maker=={maker}"', '"maker=={makers}"')],
         "environments[1].requirements: {makers} is no axis and no key of a row"),
    ],
)  # fmt: skip
def test_a_wrong_row_is_named(tmp_path: Path, changes: list[tuple[str, str]], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        opened(tmp_path, *changes)
    text = str(caught.value).removeprefix(f"{tmp_path / 'spec.toml'}: ")
    assert text.startswith(message)


def test_the_packages_of_ranges_in_rows_are_asked_for(tmp_path: Path) -> None:
    rows = ('{ maker = { since = "1.0", until = "1.0" } }', '{ maker = { since = "2.0" } }')
    spec = opened(tmp_path, with_rows(*rows, axis="")).spec
    assert tracked(spec, EMPTY) == {"maker": "1.0"}


def test_the_packages_of_pairs_are_asked_for(tmp_path: Path) -> None:
    table = '[pairs]\nsome_engine = { since = "3.0" }\n[models.tied]'
    spec = opened(tmp_path, ("[models.tied]", table)).spec
    assert tracked(spec, EMPTY)["some-engine"] == "3.0"
