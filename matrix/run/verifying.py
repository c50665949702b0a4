"""Everything a store keeps, read as its readers read it, and what of that nobody can rely on.

Environments, bytecode and unfinished things are no evidence and are left out; so are notes of steps
that are being done.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Set
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from matrix.checks.evidence import EvidenceError
from matrix.environments.locks import stored_name
from matrix.history.states import folder_of
from matrix.index.hub import Pin, file_of
from matrix.pipeline.steps import Step
from matrix.run.light import ORIGIN
from matrix.store.identity import digest
from matrix.store.sealing import unseal, unseal_text
from matrix.store.store import (
    FILES,
    MAX_OBSERVATION_BYTES,
    REFERENCE,
    read_observation,
    read_record,
    reference_in,
    write_atomically,
)
from matrix.store.taking import damage_of
from matrix.store.unfinished import is_unfinished
from matrix.untrusted import removing
from matrix.untrusted.reading import UnreadableError, decode, read_file
from matrix.untrusted.text import counted, visible

MAX_BYTES = 50_000_000
"""Of the other files, the largest of which are answers of an index."""
MAX_LINE_BYTES = 16_000_000
SHOWN = 3
"""Of what is damaged, where a run begins."""
_NOT_WRITTEN = "is nothing that a store keeps"
_LEFT_OUT = {"environments", "bytecode", "wheels", "work", "begun", "use.lock", "report.lock"}


class Damage(NamedTuple):
    """Something in a store that nobody can rely on."""

    path: Path
    problem: str
    line: int = 0
    """Of a file whose other lines are sound; 0 where all of it is meant."""


def damages(root: Path, leave_out: Set[str] = frozenset()) -> Iterator[Damage]:
    """Yield what is damaged, foreign or surplus in a store, but for some names in its folder.

    Every file is read, one at a time.
    """
    for path in _inside(root):
        if path.name in _LEFT_OUT or path.name in leave_out:
            continue
        look = _LOOKS.get(path.name)
        if look is None or path.is_symlink() or path.is_dir() == bool(path.suffix):
            yield Damage(path, _NOT_WRITTEN)
        else:
            yield from look(path)


def damage_in_short(root: Path) -> list[str]:
    """Return a line on what is damaged in a store where a run begins; none where nothing is.

    What takes long to read is left to its users: models and checkpoints, and history.
    """
    if not root.is_dir():
        return []
    wrong = damages(root, {"models", "checkpoints", "history"})
    first = [
        f"{visible(str(damage.path.relative_to(root)))}: {visible(damage.problem)}"
        for damage in islice(wrong, SHOWN)
    ]
    number = len(first) + sum(1 for _ in wrong)
    if not number:
        return []
    more = f"; {number - SHOWN:,} more" if number > SHOWN else ""
    return [
        f"the store has {counted(number, 'thing')} that nobody can rely on, and counts none "
        f"({'; '.join(first)}{more}): `matrix verify` names them, and takes them away"
    ]


def _inside(folder: Path) -> Iterator[Path]:
    """Yield what lies in a folder and is no file that is being written."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries)
    yield from (folder / name for name in names if not is_unfinished(name))


def _checked(path: Path, check: Callable[[Path], object]) -> Iterator[Damage]:
    try:
        check(path)
    except (ValueError, EvidenceError) as error:  # each module has its own
        yield Damage(path, str(error).removeprefix(f"{path}: "))
    except OSError as error:
        yield Damage(path, error.strerror or "cannot be read")


def _files(suffix: str, check: Callable[[Path], object]) -> Callable[[Path], Iterator[Damage]]:
    """Return what looks through a folder of files that end alike."""

    def look(folder: Path) -> Iterator[Damage]:
        for path in _inside(folder):
            if path.name.endswith(suffix):
                yield from _checked(path, check)
            elif not path.name.endswith(".lock"):
                yield Damage(path, _NOT_WRITTEN)

    return look


def _observations(folder: Path) -> Iterator[Damage]:
    for path in _inside(folder):
        if path.name in {*Step} and path.is_dir():
            yield from _files(".json", _check_observation)(path)
        else:
            yield Damage(path, _NOT_WRITTEN)


def _check_observation(path: Path) -> None:
    raw = read_file(path, MAX_OBSERVATION_BYTES)
    read_observation(raw, Step(path.parent.name), path.stem)


def _records(folder: Path) -> Iterator[Damage]:
    for path in _inside(folder):
        if not path.name.endswith(".jsonl") or path.is_symlink() or not path.is_file():
            yield Damage(path, _NOT_WRITTEN)
            continue
        with path.open("rb") as lines:
            for number, line in enumerate(iter(lambda: lines.readline(MAX_LINE_BYTES), b""), 1):
                try:
                    read_record(line.rstrip(b"\n"))
                except UnreadableError as error:
                    yield Damage(path, str(error), number)


def _models(folder: Path) -> Iterator[Damage]:
    for path in _inside(folder):
        yield from _made(path, "model", REFERENCE, lambda file: reference_in(file.parent))


def _checkpoints(folder: Path) -> Iterator[Damage]:
    for path in _inside(folder):
        yield from _made(path, "checkpoint", "provenance.json", _check_provenance)


def _made(
    folder: Path, product: str, beside: str, check: Callable[[Path], object]
) -> Iterator[Damage]:
    """Look at what a step made, and at what lies beside it, without which it is worth nothing."""
    if not folder.is_dir() or folder.is_symlink():
        yield Damage(folder, _NOT_WRITTEN)
        return
    wrong = list(_checked(folder / beside, check))
    if wrong:
        yield Damage(folder, f"{beside}: {wrong[0].problem}")
        return
    names = {product, FILES, beside}
    yield from (Damage(path, _NOT_WRITTEN) for path in _inside(folder) if path.name not in names)
    yield from _product(folder, product)


def _product(folder: Path, name: str) -> Iterator[Damage]:
    """Look at the files of a model or checkpoint, which ``matrix clean`` may have taken back."""
    if os.path.lexists(folder / name) and (problem := damage_of(folder / name, folder / FILES)):
        yield Damage(folder / name, problem)


def _check_provenance(path: Path) -> None:
    if _of_json(path).get("key") != path.parent.name:
        raise UnreadableError("is of another checkpoint")


def _locks(folder: Path) -> Iterator[Damage]:
    for path in _inside(folder):
        if path.name == "models" and path.is_dir():
            yield from _files(".json", _check_pin)(path)
        elif path.name == "near" and path.is_dir():
            yield from _files(".txt", _check_text)(path)
        elif path.name.endswith(".txt"):
            yield from _checked(path, _check_lock)
        else:
            yield Damage(path, _NOT_WRITTEN)


def _check_text(path: Path) -> str:
    return unseal_text(read_file(path, MAX_BYTES)).decode(errors="replace")


def _check_lock(path: Path) -> None:
    if stored_name(_check_text(path)) != path.name:
        raise UnreadableError("answers another question than its name says")


def _check_pin(path: Path) -> None:
    if file_of(decode(unseal(read_file(path, MAX_BYTES)), Pin).repository) != path.name:
        raise UnreadableError("is of another model")


def _index(folder: Path) -> Iterator[Damage]:
    for path in _inside(folder):
        if path.name == "requires" and path.is_dir():
            yield from _files(".json", _check_requires)(path)
        else:
            yield from _checked(path, _check_answer)


def _check_answer(path: Path) -> None:
    answer = _of_json(path).get("answer")
    if not isinstance(answer, dict) or answer.get("package") != path.stem:
        raise UnreadableError("is of another package")


def _check_requires(path: Path) -> None:
    if digest(_of_json(path).get("of")) != path.stem:
        raise UnreadableError("is of another release")


def _history(folder: Path) -> Iterator[Damage]:
    # Not at the top: loading the noxfile imports no numpy.
    from matrix.history.snapshots import SUFFIX, read

    def check(path: Path) -> None:
        profile = read(path).head.profile
        if folder_of(Path(), profile).name != path.parents[1].name:
            raise UnreadableError(f"is of the profile {profile}")

    for profile in _inside(folder):
        for day in _inside(profile) if profile.is_dir() else ():
            yield from _files(SUFFIX, check)(day)


def _of_json(path: Path) -> dict[str, Any]:
    return decode(unseal(read_file(path, MAX_BYTES)), dict[str, Any])


_LOOKS: dict[str, Callable[[Path], Iterator[Damage]]] = {
    "observations": _observations,
    "records": _records,
    "models": _models,
    "checkpoints": _checkpoints,
    "locks": _locks,
    "index": _index,
    "history": _history,
    "established": _files(".json", _of_json),
    "suites": _files("", _check_text),
    "report.json": lambda path: _checked(path, _of_json),
    ORIGIN: lambda path: _checked(path, _of_json),
}
"""Name of what lies in a store's folder -> what looks through it."""


def remove(damage: Damage) -> None:
    """Take something away that :func:`damages` gave; of a record, its line alone."""
    path = damage.path
    if damage.line:
        lines = path.read_bytes().splitlines(keepends=True)
        write_atomically(path, b"".join(line for line in lines if _is_sound(line)))
    elif path.is_dir() and not path.is_symlink():
        removing.remove(path)
    else:
        path.unlink(missing_ok=True)


def _is_sound(line: bytes) -> bool:
    try:
        read_record(line.rstrip(b"\n"))
    except UnreadableError:
        return False
    return True
