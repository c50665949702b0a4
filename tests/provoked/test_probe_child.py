"""The server inside the environments, driven with made-up adapters and no package at all."""

from __future__ import annotations

import ast
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHILD = Path(__file__).parents[2] / "matrix" / "probe" / "child.py"
GOOD = """
def import_package(options): print("imported to stdout")
def load(job): return {"seen": job["checkpoint"]}, {"kernel": None, "kernels": {}}
def generate(handle, job): return {"outputs": [handle["seen"]]}
"""

Json = dict[str, Any]


class Server:
    """One running server and what it said."""

    def __init__(self, folder: Path, adapter: str, *departures: str) -> None:
        self.folder = folder
        file = folder / "adapter.py"
        file.write_text(adapter)
        self.log = folder / "log.txt"
        command = [sys.executable, str(CHILD), "--adapter", str(file)]
        command += ["--import-result", str(folder / "import.json")]
        command += [word for name in departures for word in ("--departure", name)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )

    def event(self) -> Json:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        event: Json = json.loads(line) if line else {"event": "end of events"}
        return event

    def send(self, stages: list[str], fork: bool = True, **job: Any) -> Path:
        results = self.folder / f"results-{time.monotonic_ns()}"
        results.mkdir()
        file = self.folder / f"{results.name}.json"
        content = {"schema": 1, "stages": stages, "results": str(results), "options": {}}
        file.write_text(json.dumps({**content, "departures": [], "checkpoint": "/c", **job}))
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"job": str(file), "fork": fork}) + "\n")
        self.process.stdin.flush()
        return results

    def until_ended(self) -> list[Json]:
        events = [self.event()]
        while events[-1]["event"] not in ("ended", "end of events"):
            events.append(self.event())
        return events

    def close(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(timeout=600)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Any]:
    started: list[Server] = []

    def start(adapter: str, *departures: str) -> Server:
        started.append(Server(tmp_path, adapter, *departures))
        return started[-1]

    yield start
    for server in started:
        server.process.kill()
        server.process.wait()
        for pipe in (server.process.stdin, server.process.stdout):
            assert pipe is not None
            pipe.close()


def result(results: Path, stage: str) -> Json:
    content: Json = json.loads((results / f"{stage}.json").read_text())
    return content


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def wait_until_dead(pid: int) -> bool:
    deadline = time.monotonic() + 120
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)


def test_two_jobs_in_a_row(serve: Any, tmp_path: Path) -> None:
    server = serve(GOOD)
    assert server.event() == {"event": "imported", "ok": True}
    imported = json.loads((tmp_path / "import.json").read_text())
    assert imported["ok"]
    assert imported["facts"]["python"] == platform.python_version()
    assert imported["facts"]["device"] == "cpu"
    assert imported["facts"]["versions"]
    for checkpoint in ("/one", "/two"):
        results = server.send(["load", "generate"], checkpoint=checkpoint)
        events = server.until_ended()
        assert [event.get("stage") for event in events] == ["load", "generate", None]
        assert events[-1] == {"event": "ended", "status": 0}
        assert events[0]["pid"] != server.process.pid
        assert result(results, "generate")["facts"] == {"outputs": [checkpoint]}
        assert result(results, "load")["peak_rss_bytes"] > 1_000_000
        assert sorted(path.name for path in results.iterdir()) == ["generate.json", "load.json"]
    assert server.close() == 0
    assert "imported to stdout" in server.log.read_text()


def test_without_fork_the_server_does_the_job_and_ends(serve: Any) -> None:
    server = serve(GOOD)
    server.event()
    server.send(["load"], fork=False)
    events = server.until_ended()
    assert events[0]["pid"] == server.process.pid
    assert events[-1] == {"event": "ended", "status": 0}
    assert server.process.wait(timeout=600) == 0


def test_an_import_that_raises_is_a_result(serve: Any, tmp_path: Path) -> None:
    server = serve("def import_package(options): import no_such_package_at_all")
    assert server.event() == {"event": "imported", "ok": False}
    assert server.process.wait(timeout=600) == 1
    failure = json.loads((tmp_path / "import.json").read_text())["exception"]
    assert failure["type"] == "builtins.ModuleNotFoundError"
    assert failure["message"] == "No module named 'no_such_package_at_all'"


def test_an_adapter_that_cannot_be_read_is_a_result(serve: Any, tmp_path: Path) -> None:
    assert serve("def import_package(:").event() == {"event": "imported", "ok": False}
    failure = json.loads((tmp_path / "import.json").read_text())["exception"]
    assert failure["type"] == "builtins.SyntaxError"


def test_an_adapter_imports_from_a_file_beside_it_and_shadows_no_package(
    serve: Any, tmp_path: Path
) -> None:
    (tmp_path / "json.py").write_text("answer = 'from beside'\n")
    adapter = GOOD + (
        "from .json import answer\nimport json\n"
        "def load(job): return None, {'answer': answer, 'package': json.loads('1')}\n"
    )
    server = serve(adapter)
    server.event()
    results = server.send(["load"])
    assert server.until_ended()[-1]["status"] == 0
    assert result(results, "load")["facts"] == {"answer": "from beside", "package": 1}


def test_a_stage_that_raises_stops_the_job_with_bounded_text(serve: Any) -> None:
    adapter = GOOD + "def load(job): raise ValueError('\\udcff' + 'x' * 10**6)\n"
    server = serve(adapter)
    server.event()
    results = server.send(["load", "generate"])
    assert server.until_ended()[-1] == {"event": "ended", "status": 1}
    load = result(results, "load")
    assert not load["ok"]
    assert load["exception"]["type"] == "builtins.ValueError"
    assert load["exception"]["message"] == "?" + "x" * 3999
    assert len(load["exception"]["traceback"]) <= 8000
    assert not (results / "generate.json").exists()


def test_an_exception_that_cannot_be_shown_and_one_outside_exception(serve: Any) -> None:
    adapter = GOOD + (
        "class Panic(BaseException):\n    def __str__(self): raise OSError\n"
        "def load(job): raise Panic\n"
    )
    server = serve(adapter)
    server.event()
    results = server.send(["load"])
    assert server.until_ended()[-1]["status"] == 1
    failure = result(results, "load")["exception"]
    assert failure["type"] == "probe_adapters.adapter.Panic"
    assert "cannot be shown" in failure["message"]


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ("os.kill(os.getpid(), 11)", -signal.SIGSEGV),
        ("os._exit(0)", 0),
        ("raise SystemExit(0)", 0),
        ("raise SystemExit('no GPU')", 1),
        ("raise SystemExit(3)", 3),
    ],
)
def test_a_child_that_ends_without_a_result(serve: Any, ending: str, status: int) -> None:
    server = serve(GOOD + f"import os\ndef load(job): {ending}\n")
    server.event()
    results = server.send(["load", "generate"])
    assert server.until_ended()[-1] == {"event": "ended", "status": status}
    assert list(results.iterdir()) == []
    server.send([])
    assert server.until_ended()[-1] == {"event": "ended", "status": 0}, "the server goes on"


def test_a_fact_that_is_no_json_number_is_an_exception(serve: Any) -> None:
    server = serve(GOOD + "def load(job): return None, {'kernel': float('nan')}\n")
    server.event()
    results = server.send(["load"])
    assert server.until_ended()[-1]["status"] == 1
    assert "JSON" in result(results, "load")["exception"]["message"]


def test_warnings_and_log_records_are_kept_once_each(serve: Any) -> None:
    adapter = GOOD + (
        "import logging, warnings\n"
        "def load(job):\n"
        "    deaf = logging.getLogger('deaf'); deaf.propagate = False\n"
        "    for number in range(3): deaf.warning('careful with %s', 'it'); deaf.info('no')\n"
        "    deaf.warning('%d and %d', 1)\n"
        "    warnings.warn('odd')\n"
        "    for number in range(100): deaf.error('number %d', number)\n"
        "    return None, {}\n"
    )
    server = serve(adapter)
    server.event()
    results = server.send(["load"])
    server.until_ended()
    kept = result(results, "load")["warnings"]
    assert kept[:3] == ["deaf: careful with it", "UserWarning: odd", "deaf: number 0"]
    assert len(kept) == 50


def test_printing_anywhere_lands_in_the_log(serve: Any) -> None:
    adapter = GOOD + (
        "import os, sys\n"
        "def load(job):\n"
        "    print('{\"event\": \"ended\"}'); os.write(1, b'raw'); os.system('echo from a shell')\n"
        "    assert sys.stdin.read() == ''\n"
        "    return None, {}\n"
    )
    server = serve(adapter)
    server.event()
    server.send(["load"])
    assert [event["event"] for event in server.until_ended()] == ["stage", "ended"]
    server.close()
    log = server.log.read_text()
    assert all(text in log for text in ('{"event": "ended"}', "raw", "from a shell"))


DAEMON = (
    GOOD
    + """
import os, subprocess, sys, time
def load(job):
    code = "import os, time; os.fork() and os._exit(0); os.setsid(); time.sleep(3600)"
    subprocess.run([sys.executable, "-c", code.replace("time.sleep", MARK + "; time.sleep")])
    while not os.path.exists(job["checkpoint"]): time.sleep(0.01)
    return None, {}
def generate(handle, job): time.sleep(3600)
MARK = "open(%r, 'w').write(str(os.getpid()))"
"""
)


def daemon_adapter(mark: Path) -> str:
    return DAEMON + f"MARK = MARK % {str(mark)!r}\n"


def test_a_daemon_left_behind_is_killed(serve: Any, tmp_path: Path) -> None:
    mark = tmp_path / "daemon.pid"
    server = serve(daemon_adapter(mark))
    server.event()
    server.send(["load"], checkpoint=str(mark))
    assert server.until_ended()[-1]["status"] == 0
    assert not alive(int(mark.read_text()))


@pytest.mark.parametrize("gone", ["reader", "term"])
def test_nothing_is_left_when_the_harness_is_gone(serve: Any, tmp_path: Path, gone: str) -> None:
    mark = tmp_path / "daemon.pid"
    server = serve(daemon_adapter(mark))
    server.event()
    server.send(["load", "generate"], checkpoint=str(mark))
    events = [server.event(), server.event()]
    assert events[-1]["stage"] == "generate"
    if gone == "reader":
        server.process.stdout.close()
    else:
        server.process.terminate()
    server.process.wait(timeout=600)
    assert wait_until_dead(int(mark.read_text()))
    assert wait_until_dead(events[-1]["pid"])


def test_a_job_dies_with_a_killed_server(serve: Any) -> None:
    server = serve(GOOD + "import time\ndef load(job): time.sleep(3600)\n")
    server.event()
    server.send(["load"])
    pid = server.event()["pid"]
    os.kill(server.process.pid, signal.SIGKILL)
    assert wait_until_dead(pid)


def test_departures_hold_during_each_stage_only(serve: Any) -> None:
    adapter = GOOD + (
        "import contextlib\nseen = []\n"
        "@contextlib.contextmanager\n"
        "def shim():\n    seen.append('on')\n    yield\n    seen.append('off')\n"
        "DEPARTURES = {'shim': shim}\n"
        "def load(job): return None, {'seen': list(seen)}\n"
        "def generate(handle, job): return {'seen': list(seen)}\n"
    )
    server = serve(adapter, "shim")
    server.event()
    results = server.send(["load", "generate"], departures=["shim"])
    server.until_ended()
    assert result(results, "load")["facts"]["seen"] == ["on"]
    assert result(results, "generate")["facts"]["seen"] == ["on", "off", "on"]


def test_a_departure_nobody_implements_is_not_passed_over(serve: Any) -> None:
    server = serve(GOOD)
    server.event()
    results = server.send(["load"], departures=["unheard-of"])
    server.until_ended()
    failure = result(results, "load")["exception"]
    assert failure["type"] == "builtins.LookupError"
    assert "unheard-of" in failure["message"]


def test_what_was_written_is_listed(serve: Any, tmp_path: Path) -> None:
    adapter = (
        "import pathlib\ndef import_package(options): pass\n"
        "def quantize(job):\n"
        "    folder = pathlib.Path(job['output']); (folder / 'sub').mkdir(parents=True)\n"
        "    (folder / 'sub' / 'a.bin').write_bytes(b'four')\n"
        "    (folder / 'link').symlink_to('/etc/passwd')\n"
        "    return {}\n"
    )
    server = serve(adapter)
    server.event()
    results = server.send(["quantize"], output=str(tmp_path / "out"))
    server.until_ended()
    assert result(results, "quantize")["facts"] == {"files": {"sub/a.bin": 4}}


PROBE_FILES = sorted(CHILD.parent.rglob("*.py"))


@pytest.mark.parametrize("file", PROBE_FILES, ids=[file.name for file in PROBE_FILES])
def test_the_probe_is_python_3_10_and_imports_nothing_of_the_harness(file: Path) -> None:
    tree = ast.parse(file.read_text(), feature_version=(3, 10))
    imported = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {name.name for node in imported for name in node.names}
    come_from = [node for node in imported if isinstance(node, ast.ImportFrom)]
    assert all(node.level <= 1 for node in come_from), "from beside it, and from nowhere above"
    names |= {node.module for node in come_from if node.module}
    roots = {name.partition(".")[0] for name in names}
    assert not roots & {"matrix", "msgspec", "pandas", "pytest"}
