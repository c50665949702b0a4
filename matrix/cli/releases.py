"""``matrix releases``: what an index holds that the snapshot does not."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from matrix.cli.options import Format, FormatOption, Spec, StoreFolder, fail
from matrix.index.settings import index_settings
from matrix.run.context import Settings
from matrix.spec.axes import exact, package_of, ranges
from matrix.spec.loading import load, read_tables, snapshot_of
from matrix.spec.releases import (
    SNAPSHOT,
    Change,
    Picked,
    Snapshot,
    encode,
    merge,
    news,
    parsed,
    pick,
)
from matrix.spec.tables import Environment, RangeTable, SpecError
from matrix.spec.tables import Spec as SpecTables
from matrix.store.store import write_atomically
from matrix.untrusted.text import visible

if TYPE_CHECKING:
    from matrix.index.client import Heard

LINE_CHARS = 4000
SHOWN = 3
"""How many packages a warning names."""


class Range(msgspec.Struct, frozen=True):
    """What one range of the spec takes of what the index holds now."""

    package: str
    since: str
    until: str
    pick: str
    takes: list[str]
    passed_over: dict[str, str]


class News(msgspec.Struct, frozen=True):
    """One thing that the index says otherwise than the snapshot, and what it would add."""

    change: Change
    environments: list[str]


class Found(msgspec.Struct, frozen=True):
    """All that the command shows."""

    schema: int
    snapshot: str
    """When the snapshot's index was asked."""
    asked: str
    """When the oldest of the answers was given that this is made of."""
    indexes: list[str]
    news: list[News]
    ranges: list[Range]
    troubles: list[str]
    taken: str
    """Name of the file that was written; empty where none was."""


def releases(
    spec: Spec = None,
    store: StoreFolder = None,
    take: Annotated[bool, typer.Option("--take", help="Write it to the snapshot.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Ask nobody.")] = False,
    rules: Annotated[
        bool, typer.Option("--ranges", help="Also what each range takes and passes over, and why.")
    ] = False,
    take_gone: Annotated[
        bool,
        typer.Option(
            "--take-gone",
            help="Take it in also where over three releases and a tenth of a package are gone.",
        ),
    ] = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """Show what is new on the package index; --take writes it to the snapshot beside the spec.

    Status 0, also where an index is in trouble and its last answer is at hand; 1 where none is,
    and where nothing can be taken because the spec could not be loaded with it.
    """
    from matrix.index.client import Index  # requests and pypi-simple take half a second to import

    settings = Settings.of(spec=spec, store=store)
    tables, old = read_tables(settings.spec), snapshot_of(settings.spec)
    known = {} if take_gone else old.packages
    index = Index(index_settings(os.environ), settings.store / "index", known=known)
    answers = index.ask(tracked(tables, old), offline=offline).values()
    heard = newer(answers, old)
    new = merged(old, heard, asked(answers, old))
    changes = news(old, {one.package: one.releases for one in heard})
    added, problem = _added(settings.spec, old, new) if heard else ([], "")
    place, take = settings.spec.parent / SNAPSHOT, take or take_gone
    taken = take and bool(heard) and not problem
    if taken:
        _write(place, new)
    lacking = any(not one.asked and one.package not in old.packages for one in answers)
    found = Found(
        schema=1,
        snapshot=old.asked,
        asked=new.asked,
        indexes=sorted({one.index for one in heard}),
        news=[] if lacking else [News(one, _adds(one, added)) for one in changes],
        ranges=list(_ranges(settings.spec, tables, new)),
        troubles=[
            *_troubles((one for one in answers if not (offline and one.asked)), old),
            *([f"What is new cannot be taken: {problem}"] if problem else []),
        ],
        taken=place.name if taken else "",
    )
    if output is Format.JSON:
        typer.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    else:
        _show(_lines(found, take, rules))
    _warn(found.troubles)
    if lacking or (take and problem):
        raise typer.Exit(1)


def tracked(tables: SpecTables, snapshot: Snapshot) -> dict[str, str]:
    """Return package -> the oldest release of which it matters what it declares."""
    found = {
        package: next((one.version for one in releases if one.declares is not None), "")
        for package, releases in snapshot.packages.items()
    }
    for table in tables.environments:
        for axis, asked in ranges(table).items():
            package, since = package_of(axis, asked), parsed(asked.since)
            before = parsed(found.get(package, ""))
            if since is not None and (before is None or since < before):
                found[package] = asked.since
    return dict(sorted(found.items()))


def newer(answers: Iterable[Heard], snapshot: Snapshot) -> list[Heard]:
    """Return the answers that say more than the snapshot: those kept from before it do not."""
    return [
        one
        for one in answers
        if one.asked and (one.asked >= snapshot.asked or one.package not in snapshot.packages)
    ]


def asked(answers: Iterable[Heard], snapshot: Snapshot) -> str:
    """Return the date that holds for all packages: the oldest answer's, or the snapshot's own."""
    return max(snapshot.asked, min((one.asked for one in answers), default=""))


def merged(old: Snapshot, heard: Iterable[Heard], date: str) -> Snapshot:
    """Return the snapshot of a date with answers taken in, each marked with its own date."""
    new = old
    for one in heard:
        new = merge(new, {one.package: one.releases}, one.asked)
    return msgspec.structs.replace(new, asked=date)


def _write(place: Path, snapshot: Snapshot) -> None:
    try:
        write_atomically(place, encode(snapshot))
    except OSError as error:
        fail(f"{place}: cannot be written ({error.strerror}). Make its folder writable")


def _added(file: Path, old: Snapshot, new: Snapshot) -> tuple[list[Environment], str]:
    """Return (the environments that a new snapshot adds, why the spec cannot be loaded with it)."""
    try:
        now = load(file, new).environments
    except SpecError as error:
        return [], str(error)
    try:
        before = load(file, old).environments
    except SpecError:
        before = {}  # of a package that a range names, and that nobody asked for yet
    return [one for name, one in now.items() if name not in before], ""


def _adds(change: Change, added: Iterable[Environment]) -> list[str]:
    return [one.name for one in added if (change.package, change.version) in exact(one)]


def _ranges(file: Path, tables: SpecTables, snapshot: Snapshot) -> Iterable[Range]:
    seen: list[tuple[str, RangeTable]] = []
    for table in tables.environments:
        for axis, rule in ranges(table).items():
            package = package_of(axis, rule)
            if (package, rule) in seen:
                continue
            seen.append((package, rule))
            found = _picked(file, package, rule, table.python, snapshot)
            yield Range(
                package, rule.since, rule.until, rule.pick, found.versions, found.passed_over
            )


def _picked(file: Path, package: str, rule: RangeTable, python: str, snapshot: Snapshot) -> Picked:
    try:
        return pick(snapshot.packages.get(package, []), rule, python)
    except ValueError as error:
        raise SpecError(file, f"the range of {package}", str(error), "Mend it") from None


def _troubles(answers: Iterable[Heard], old: Snapshot) -> list[str]:
    """Return each trouble once, with the packages that are in it."""
    found: dict[str, list[str]] = {}
    for one in answers:
        if one.trouble:
            found.setdefault(_trouble(one, old), []).append(one.package)
    return [f"{_some(packages)}: {trouble}" for trouble, packages in found.items()]


def _some(names: list[str]) -> str:
    shown = names if len(names) <= SHOWN else names[: SHOWN - 1]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _trouble(answer: Heard, old: Snapshot) -> str:
    if answer.asked >= old.asked and answer.asked:
        used = f"The index's answer of {answer.asked} is used, kept in the store"
    elif answer.package in old.packages:
        used = f"The snapshot of {old.asked} is used"
    else:
        used = "No earlier answer is at hand"
    return f"{answer.trouble.removeprefix(f'{answer.package}: ')}. {used}"


def _show(lines: Iterable[str]) -> None:
    typer.echo("\n".join(visible(line, LINE_CHARS) for line in lines))


def _warn(troubles: Iterable[str]) -> None:
    for trouble in troubles:
        sys.stderr.write(f"warning: {visible(trouble, LINE_CHARS)}\n")


def _lines(found: Found, take: bool, rules: bool) -> Iterable[str]:
    source = f"asked on {found.asked}" if found.indexes else "not asked"
    yield f"The index ({', '.join(found.indexes) or 'none answered'}), {source}"
    yield f"against the snapshot of {found.snapshot or '(there is none)'}"
    yield ""
    if found.news:
        yield f"{len(found.news)} {'change' if len(found.news) == 1 else 'changes'}"
    else:
        yield "Nothing is new." if found.indexes else "What is new is not known."
    for each in found.news:
        change = each.change
        adds = f"  adds {', '.join(each.environments)}" if each.environments else ""
        yield f"  {change.package} {change.version:14} {change.kind:9} {change.detail}{adds}"
    for one in found.ranges if rules else []:
        until = f" until {one.until}" if one.until else ""
        yield ""
        takes = ", ".join(one.takes) or "none"
        yield f"{one.package} since {one.since}{until}, {one.pick}: {takes}"
        for reason, versions in _by_reason(one.passed_over).items():
            yield f"  {', '.join(versions)}: {reason}"
    if take:
        yield ""
        if found.taken:
            yield f"Taken into {found.taken}."
        elif found.indexes:
            yield "Nothing is taken: the spec cannot be loaded with it."
        else:
            yield "Nothing is taken: no index answered."


def _by_reason(passed_over: dict[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for version, reason in passed_over.items():
        found.setdefault(reason, []).append(version)
    return found
