"""uv where packages' code may run below it: in the sandbox, and never at the cache that all share.

To build a source archive, and to find out what it requires, runs a stranger's code. uv's cache is
what every environment is made of, so a build has a cache of its own, which goes away with it: the
pages and wheels of the shared one are in it, the wheels read-only. A name of uv's buckets that is
not there any more costs downloads and nothing else.

``uv pip install`` without builds runs no package's code, and stays outside: a hard link cannot be
made from one mount to another.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

from uv import find_uv_bin

from matrix.environments.interpreters import interpreter_folders
from matrix.machine.processes import run
from matrix.machine.sandbox import Isolation, Sandbox, View
from matrix.spec.tables import Limits

_PAGES = ("simple-v*", "wheels-v*")
"""uv's buckets of what indexes say, and of which wheel lies where in the archive."""
_ARCHIVE = "archive-v0"
_BUILDS = "builds-v0"
_MAX_SHOWN = 1_000
"""Of the archive's newest wheels: the time to mount them grows with the square of their number."""
_FIND = Limits(seconds=60, silence=60, memory_mb=1_000, log_mb=1)


def view_without_builds(environ: Mapping[str, str], work: Path, python: Path) -> View:
    """Return what uv sees that may use the shared cache: no build can begin there.

    uv makes the environment of a build in a folder that is read-only here.
    """
    shared, nothing = Path(environ["UV_CACHE_DIR"]), work / "nothing"
    for folder in (shared / _BUILDS, nothing):
        folder.mkdir(parents=True, exist_ok=True)
    view = _view(environ, work, python)
    return view._replace(writable=(*view.writable, shared), shown=((nothing, shared / _BUILDS),))


def view_with_builds(
    environ: Mapping[str, str], work: Path, python: Path
) -> tuple[dict[str, str], View]:
    """Return the variables and the view of a uv that may build, with a cache of its own."""
    shared, own = Path(environ["UV_CACHE_DIR"]), work / "cache"
    for place in (place for pattern in _PAGES for place in shared.glob(pattern)):
        with suppress(shutil.Error):  # others write there: what is gone meanwhile is only fetched
            shutil.copytree(place, own / place.name, symlinks=True)
    (own / _ARCHIVE).mkdir(parents=True, exist_ok=True)
    wheels = sorted((shared / _ARCHIVE).glob("*"), key=_unpacked, reverse=True)[:_MAX_SHOWN]
    shown = [(place, own / _ARCHIVE / place.name) for place in wheels]
    for _, place in shown:
        place.mkdir()
    settings = {**environ, "UV_CACHE_DIR": str(own), "UV_LINK_MODE": "symlink"}
    return settings, _view(environ, work, python)._replace(shown=tuple(shown))


def _unpacked(wheel: Path) -> float:
    """Return when uv unpacked a wheel; 0 where it is gone."""
    try:
        return wheel.lstat().st_mtime
    except OSError:
        return 0


def _view(environ: Mapping[str, str], work: Path, python: Path) -> View:
    names = environ.get("UV_FIND_LINKS", "").split(",")
    names += [environ.get(name, "") for name in ("SSL_CERT_FILE", "SSL_CERT_DIR")]
    named = [place for name in names if name and (place := Path(name)).is_absolute()]
    return View(
        read_only=(
            Path(find_uv_bin()), *interpreter_folders(python), *filter(Path.exists, named)
        ),
        writable=(work,),
        network=True,
    )  # fmt: skip


def shut_in(
    environ: Mapping[str, str], work: Path, python: Path, sandbox: Sandbox, *, builds: bool
) -> tuple[dict[str, str], View]:
    """Return the variables and the view with which uv runs in a folder, with or without builds.

    Without a sandbox a build could write to the shared cache whatever it is told, and uses it.
    """
    if sandbox.isolation is Isolation.NONE:
        return dict(environ), View()
    if builds:
        return view_with_builds(environ, work, python)
    return dict(environ), view_without_builds(environ, work, python)


def find_python(version: str, environ: Mapping[str, str]) -> Path:
    """Return the interpreter that uv finds for a version, and our own where it finds none.

    Shut in it would find none: what it looks through is not there.
    """
    names = ("PATH", "UV_CACHE_DIR", "UV_PYTHON_INSTALL_DIR")
    return _find_python(version, tuple((name, environ.get(name, "")) for name in names))


@cache  # thousands of resolutions ask
def _find_python(version: str, environ: tuple[tuple[str, str], ...]) -> Path:
    argv = [find_uv_bin(), "python", "find", "--system", "--no-project", "--quiet", version]
    end, log = run([*argv, "--no-python-downloads"], dict(environ), Path("/"), _FIND)
    lines = log.strip().splitlines()
    python = Path(lines[-1] if lines else "")
    return (python if end.status == 0 and python.is_file() else Path(sys.executable)).resolve()
