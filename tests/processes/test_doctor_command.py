"""``matrix doctor`` on this machine, against a made-up index."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from matrix.cli.doctor import doctor
from matrix.machine.sandbox import Isolation, Sandbox
from matrix.run import context
from tests.processes import index_server as served
from tests.unit import small_spec

COSTS_NOTHING = "[departures.shim]", small_spec.FREE + "[departures.shim]"


def diagnose(folder: Path, address: str, **environ: str) -> tuple[int, dict[str, Any]]:
    """Return the status, and each aspect by its name."""
    app = typer.Typer()
    app.command()(doctor)
    spec = small_spec.write(folder, COSTS_NOTHING)
    given = ["--spec", str(spec), "--profile", "all", "--store", str(folder / "store")]
    clean = {"UV_DEFAULT_INDEX": address, "UV_OFFLINE": "", "NO_PROXY": "*"}
    done = CliRunner().invoke(app, [*given, "--format", "json"], env=clean | environ)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, {a["name"]: a for a in json.loads(done.stdout)["aspects"]}


def test_a_machine_is_told_of_with_one_request_to_the_index(tmp_path: Path) -> None:
    with served.running() as server:
        server.serve("pip", served.page("pip"))
        status, aspects = diagnose(tmp_path, server.address)
    assert status == 0
    assert [aspects[name]["state"] for name in ("uv", "index", "clock")] == ["ok"] * 3
    assert aspects["uv"]["here"].startswith("uv ")
    assert aspects["clock"]["here"] == "as the index's"
    assert server.paths() == ["/simple/pip/"]
    assert not (tmp_path / "store").exists(), "it looks, and makes nothing"


def test_an_index_of_ones_own_projects_is_one_too(tmp_path: Path) -> None:
    with served.running() as server:
        assert diagnose(tmp_path, server.address)[1]["index"]["state"] == "ok"


def test_an_index_that_is_down_is_a_lack_and_its_password_is_not_shown(tmp_path: Path) -> None:
    with served.running() as server:
        address = server.address.replace("//", "//user:secret@")
    status, aspects = diagnose(tmp_path, address)
    assert status == 0
    assert aspects["index"]["state"] == "lack"
    assert "cannot be reached" in aspects["index"]["here"]
    assert "secret" not in json.dumps(aspects)


def test_an_index_that_sends_without_end_is_given_up(tmp_path: Path) -> None:
    with served.running() as server:
        server.serve("pip", b" " * 17_000_000)
        assert "sends more than 16 MB" in diagnose(tmp_path, server.address)[1]["index"]["here"]


def test_an_index_is_not_asked_where_the_settings_say_so(tmp_path: Path) -> None:
    with served.running() as server:
        _, aspects = diagnose(tmp_path, server.address, UV_OFFLINE="1")
        assert server.paths() == []
    assert aspects["index"]["state"] == "lack"


def test_a_disk_that_is_too_small_stops_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=-1, total=0))
    status, aspects = diagnose(tmp_path, "http://127.0.0.1:1/simple")
    assert status == 1
    assert aspects["disk of the store"]["state"] == "stop"


def test_a_sandbox_that_is_required_and_not_there_stops_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lack = Sandbox(Isolation.NONE, lack="bubblewrap is not installed")
    monkeypatch.setattr(context, "find_sandbox", lambda: lack)
    address = "http://127.0.0.1:1/simple"
    for use, status, state in (("required", 1, "stop"), ("auto", 0, "lack"), ("off", 0, "lack")):
        ended, aspects = diagnose(tmp_path, address, MATRIX_SANDBOX=use)
        assert (ended, aspects["sandbox"]["state"]) == (status, state), use
