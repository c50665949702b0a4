"""A light copy of a store: all that a report is made of, so that it can be made elsewhere.

What ran on a machine is judged by evidence of that machine, so the copy says which it was.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from matrix.machine.hardware import Machine
from matrix.run.context import Context, Settings
from matrix.spec.tables import SpecError
from matrix.store.sealing import unseal
from matrix.store.store import write_json
from matrix.untrusted.reading import UnreadableError, decode, read_file

ORIGIN = "origin.json"
MAX_ORIGIN_BYTES = 1_000_000
TEXT_CHARS = 300
"""No processor's, card's or driver's name is longer."""
KEPT = ("observations", "records", "locks", "history", "established")
"""Of a store; beside them the references of models, without which no answer can be judged."""


class Origin(msgspec.Struct, frozen=True):
    """Where a store was filled, as far as its keys are made of that."""

    schema: Literal[1]
    machine: Machine
    install_from: str
    """A digest of where packages came from beside the index."""


def copy_light(context: Context, target: Path) -> None:
    """Copy what a report is made of to a folder that is not there yet; links are left out.

    Raises :class:`SpecError` where the folder is there.
    """
    root = context.store.root
    try:
        target.mkdir(parents=True)
    except FileExistsError:
        raise SpecError(target, "--light", "it is there already", "Name a new folder") from None
    for file in _kept(root):
        place = target / file.relative_to(root)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)
    write_json(target / ORIGIN, Origin(1, context.machine, context.install_from))


def open_light(settings: Settings) -> Context:
    """Return a profile opened on a light copy, as on the machine where its evidence is from.

    Nothing in the copy is trusted. Raises :class:`SpecError` where it does not say from where.
    """
    file = settings.store / ORIGIN
    try:
        origin = decode(unseal(read_file(file, MAX_ORIGIN_BYTES)), Origin)
        _check_texts(msgspec.to_builtins(origin))
    except (OSError, UnreadableError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        remedy = "Give a folder that `matrix report --light` made"
        raise SpecError(file, "--from-light", f"cannot be read ({why})", remedy) from None
    return Context(settings, machine=origin.machine, install_from=origin.install_from)


def _check_texts(value: object) -> None:
    """Raise :class:`UnreadableError` where a text in a value is longer than any, or not printable:
    they stand in keys and on the page."""
    match value:
        case str():
            if len(value) > TEXT_CHARS or not value.isprintable():
                raise UnreadableError(f"{value[:40]!r} is no name")
        case list():
            for item in value:
                _check_texts(item)
        case dict():
            _check_texts([*value.values()])


def _kept(root: Path) -> Iterator[Path]:
    """Yield the files of a store that a light copy has."""
    below = (file for name in KEPT for file in (root / name).rglob("*"))
    for file in (*below, *(root / "models").glob("*/reference.json")):
        if file.is_file() and not file.is_symlink() and not file.name.startswith("."):
            yield file
