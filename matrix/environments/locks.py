"""Locks: how they are made by uv, and where they lie.

A lock is a text file of pinned requirements with a header that holds what uv was asked. It is
made against the index alone (no local folders of wheels, no torch backend), so it is the same
everywhere. There is one for each resolution: pinned and as released beside the spec, as of today in
the store.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, assert_never

import msgspec
from packaging.utils import canonicalize_name
from uv import find_uv_bin

from matrix.environments.caches import find_python, shut_in
from matrix.environments.uv import uv_environ, write_dates, write_index, write_inputs
from matrix.machine.processes import run
from matrix.machine.sandbox import Sandbox
from matrix.pipeline.ends import End, classify_uv_end
from matrix.pipeline.outcomes import Conclusion, Outcome, Reason
from matrix.plan.keys import lock_inputs
from matrix.spec.requirements import named_releases
from matrix.spec.tables import Environment, Limits, Resolution
from matrix.store.identity import digest
from matrix.store.sealing import seal_text, unseal_text
from matrix.store.store import write_atomically
from matrix.untrusted.reading import UnreadableError, read_file

_NAMED = "# Lock of "
_INPUTS = "# inputs: "
_REFUSAL = "# refused: "
_AS_OF = "# as of: "
_LINE = re.compile(r"(?:#.*|[A-Za-z0-9._-]+(?:\[[^]]*\])?==[A-Za-z0-9.!+_-]+(?: ;.*)?)?")
"""What uv writes to a lock; it would take options and addresses of one, too."""
LOCK_BYTES = 1_000_000
"""No lock is larger: the project's have 4 KB."""
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
        pinned = (line for line in lines if "==" in line and not line.startswith("#"))
        pairs = (line.partition("==")[::2] for line in pinned)
        return {canonicalize_name(name.partition("[")[0]): version for name, version in pairs}


def keep_lock(file: Path, lock: Lock) -> None:
    """Write a lock to a store, where it is sealed."""
    write_atomically(file, seal_text(lock.text.encode()))


def read_lock(file: Path, environment: Environment, *, of_store: bool = False) -> Lock | None:
    """Return a lock file's content where it answers today's inputs, else ``None``.

    A refusal that only tells of the index, kept when that was not known yet, is no answer; nor is
    a lock of a store that is not what was written there.
    """
    try:
        data = read_file(file.resolve(), LOCK_BYTES)
        text = (unseal_text(data) if of_store else data).decode()
    except (OSError, RuntimeError, UnicodeDecodeError, UnreadableError):  # links in a circle: 2nd
        return None
    lines = text.splitlines()
    if not all(_LINE.fullmatch(line) for line in lines):
        return None
    if not set(_header(environment).splitlines()[1:]).issubset(lines):
        return None
    refusal = "\n".join(line[len(_REFUSAL) :] for line in lines if line.startswith(_REFUSAL))
    return None if _trouble_of_index(environment, refusal) else Lock(text, refusal)


def _header(environment: Environment) -> str:
    inputs = msgspec.json.encode(lock_inputs(environment), order="sorted").decode()
    header = f"{_NAMED}{environment.name}, made by uv. Remake it: python -m matrix lock\n"
    header += f"{_INPUTS}{inputs}\n"
    return header + (f"{_AS_OF}{environment.cutoff}\n" if environment.resolution == "today" else "")


class Locks:
    """The locks of a spec: those beside it, and those that were made in the store.

    Args:
        committed: The folder beside the spec.
        own: The folder in the store.
    """

    def __init__(self, committed: Path, own: Path) -> None:
        self._committed = committed
        self._own = own
        self._kept: dict[tuple[str, Resolution], Lock] = {}

    def find(self, environment: Environment) -> Lock | None:
        """Return the lock that answers an environment's inputs, the committed one first.

        It is read once. One that is missing is looked for each time: it may have been made by now.
        """
        key = environment.name, environment.resolution
        if key not in self._kept:
            committed = committed_name(environment)
            lock = read_lock(self._committed / committed, environment) if committed else None
            if lock is None:
                lock = read_lock(self._own / own_name(environment), environment, of_store=True)
            if lock is None:
                return None
            self._kept[key] = lock
        return self._kept[key]


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
    inputs = lock_inputs(environment)
    if environment.resolution == "today":
        inputs["as of"] = environment.cutoff
    return f"{digest(inputs)}.txt"


def stored_name(text: str) -> str:
    """Return the name that a lock of a store has by what it says it was asked; else empty."""
    lines = {key: line.removeprefix(key) for line in text.splitlines() for key in (_INPUTS, _AS_OF)
             if line.startswith(key)}  # fmt: skip
    try:
        inputs = msgspec.json.decode(lines[_INPUTS], type=dict[str, Any])
    except (KeyError, ValueError, RecursionError):
        return ""
    return f"{digest(inputs | ({'as of': lines[_AS_OF]} if _AS_OF in lines else {}))}.txt"


_KEEP_PAGES = 'api = "max-age=3600", '
"""Of uv's settings of an index: thousands of resolutions ask for the same pages."""


def make_lock(
    environment: Environment,
    work: Path,
    host: Mapping[str, str],
    limits: Limits,
    sandbox: Sandbox,
) -> tuple[Lock | None, Conclusion, End]:
    """Return what uv resolves, how that went and how uv ended; a refusal is a lock, trouble none.

    What is refused is asked again with fresh pages of the packages that are named: a kept page may
    be older than the release that is wanted. To find out what an archive requires may take a build
    of it, so uv is shut in. Hardly any does, and a cache for builds takes seconds to make: only
    what is asked again may be built, and nothing where there is a cut-off.
    """
    environ = uv_environ(host, work, installing=False)
    files = write_inputs(environment, work)
    python = find_python(environment.python, environ)
    environ, view = shut_in(environ, work, python, sandbox, builds=False)
    if environment.resolution != "pinned":
        environ = write_index(environ, work, host, _KEEP_PAGES)
        write_dates(environment, work / "uv.toml")
    argv = [
        find_uv_bin(), "pip", "compile", "requirements.in", *files, "--python", str(python),
        "--python-version", environment.python, "--no-header", "--no-annotate",
        "--output-file", "resolved.txt", "--quiet",
    ]  # fmt: skip
    end, log = run(argv, environ, work, limits, sandbox, view)
    conclusion = classify_uv_end(end, log, Reason.UNRESOLVABLE)
    if conclusion.outcome is Outcome.FAILED:
        settings = work / "uv.toml"
        settings.write_text(settings.read_text().replace(_KEEP_PAGES, ""))
        fresh = [f"--refresh-package={name}" for name in named_releases(environment)]
        if environment.resolution == "pinned":
            environ, view = shut_in(environ, work, python, sandbox, builds=True)
        end, log = run([*argv, *fresh], environ, work, limits, sandbox, view)
        conclusion = classify_uv_end(end, log, Reason.UNRESOLVABLE)
    lock, conclusion = _answer(environment, conclusion, end, work)
    return lock, conclusion, end


def _answer(
    environment: Environment, conclusion: Conclusion, end: End, work: Path
) -> tuple[Lock | None, Conclusion]:
    """Return the lock that uv's end and files come to, if to any, and how the resolution went."""
    header = _header(environment)
    match conclusion.outcome:
        case Outcome.PASSED:
            lock = Lock(header + (work / "resolved.txt").read_text())
            if lacking := [name for name in named_releases(environment) if name not in lock.pins]:
                message = f"uv ended well, and its answer lacks {', '.join(lacking)}"
                return None, Conclusion(Outcome.INFRA, Reason.NO_RESULT, message)
            return lock, conclusion
        case Outcome.FAILED if not conclusion.message.strip():
            message = f"uv ended with status {end.status} and said nothing"
            return None, Conclusion(Outcome.INFRA, Reason.NO_RESULT, message)
        case Outcome.FAILED:
            message = conclusion.message.replace(str(work), ".")
            if trouble := _trouble_of_index(environment, message):
                return None, Conclusion(Outcome.INFRA, Reason.NETWORK, trouble)
            if environment.resolution != "pinned":
                message = _unbuilt(message)
            lines = [line.rstrip() for line in message.splitlines()]
            text = header + "".join(f"{_REFUSAL}{line}\n" for line in lines)
            return Lock(text, "\n".join(lines)), conclusion
        case _:
            return None, conclusion


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
    match = _UNBUILT.search(refusal)
    if match is None:
        return refusal
    return (
        f"{match[1]} has no wheel that says what it requires, and source archives are not built "
        "to find out. Of a package that a range takes, python -m matrix releases --take reads "
        "what its archive says; else read its source and say it in [[metadata]]"
    )
