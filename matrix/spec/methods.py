"""Which quantization methods the releases of engines read, as the list in each wheel names them.

Plain data, kept beside the spec as ``methods.json``; ``matrix formats --take`` reads what is new
from wheels on the index (``matrix/index/engine_methods.py``). A method is what a checkpoint's
config.json has as ``quant_method``, or another name that an engine has for the same files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import groupby
from pathlib import Path
from typing import Final, Literal

import msgspec
from packaging.version import Version

from matrix.checkpoint.formats import Format
from matrix.spec.files import folder_of
from matrix.spec.loading import DEFAULT_SPEC
from matrix.spec.tables import SpecError
from matrix.spec.versions import parsed
from matrix.untrusted.reading import decode, read_file

SCHEMA: Literal[1] = 1
METHODS = "methods.json"
"""Its name, beside the spec."""
METHODS_BYTES = 4_000_000
"""No such file is larger: ours, of three packages, has 0.02 MB."""
METHOD_NAME = re.compile(r"[A-Za-z0-9_.-]{1,60}")
OTHER_NAMES: Final = {
    "auto-round": ("inc",),  # vLLM 0.15 and later: INCConfig takes over what says auto-round
    "awq": ("auto_awq",),
    "bitsandbytes": ("bitsandbytes_4bit", "bitsandbytes_8bit"),  # transformers tells them apart
    "gptq": ("auto_gptq",),
}
"""Method, as config.json has it -> other names under which engines list that they read it."""
Span = tuple[str, str]
"""The first and the last of some releases that follow each other."""


class Spans(msgspec.Struct, frozen=True, omit_defaults=True):
    """In which releases a method is listed."""

    read: list[Span] = []
    announced: list[Span] = []
    """Where it is among those that a later release will not read."""


class Listing(msgspec.Struct, frozen=True):
    """What the releases of one package list."""

    file: str
    """Where each wheel has its lists."""
    releases: list[str]
    """Those whose wheel was read, oldest first."""
    methods: dict[str, Spans]

    def releases_within(self, spans: Iterable[Span]) -> list[str]:
        """Return the releases of spans, oldest first."""
        place = {version: number for number, version in enumerate(self.releases)}
        numbers = {n for a, b in spans for n in range(place[a], place[b] + 1)}
        return [self.releases[number] for number in sorted(numbers)]

    def readers(self, method: str) -> list[str]:
        """Return the releases that list a method by any of its names, oldest first."""
        names = (method, *OTHER_NAMES.get(method, ()))
        listed = (self.methods[name].read for name in names if name in self.methods)
        return self.releases_within(span for spans in listed for span in spans)


class Lists(msgspec.Struct, frozen=True):
    """What one release lists."""

    read: list[str]
    announced: list[str] = []


class Methods(msgspec.Struct, frozen=True):
    """What the releases of all packages list, by package."""

    schema: Literal[1]
    taken: str
    """Date on which the newest of it was read from the index."""
    packages: dict[str, Listing]

    def lacks(self, package: str, version: str, method: str) -> bool:
        """Whether it is sure that a release does not list a method: its wheel was read."""
        listing, release = self.packages.get(package), parsed(version)
        if listing is None or release is None or release.public not in listing.releases:
            return False
        return release.public not in listing.readers(method)


EMPTY = Methods(SCHEMA, "", {})


def method_of(name: str) -> str:
    """Return the method of a format, or of another name that an engine has for it; else the name
    itself, in lower case."""
    name = name.lower()
    if name in list(Format):
        return Format(name).method
    return next((method for method, names in OTHER_NAMES.items() if name in names), name)


def with_releases(listing: Listing, lists: Mapping[str, Lists]) -> Listing:
    """Return a listing with what more releases list, by version, taken in."""
    order = sorted({*listing.releases, *lists}, key=_place)
    names = {name for new in lists.values() for name in (*new.read, *new.announced)}

    def spans(kind: Literal["read", "announced"], name: str) -> list[Span]:
        before = getattr(listing.methods.get(name, Spans()), kind)
        more = {version for version, new in lists.items() if name in getattr(new, kind)}
        return _spans({*listing.releases_within(before), *more}, order)

    methods = {
        name: Spans(spans("read", name), spans("announced", name))
        for name in sorted(listing.methods.keys() | names)
    }
    return Listing(listing.file, order, methods)


def _spans(releases: Set[str], order: Sequence[str]) -> list[Span]:
    """Return some releases as spans of all, which are in order."""
    spans = []
    for belong, group in groupby(order, releases.__contains__):
        together = list(group)
        if belong:
            spans.append((together[0], together[-1]))
    return spans


def _place(version: str) -> Version:
    place = parsed(version)
    if place is None:
        raise ValueError(f"{version!r} is no version")
    return place


def methods_of(path: Path) -> Methods:
    """Return what engines list: from beside the spec, or else what is ours."""
    place = folder_of(path) / METHODS
    if not place.exists():
        place = DEFAULT_SPEC / METHODS
    if not place.exists():
        return EMPTY
    try:
        return read_methods(place)
    except (OSError, ValueError) as error:
        remedy = "Delete it, then make it anew: matrix formats --take"
        raise SpecError(place, "methods", str(error), remedy) from None


def read_methods(file: Path) -> Methods:
    """Return what ``methods.json`` holds; raise :class:`ValueError` that says what is wrong."""
    methods = decode(read_file(file, METHODS_BYTES), Methods)
    for package, listing in methods.packages.items():
        if listing.releases != sorted(set(listing.releases), key=_place):
            raise ValueError(f"{package}: the releases are not in order")
        for name, spans in listing.methods.items():
            if not METHOD_NAME.fullmatch(name):
                raise ValueError(f"{package}: {name!r} is no name of a method")
            for first, last in (*spans.read, *spans.announced):
                if not {first, last} <= {*listing.releases} or _place(first) > _place(last):
                    raise ValueError(f"{package}: {name}: {first} to {last} are no releases of it")
    return methods


def encode(methods: Methods) -> bytes:
    """Return it as JSON with a line for each method, so that changes can be read."""
    packages = ",\n".join(
        f" {_json(package)}: {{\n"
        f'  "file": {_json(listing.file)},\n'
        f'  "releases": {_json(listing.releases)},\n'
        '  "methods": {\n'
        + ",\n".join(f"   {_json(name)}: {_json(of)}" for name, of in listing.methods.items())
        + "\n  }}"
        for package, listing in sorted(methods.packages.items())
    )
    head = f'{{"schema": {SCHEMA}, "taken": {_json(methods.taken)}, "packages": {{'
    return f"{head}\n{packages}\n}}}}\n".encode()


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
