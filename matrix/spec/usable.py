"""Which values, names and packages a spec may hold. Pure.

They go on into keys, JSON, command lines, names of files, settings of uv and pages, which do not
take all that TOML can say.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from matrix.spec.axes import requirement_problem
from matrix.spec.tables import MetadataTable, Spec
from matrix.spec.versions import parsed

DEEPEST = 20
"""Tables and lists within each other; the project's own have six."""
LARGEST = 2**63 - 1
NAME_CHARS = 100
MOST_EXCLUSIONS = 1_000
"""Each is compared with every cell."""
VARIABLE_CHARS = 30_000
"""Of a variable's value; Linux starts no process with one of 128 KiB."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_PACKAGE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""What no text has: control characters, but for tabs and ends of lines, and half characters."""


class Fault(NamedTuple):
    """What is wrong under a key, and what to do."""

    key: str
    problem: str
    remedy: str


def value_faults(key: str, value: Any, depth: int = 0) -> Iterator[Fault]:
    """Yield what cannot be used of a value that TOML gave, and of all that it holds."""
    if depth > DEEPEST:
        yield Fault(key, f"is nested deeper than {DEEPEST} tables and lists", "Nest it less")
        return
    match value:
        case dict():
            for name, inner in value.items():
                within = f"{key}.{name}" if key else name
                if not name.isprintable():
                    problem = "its name has a character that cannot be seen"
                    yield Fault(within, problem, "Write the name in letters and digits")
                yield from value_faults(within, inner, depth + 1)
        case list():
            for number, inner in enumerate(value):
                yield from value_faults(f"{key}[{number}]", inner, depth + 1)
        case str():
            if control := _CONTROL.search(value):
                problem = f"has the control character U+{ord(control[0]):04X}"
                yield Fault(key, problem, "Leave it out")
        case bool():
            pass
        case int():
            if not -LARGEST <= value <= LARGEST:
                yield Fault(key, "is a number of more than 64 bits", "Write a smaller one")
        case float():
            if not math.isfinite(value):
                yield Fault(key, f"is {value}, which is no number", "Write a number")
        case _:
            problem = f"is a {type(value).__name__}, which nothing here takes"
            yield Fault(key, problem, 'Write it as a text, "2026-11-30"')


def name_faults(key: str, names: Iterable[str]) -> Iterator[Fault]:
    """Yield which names can be none of a file, an option and a cell."""
    for name in names:
        if not _NAME.fullmatch(name) or len(name) > NAME_CHARS:
            yield Fault(
                f"{key}.{name}",
                f"{name!r} cannot name a folder, as its name does",
                f"Use up to {NAME_CHARS} letters, digits, '.', '_', '+' and '-'",
            )


def variable_faults(key: str, variables: Mapping[str, str]) -> Iterator[Fault]:
    """Yield which variables no process can be given."""
    for name, value in variables.items():
        if not _VARIABLE.fullmatch(name):
            remedy = "Use letters, digits and '_', and write the value behind the '='"
            yield Fault(f"{key}.{name}", f"{name!r} is no name of a variable", remedy)
        elif len(value) > VARIABLE_CHARS:
            problem = f"has {len(value)} characters; a variable has up to {VARIABLE_CHARS}"
            yield Fault(f"{key}.{name}", problem, "Put it into a file")


def package_faults(key: str, name: str) -> Iterator[Fault]:
    """Yield that a name is none of a package, where it is none: it would be TOML for uv."""
    if not _PACKAGE.fullmatch(name):
        yield Fault(key, f"{name!r} is no name of a package", "Write it as in name==version")


def spec_faults(spec: Spec) -> Iterator[Fault]:
    """Yield which names, variables and packages of a spec cannot be used."""
    for section in ("models", "schemes", "profiles", "departures"):
        yield from name_faults(section, getattr(spec, section))
    if len(spec.exclusions) > MOST_EXCLUSIONS:
        problem = f"there are {len(spec.exclusions)}, and may be {MOST_EXCLUSIONS}"
        yield Fault("exclusions", problem, "Use patterns of cells")
    for number, table in enumerate(spec.environments):
        key = f"environments[{number}]"
        yield from variable_faults(f"{key}.environ", table.environ)
        for package in table.build_requirements:
            yield from package_faults(f"{key}.build_requirements.{package}", package)
        for package, variables in table.build_environ.items():
            yield from package_faults(f"{key}.build_environ.{package}", package)
            yield from variable_faults(f"{key}.build_environ.{package}", variables)
    for section in ("quantizers", "engines"):
        for number, role in enumerate(getattr(spec, section)):
            key = f"{section}[{number}]"
            yield from variable_faults(f"{key}.environ", role.environ)
            yield from name_faults(f"{key}.suffix", [role.suffix] if role.suffix else [])
    for number, exception in enumerate(spec.released.exceptions):
        yield from package_faults(f"released.exceptions[{number}].package", exception.package)
    for number, metadata in enumerate(spec.metadata):
        yield from _metadata_faults(f"metadata[{number}]", metadata)


def _metadata_faults(key: str, table: MetadataTable) -> Iterator[Fault]:
    yield from package_faults(f"{key}.package", table.package)
    if parsed(table.version) is None:
        yield Fault(f"{key}.version", f"{table.version!r} is no version", "Write one release")
    for text in table.requires_dist:
        if problem := requirement_problem(text):
            remedy = "Write it as METADATA has it, name>=version"
            yield Fault(
                f"{key}.requires_dist", f"{text[:200]!r} is no requirement ({problem})", remedy
            )
