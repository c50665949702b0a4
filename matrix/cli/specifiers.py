"""``matrix specifiers``: which versions really go together, beside what is declared."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
import typer
from packaging.utils import canonicalize_name

from matrix.cli.options import Profile, Spec, StoreFolder, fail
from matrix.judge.results import CanaryState, Specifier
from matrix.judge.specifiers import constraints, not_tried, told
from matrix.run.context import Context, Settings
from matrix.untrusted.text import visible

SHOWN_CHARS = 200
TROUBLE_CHARS = 400


class SpecifierFormat(StrEnum):
    """How the specifiers are shown."""

    TABLE = "table"
    CONSTRAINTS = "constraints"
    JSON = "json"


def specifiers(
    spec: Spec = None,
    profile: Profile = None,
    store: StoreFolder = None,
    output: Annotated[
        SpecifierFormat, typer.Option("--format", help="constraints: text for pip or uv.")
    ] = SpecifierFormat.TABLE,
    package: Annotated[
        str | None, typer.Option(help="Only this package, or one release: autoawq==0.2.7.")
    ] = None,
) -> None:
    """Show which versions worked together, and where packages declare otherwise.

    Status 1, and none of them, where the canaries are void: such a run says nothing.
    """
    context = Context(Settings.of(spec=spec, profile=profile, store=store))
    table = context.table_judge().table()
    if table.canaries is CanaryState.VOID:
        typer.echo(
            "no specifiers: the canaries are void, so what was observed holds nowhere", err=True
        )
        for line in context.table().canary_troubles:
            typer.echo(f"  {visible(line, TROUBLE_CHARS)}", err=True)
        raise typer.Exit(1)
    found = table.specifiers if package is None else _of(package, table.specifiers)
    match output:
        case SpecifierFormat.JSON:
            document = {
                "schema": 1,
                "profile": table.profile,
                "finished": table.finished,
                "specifiers": found,
            }
            typer.echo(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())
        case SpecifierFormat.CONSTRAINTS:
            releases = {(one.package, one.release) for one in found}
            typer.echo(constraints(found, table.finished, active=len(releases) == 1), nl=False)
        case SpecifierFormat.TABLE:
            for line in _lines(found):
                typer.echo(line)


def _of(asked: str, found: list[Specifier]) -> list[Specifier]:
    name, _, release = asked.partition("==")
    kept = [
        one
        for one in found
        if one.package == canonicalize_name(name) and release in ("", one.release)
    ]
    if not kept:
        known = ", ".join(f"{one.package}=={one.release}" for one in found)
        fail(f"nothing is known of {asked!r} in this profile. Known: {known or 'nothing yet'}")
    return kept


def _lines(found: list[Specifier]) -> list[str]:
    if not found:
        return ["Nothing was observed that says which versions go together."]
    lines = []
    for one in found:
        holds = f"{one.partner}{told(one.holds)}" if one.holds else f"no {one.partner}"
        declared = "not known" if one.declared is None else one.declared or "no bound"
        counts = f"{len(one.worked)} worked, {len(one.failed)} did not"
        if one.unknown:
            counts += f", {len(one.unknown)} without an answer"
        lines.append(
            f"{f'{one.package} {one.release}':28} {holds:42} declared: {declared:24} {counts}"
        )
        if untried := not_tried(one):
            lines.append(f"{'':28} not tried: {', '.join(untried)}")
        lines += [f"{'':28} {said}" for said in one.differs]
    return [visible(line, SHOWN_CHARS) for line in lines]
