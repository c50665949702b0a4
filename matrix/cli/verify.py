"""``matrix verify``: whether a store is what was written to it."""

from __future__ import annotations

from collections import Counter
from enum import IntEnum
from pathlib import Path
from typing import Annotated

import typer

from matrix.cli.options import LINE_CHARS, StoreFolder, fail
from matrix.cli.showing import show
from matrix.run.context import Settings
from matrix.run.verifying import damages, remove
from matrix.store.store import Store
from matrix.untrusted.text import counted, visible

SHOWN = 5
"""Of what is wrong in one folder in the same way."""
_END = {
    False: "None of it is taken for evidence. `matrix verify --remove` takes it away, and the next "
    "run does again what is missing",
    True: "All of it was taken away; the next run does again what is missing",
}


class Status(IntEnum):
    """How the command ends; a mistake of the user's is 2."""

    SOUND = 0
    DAMAGED = 1


def verify(
    store: StoreFolder = None,
    is_removing: Annotated[
        bool, typer.Option("--remove", help="Take away what is named, so that it is made again.")
    ] = False,
) -> None:
    """Read all that a store keeps, and name what is damaged, of something else, or not its own.

    Status: 0 where all is as it was written; 1 where something is not, or was taken away; 2 where
    the command is mistaken.
    """
    opened = Store(Settings.of(store=store).store)
    if not opened.root.is_dir():
        fail(f"{opened.root}: there is no store here. Name it by --store or MATRIX_STORE")
    if not is_removing:
        counts = _named(opened.root)
    else:
        try:
            taken = opened.take()
        except BlockingIOError:
            fail(f"a run uses {opened.root}. Wait for its end, or stop it")
        with taken:
            counts = _named(opened.root, is_removing=True)
    for (folder, problem), count in counts.items():
        if count > SHOWN:
            show([f"{_shown(folder, opened.root)}: {count - SHOWN:,} more: {_line(problem)}"])
    number = sum(counts.values())
    if not number:
        show([f"{opened.root} is what was written to it"])
        raise typer.Exit(Status.SOUND)
    show([f"{counted(number, 'thing')} in {opened.root}: see above. {_END[is_removing]}"])
    raise typer.Exit(Status.DAMAGED)


def _named(root: Path, *, is_removing: bool = False) -> Counter[tuple[Path, str]]:
    """Show what is wrong, and take it away; return how much there is of each kind in a folder."""
    counts: Counter[tuple[Path, str]] = Counter()
    for damage in damages(root):
        kind = damage.path.parent, damage.problem
        counts[kind] += 1
        if counts[kind] <= SHOWN:
            line = f" (line {damage.line})" if damage.line else ""
            show([f"{_shown(damage.path, root)}{line}: {_line(damage.problem)}"])
        if is_removing:
            remove(damage)
    return counts


def _shown(path: Path, root: Path) -> str:
    return visible(str(path.relative_to(root)), LINE_CHARS)


def _line(problem: str) -> str:
    return visible(problem, LINE_CHARS)
