"""A server on the loopback, and an index that asks it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from matrix.index.client import Index
from matrix.index.settings import IndexSettings
from tests.processes import index_server as served
from tests.processes.asking import PATIENCE
from tests.processes.index_server import Server


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Have no proxy before the loopback, and no password but from a file of the test's own."""
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


@pytest.fixture
def server(no_proxy: None) -> Iterator[Server]:  # noqa: ARG001
    with served.running() as started:
        yield started


@pytest.fixture
def index(server: Server, tmp_path: Path) -> Index:
    return Index(IndexSettings([server.address]), tmp_path / "index", PATIENCE)
