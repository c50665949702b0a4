"""The files of a spec, put together into one document, and where each of its keys stands."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from matrix.spec.tables import SpecError
from matrix.spec.usable import value_faults
from matrix.untrusted.reading import UnreadableError, decode_toml, read_file

MAIN = "spec.toml"
"""The file of a folder that is read first."""

SPEC_BYTES = 1_000_000
"""Of all files together; the project's own have 0.08 MB."""
MOST_FILES = 10_000
"""Of any kind in a spec's folder and below."""
Document = dict[str, Any]


class Place(msgspec.Struct, frozen=True):
    """Where a table or a key stands."""

    file: Path
    key: str
    """Its name there: ``environments[0]`` is the first of a file, whatever stands before it."""


Places = dict[str, Place]
"""Key in the whole document, such as ``environments[7]`` or ``models.twin`` -> its place."""


def folder_of(path: Path) -> Path:
    """Return the folder beside whose files locks, releases and adapters lie."""
    return path if path.is_dir() else path.parent


def spec_files(path: Path) -> list[Path]:
    """Return the files of a spec in the order in which they are read; raise :class:`SpecError`.

    A file is its own. Of a folder, these are all ``*.toml`` in it and below, but for what lies in
    hidden folders: ``spec.toml`` first, the others by their paths.
    """
    if not path.is_dir():
        return [path]
    inside = [name for name in _names_in(path) if name.suffix == ".toml"]
    ordered = sorted(inside, key=lambda name: (name != Path(MAIN), name.as_posix()))
    return [path / name for name in ordered]


def _names_in(folder: Path) -> Iterator[Path]:
    """Yield all that lies in a folder and below it, but for what is hidden, by the path there."""
    number = 0
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        number += len(folders) + len(files)
        if number > MOST_FILES:
            raise SpecError(
                folder, "folder", f"holds more than {MOST_FILES:,} files",
                "Name the spec's own folder, or a file",
            )  # fmt: skip
        for name in (*folders, *files):
            yield Path(place, name).relative_to(folder)


def read_document(path: Path) -> tuple[Document, Places]:
    """Return what all files of a spec say together, and where each key stands.

    Lists of tables (``[[environments]]``) go on from file to file. Tables of names (``[models.x]``)
    are put together, and each name is defined in one file. Raises :class:`SpecError`.
    """
    files = spec_files(path)
    if not files:
        raise SpecError(path, "folder", "holds no *.toml", "Check --spec")
    document: Document = {}
    places: Places = {}
    left = SPEC_BYTES
    for file in files:
        text = _read(path, file, left)
        left -= len(text)
        for section, content in _parsed(file, text).items():
            _add(document, places, file, section, content)
    return document, places


def _read(path: Path, file: Path, limit: int) -> bytes:
    """Return the bytes of a file of a spec; raise :class:`SpecError`."""
    try:
        real = file.resolve()  # a link may be named, and one in a folder leads to what is in it
        if path.is_dir() and not real.is_relative_to(path.resolve()):
            problem, remedy = "is a link out of the spec's folder", "Put the file itself there"
            raise SpecError(file, "file", problem, remedy)
        return read_file(real, limit)
    except (OSError, RuntimeError) as error:  # the latter of links in a circle
        why = getattr(error, "strerror", None) or "its links lead in a circle"
        raise SpecError(file, "file", f"cannot be read ({why})", "Check --spec") from None
    except UnreadableError as error:
        remedy = f"A spec is plain files of up to {SPEC_BYTES:,} bytes together"
        raise SpecError(file, "file", str(error), remedy) from None


def _parsed(file: Path, raw: bytes) -> Document:
    """Return what TOML says, in values of which each can be used; raise :class:`SpecError`."""
    try:
        document = decode_toml(raw)
    except UnreadableError as error:
        raise SpecError(file, "file", f"is not TOML: {error}", "Mend that place") from None
    if fault := next(value_faults("", document), None):
        raise SpecError(file, *fault)
    return document


def _add(document: Document, places: Places, file: Path, section: str, content: Any) -> None:
    """Add to the document what one file says in one section."""
    before = document.get(section)
    if before is None:
        places[section] = Place(file, section)
    elif type(before) is not type(content) or not isinstance(content, (list, dict)):
        raise _defined_twice(places[section].file, file, section)
    if isinstance(content, list):
        entries = document.setdefault(section, [])
        for number in range(len(content)):
            places[f"{section}[{len(entries) + number}]"] = Place(file, f"{section}[{number}]")
        entries.extend(content)
    elif isinstance(content, dict):
        entries = document.setdefault(section, {})
        for name in content:
            key = f"{section}.{name}"
            if name in entries:
                raise _defined_twice(places[key].file, file, key)
            places[key] = Place(file, key)
        entries.update(content)
    else:
        document[section] = content


def _defined_twice(first: Path, second: Path, key: str) -> SpecError:
    return SpecError(second, key, f"is defined in {first} as well", "Leave it in one of the two")


def spec_error(
    path: Path, places: Mapping[str, Place], key: str, problem: str, remedy: str
) -> SpecError:
    """Return the error for a key of the whole document, by its name in the file where it stands."""
    around = [name for name in places if key == name or key.startswith((f"{name}.", f"{name}["))]
    if not around:
        return SpecError(path, key, problem, remedy)
    nearest = max(around, key=len)
    place = places[nearest]
    return SpecError(place.file, place.key + key.removeprefix(nearest), problem, remedy)
