"""``matrix specifiers``: which versions really go together, beside what is declared."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from packaging.utils import canonicalize_name

from matrix.cli.options import Profile, Spec, StoreFolder, as_json, fail
from matrix.cli.showing import Row, show
from matrix.judge.results import CanaryState, Specifier
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

    Status 1, and none of them, where the canaries are void: such a run says nothing. Status 2
    where there is no store.
    """
    from matrix.report.constraints import constraints  # pandas takes half a second to import

    settings = Settings.of(spec=spec, profile=profile, store=store)
    context = Context(settings)
    if not settings.store.is_dir():
        fail(
            f"{settings.store}: there is no store here, so nothing was observed. `matrix run` "
            "makes one; name one that lies elsewhere by --store or MATRIX_STORE"
        )
    table = context.table_judge().table()
    if table.canaries is CanaryState.VOID:
        typer.echo(
            "no specifiers: the canaries are void, so what was observed holds nowhere", err=True
        )
        for line in context.table().canary_troubles:
            typer.echo(f"  {visible(line, TROUBLE_CHARS)}", err=True)
        raise typer.Exit(1)
    shown = table.specifiers if package is None else _of(package, table.specifiers)
    match output:
        case SpecifierFormat.JSON:
            document = {
                "schema": 1,
                "profile": table.profile,
                "finished": table.finished,
                "specifiers": shown,
            }
            typer.echo(as_json(document, indent=2))
        case SpecifierFormat.CONSTRAINTS:
            releases = {(specifier.package, specifier.release) for specifier in shown}
            typer.echo(constraints(shown, table.finished, active=len(releases) == 1), nl=False)
        case SpecifierFormat.TABLE:
            show(_lines(shown))


def _of(wanted: str, specifiers: list[Specifier]) -> list[Specifier]:
    name, _, release = wanted.partition("==")
    kept = [
        specifier
        for specifier in specifiers
        if specifier.package == canonicalize_name(name) and release in ("", specifier.release)
    ]
    if not kept:
        names = ", ".join(f"{specifier.package}=={specifier.release}" for specifier in specifiers)
        fail(f"nothing is known of {wanted!r} in this profile. Known: {names or 'nothing yet'}")
    return kept


def _lines(specifiers: list[Specifier]) -> list[str]:
    from matrix.report.constraints import in_short, not_tried

    if not specifiers:
        return ["Nothing was observed that says which versions go together."]
    lines: list[str] = []
    for specifier in specifiers:
        release, partner = f"{specifier.package} {specifier.release}", specifier.partner
        holds = f"{partner}{in_short(specifier.holds)}" if specifier.holds else f"no {partner}"
        declared = "not known" if specifier.declared is None else specifier.declared or "no bound"
        counts = f"{len(specifier.worked)} worked, {len(specifier.failed)} did not"
        if specifier.unknown:
            counts += f", {len(specifier.unknown)} without an answer"
        line = f"{release:28} {holds:42} declared: {declared:24} {counts}"
        lines.append(
            Row(visible(line, SHOWN_CHARS), release, holds, f"declared: {declared}", counts)
        )
        if untried := not_tried(specifier):
            lines.append(_below(f"not tried: {', '.join(untried)}"))
        lines += map(_below, specifier.differs)
    return lines


def _below(text: str) -> Row:
    shown = visible(text, SHOWN_CHARS)
    return Row(f"{'':28} {shown}", "", shown, "", "")
