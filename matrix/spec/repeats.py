"""What a spec says once and uses often: bases, sets, reasons, filled in where they are named. Pure.

Nothing here knows which keys a table may have; that is checked after everything is filled in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sized
from difflib import get_close_matches
from typing import Any

from packaging.utils import canonicalize_name

from matrix.spec.files import Document
from matrix.spec.tables import ErrorAt

Table = dict[str, Any]
SHOWN = 20
"""How many names an error lists."""
MOST_NAMED = 200
"""Characters of a name for which like ones are looked for."""
MOST_FILLED = 100_000
"""Keys and items that bases and sets give to all tables together; the project's give 2,000."""
LONGEST_CHAIN = 50
"""Bases that build on each other."""


def hint(name: str, defined: Iterable[str]) -> str:
    """Return what an unknown name may have been meant for, or else the names that there are."""
    names = sorted(defined)
    if close := get_close_matches(name[:MOST_NAMED], names, 1):
        return f"Did you mean {close[0]!r}?"
    return f"Defined: {', '.join(names[:SHOWN]) or 'none'}" + (", ..." if names[SHOWN:] else "")


class Repeats:
    """Fills a document in. Raises :class:`SpecError` where it names what is not defined."""

    def __init__(self, document: Document, error: ErrorAt) -> None:
        self._document = document
        self._error = error
        self._given = 0

    def filled(self) -> Document:
        """Return the document with every base, set and reason filled in where it is named."""
        document = dict(self._document)
        for section in ("environments", "models", "quantizers", "engines"):
            if section in document:
                document[section] = _mapped(section, document[section], self._on_its_base)
        for section in ("environments", "profiles"):
            if section in document:
                document[section] = _mapped(section, document[section], self._with_sets)
        if "environments" in document:
            tables = _mapped("environments", document["environments"], self._with_reasons)
            document["environments"] = tables
        return document

    def _defined(self, section: str) -> Table:
        defined = self._document.get(section)
        return defined if isinstance(defined, dict) else {}

    def _on_its_base(self, key: str, table: Table, above: tuple[str, ...] = ()) -> Table:
        """Return a table with what it does not say itself taken from its base."""
        name = table.get("base")
        if not isinstance(name, str):
            return table
        bases = self._defined("bases")
        if name in above:
            circle = " -> ".join([*above[above.index(name) :], name])
            raise self._error(
                f"bases.{name}", f"bases build on each other in a circle ({circle})",
                "Take `base` out of one of them",
            )  # fmt: skip
        if not isinstance(bases.get(name), dict):
            raise self._error(f"{key}.base", f"no base {name!r} is defined", hint(name, bases))
        if len(above) == LONGEST_CHAIN:
            raise self._error(
                f"bases.{name}", f"more than {LONGEST_CHAIN} bases build on each other",
                "Put some of them together",
            )  # fmt: skip
        self._count(f"{key}.base", bases[name])
        return _laid_over(table, self._on_its_base(f"bases.{name}", bases[name], (*above, name)))

    def _with_sets(self, key: str, table: Table) -> Table:
        return {name: self._without_marks(f"{key}.{name}", value) for name, value in table.items()}

    def _without_marks(self, key: str, value: Any) -> Any:
        if isinstance(value, dict):
            return self._with_sets(key, value)
        if not isinstance(value, list):
            return value
        items: list[Any] = []
        for item in value:
            if isinstance(item, str) and item.startswith("@"):
                items += self._set(key, item[1:])
            else:
                items.append(self._without_marks(key, item))
        return items

    def _set(self, key: str, name: str) -> list[Any]:
        sets = self._defined("sets")
        if not isinstance(sets.get(name), list):
            raise self._error(key, f"no set {name!r} is defined", hint(name, sets))
        items: list[Any] = sets[name]
        if nested := [item for item in items if isinstance(item, str) and item.startswith("@")]:
            raise self._error(
                f"sets.{name}", f"a set names no other set, and it names {nested[0]!r}",
                "Write out what that one holds",
            )  # fmt: skip
        self._count(key, items)
        return items

    def _count(self, key: str, given: Sized) -> None:
        """Raise :class:`SpecError` where bases and sets give more than there may be."""
        self._given += len(given)
        if self._given > MOST_FILLED:
            raise self._error(
                key, f"up to here bases and sets give more than {MOST_FILLED:,} keys and items",
                "Name fewer, or smaller ones",
            )  # fmt: skip

    def _with_reasons(self, key: str, table: Table) -> Table:
        """Return an environment table in whose ranges ``always`` says why."""
        filled = dict(table)
        if isinstance(axes := table.get("axes"), dict):
            filled["axes"] = self._reasoned(f"{key}.axes", axes)
        for field in ("variants", "rows"):
            if isinstance(rows := table.get(field), list):
                filled[field] = [
                    self._reasoned(f"{key}.{field}[{number}]", row)
                    if isinstance(row, dict)
                    else row
                    for number, row in enumerate(rows)
                ]
        return filled

    def _reasoned(self, key: str, axes: Table) -> Table:
        return {
            axis: {**values, "always": self._reasons(f"{key}.{axis}.always", axis, values)}
            if isinstance(values, dict) and isinstance(values.get("always"), list)
            else values
            for axis, values in axes.items()
        }

    def _reasons(self, key: str, axis: str, values: Table) -> Table:
        """Return version -> why it is taken, as ``[reasons.<package>]`` has it."""
        package = canonicalize_name(str(values.get("package") or axis))
        reasons = self._defined("reasons").get(package)
        given = reasons if isinstance(reasons, dict) else {}
        for version in values["always"]:
            if version not in given:
                raise self._error(
                    key, f"[reasons.{package}] does not say why {version} is taken",
                    f"Say it there. {hint(str(version), given)}",
                )  # fmt: skip
        return {version: given[version] for version in values["always"]}


def _mapped(section: str, content: Any, change: Callable[[str, Table], Table]) -> Any:
    """Return a section with each of its tables changed; what is no table stays as it is."""
    if isinstance(content, list):
        return [
            change(f"{section}[{number}]", table) if isinstance(table, dict) else table
            for number, table in enumerate(content)
        ]
    if isinstance(content, dict):
        return {
            name: change(f"{section}.{name}", table) if isinstance(table, dict) else table
            for name, table in content.items()
        }
    return content


def _laid_over(own: Table, base: Table) -> Table:
    """Return a table's own keys, and after them those of its base that it lacks.

    What is a table in both is put together in the same way; a list or a value is the table's own.
    """
    together = {
        key: _laid_over(value, base[key])
        if isinstance(value, dict) and isinstance(base.get(key), dict)
        else value
        for key, value in own.items()
    }
    return together | {key: value for key, value in base.items() if key not in own}
