"""What would prove a combination: cells of our spec, or rows that make one."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

import msgspec
import pytest
from packaging.requirements import Requirement

from matrix.judge.likeness import Wish
from matrix.judge.results import ModelFacts, SchemeFacts
from matrix.judge.unproven import WANTED, rows_to_add, runs_for
from matrix.spec.loading import DEFAULT_SPEC, LoadedSpec, load
from matrix.spec.requirements import exact_version

QWEN = ModelFacts(tied=True, model_type="qwen2")
AWQ = Wish(model=QWEN, scheme=SchemeFacts(method="awq"))
INT8 = SchemeFacts(method="compressed-tensors", bits=8)


@cache
def ours() -> LoadedSpec:
    return load()


def cells(wish: Wish, *profiles: str, settled: frozenset[str] = frozenset()) -> list[str]:
    return [run.cell for run in runs_for(ours(), profiles, wish, settled)]


def test_cells_of_the_wish_alone_would_prove_it() -> None:
    wish = msgspec.structs.replace(
        AWQ, quantizer=Requirement("autoawq==0.2.7"), engine=Requirement("vllm==0.32.0"),
        beside=[Requirement("transformers==4.47.1")],
    )  # fmt: skip
    cell = "twin-tied/awq-4bit-g64/autoawq-0.2.7+transformers-4.47.1/vllm-0.32.0"
    repaired = "twin-tied/awq-4bit-g64/autoawq-0.2.7+transformers-4.47.1+repaired/vllm-0.32.0"
    assert sorted(cells(wish, "cpu")) == sorted([cell, repaired])
    assert cells(wish, "cpu", "cpu", settled=frozenset({cell})) == [repaired]


def test_a_package_whose_name_is_the_adapters_without_a_hyphen_is_meant() -> None:
    wish = Wish(
        model=QWEN, scheme=INT8, quantizer=Requirement("llmcompressor==0.14.0.1"),
        engine=Requirement("vllm==0.32.0"),
    )  # fmt: skip
    quantizer = "llmcompressor-0.14.0.1+transformers-5.17.0+w8a8"
    assert f"twin-tied/w8a8-int8/{quantizer}/vllm-0.32.0" in cells(wish, "cpu")


def test_a_run_is_a_command_of_its_profile() -> None:
    run = next(runs_for(ours(), ["smoke"], AWQ, frozenset()))
    assert run.command.endswith(f"run --profile smoke --cell {run.cell}")


def test_a_wish_for_gpus_is_proven_on_gpus_alone() -> None:
    on_gpu = msgspec.structs.replace(AWQ, device="cuda 8.9")
    assert cells(on_gpu, "cpu") == []
    assert cells(on_gpu, "gpu")
    assert cells(AWQ, "gpu") == []


def test_published_checkpoints_prove_no_quantizer() -> None:
    untied = msgspec.structs.replace(AWQ, model=ModelFacts(tied=False, model_type="qwen2"))
    assert cells(AWQ, "published") == cells(untied, "published") == []


@pytest.mark.parametrize(
    "wish",
    [
        AWQ,
        msgspec.structs.replace(AWQ, model=ModelFacts(tied=False, model_type='a"\\b')),
        msgspec.structs.replace(AWQ, model=ModelFacts(tied=False, model_type="\U0001f600\u202e")),
        msgspec.structs.replace(AWQ, scheme=SchemeFacts(method="gptq", bits=3, group_size=32)),
        msgspec.structs.replace(AWQ, scheme=SchemeFacts(method="awq", group_size=32)),
        msgspec.structs.replace(AWQ, engine=Requirement("vllm")),
        msgspec.structs.replace(AWQ, device="cuda 8.9", quantizer=Requirement("autoawq>=0.2.7")),
        Wish(model=QWEN, scheme=INT8, quantizer=Requirement("llmcompressor>=0.12")),
        Wish(model=QWEN, scheme=SchemeFacts(method="compressed-tensors")),
    ],
)
def test_rows_that_are_added_make_a_cell_that_proves_it(wish: Wish, tmp_path: Path) -> None:
    folder = tmp_path / "spec"
    shutil.copytree(DEFAULT_SPEC, folder)
    rows = rows_to_add(ours(), wish, {"repository": "some/model", "revision": "first seen"})
    (folder / "wanted.toml").write_text("\n".join(rows) + "\n")
    assert list(runs_for(load(folder), [WANTED], wish, frozenset()))


def test_a_model_of_which_nobody_says_where_it_is_is_added_to_no_spec() -> None:
    nowhere = msgspec.structs.replace(AWQ, model=ModelFacts(tied=True, model_type="nowhere"))
    assert rows_to_add(ours(), nowhere, {}) == []


def test_a_release_that_no_environment_has_is_a_row_of_the_nearest_table(tmp_path: Path) -> None:
    wish = msgspec.structs.replace(
        AWQ, quantizer=Requirement("autoawq==0.2.8"), engine=Requirement("vllm==0.32.0"),
        beside=[Requirement("transformers==4.47.1")],
    )  # fmt: skip
    assert cells(wish, *ours().spec.profiles) == []
    rows = rows_to_add(ours(), wish, {})
    where, row = rows[0], rows[1].removeprefix("#   ")
    assert "the table that gives autoawq-0.2.7.post3+transformers-" in where
    assert row == '{ autoawq = "0.2.8", transformers = "4.47.1" }'
    folder = tmp_path / "spec"
    shutil.copytree(DEFAULT_SPEC, folder)
    table = folder / "environments" / "cpu.toml"
    axis = 'axes.autoawq = ["0.2.7.post3", "0.2.9"]\n'
    assert axis in table.read_text()
    table.write_text(table.read_text().replace(axis, f"{axis}rows = [{row}]\n"))
    (folder / "wanted.toml").write_text("\n".join(rows) + "\n")
    assert list(runs_for(load(folder), [WANTED], wish, frozenset()))


@pytest.mark.parametrize("quantizer", ["autoawq==0.2.*", "autoawq===0.2.8", "autoawq>=0.2.8"])
def test_a_range_is_no_release_of_which_a_row_could_be_added(quantizer: str) -> None:
    wish = msgspec.structs.replace(
        AWQ, quantizer=Requirement(quantizer), beside=[Requirement("transformers==4.*")]
    )
    assert not [row for row in rows_to_add(ours(), wish, {}) if row.startswith("#")]


@pytest.mark.parametrize(
    ("requirement", "version"),
    [
        ("a==1.2", "1.2"), ("a==1.2+cu128,<2", "1.2+cu128"), ("a", ""), ("a>=1.2", ""),
        ("a==1.2.*", ""), ("a===1.2", ""), ("a==1.2,==1.3", ""), ("a==1.2,===1.2", ""),
    ],
)  # fmt: skip
def test_only_one_whole_version_is_exact(requirement: str, version: str) -> None:
    assert exact_version(Requirement(requirement)) == version
