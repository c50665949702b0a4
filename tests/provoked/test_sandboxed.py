"""A package that reaches for what is none of its business, with a sandbox and without."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from matrix.machine.sandbox import Isolation, find_sandbox
from matrix.store.observations import Observation
from tests import LIKE_ANY_USER
from tests.provoked.runs import SPEC

CELL = "made-up/float/none/plain+trespasses"
PROFILE = """
[[engines]]
environments = "plain"
suffix = "trespasses"
adapter = "./trespasser.py"
options = {{ targets = '''{targets}''' }}

[profiles.trespasses]
title = "An engine that trespasses"
models = ["made-up"]
schemes = ["awq-4bit-g64"]
quantizers = ["none"]
engines = ["plain+trespasses"]
"""
SHUT_IN = find_sandbox().isolation is Isolation.BUBBLEWRAP
IN_THE_OPEN = {
    "write outside", "write to the store", "write to the environment", "read a file of the user",
    "reach a port", "reach an abstract socket", "reach a socket's file", "kill",
}  # fmt: skip
"""What a package can do where nothing shuts it in."""


class World:
    """What a package could reach, and what of it is still as it was after a run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mark = f"matrix-test-{secrets.token_hex(8)}"
        self.token = f"token-{secrets.token_hex(8)}"
        self.outside = folder / "outside"
        self.outside.mkdir()
        self.secret = folder / "secret"
        self.secret.write_text("a secret")
        self.secret.chmod(0o600)
        self.bystander = subprocess.Popen(["sleep", "3600"])
        self.servers = [socket.create_server(("127.0.0.1", 0))]
        for address in ("\0" + self.mark, str(folder / "socket")):
            self.servers.append(server := socket.socket(socket.AF_UNIX))
            server.bind(address)
            server.listen()

    def close(self) -> None:
        for server in self.servers:
            server.close()
        self.bystander.kill()
        self.bystander.wait()

    def run(self, use: str, start: Sequence[str] = ()) -> tuple[Observation, str]:
        """Run the cell with a use of the sandbox; return the load's observation and the output."""
        targets = {
            "mark": self.mark, "outside": str(self.outside), "secret": str(self.secret),
            "port": self.servers[0].getsockname()[1], "socket": str(self.folder / "socket"),
            "process": self.bystander.pid, "token": self.token,
        }  # fmt: skip
        spec = shutil.copytree(SPEC.parent, self.folder / "spec") / SPEC.name
        text = spec.read_text() + PROFILE.format(targets=json.dumps(targets))
        spec.write_text(text)
        done = subprocess.run(
            [
                *start, sys.executable, "-m", "matrix", "run", CELL, "--spec", str(spec),
                "--profile", "trespasses", "--store", str(self.folder / "store"),
            ],
            env={**os.environ, "HF_TOKEN": self.token, "MATRIX_SANDBOX": use},
            capture_output=True, text=True, timeout=1200, check=False,
        )  # fmt: skip
        (file,) = (self.folder / "store" / "observations" / "load").glob("*.json")
        return msgspec.json.decode(file.read_bytes(), type=Observation), done.stdout + done.stderr

    def left(self) -> list[Any]:
        """Return processes and temporary files that the package left behind."""
        files: list[Any] = [Path(name, self.mark) for name in ("/dev/shm", "/tmp")]
        processes = [p for p in psutil.process_iter() if self.mark in " ".join(_command(p))]
        return [file for file in files if file.exists()] + processes


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()
    for name in ("/dev/shm", "/tmp"):
        Path(name, world.mark).unlink(missing_ok=True)


def test_in_the_sandbox_a_package_reaches_nothing_but_its_own_and_leaves_nothing(
    world: World,
) -> None:
    loaded, output = world.run("auto")
    assert loaded.sandbox is find_sandbox().isolation
    if not SHUT_IN:
        assert find_sandbox().lack in output  # which a run says once
        return
    assert loaded.facts["got"] == []
    assert world.left() == []
    assert not list(world.outside.iterdir())
    assert world.bystander.poll() is None
    assert "without a sandbox" not in output


def test_without_a_sandbox_no_token_is_read_and_no_process_is_left(world: World) -> None:
    loaded, output = world.run("off", LIKE_ANY_USER)
    assert loaded.sandbox is Isolation.NONE
    assert set(loaded.facts["got"]) == IN_THE_OPEN  # so what is refused in it was tried rightly
    assert not [left for left in world.left() if isinstance(left, psutil.Process)]
    assert output.count("packages run without a sandbox: it is off") == 1
