"""``matrix diff``: what changed between two runs, and since what."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from matrix.cli.evidence import NoEvidenceError, result_at
from matrix.cli.options import (
    LINE_CHARS,
    Format,
    FormatOption,
    Profile,
    StoreFolder,
    as_json,
    fail,
)
from matrix.cli.showing import Row, show
from matrix.history.changes import Change, ChangeKind, Changes
from matrix.history.states import AGAIN, Snapshot
from matrix.history.taking import take
from matrix.run.context import Settings
from matrix.run.reporting import titles
from matrix.untrusted.text import visible

if TYPE_CHECKING:
    from matrix.history.folder import Entry, History

LAST, PREVIOUS = "last", "previous"
RUNS_SHOWN = 8
CELLS_SHOWN = 3
"""Of a group, where not each cell is asked for."""

Run = "A day (2026-11-30), a run's id, last, previous, a snapshot, or a matrix.json or its address."


def diff(
    old: Annotated[str, typer.Argument(help=Run)] = PREVIOUS,
    new: Annotated[str, typer.Argument(help=Run)] = LAST,
    profile: Profile = None,
    store: StoreFolder = None,
    cells: Annotated[
        bool, typer.Option("--cells", help="Every cell that is not unchanged, with its inputs.")
    ] = False,
    fail_on: Annotated[
        list[ChangeKind] | None, typer.Option(help="End with status 1 where a cell is this.")
    ] = None,
    format: FormatOption = Format.TABLE,
) -> None:
    """Say what became of every cell between two runs, grouped by what changed.

    Each run of a profile leaves a snapshot in its store. A published matrix.json can be compared,
    too; of what went into its cells less is known.
    """
    settings = Settings.of(profile=profile, store=store)
    from matrix.history.folder import History  # pyarrow takes a while to import
    from matrix.history.remembering import changes_between

    history = History(settings.store, settings.profile)
    then, now = (_snapshot(name, history, settings) for name in (old, new))
    for line in dict.fromkeys(history.troubles):
        typer.echo(f"passed over: {visible(line, LINE_CHARS)}", err=True)
    changes = changes_between(history, then, now, titles())
    match format:
        case Format.JSON:
            typer.echo(as_json(changes, indent=1))
        case Format.TABLE:
            show([*_head(then, now), *(_cells(changes) if cells else _groups(changes))])
    wanted = set(fail_on or ())
    regressed = ChangeKind.REGRESSED in wanted
    if any(c.kind in wanted or (regressed and c.is_regression) for c in changes.cells):
        raise typer.Exit(1)


def _snapshot(name: str, history: History, settings: Settings) -> Snapshot:
    """Return the snapshot that is meant; end where there is none."""
    from matrix.history.snapshots import SUFFIX, SnapshotError, read

    try:
        if "://" in name or name.endswith(".json"):
            return take("", name, result_at(name))
        if name.endswith(SUFFIX):
            if not Path(name).exists():
                fail(f"{visible(name, LINE_CHARS)}: is not there. {_there_is(history, settings)}")
            return read(Path(name))
    except (NoEvidenceError, SnapshotError) as error:
        fail(str(error))
    entries = history.entries
    match name:
        case "last":
            fitting = entries[-1:]
        case "previous":
            fitting = _before_last(history)
        case _:
            fitting = [e for e in entries if name in (e.day, e.run)]
            whole = name.partition(AGAIN)[0]  # what a run ran again is in its snapshot
            fitting = fitting or [e for e in entries if whole in (e.run, e.head.last_run)]
    snapshot = history.read(fitting[-1]) if fitting else None
    if snapshot is None and name == PREVIOUS and entries:
        believed = "can be believed" if len(entries) > 1 else "is there yet"
        fail(f"no run before the last one {believed}. {_there_is(history, settings)}")
    if snapshot is None:
        fail(f"no snapshot is {name!r}. {_there_is(history, settings)}")
    return snapshot


def _before_last(history: History) -> list[Entry]:
    """Return the runs that can be believed and are before the last one."""
    from matrix.history.remembering import earlier_runs

    last = history.read(history.entries[-1]) if history.entries else None
    return [entry for entry in earlier_runs(history, last) if entry.head.believed] if last else []


def _there_is(history: History, settings: Settings) -> str:
    if not history.entries:
        return (
            f"{settings.store} has none of profile {settings.profile}: `matrix report` leaves one. "
            "Name another store by --store, another profile by --profile, or a matrix.json"
        )
    runs = [f"{entry.day} {entry.run}" for entry in history.entries[-RUNS_SHOWN:]]
    if len(runs) == 1:
        return (
            f"There is only {runs[0]} of profile {settings.profile}: "
            "the next run with news leaves another"
        )
    return f"There are {len(history.entries)} of profile {settings.profile}: {', '.join(runs)}"


def _head(old: Snapshot, new: Snapshot) -> list[str]:
    """Return what is compared, and what speaks against it."""
    lines = [f"{_named(old)} -> {_named(new)}"]
    for snapshot in (old, new):
        if not snapshot.head.believed:
            lines.append(f"{_named(snapshot)} is void: its canaries came out otherwise")
    if old.head.profile != new.head.profile:
        lines.append(f"of two profiles: {old.head.profile}, {new.head.profile}")
    lines += [
        f"alarm: known issue {alarm}" for alarm in new.head.alarms if alarm not in old.head.alarms
    ]
    return [visible(line, LINE_CHARS) for line in lines]


def _named(snapshot: Snapshot) -> str:
    project = " ".join(filter(None, (snapshot.head.version, snapshot.head.commit[:10])))
    return snapshot.label + (f" (by {project})" if project else "")


def _groups(changes: Changes) -> list[str]:
    lines = [_counted(changes)]
    flaky = [change.cell for change in changes.cells if change.flaky]
    for group in changes.groups:
        title = visible(group.title, 2 * LINE_CHARS)
        lines += ["", Row(f"{group.kind}: {title}", group.kind, title)]
        lines += [f"  {visible(cell, LINE_CHARS)}" for cell in group.cells[:CELLS_SHOWN]]
        if len(group.cells) > CELLS_SHOWN:
            lines.append(f"  and {len(group.cells) - CELLS_SHOWN:,} more; --cells names them")
    if flaky:
        lines += ["", f"flaky: {len(flaky):,} came to good and to bad ends by the same inputs"]
        lines += [f"  {visible(cell, LINE_CHARS)}" for cell in flaky[:CELLS_SHOWN]]
    return lines


def _cells(changes: Changes) -> list[str]:
    lines = [_counted(changes)]
    order = {kind: place for place, kind in enumerate(ChangeKind)}
    for change in sorted(changes.cells, key=lambda change: order[change.kind]):
        if change.kind is not ChangeKind.UNCHANGED or change.flaky:
            lines.append(_line(change))
            lines += [f"    {visible(line, LINE_CHARS)}" for line in change.inputs]
            if change.cause:
                lines.append(f"    cause: {visible(change.cause, LINE_CHARS)}")
    return lines


def _line(change: Change) -> Row:
    was, now = change.old or "not there", change.new or "not there"
    flaky = ", flaky" if change.flaky else ""
    before = f", {change.before} with the release before" if change.before else ""
    cell, turn = visible(change.cell, LINE_CHARS), f"{was} -> {now}{flaky}{before}"
    return Row(f"{change.kind}: {cell}: {turn}", change.kind, cell, turn)


def _counted(changes: Changes) -> str:
    counts = Counter(change.kind for change in changes.cells)
    return ", ".join(f"{counts[kind]:,} {kind}" for kind in ChangeKind if counts[kind]) or "no cell"
