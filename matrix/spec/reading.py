"""The document of a spec read by its types, and what is wrong with it in words of the spec."""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec

from matrix.pipeline.outcomes import Verdict
from matrix.spec import tables
from matrix.spec.files import Document, Places, folder_of, read_document, spec_error
from matrix.spec.repeats import Repeats
from matrix.spec.tables import (
    Departure,
    ErrorAt,
    Facts,
    ModelTable,
    ProfileTable,
    RangeTable,
    RefusalTable,
    RoleTable,
    SchemeTable,
    Spec,
    SpecError,
    Table,
)
from matrix.untrusted.reading import UnreadableError, read_file

EXAMPLES = "matrix/spec/project/"
"""Where the commented examples are, as errors say it."""
RECIPE_BYTES = 100_000
"""No recipe of a quantizer is larger: one has a few KB."""
_YAML = re.compile(r"\A[^\n]+\.ya?ml\Z")
"""A recipe that is the name of a file, and not its text."""


def read_tables(path: Path) -> Spec:
    """Return what a spec's files say, nothing spelled out; raise :class:`SpecError`."""
    spec, _ = read_spec(path)
    return spec


def read_spec(path: Path) -> tuple[Spec, Places]:
    """Return what a spec's files say, and where each key stands."""
    document, places = read_document(path)

    def error(key: str, problem: str, remedy: str) -> SpecError:
        return spec_error(path, places, key, problem, remedy)

    filled = Repeats(document, error).filled()
    try:
        spec = msgspec.convert(filled, Spec)
    except msgspec.ValidationError as wrong:
        raise error(*_explained(str(wrong), filled, document)) from None
    quantizers = [
        _with_recipe(table, folder_of(path), error, f"quantizers[{index}].options.recipe")
        for index, table in enumerate(spec.quantizers)
    ]
    return msgspec.structs.replace(spec, quantizers=quantizers), places


def _with_recipe(table: RoleTable, folder: Path, error: ErrorAt, key: str) -> RoleTable:
    """Return a table with the text of its recipe, where it names a file: by its path from the spec.

    So what the file says is part of every key, and a changed one is another recipe.
    """
    recipe = table.options.get("recipe")
    if not isinstance(recipe, str) or not (recipe.startswith("./") or _YAML.search(recipe)):
        return table
    try:
        text = read_file(folder / recipe, RECIPE_BYTES).decode()
    except OSError as wrong:
        problem = f"{recipe} cannot be read ({wrong.strerror})"
        raise error(key, problem, f"Put the recipe there: {folder / recipe}") from None
    except UnreadableError as wrong:
        raise error(key, str(wrong), "Give a plain file beside the spec") from None
    except UnicodeDecodeError:
        raise error(key, f"{recipe} is no text", "Write it in UTF-8") from None
    return msgspec.structs.replace(table, options={**table.options, "recipe": text})


_FIELDS = {
    field.encode_name
    for table in vars(tables).values()
    if isinstance(table, type) and issubclass(table, Table)
    for field in msgspec.structs.fields(table)
}


_NAMED: dict[str, Any] = {
    "bases": dict[str, object],
    "sets": list[str | Facts],
    "reasons": dict[str, str],
    "pairs": RangeTable,
    "departures": Departure,
    "models": ModelTable,
    "schemes": SchemeTable,
    "profiles": ProfileTable,
    "refusals": RefusalTable,
    "thresholds": float,
    "axes": list[str] | RangeTable,
    "variants": str | list[str] | RangeTable,
    "rows": str | list[str] | RangeTable,
    "canaries": Verdict,
}
"""Name of a table of names -> what each of its entries is."""


def _explained(text: str, filled: Document, document: Document) -> tuple[str, str, str]:
    """Return key, problem and remedy for msgspec's message.

    ``filled`` is the document in which the bases are filled in, which ``document`` has by name.
    """
    problem, _, where = text.partition(" - at `$")
    key = where.rstrip("`").lstrip(".") or "top level"
    while "[...]" in key:
        around, _, rest = key.partition("[...]")
        key = f"{around}{_wrong_entry(around, filled)}{rest}"
    remedy = f"See the commented example of every key in {EXAMPLES}"
    if unknown := re.search(r"unknown field `(.*)`", problem):
        key = f"{key}.{unknown[1]}" if where else unknown[1]
        problem = "no such key"
        if close := get_close_matches(unknown[1], _FIELDS, 1):
            remedy = f"Did you mean {close[0]!r}? {remedy}"
    if base := _base_with(key, document):
        problem += f" (it comes from the base {base!r})"
    return key, problem, remedy


def _base_with(key: str, document: Document) -> str:
    """Return the base from which a table has a key; empty where it says it itself."""
    parts = re.fullmatch(r"(\w+)(?:\[(\d+)\]|\.(.+?))\.(\w+)(?:[.\[].*)?", key)
    if parts is None:
        return ""
    section, number, name, field = parts.groups()
    try:
        table = document[section][int(number) if number else name]
        base = str(table.get("base", ""))
        return "" if field in table else base
    except (KeyError, IndexError, TypeError, AttributeError):
        return ""


def _wrong_entry(key: str, document: Document) -> str:
    """Return the name that msgspec leaves out: of the first entry of a table that is wrong."""
    entries: Any = document
    try:
        for part in re.findall(r"[^.\[\]]+", key):
            entries = entries[int(part) if part.isdigit() else part]
        kind = _NAMED[re.sub(r".*\.|\[\d+\]$", "", key)]
        for name, entry in entries.items():
            try:
                msgspec.convert(entry, kind)
            except msgspec.ValidationError:
                return f".{name}"
    except (KeyError, IndexError, TypeError, AttributeError):
        pass
    return ""
