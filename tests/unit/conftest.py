"""What is in this folder is pure: it starts no process, opens no socket and has no deadline."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

from matrix.machine.sandbox import Isolation, Sandbox
from tests.unit.made_world import World

settings.load_profile("ci")  # the same examples at every run, and none is held to a time

FORBIDDEN = {
    "subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.system",
    "socket.bind", "socket.connect",
}  # fmt: skip
_in_test = [False]


def _refuse(event: str, _arguments: object) -> None:
    if _in_test[0] and event in FORBIDDEN:
        raise AssertionError(f"{event} in a pure test: its place is tests/processes")


sys.addaudithook(_refuse)


@pytest.fixture(autouse=True)
def _pure(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Refuse processes and sockets while a test of this folder runs.

    Whether there is a sandbox is found out by starting it, so here there always is.
    """
    there = Sandbox(Isolation.BUBBLEWRAP, "/usr/bin/bwrap")
    monkeypatch.setattr("matrix.run.context.find_sandbox", lambda: there)
    _in_test[0] = True
    yield
    _in_test[0] = False


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))
