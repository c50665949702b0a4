"""What a report is made of: the judged table, and earlier runs as the store remembers them."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from matrix.diagnose.catalogue import load_issues
from matrix.history.changes import Changes
from matrix.history.states import Snapshot
from matrix.history.taking import Project, take
from matrix.judge.results import MatrixResult
from matrix.run.context import Context
from matrix.spec.loading import PACKAGE
from matrix.untrusted.reading import UnreadableError, decode, read_file

if TYPE_CHECKING:
    from matrix.report.material import Material

DISTRIBUTION = "quantization-compatibility-matrix"
MAX_REFERENCE_BYTES = 50_000_000


def remembered(
    context: Context, table: MatrixResult, *, keep: bool = True
) -> tuple[Material, list[str]]:
    """Keep a snapshot of a run, and return what its report is made of, with a line for each file
    of the history that was passed over.

    Args:
        context: The profile, with all its cells.
        table: What it came to.
        keep: Whether a snapshot is kept: not of a run that goes on.
    """
    from matrix.history.remembering import remember  # pyarrow takes a while to import
    from matrix.report.material import Material  # and so does pandas

    past = remember(context.store.root, snapshot_of(context, table), titles(), keep=keep)
    material = Material(table, changes=past.changes, nights=past.nights, past=past.past)
    return material, past.troubles


def told_until(context: Context, run: str) -> str | None:
    """Return the time of the newest observation in the last snapshot that is believed and not of
    the middle of a run; ``None`` where there is no snapshot."""
    from matrix.history.folder import History

    heads = [e.head for e in History(context.store.root, context.plan.profile).entries]
    told = (h.finished for h in heads if h.believed and not h.is_middle_of(run))
    return max(told, default=None)


def changes_of(context: Context, table: MatrixResult) -> Changes | None:
    """Return what changed since the last run that is believed, and keep nothing; ``None`` where
    there is none to compare with."""
    from matrix.history.folder import History
    from matrix.history.remembering import base_of, before, changes_between

    snapshot = snapshot_of(context, table)
    history = History(context.store.root, snapshot.head.profile)
    old = base_of(history, before(history, snapshot), snapshot)
    return changes_between(history, old, snapshot, titles()) if old else None


def snapshot_of(context: Context, table: MatrixResult) -> Snapshot:
    """Return today's snapshot of a table."""
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    return take(day, context.settings.run, table, context.fresh_judge(), project())


def titles() -> dict[str, str]:
    """Return the titles of the known issues, by id."""
    return {name: issue.title for name, issue in load_issues().items()}


@cache
def project() -> Project:
    """Return this project's version and commit, as far as they are known."""
    version, installed = "", ""
    with suppress(PackageNotFoundError):
        version = distribution(DISTRIBUTION).version
        installed = distribution(DISTRIBUTION).read_text("direct_url.json") or ""
    return Project(version, _commit_installed(installed) or _commit_of(PACKAGE.parent))


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
