"""Options of the suite in ``tests/compat``; and no test outlives the nox that started it."""

from __future__ import annotations

import os

import pytest

from matrix.machine.processes import die_with_parent


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what the suite is pointed at; all else comes from MATRIX_... variables."""
    parser.addoption("--environment", help="judge only what was observed in this environment")


def pytest_configure(config: pytest.Config) -> None:
    """End with nox, so that nothing of a killed run is left."""
    parent = os.environ.pop("MATRIX_UNDER_NOX", None)
    if parent is not None:
        die_with_parent(int(parent))
    for name in ("MATRIX_PROGRESS", "MATRIX_SUMMARY"):  # what a test starts is no session of nox
        os.environ.pop(name, None)
    if config.getoption("--environment") is None:  # ours are no session of an environment either
        for name in ("MATRIX_CELLS", "MATRIX_DISK", "MATRIX_MINUTES", "MATRIX_RUN"):
            os.environ.pop(name, None)
