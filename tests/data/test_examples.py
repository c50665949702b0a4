"""The examples: specs that are accepted, with limits and thresholds that are the project's."""

from __future__ import annotations

import ast

import pytest

from matrix.plan.cells import make_plan
from matrix.spec.loading import load
from tests import REPOSITORY

EXAMPLES = REPOSITORY / "examples"
CELLS = {
    "checkpoint": ["mine/float/none/vllm-0.32.0", "mine/mine/hub+mine/vllm-0.32.0"],
    "recipe": ["mine/float/none/vllm-0.32.0", "mine/mine/llmcompressor-0.14.0.1/vllm-0.32.0"],
    "adapter": ["small/float/none/mine"],
}


@pytest.mark.parametrize("name", CELLS)
def test_an_example_is_planned(name: str) -> None:
    loaded = load(EXAMPLES / name / "spec.toml")
    assert [cell.id for cell in make_plan(loaded, "mine").cells] == CELLS[name]


@pytest.mark.parametrize("name", CELLS)
def test_an_example_is_held_to_what_the_project_is(name: str) -> None:
    example, ours = load(EXAMPLES / name / "spec.toml").spec, load().spec
    assert example.limits == ours.limits
    assert example.thresholds == ours.thresholds


def test_the_example_of_an_adapter_has_what_an_engine_needs() -> None:
    tree = ast.parse((EXAMPLES / "adapter" / "engine.py").read_text())
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert {"import_package", "load", "generate"} <= functions
