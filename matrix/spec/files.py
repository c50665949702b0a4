"""The files of a spec, put together into one document, and where each of its keys stands."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from matrix.spec.tables import SpecError

MAIN = "spec.toml"
"""The file of a folder that is read first."""

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
    """Return the files of a spec in the order in which they are read.

    A file is its own. Of a folder, these are all ``*.toml`` in it and below, but for what lies in
    hidden folders: ``spec.toml`` first, the others by their paths.
    """
    if not path.is_dir():
        return [path]
    inside = [file.relative_to(path) for file in path.rglob("*.toml")]
    visible = [name for name in inside if not any(part.startswith(".") for part in name.parts)]
    ordered = sorted(visible, key=lambda name: (name != Path(MAIN), name.as_posix()))
    return [path / name for name in ordered]


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
    for file in files:
        for section, content in _read_toml(file).items():
            _add(document, places, file, section, content)
    return document, places


def _read_toml(file: Path) -> Document:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(
            file, "file", f"cannot be read ({error.strerror})", "Check --spec"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(file, "file", f"is not TOML: {error}", "Mend that place") from None


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
