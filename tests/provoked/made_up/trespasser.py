"""An engine that reaches for all that is none of its business, and tells what it got."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Json = dict[str, Any]


def import_package(_options: Json) -> None:
    """Nothing to import."""


def load(job: Json) -> tuple[Json, Json]:
    """Try everything that the option ``targets`` names, as JSON; tell what worked."""
    targets = json.loads(job["options"]["targets"])
    for name in ("/dev/shm", "/tmp"):
        Path(name, targets["mark"]).write_text("left")
    subprocess.Popen(
        [sys.executable, "-c", "import time\nwhile True: time.sleep(1)", targets["mark"]],
        start_new_session=True,
    )
    tries: dict[str, Callable[[], Any]] = {
        "write outside": lambda: Path(targets["outside"], "planted").write_text("planted"),
        "write to the store": lambda: _append(next(_store(job).glob("observations/*/*.json"))),
        "write to the environment": lambda: _append(_package()),
        "read a file of the user": lambda: Path(targets["secret"]).read_text(),
        "reach a port": lambda: socket.create_connection(("127.0.0.1", targets["port"]), 60),
        "reach an abstract socket": lambda: _connect("\0" + targets["mark"]),
        "reach a socket's file": lambda: _connect(targets["socket"]),
        "kill": lambda: os.kill(targets["process"], signal.SIGKILL),
        "read a token": lambda: _token(targets["token"]),
    }
    return job, {"kernel": "made-up", "kernels": {}, "got": [n for n in tries if _works(tries[n])]}


def generate(_handle: Json, job: Json) -> Json:
    """Give the answers that the builder laid beside the model."""
    answers: Json = json.loads(Path(job["checkpoint"], "answers.json").read_text())
    return answers


def _works(action: Callable[[], Any]) -> bool:
    try:
        action()
    except (OSError, StopIteration):
        return False
    return True


def _store(job: Json) -> Path:
    return Path(job["checkpoint"]).parents[2]


def _package() -> Path:
    import iniconfig

    return Path(str(iniconfig.__file__))


def _append(file: Path) -> None:
    with file.open("a") as opened:
        opened.write(" ")


def _connect(address: str) -> None:
    with socket.socket(socket.AF_UNIX) as opened:
        opened.connect(address)


def _token(token: str) -> None:
    """Look for a token in the variables of all processes; raise ``OSError`` where it is in none."""
    for file in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if token.encode() in file.read_bytes():
                return
    raise FileNotFoundError(token)
