"""What a report is made of: the judged table, and earlier runs as the store remembers them."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from matrix.diagnose.catalogue import load_issues
from matrix.history.changes import Changes
from matrix.history.project import project
from matrix.history.states import Snapshot, folder_of
from matrix.history.taking import take
from matrix.judge.results import MatrixResult
from matrix.run.context import Context
from matrix.spec.methods import methods_of
from matrix.spec.pairs import pairs_of

if TYPE_CHECKING:
    from matrix.report.material import Material


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
    material = Material(
        table,
        changes=past.changes,
        nights=past.nights,
        past=past.past,
        methods=methods_of(context.loaded.file),
        pairs=pairs_of(context.loaded.file),
    )
    return material, past.troubles


def keep_night(context: Context) -> None:
    """Keep the last snapshot for today too, where today has none: that of a night without news,
    which is the same as the one before."""
    if any((folder_of(context.store.root, context.plan.profile) / _today()).glob("*")):
        return  # a run without news shall not import pyarrow
    from matrix.history.folder import History

    with suppress(OSError):  # the report is what the night is for
        History(context.store.root, context.plan.profile).repeat_last(
            _today(), context.settings.run
        )


def believed_until(context: Context, run: str) -> str | None:
    """Return the time of the newest observation in the last snapshot that is believed and not of
    the middle of a run; ``None`` where there is no snapshot."""
    from matrix.history.folder import History

    heads = [e.head for e in History(context.store.root, context.plan.profile).entries]
    times = (h.finished for h in heads if h.believed and not h.is_middle_of(run))
    return max(times, default=None)


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
    return take(_today(), context.settings.run, table, context.fresh_judge(), project())


def _today() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d}"


def titles() -> dict[str, str]:
    """Return the titles of the known issues, by id."""
    return {name: issue.title for name, issue in load_issues().items()}
