"""``matrix releases``: what an index holds that the snapshot does not."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from matrix.cli.options import Format, FormatOption, Spec, StoreFolder, as_json, fail
from matrix.cli.showing import Row, show
from matrix.index.news import Change, merge, news, not_after
from matrix.index.settings import index_settings
from matrix.index.waiting import WAIT_DAYS, Waiting, without_newest
from matrix.run.context import Settings
from matrix.spec.axes import all_ranges, package_of
from matrix.spec.files import folder_of
from matrix.spec.loading import load, snapshot_of
from matrix.spec.picking import pick
from matrix.spec.reading import read_tables
from matrix.spec.requirements import named_releases
from matrix.spec.snapshot import SNAPSHOT, Release, Snapshot, encode
from matrix.spec.tables import Environment, RangeTable, SpecError
from matrix.spec.tables import Spec as SpecTables
from matrix.spec.versions import parsed
from matrix.store.store import write_atomically
from matrix.untrusted.text import counted, visible

if TYPE_CHECKING:
    from matrix.index.client import IndexAnswer

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


class Overview(msgspec.Struct, frozen=True):
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
    waiting: list[Waiting]
    """What is too new to be taken in."""
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
    days: Annotated[
        float, typer.Option(min=0, help="How long a new release waits before it is taken.")
    ] = WAIT_DAYS,
    output: FormatOption = Format.TABLE,
) -> None:
    """Show what is new on the package index; --take writes it to the snapshot beside the spec.

    A release waits some days from its upload, as most of what is malicious is taken down by then.

    Status 0, also where an index is in trouble and its last answer is at hand; 1 where none is,
    and where nothing can be taken because the spec could not be loaded with it.
    """
    settings = Settings.of(spec=spec, store=store)
    tables, before = read_tables(settings.spec), snapshot_of(settings.spec)
    now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    old = before if offline else not_after(before, now)
    earlier = {} if take_gone else old.packages
    answers = _answers(settings.store / "index", tracked(tables, old), earlier, offline=offline)
    later, waiting = without_newest(newer(answers, old), old.packages, days)
    takeable, problem = _takeable(settings.spec, old, later)
    new = merged(old, takeable, date_of(answers, old))
    added = _added(settings.spec, old, new) if takeable else []
    place, take = folder_of(settings.spec) / SNAPSHOT, take or take_gone
    taken = take and bool(takeable)
    if taken:
        _write(place, new)
    lacking = any(not answer.asked and answer.package not in old.packages for answer in answers)
    overview = Overview(
        schema=1,
        snapshot=old.asked,
        asked=new.asked,
        indexes=sorted({answer.index for answer in later}),
        news=[] if lacking else _news(old, later, added),
        ranges=list(_ranges(settings.spec, tables, new)),
        troubles=[
            *_troubles((answer for answer in answers if not (offline and answer.asked)), old),
            *([problem] if problem else []),
            *(
                [f"The snapshot is of {before.asked}, which is yet to come, and counts as of now"]
                if before.asked != old.asked
                else []
            ),
        ],
        waiting=waiting,
        taken=place.name if taken else "",
    )
    _show(overview, output, take, rules)
    if lacking or (take and problem):
        raise typer.Exit(1)


def _answers(
    folder: Path,
    packages: dict[str, str],
    earlier: Mapping[str, list[Release]],
    *,
    offline: bool,
) -> list[IndexAnswer]:
    """Return what the index answers of packages, now or, kept in a folder, the last time."""
    from matrix.index.client import Index  # requests and pypi-simple take half a second to import

    index = Index(index_settings(os.environ), folder, earlier=earlier)
    return list(index.ask(packages, offline=offline).values())


def tracked(tables: SpecTables, snapshot: Snapshot) -> dict[str, str]:
    """Return package -> the oldest release of which it matters what it requires."""
    oldest = {
        package: next((release.version for release in releases if release.requires is not None), "")
        for package, releases in snapshot.packages.items()
    }
    for axis, rule, _ in all_ranges(tables):
        package, since = package_of(axis, rule), parsed(rule.since)
        before = parsed(oldest.get(package, ""))
        if since is not None and (before is None or since < before):
            oldest[package] = rule.since
    return dict(sorted(oldest.items()))


def newer(answers: Iterable[IndexAnswer], snapshot: Snapshot) -> list[IndexAnswer]:
    """Return the answers that say more than the snapshot: those kept from before it do not."""
    return [
        answer
        for answer in answers
        if answer.asked
        and (answer.asked >= snapshot.asked or answer.package not in snapshot.packages)
    ]


def date_of(answers: Iterable[IndexAnswer], snapshot: Snapshot) -> str:
    """Return the date that holds for all packages: the oldest answer's, or the snapshot's own."""
    return max(snapshot.asked, min((answer.asked for answer in answers), default=""))


def merged(old: Snapshot, answers: Iterable[IndexAnswer], date: str) -> Snapshot:
    """Return the snapshot of a date with answers taken in, each marked with its own date."""
    new = old
    for answer in answers:
        new = merge(new, {answer.package: answer.releases}, answer.asked)
    return msgspec.structs.replace(new, asked=date)


def _write(place: Path, snapshot: Snapshot) -> None:
    try:
        write_atomically(place, encode(snapshot))
    except OSError as error:
        fail(f"{place}: cannot be written ({error.strerror}). Make its folder writable")


def _takeable(
    file: Path, old: Snapshot, answers: list[IndexAnswer]
) -> tuple[list[IndexAnswer], str]:
    """Return the answers with which the spec can be loaded, and why it cannot with the others.

    One by one where it cannot with all, so that none holds up the others.
    """
    problem = _problem(file, merged(old, answers, old.asked)) if answers else ""
    if not problem or _problem(file, old):
        return ([] if problem else answers), problem and f"What is new cannot be taken: {problem}"
    taken: list[IndexAnswer] = []
    for answer in answers:
        if why := _problem(file, merged(old, [*taken, answer], old.asked)):
            problem = f"What is new of {answer.package} cannot be taken: {why}"
        else:
            taken.append(answer)
    return taken, problem


def _problem(file: Path, snapshot: Snapshot) -> str:
    """Return why the spec cannot be loaded with a snapshot; empty where it can."""
    try:
        load(file, snapshot)
    except SpecError as error:
        return str(error)
    return ""


def _added(file: Path, old: Snapshot, new: Snapshot) -> list[Environment]:
    """Return the environments that a new snapshot adds, with which the spec can be loaded."""
    now = load(file, new).environments
    try:
        before = load(file, old).environments
    except SpecError:
        before = {}  # of a package that a range names, and that nobody asked for yet
    return [environment for name, environment in now.items() if name not in before]


def _news(
    old: Snapshot, answers: Iterable[IndexAnswer], added: Iterable[Environment]
) -> list[News]:
    changes = news(old, {answer.package: answer.releases for answer in answers})
    named = {environment.name: named_releases(environment) for environment in added}
    return [
        News(change, [n for n in named if named[n].get(change.package) == change.version])
        for change in changes
    ]


def _ranges(file: Path, tables: SpecTables, snapshot: Snapshot) -> Iterable[Range]:
    shown: list[tuple[str, RangeTable]] = []
    for axis, rule, python in all_ranges(tables):
        package = package_of(axis, rule)
        if (package, rule) in shown:
            continue
        shown.append((package, rule))
        try:
            picked = pick(snapshot.packages.get(package, []), rule, python)
        except ValueError as error:
            raise SpecError(file, f"the range of {package}", str(error), "Mend it") from None
        bounds = rule.since, rule.until, rule.pick
        yield Range(package, *bounds, picked.versions, picked.passed_over)


def _troubles(answers: Iterable[IndexAnswer], old: Snapshot) -> list[str]:
    """Return each trouble once, with the packages that are in it."""
    packages: dict[str, list[str]] = {}
    for answer in answers:
        if answer.trouble:
            packages.setdefault(_trouble(answer, old), []).append(answer.package)
    return [f"{_some(names)}: {trouble}" for trouble, names in packages.items()]


def _some(names: list[str]) -> str:
    shown = names if len(names) <= SHOWN else names[: SHOWN - 1]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _trouble(answer: IndexAnswer, old: Snapshot) -> str:
    if answer.asked >= old.asked and answer.asked:
        used = f"The index's answer of {answer.asked} is used, kept in the store"
    elif answer.package in old.packages:
        used = f"The snapshot of {old.asked} is used"
    else:
        used = "No earlier answer is at hand"
    return f"{answer.trouble.removeprefix(f'{answer.package}: ')}. {used}"


def _show(overview: Overview, output: Format, take: bool, rules: bool) -> None:
    if output is Format.JSON:
        typer.echo(as_json(overview, indent=2))
    else:
        show(_lines(overview, take, rules))
    for trouble in overview.troubles:
        typer.echo(f"warning: {visible(trouble, LINE_CHARS)}", err=True)


def _lines(overview: Overview, take: bool, rules: bool) -> Iterable[str]:
    source = f"asked on {overview.asked}" if overview.indexes else "not asked"
    indexes = ", ".join(overview.indexes) or "none answered"
    yield visible(f"The index ({indexes}), {source}", LINE_CHARS)
    yield f"against the snapshot of {overview.snapshot or '(there is none)'}"
    yield ""
    if overview.news:
        yield counted(len(overview.news), "change")
    else:
        yield "Nothing is new." if overview.indexes else "What is new is not known."
    for item in overview.news:
        change = item.change
        adds = f"  adds {', '.join(item.environments)}" if item.environments else ""
        line = f"  {change.package} {change.version:14} {change.kind:9} {change.detail}{adds}"
        cells = (change.package, change.version, change.kind, f"{change.detail}{adds}")
        yield Row(visible(line, LINE_CHARS), *cells)
    if overview.waiting:
        yield ""
        yield f"{counted(len(overview.waiting), 'release')} too new to be taken in"
    for late in overview.waiting:
        until = f"uploaded {late.uploaded[:10]}, waits until {late.until}"
        line = f"  {late.package} {late.version:14} {until}"
        yield Row(visible(line, LINE_CHARS), late.package, late.version, until)
    for shown in overview.ranges if rules else []:
        yield from _lines_of_range(shown)
    if take:
        yield ""
        if overview.taken:
            yield visible(f"Taken into {overview.taken}.", LINE_CHARS)
        elif overview.indexes:
            yield "Nothing is taken: the spec cannot be loaded with it."
        else:
            yield "Nothing is taken: no index answered."


def _lines_of_range(shown: Range) -> Iterable[str]:
    until = f" until {shown.until}" if shown.until else ""
    takes = ", ".join(shown.takes) or "none"
    yield ""
    yield visible(f"{shown.package} since {shown.since}{until}, {shown.pick}: {takes}", LINE_CHARS)
    by_reason: dict[str, list[str]] = {}
    for version, reason in shown.passed_over.items():
        by_reason.setdefault(reason, []).append(version)
    for reason, versions in by_reason.items():
        yield visible(f"  {', '.join(versions)}: {reason}", LINE_CHARS)
