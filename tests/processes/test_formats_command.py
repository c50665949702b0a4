"""``python -m matrix formats``: what wheels list, read in parts from an index on the loopback."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from matrix.cli.formats import formats
from matrix.index import engine_methods
from matrix.index.engine_methods import Source
from matrix.spec.methods import METHODS, read_methods
from tests.processes import index_server as served
from tests.processes.index_server import Server, file, page
from tests.unit import small_spec

FILE = "engine/lists.py"
SOURCE = Source(since="0.2", file=FILE, read=("METHODS",), announced="GOING")
LISTS = {
    "0.1": 'METHODS = ["too old"]',
    "0.2": 'METHODS = {"awq": AWQ, "gguf": GGUF}',
    "0.3": 'METHODS = ["awq", "gguf"]\nGOING = ["gguf"]',
    "0.4": 'METHODS = ["awq"]',
    "0.5rc1": 'METHODS = ["a pre-release"]',
}


def packed(text: str, name: str = FILE) -> bytes:
    """Return a wheel with one file before the one that is asked for, and one after it."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        archive.writestr("engine/before.bin", bytes(300_000))
        archive.writestr(name, text)
        archive.writestr("engine/after.bin", bytes(300_000))
    return body.getvalue()


class Project:
    """A spec whose list of methods is its own, and the command."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.spec = small_spec.write(folder)
        self.methods = folder / METHODS
        self.methods.write_text('{"schema": 1, "taken": "", "packages": {}}')
        self._store, self._server = folder / "store", server
        self._app = typer.Typer()
        self._app.command()(formats)

    def serve(self, **bodies: bytes) -> None:
        """Answer for the engine with wheels by their versions."""
        names = {version: f"engine-{version}-py3-none-any.whl" for version in bodies}
        self._server.serve("engine", page("engine", *map(file, names.values())))
        for version, body in bodies.items():
            self._server.answers[f"/files/{names[version]}"] = served.in_parts(body)

    def run(self, *options: str, **environ: str) -> Result:
        given = [*options, "--spec", str(self.spec), "--store", str(self._store)]
        clean = {"UV_DEFAULT_INDEX": self._server.address, "UV_INDEX": "", "NO_PROXY": "*"}
        clean |= {"UV_EXTRA_INDEX_URL": "", "UV_OFFLINE": "", "UV_INDEX_URL": ""}
        clean |= {"MATRIX_REPORTS": str(self._store / "reports")}
        return CliRunner().invoke(self._app, given, env=clean | environ)

    def lifetimes(self, *options: str) -> Any:
        done = self.run("--format", "json", *options)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)["lifetimes"]


@pytest.fixture
def project(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setattr(engine_methods, "SOURCES", {"engine": SOURCE})
    made = Project(tmp_path, server)
    made.serve(**{version: packed(text) for version, text in LISTS.items()})
    return made


def asked(server: Server) -> list[tuple[str, str]]:
    return [(path, part) for path, part in server.asked if path.endswith(".whl")]


def test_wheels_are_read_in_parts_and_only_once(project: Project, server: Server) -> None:
    assert project.run().stdout.startswith("By the lists in their wheels, read until (never)")
    assert asked(server) == []
    done = project.run("--take")
    assert (done.exit_code, done.stderr) == (0, "")
    assert all(part.startswith("bytes=") for _, part in asked(server))
    assert {path for path, _ in asked(server)} == {
        f"/files/engine-{version}-py3-none-any.whl" for version in ("0.2", "0.3", "0.4")
    }
    first = project.methods.read_bytes()
    listing = read_methods(project.methods).packages["engine"]
    assert (listing.file, listing.releases) == (FILE, ["0.2", "0.3", "0.4"])
    server.asked.clear()
    assert project.run("--take").exit_code == 0
    assert asked(server) == []
    assert project.methods.read_bytes() == first


def test_what_wheels_list_is_shown_with_what_became_of_it(project: Project) -> None:
    lines = project.run("--take").stdout.splitlines()
    assert [line.split()[:7] for line in lines[2:]] == [
        ["awq", "engine", "0.2", "0.4", "3", "of", "3"],
        ["gguf", "engine", "0.2", "0.3", "2", "of", "3"],
    ]
    assert lines[3].endswith("gone since 0.4, announced in 0.3")
    (life,) = project.lifetimes("gguf")
    assert (life["readers"], life["gone"]) == (2, "0.4")
    done = project.run("nothing")
    assert done.exit_code == 2
    assert "'nothing' is no format in the lists of engine. `matrix" in done.stderr
    assert "Did you mean gguf? `matrix" in project.run("ggufs").stderr


def test_a_new_release_is_added_to_those_before(project: Project, server: Server) -> None:
    project.run("--take")
    bodies = {version: packed(text) for version, text in LISTS.items()}
    project.serve(**bodies, **{"0.6": packed('METHODS = ["awq", "gguf"]')})
    server.asked.clear()
    (life,) = project.lifetimes("gguf", "--take")
    assert {path for path, _ in asked(server)} == {"/files/engine-0.6-py3-none-any.whl"}
    assert (life["since"], life["until"], life["gaps"]) == ("0.2", "0.6", ["0.4"])


BAD = {
    "no zip": (b"x" * 5000, "no zip file"),
    "no such file": (packed("", "engine/other.py"), "has a wheel with no file engine/lists.py"),
    "no Python": (packed("METHODS = ["), "no Python"),
    "not spelled out": (packed("METHODS = OTHERS"), "METHODS that is not spelled out"),
    "too large": (packed("#" * 1_100_000), "more than"),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_wheel_that_cannot_be_read_is_told_and_asked_for_again(
    project: Project, server: Server, bad: str
) -> None:
    body, why = BAD[bad]
    project.serve(**{"0.2": packed(LISTS["0.2"]), "0.3": body})
    for _ in range(2):
        server.asked.clear()
        done = project.run("--take")
        assert done.exit_code == 1
        assert "warning: engine 0.3 has " in done.stderr
        assert why in done.stderr
        assert read_methods(project.methods).packages["engine"].releases == ["0.2"]
        assert "/files/engine-0.3-py3-none-any.whl" in server.paths()


@pytest.mark.parametrize(
    ("environ", "why"),
    [({"UV_OFFLINE": "1"}, "is not asked (offline)"), ({"UV_DEFAULT_INDEX": "x://y"}, "begins")],
)
def test_without_an_index_what_is_there_is_shown_and_kept(
    project: Project, environ: dict[str, str], why: str
) -> None:
    project.run("--take")
    before = project.methods.read_bytes()
    done = project.run("--take", **environ)
    assert (done.exit_code, project.methods.read_bytes()) == (1, before)
    assert why in done.stderr
    assert "awq" in done.stdout
