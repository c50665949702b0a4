"""What the package imports is what it says it depends on, and nothing else."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests import REPOSITORY

PACKAGE = REPOSITORY / "matrix"


def imported(file: Path) -> Iterator[str]:
    """Yield the first names of the modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    ours = [file for file in PACKAGE.rglob("*.py") if PACKAGE / "probe" not in file.parents]
    modules = {module for file in ours for module in imported(file)}
    modules -= {*sys.stdlib_module_names, "matrix"}
    distributions = packages_distributions()
    needed = {canonicalize_name(distributions[module][0]) for module in modules}
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    declared = [Requirement(text) for text in project["dependencies"]]
    assert {canonicalize_name(requirement.name) for requirement in declared} == needed
