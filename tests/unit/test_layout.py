"""The seams: what may import what."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

from matrix.spec.loading import PACKAGE

HEAVY = {"torch", "transformers", "vllm", "awq", "auto_gptq", "gptqmodel", "safetensors.torch"}
GROUND = {"pipeline", "checkpoint", "untrusted"}


def imported(file: Path) -> Iterator[str]:
    """Yield the name of each module that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def package_of(module: str) -> str:
    """Return which package of ours a module is in; empty for one of others."""
    first, _, rest = module.partition(".")
    return rest.partition(".")[0] if first == "matrix" else ""


def harness() -> Iterator[tuple[str, set[str]]]:
    """Yield each file of the harness, by its package, with what it imports."""
    for file in PACKAGE.rglob("*.py"):
        folder = file.relative_to(PACKAGE).parts[0]
        if folder != "probe" and file.parent != PACKAGE:
            yield folder, set(imported(file))


def test_packages_import_each_other_without_a_circle() -> None:
    uses: dict[str, set[str]] = {}
    for folder, modules in harness():
        uses.setdefault(folder, set()).update(map(package_of, modules))
    graph = {folder: used - {folder, ""} for folder, used in uses.items()}
    TopologicalSorter(graph).prepare()  # which raises CycleError, and names it
    assert not any(graph[folder] for folder in GROUND)


def test_the_harness_imports_no_package_under_test() -> None:
    assert not [folder for folder, modules in harness() if HEAVY & modules]


def test_what_runs_inside_environments_imports_nothing_of_the_harness() -> None:
    files = list((PACKAGE / "probe").rglob("*.py"))
    assert files
    assert not [
        file.name for file in files if "matrix" in {m.partition(".")[0] for m in imported(file)}
    ]


def test_what_repairs_imports_only_what_its_keys_hold_and_the_reading_of_json() -> None:
    for folder, modules in harness():
        if folder == "repair":
            assert set(map(package_of, modules)) <= {"", "repair", "checkpoint", "untrusted"}
