"""Virtualenvs: made by uv, installed by a lock, and read as files, nothing run.

An environment is installed from its top requirements with the lock as constraints, so that a CPU
build of the same torch (``2.13.0+cpu`` for ``2.13.0``) may stand in.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec
from packaging.utils import canonicalize_name
from uv import find_uv_bin

from matrix.environments.files import MARKER, files_of
from matrix.environments.locks import Lock
from matrix.environments.uv import link_mode, uv_environ, write_index, write_inputs
from matrix.environments.wheels import Builder, both
from matrix.machine.processes import run
from matrix.machine.sandbox import Isolation, Sandbox
from matrix.pipeline.ends import End, classify_uv_end
from matrix.pipeline.outcomes import Conclusion, Outcome, Reason
from matrix.spec.source_builds import locked_builds
from matrix.spec.tables import Environment, Limits
from matrix.store.store import write_atomically
from matrix.untrusted.reading import UnreadableError, decode, read_file
from matrix.untrusted.removing import remove

MAX_MARKER_BYTES = 10_000


def build(
    environment: Environment,
    lock: Lock,
    folder: Path,
    work: Path,
    wheels: Path,
    host: Mapping[str, str],
    limits: Limits,
    sandbox: Sandbox,
) -> tuple[Conclusion, End, str]:
    """Make the virtualenv and install into it; return how that went, with uv's words.

    A half-made one is removed first: only :func:`commit` makes it count. ``wheels`` is the store's
    folder of those that are built here, before the rest is installed, where there is a sandbox.
    Without one uv builds them as it installs: nothing would keep a build from the shared cache.
    """
    discard(folder)
    remove(folder)
    environ = uv_environ(host, work, installing=True)
    environ["UV_LINK_MODE"] = link_mode(environ, sandbox)
    tool = find_uv_bin()
    venv = [tool, "venv", "--quiet", "--no-project", "--python", environment.python, str(folder)]
    end, log = run(venv, environ, work, limits)
    if end.limit or end.status != 0:
        return classify_uv_end(end, log, Reason.BUILD_FAILED), end, log
    builds = locked_builds(environment, lock.pins)
    environment = msgspec.structs.replace(environment, build_requirements=builds)
    files = write_inputs(environment, work)
    environ = write_index(environ, work, host)
    (work / "lock.txt").write_text(lock.text)
    argv = [
        tool, "pip", "install", "--python", str(python_of(folder)),
        "--requirements", "requirements.in", *files, "--constraint", "lock.txt",
    ]  # fmt: skip
    before = End()
    if sandbox.isolation is not Isolation.NONE:
        builder = Builder(environment, python_of(folder), work, wheels, host, limits, sandbox)
        built, conclusion, before, log = builder.build_all(lock.pins)
        if conclusion.outcome is not Outcome.PASSED:
            return conclusion, before, log
        links = [environ["UV_FIND_LINKS"]] if "UV_FIND_LINKS" in environ else []
        environ["UV_FIND_LINKS"] = ",".join([*links, *map(str, built)])
        argv.append("--no-build")
    end, log = run(argv, environ, work, limits)
    return classify_uv_end(end, log, Reason.BUILD_FAILED), both(before, end), log


def python_of(folder: Path) -> Path:
    """Return the interpreter of a virtualenv."""
    return folder / "bin" / "python"


def installed(folder: Path) -> dict[str, str]:
    """Return distribution name -> version of a virtualenv, read from its files, nothing run."""
    places = [str(place) for place in folder.glob("lib/python*/site-packages")]
    versions: dict[str, str] = {}
    for distribution in importlib.metadata.distributions(path=places):
        with suppress(UnicodeDecodeError):  # what is no text is nothing installed
            if name := distribution.metadata["Name"]:  # what a half-removed one leaves has none
                versions[canonicalize_name(name)] = str(distribution.metadata["Version"] or "")
    return dict(sorted(versions.items()))


def python_version(folder: Path) -> str:
    """Return the full version of a virtualenv's interpreter, from ``pyvenv.cfg``."""
    for line in (folder / "pyvenv.cfg").read_text(errors="replace").splitlines():
        name, _, value = line.partition("=")
        if name.strip() in ("version", "version_info"):
            return value.strip()
    return ""


def commit(folder: Path, key: str) -> None:
    """Mark a virtualenv as whole, with what its files are now."""
    marker = {"install": key, **files_of(folder)}
    write_atomically(folder / MARKER, msgspec.json.encode(marker))


def discard(folder: Path) -> None:
    """Have a virtualenv count as not built."""
    (folder / MARKER).unlink(missing_ok=True)


def is_built(folder: Path, key: str) -> bool:
    """Whether a virtualenv is whole and stands for a key."""
    return _marker(folder).get("install") == key


def is_unchanged(folder: Path) -> bool:
    """Whether the files of a virtualenv are still those with which it was marked as whole."""
    marker = _marker(folder)
    return "files" in marker and files_of(folder, by=marker.get("by")).items() <= marker.items()


def _marker(folder: Path) -> dict[str, str]:
    try:
        return decode(read_file(folder / MARKER, MAX_MARKER_BYTES), dict[str, str])
    except (OSError, UnreadableError):
        return {}
