"""What the commands have in common: their options, and how they fail."""

from __future__ import annotations

import json
import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import msgspec
import typer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from matrix.spec.requirements import exact_version
from matrix.untrusted.text import visible

ERROR_CHARS = 4000
LINE_CHARS = 300
"""Of a line that quotes what a package or a file says."""

Spec = Annotated[Path | None, typer.Option(help="A spec of your own (or MATRIX_SPEC).")]
Profile = Annotated[str | None, typer.Option(help="Which profile of it (or MATRIX_PROFILE).")]
StoreFolder = Annotated[
    Path | None, typer.Option("--store", help="Store (or MATRIX_STORE; default .matrix).")
]


class Format(StrEnum):
    """How an answer is shown."""

    TABLE = "table"
    JSON = "json"


FormatOption = Annotated[Format, typer.Option("--format", help="How to show it.")]


_SINGLE = re.compile(r"(?<![=<>!~])=(?!=)")


def as_json(answer: object, *, indent: int | None = None) -> str:
    """Return an answer as JSON in ASCII: what is quoted in it cannot act on a terminal."""
    return json.dumps(msgspec.json.decode(msgspec.json.encode(answer)), indent=indent)


def releases_of(option: str, texts: list[str]) -> dict[str, str]:
    """Return distribution -> version of the releases that an option names, or end.

    ``transformers=4.51.3`` is one as well as ``transformers==4.51.3``.
    """
    releases: dict[str, str] = {}
    for text in texts:
        try:
            requirement = Requirement(_SINGLE.sub("==", text))
            version = exact_version(requirement)
        except ValueError:  # also of a number that is too long for int
            version = ""
        if not version or requirement.url:
            fail(f"{option}: {text[:80]!r} is no release. Write it as transformers==4.51.3")
        releases[canonicalize_name(requirement.name)] = version
    return releases


def fail(message: str) -> NoReturn:
    """End with status 2 and one line; it may quote a file, a package or uv."""
    sys.stderr.write(f"error: {visible(message, ERROR_CHARS)}\n")
    raise SystemExit(2)
