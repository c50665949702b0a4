"""Releases without a wheel for here are built shut in; who installs runs no package's code."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from matrix.environments import virtualenvs, wheels
from matrix.environments.locks import Lock, make_lock
from matrix.environments.wheels import Source, WheelError, take_wheel
from matrix.machine.sandbox import OPEN, Isolation, Sandbox, find_sandbox
from matrix.pipeline.ends import End
from matrix.pipeline.outcomes import Conclusion, Outcome, Reason
from matrix.spec.tables import Environment, Limits
from tests.processes import index_server

LIMITS = Limits(seconds=600, silence=600, memory_mb=2000, log_mb=4)
SANDBOXES = [pytest.param(find_sandbox(), id="sandbox"), pytest.param(OPEN, id="open")]
SHUT = find_sandbox()
ARCHIVE = "made_up-1.0.tar.gz"
LOCK = Lock("made-up==1.0\n")
BACKEND = """
import os
import zipfile

def build_wheel(folder, *_):
    with zipfile.ZipFile(f"{folder}/made_up-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("made_up.py", "VARIABLE = " + repr(os.environ.get("MADE_UP_VARIABLE")))
        place = "made_up-1.0.dist-info"
        wheel.writestr(f"{place}/METADATA", "Metadata-Version: 2.1\\nName: made-up\\nVersion: 1.0")
        wheel.writestr(f"{place}/WHEEL", "Wheel-Version: 1.0\\nTag: py3-none-any")
        wheel.writestr(f"{place}/RECORD", "")
    return "made_up-1.0-py3-none-any.whl"
"""


def source_archive(backend: str = BACKEND) -> bytes:
    """Return a source archive that builds its wheel by itself."""
    packed = io.BytesIO()
    system = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, text in (("pyproject.toml", system), ("backend.py", backend)):
            member = tarfile.TarInfo(f"made_up-1.0/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return packed.getvalue()


def wanted(**fields: object) -> Environment:
    plain = Environment(
        name="small", python=f"3.{sys.version_info.minor}", requirements=["made-up==1.0"],
        constraints=[], overrides=[], build_requirements={}, environ={}, departures=[],
    )  # fmt: skip
    return msgspec.structs.replace(plain, **fields)


class Index:
    """An index with one release that has a source archive only; a store beside it."""

    def __init__(self, server: index_server.Server, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.host = {
            **os.environ, "UV_DEFAULT_INDEX": server.address, "NO_PROXY": "127.0.0.1",
            "UV_CACHE_DIR": str(folder / "cache"),
        }  # fmt: skip

    def serve(self, backend: str = BACKEND) -> None:
        """Have the release's archive built by this backend."""
        archive = source_archive(backend)
        hashes = {"sha256": hashlib.sha256(archive).hexdigest()}
        listed = index_server.file(ARCHIVE, hashes=hashes)
        self.server.serve("made-up", index_server.page("made-up", listed))
        self.server.answers[f"/files/{ARCHIVE}"] = lambda on: on.send(archive, "application/gzip")

    def work(self, name: str) -> Path:
        """Return a fresh folder."""
        work = self.folder / f"work-{name}"
        work.mkdir()
        return work

    def install(
        self, environment: Environment, sandbox: Sandbox, name: str = "environment"
    ) -> tuple[Conclusion, End, str]:
        """Install an environment in a folder of that name."""
        return virtualenvs.build(
            environment, LOCK, self.folder / name, self.work(name), self.folder / "wheels",
            self.host, LIMITS, sandbox,
        )  # fmt: skip

    def lock(
        self, environment: Environment, sandbox: Sandbox
    ) -> tuple[Lock | None, Conclusion, End]:
        """Have uv lock an environment."""
        return make_lock(environment, self.work("lock"), self.host, LIMITS, sandbox)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with index_server.running() as server:
        made = Index(server, tmp_path)
        made.serve()
        yield made


@pytest.mark.parametrize("sandbox", SANDBOXES)
def test_a_package_that_cannot_be_built_is_a_result(index: Index, sandbox: Sandbox) -> None:
    index.serve("raise SystemExit('made to fail')")
    conclusion, end, log = index.install(wanted(), sandbox)
    assert (conclusion.outcome, conclusion.reason) == (Outcome.FAILED, Reason.BUILD_FAILED)
    assert "made to fail" in log
    assert end.seconds > 0
    assert list(index.folder.glob("wheels/*/*")) == []


@pytest.mark.parametrize("sandbox", SANDBOXES)
def test_a_source_archive_is_built_once_whatever_the_index_says_of_caching(
    index: Index, sandbox: Sandbox
) -> None:
    for place in ("one", "other"):
        conclusion, _, log = index.install(wanted(), sandbox, place)
        assert conclusion.outcome is Outcome.PASSED, log
        assert virtualenvs.installed(index.folder / place) == {"made-up": "1.0"}
    assert index.server.paths().count(f"/files/{ARCHIVE}") == 1


@pytest.mark.parametrize("sandbox", SANDBOXES)
@pytest.mark.parametrize(
    ("variables", "got"),
    [
        ({}, "VARIABLE = None"),
        ({"made-up": {"MADE_UP_VARIABLE": "8.0 9.0"}}, "VARIABLE = '8.0 9.0'"),
        ({"another": {"MADE_UP_VARIABLE": "8.0 9.0"}}, "VARIABLE = None"),
    ],
)
def test_a_build_gets_its_own_variables(
    index: Index, sandbox: Sandbox, variables: dict[str, dict[str, str]], got: str
) -> None:
    conclusion, _, log = index.install(wanted(build_environ=variables), sandbox)
    assert conclusion.outcome is Outcome.PASSED, log
    (module,) = index.folder.glob("environment/lib/python*/site-packages/made_up.py")
    assert module.read_text() == got


@pytest.mark.parametrize(("sandbox", "names"), [(SHUT, 2), (OPEN, 1)])
def test_what_is_installed_is_a_link_to_the_cache_only_where_nothing_can_write_to_it(
    index: Index, sandbox: Sandbox, names: int
) -> None:
    index.host.pop("UV_LINK_MODE", None)
    assert index.install(wanted(), sandbox)[0].outcome is Outcome.PASSED
    (module,) = index.folder.glob("environment/lib/python*/site-packages/made_up.py")
    assert module.stat().st_nlink == names


def test_what_is_built_against_torch_gets_the_torch_of_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(virtualenvs, "run", lambda *_: (End(), ""))
    needs = {"maker": ["torch", "setuptools", "numpy==1.26.4"]}
    lock = Lock("maker==1.0\nnumpy==2.2.6\ntorch==2.1.2\n")
    environment = wanted(requirements=["maker==1.0"], build_requirements=needs)
    (tmp_path / "work").mkdir()
    virtualenvs.build(
        environment, lock, tmp_path / "environment", tmp_path / "work", tmp_path / "wheels",
        {}, LIMITS, OPEN,
    )  # fmt: skip
    settings = (tmp_path / "work" / "uv.toml").read_text()
    assert '"maker" = ["torch==2.1.2", "setuptools", "numpy==1.26.4"]' in settings


# -------------------------------------------------------------------------- what a build can reach

WRITING = """
import os
for place in PLACES:
    try:
        os.makedirs(place, exist_ok=True)
        with open(place + "/left-by-a-build", "w") as file:
            file.write("left")
    except OSError:
        continue
"""


def writing_to(*places: Path) -> str:
    """Return a backend that first leaves a file in each of some folders."""
    return WRITING.replace("PLACES", repr([str(place) for place in places])) + BACKEND


def left(*places: Path) -> list[Path]:
    return [file for place in places for file in place.rglob("left-by-a-build")]


def test_a_build_writes_to_no_folder_but_its_own(index: Index) -> None:
    assert SHUT.isolation is Isolation.BUBBLEWRAP
    home = index.folder / "real-home"
    places = [home, *(index.folder / name for name in ("cache", "wheels", "environment"))]
    places += [index.folder / "cache" / bucket for bucket in ("archive-v0", "simple-v28")]
    home.mkdir()
    index.serve(writing_to(*places))
    conclusion, _, log = index.install(wanted(), SHUT)
    assert conclusion.outcome is Outcome.PASSED, log
    assert left(*places) == []


def test_a_build_during_resolution_writes_to_no_folder_but_its_own(index: Index) -> None:
    places = [index.folder / "cache", index.folder / "wheels"]
    index.serve(writing_to(*places))
    lock, conclusion, _ = index.lock(wanted(), SHUT)
    assert conclusion.outcome is Outcome.PASSED
    assert lock is not None
    assert lock.pins == {"made-up": "1.0"}
    assert left(*places) == []


def test_with_a_cut_off_not_even_an_archive_that_builds_itself_is_built(index: Index) -> None:
    index.serve(writing_to(index.folder))
    environment = wanted(resolution="today", cutoff="2026-01-01T00:00:00Z")
    listed = index_server.file(ARCHIVE, upload_time="2025-01-01T00:00:00Z")
    index.server.serve("made-up", index_server.page("made-up", listed))
    lock, conclusion, _ = index.lock(environment, SHUT)
    assert (conclusion.outcome, conclusion.reason) == (Outcome.FAILED, Reason.UNRESOLVABLE)
    assert lock is not None
    assert "made-up==1.0 has no wheel that says what it requires" in lock.refusal
    assert left(index.folder) == []


def test_a_full_disk_is_no_verdict_about_a_build(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("matrix.environments.wheels.shutil.copyfileobj", refuse)
    conclusion, _, _ = index.install(wanted(), SHUT)
    assert (conclusion.outcome, conclusion.reason) == (Outcome.INFRA, Reason.NO_SPACE)
    assert list(index.folder.glob("wheels/*/*")) == []


# ---------------------------------------------------------------------- what is taken over of it


@pytest.fixture
def built(tmp_path: Path) -> Path:
    folder = tmp_path / "cache" / "sdists-v9" / "pypi" / "made-up" / "1.0"
    folder.mkdir(parents=True)
    return folder


def taken(built: Path) -> list[str]:
    """Take the wheel of made-up 1.0 over; return the names of what is there afterwards."""
    folder = built.parents[4] / "wheels" / "key"
    folder.parent.mkdir()
    take_wheel(built.parents[3], Source("made-up", "1.0", "digest"), folder)
    return [file.name for file in folder.iterdir()]


@pytest.mark.parametrize("version", ["1.0", "1.0.0", "1.0+cpu"])
def test_the_wheel_of_a_release_is_taken(built: Path, version: str) -> None:
    name = f"made_up-{version}-py3-none-any.whl"
    (built / "another-1.0-py3-none-any.whl").write_text("of what it needed")
    (built / "made_up-2.0-py3-none-any.whl").write_text("another version")
    (built / "made_up.whl").write_text("no name of a wheel")
    (built / "src").mkdir()
    (built / "src" / "made_up-1.0-py2-none-any.whl").write_text("from the archive")
    (built / name).write_text("wheel")
    assert taken(built) == [name]


@pytest.mark.parametrize(
    "kind", ["link", "folder of links", "link for a cache", "pipe", "folder", "nothing", "large"]
)
def test_what_is_no_plain_file_of_a_bearable_size_is_not_taken(
    built: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = built.parents[4] / "secret"
    secret.mkdir()
    place, behind = (folder / "made_up-1.0-py3-none-any.whl" for folder in (built, secret))
    behind.write_text("secret")
    match kind:
        case "link":
            place.symlink_to(behind)
        case "folder of links":
            (built / "links").symlink_to(secret)
        case "link for a cache":
            shutil.rmtree(built.parents[2])
            built.parents[2].symlink_to(secret)
        case "pipe":
            os.mkfifo(place)
        case "folder":
            place.mkdir()
        case "large":
            place.write_text("wheel")
            monkeypatch.setattr(wheels, "MAX_WHEEL_BYTES", 4)
    with pytest.raises(WheelError):
        taken(built)
    assert list((built.parents[4] / "wheels").iterdir()) == []
