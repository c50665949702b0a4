"""Which version of this project it is, and which commit."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

import msgspec

from matrix.untrusted.reading import UnreadableError, decode, read_file

DISTRIBUTION = "quantization-compatibility-matrix"
CHECKOUT = Path(__file__).parents[2]
MAX_REFERENCE_BYTES = 50_000_000


class Project(NamedTuple):
    """This project as it judged; empty where that is not known."""

    version: str = ""
    commit: str = ""


@cache
def project() -> Project:
    """Return this project's version and commit, as far as they are known."""
    version, installed = "", ""
    with suppress(PackageNotFoundError):
        version = distribution(DISTRIBUTION).version
        installed = distribution(DISTRIBUTION).read_text("direct_url.json") or ""
    return Project(version, _commit_installed(installed) or _commit_of(CHECKOUT))


class _Vcs(msgspec.Struct, frozen=True):
    commit_id: str = ""


class _DirectUrl(msgspec.Struct, frozen=True):
    vcs_info: _Vcs = _Vcs()


def _commit_installed(direct_url: str) -> str:
    """Return the commit that pip installed from; empty where that was no repository."""
    try:
        return decode(direct_url.encode(), _DirectUrl).vcs_info.commit_id
    except UnreadableError:
        return ""


def _commit_of(checkout: Path) -> str:
    """Return the commit that a checkout stands at; empty where it is none, or cannot be read."""
    try:
        git = checkout / ".git"
        if git.is_file():  # a worktree, whose branches are those of its repository
            git = checkout / _text(git).removeprefix("gitdir: ")
        head = _text(git / "HEAD")
        if not head.startswith("ref: "):
            return head
        branch, common = head.removeprefix("ref: "), git
        if (git / "commondir").is_file():
            common = git / _text(git / "commondir")
        if (common / branch).is_file():
            return _text(common / branch)
        packed = (line.partition(" ") for line in _text(common / "packed-refs").splitlines())
        return next((commit for commit, _, name in packed if name == branch), "")
    except (OSError, UnreadableError, UnicodeDecodeError):
        return ""


def _text(file: Path) -> str:
    return read_file(file, MAX_REFERENCE_BYTES).decode().strip()
