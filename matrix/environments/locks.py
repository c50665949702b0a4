"""Locks, virtualenvs and what is installed in them. All of it is uv's work; see uv's docs.

A lock is a text file of pinned requirements with a header that holds what uv was asked. It is
made against the index alone (no local folders of wheels, no torch backend), so it is the same
everywhere. There is one for each resolution: pinned and as released beside the spec, as of today in
the store. An environment is installed from its top requirements with the lock as constraints, so
that a CPU build of the same torch (``2.13.0+cpu`` for ``2.13.0``) may stand in.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import assert_never

import msgspec
import uv
from packaging.utils import canonicalize_name

from matrix.environments.uv_settings import INDEX, uv_environ
from matrix.index.settings import index_settings
from matrix.judge.installing import build_variables, locked_builds
from matrix.machine.processes import run
from matrix.pipeline.outcomes import Conclusion, Outcome, Reason
from matrix.plan.keys import lock_inputs
from matrix.spec.requirements import named_releases
from matrix.spec.tables import Environment, Limits
from matrix.store.ends import End, classify_uv_end
from matrix.store.identity import digest
from matrix.store.store import write_atomically
from matrix.untrusted.reading import UnreadableError, decode, read_file

MAX_MARKER_BYTES = 10_000
_NAMED = "# Lock of "
_INPUTS = "# inputs: "
_REFUSAL = "# refused: "
_AS_OF = "# as of: "
_BACKENDS = (
    "flit-core", "hatchling", "maturin", "meson-python", "pdm-backend", "poetry-core",
    "scikit-build-core", "setuptools", "uv-build", "wheel",
)  # fmt: skip
"""What builds source archives. Where there is a cut-off, uv is told that none of it exists."""
_UNBUILT = re.compile(r"Failed to (?:download and )?build `([^`]{1,200})`")
_ABSENT = re.compile(r"Because ([a-z0-9.-]{1,200}) was not found in the package registry")
_UNFETCHED = re.compile(r"Failed to fetch|HTTP status client error")
_CUT_OFF = re.compile(r"`([a-z0-9.-]{1,200})` was filtered by `exclude-newer`(.{1,400}?)Consider")
"""uv's hint where a cut-off took a package's releases away; ``published at`` follows where it knows
when the one came out that it would have taken."""


class Lock(msgspec.Struct, frozen=True, dict=True):
    """What uv answered: pinned requirements, or a refusal."""

    text: str
    refusal: str = ""

    @cached_property  # thousands of keys ask
    def digest(self) -> str:
        """Return the name of this lock by its content, whatever day it was asked for.

        Where it is not pinned, also whichever of the environments that ask the same asked first.
        The inputs of such a lock name its resolution, and those of a pinned one do not: its digest
        stands in the keys of what was observed before there were others.
        """
        lines = self.text.splitlines(keepends=True)
        inputs = next((line for line in lines if line.startswith(_INPUTS)), "")
        left_out = (_AS_OF, _NAMED) if '"resolution":' in inputs else (_AS_OF,)
        return digest("".join(line for line in lines if not line.startswith(left_out)))

    @property
    def pins(self) -> dict[str, str]:
        """Return canonical distribution name -> version; empty for a refusal."""
        lines = (line.partition(" ;")[0] for line in self.text.splitlines())
        pairs = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
        return {canonicalize_name(name.partition("[")[0]): version for name, version in pairs}


def read_lock(file: Path, environment: Environment) -> Lock | None:
    """Return a lock file's content where it answers today's inputs, else ``None``.

    A refusal that only tells of the index, kept when that was not known yet, is no answer.
    """
    if not file.is_file():
        return None  # a pipe, say, which may have no writer
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    lines = text.splitlines()
    if not set(_header(environment).splitlines()[1:]).issubset(lines):
        return None
    said = [line[len(_REFUSAL) :] for line in lines if line.startswith(_REFUSAL)]
    refusal = "\n".join(said)
    return None if _trouble_of_index(environment, refusal) else Lock(text, refusal)


def _header(environment: Environment) -> str:
    inputs = msgspec.json.encode(lock_inputs(environment), order="sorted").decode()
    header = f"{_NAMED}{environment.name}, made by uv. Remake it: python -m matrix lock\n"
    header += f"{_INPUTS}{inputs}\n"
    return header + (f"{_AS_OF}{environment.cutoff}\n" if environment.resolution == "today" else "")


def find_lock(committed: Path, own: Path, environment: Environment) -> Lock | None:
    """Return the lock that answers today's inputs: one beside the spec, or one of the store's."""
    places = lock_places(committed, own, environment)
    return next(filter(None, (read_lock(place, environment) for place in places)), None)


def lock_places(committed: Path, own: Path, environment: Environment) -> list[Path]:
    """Return where an environment's lock may lie, the best place first."""
    beside = committed_name(environment)
    return [*([committed / beside] if beside else []), own / own_name(environment)]


def committed_name(environment: Environment) -> str:
    """Return where a lock lies among the committed ones; empty where it is not for committing."""
    match environment.resolution:
        case "pinned":
            return f"{environment.name}.txt"
        case "released":
            return f"released/{environment.name}.txt"
        case "today":
            return ""
        case _:
            assert_never(environment.resolution)


def own_name(environment: Environment) -> str:
    """Return the name of a lock in a store: by what was asked, which environments may share."""
    asked = lock_inputs(environment)
    if environment.resolution == "today":
        asked["as of"] = environment.cutoff
    return f"{digest(asked)}.txt"


def make_lock(
    environment: Environment, work: Path, host: Mapping[str, str], limits: Limits
) -> tuple[Lock | None, Conclusion, End]:
    """Ask uv for a resolution. A refusal is an answer and gives a lock too; trouble gives none."""
    environ = uv_environ(host, work, installing=False)
    files = _write_inputs(environment, work)
    if environment.resolution != "pinned":
        environ = _write_index(environ, work, host, 'api = "max-age=3600", ')
        _write_dates(environment, work / "uv.toml")
    argv = [
        uv.find_uv_bin(), "pip", "compile", "requirements.in", *files,
        "--python-version", environment.python, "--no-header", "--no-annotate",
        "--output-file", "resolved.txt", "--quiet",
    ]  # fmt: skip
    end, log = run(argv, environ, work, limits)
    conclusion = classify_uv_end(end, log, Reason.UNRESOLVABLE)
    header = _header(environment)
    match conclusion.outcome:
        case Outcome.PASSED:
            lock = Lock(header + (work / "resolved.txt").read_text())
            if lacking := [name for name in named_releases(environment) if name not in lock.pins]:
                message = f"uv ended well, and its answer lacks {', '.join(lacking)}"
                return None, Conclusion(Outcome.INFRA, Reason.NO_RESULT, message), end
            return lock, conclusion, end
        case Outcome.FAILED if not conclusion.message.strip():
            message = f"uv ended with status {end.status} and said nothing"
            return None, Conclusion(Outcome.INFRA, Reason.NO_RESULT, message), end
        case Outcome.FAILED:
            message = conclusion.message.replace(str(work), ".")
            if trouble := _trouble_of_index(environment, message):
                return None, Conclusion(Outcome.INFRA, Reason.NETWORK, trouble), end
            if environment.resolution != "pinned":
                message = _unbuilt(message)
            lines = [line.rstrip() for line in message.splitlines()]
            text = header + "".join(f"{_REFUSAL}{line}\n" for line in lines)
            return Lock(text, "\n".join(lines)), conclusion, end
        case _:
            return None, conclusion, end


def _trouble_of_index(environment: Environment, refusal: str) -> str:
    """Return what is wrong with the index where that is all that a refusal says.

    Of a pinned environment nothing is known that an index would have to have.
    """
    if environment.resolution == "pinned":
        return ""
    absent = _ABSENT.search(refusal)
    if absent and absent[1] in named_releases(environment):
        return (
            f"the index has no {absent[1]} at all, though the snapshot has it: is it another one, "
            "or are credentials lacking? Locks are made against one index, so that they are the "
            "same everywhere: UV_INDEX, UV_EXTRA_INDEX_URL and pip's extra-index-url are not "
            f"asked. Set UV_DEFAULT_INDEX to one that has all. {refusal}"
        )
    hints = _CUT_OFF.finditer(" ".join(refusal.split()))
    if undated := [hint[1] for hint in hints if "published at" not in hint[2]]:
        return (
            f"this index tells no dates of {', '.join(undated)}, so nobody knows what there was at "
            f"the cut-off. Set UV_DEFAULT_INDEX to one that does, as PyPI does. {refusal}"
        )
    return refusal if _UNFETCHED.search(refusal) else ""


def _unbuilt(refusal: str) -> str:
    """Return uv's refusal; where it wanted to build something, what that means."""
    found = _UNBUILT.search(refusal)
    if found is None:
        return refusal
    return (
        f"{found[1]} has no wheel that says what it requires, and source archives are not built "
        "to find out. Of a package that a range takes, python -m matrix releases --take reads "
        "what its archive says; else read its source and say it in [[metadata]]"
    )


def _write_inputs(environment: Environment, work: Path) -> list[str]:
    """Write what uv reads into a folder; return the options that name the files."""
    (work / "requirements.in").write_text("\n".join(environment.requirements) + "\n")
    options: list[str] = ["--config-file", "uv.toml"]
    settings = {
        package: [json.dumps(item) for item in items]  # JSON's strings are TOML's as well
        for package, items in environment.build_requirements.items()
    }
    lines = [f'"{package}" = [{", ".join(items)}]' for package, items in settings.items()]
    lines = ["[extra-build-dependencies]", *lines]
    lines += build_variables(environment.build_environ)
    for table in environment.metadata:
        lines += [
            "[[dependency-metadata]]",
            f"name = {json.dumps(table.package)}",
            f"version = {json.dumps(table.version)}",
            f"requires-dist = {json.dumps(table.requires_dist)}",
        ]
        if table.requires_python:
            lines.append(f"requires-python = {json.dumps(table.requires_python)}")
    (work / "uv.toml").write_text("\n".join(lines) + "\n")
    lists = {"constraint": environment.constraints, "override": environment.overrides}
    for kind, items in lists.items():
        if items:
            (work / f"{kind}.txt").write_text("\n".join(items) + "\n")
            options += [f"--{kind}", f"{kind}.txt"]
    return options


def _write_index(
    environ: dict[str, str], work: Path, host: Mapping[str, str], more: str = ""
) -> dict[str, str]:
    """Tell uv its index and how long answers hold; return the environment that uv then gets.

    Many indexes say nothing of that, and uv would fetch and build each source archive anew for
    each environment. ``more`` is for the index's pages, which thousands of resolutions ask for.
    """
    table = [
        "[[index]]",
        f"url = {json.dumps(index_settings(host).default)}",
        "default = true",
        f'cache-control = {{ {more}files = "max-age=31536000, immutable" }}',
    ]
    settings = work / "uv.toml"
    settings.write_text("\n".join([*table, settings.read_text()]))
    # A setting of the environment would take the place of the whole table.
    return {name: value for name, value in environ.items() if name not in INDEX}


def _write_dates(environment: Environment, settings: Path) -> None:
    """Tell uv the cut-off, and to build nothing.

    To build a source archive runs a stranger's code and takes minutes; uv's own ``no-build`` would
    pass such releases over in silence, those with metadata in the spec as well.
    """
    own = {
        package: "false" if until == "none" else json.dumps(until)
        for package, until in environment.cutoffs.items()
    }
    dates = ", ".join(f"{json.dumps(package)} = {until}" for package, until in own.items())
    head = [
        f"exclude-newer = {json.dumps(environment.cutoff)}",
        f"exclude-newer-package = {{ {dates} }}",
        f"build-constraint-dependencies = {json.dumps([f'{name}<0' for name in _BACKENDS])}",
    ]
    settings.write_text("\n".join([*head, settings.read_text()]))


def build(
    environment: Environment,
    lock: Lock,
    folder: Path,
    work: Path,
    host: Mapping[str, str],
    limits: Limits,
) -> tuple[Conclusion, End, str]:
    """Make the virtualenv and install into it; return how that went, with uv's words.

    A half-made one is removed first: only :func:`commit` makes it count.
    """
    (folder / "matrix.json").unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    environ = uv_environ(host, work, installing=True)
    tool = uv.find_uv_bin()
    venv = [tool, "venv", "--quiet", "--no-project", "--python", environment.python, str(folder)]
    end, log = run(venv, environ, work, limits)
    if end.limit or end.status != 0:
        return classify_uv_end(end, log, Reason.BUILD_FAILED), end, log
    builds = locked_builds(environment, lock.pins)
    files = _write_inputs(msgspec.structs.replace(environment, build_requirements=builds), work)
    environ = _write_index(environ, work, host)
    (work / "lock.txt").write_text(lock.text)
    argv = [
        tool, "pip", "install", "--python", str(python_of(folder)),
        "--requirements", "requirements.in", *files, "--constraint", "lock.txt",
    ]  # fmt: skip
    end, log = run(argv, environ, work, limits)
    return classify_uv_end(end, log, Reason.BUILD_FAILED), end, log


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
    """Mark a virtualenv as whole."""
    write_atomically(folder / "matrix.json", msgspec.json.encode({"install": key}))


def is_built(folder: Path, key: str) -> bool:
    """Whether a virtualenv is whole and stands for a key."""
    try:
        marker = decode(read_file(folder / "matrix.json", MAX_MARKER_BYTES), dict[str, str])
    except (OSError, UnreadableError):
        return False
    return marker.get("install") == key
