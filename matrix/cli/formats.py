"""``matrix formats``: which formats engines read, since when, and for how long."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from matrix.cli.choosing import did_you_mean
from matrix.cli.evidence import last_evidence
from matrix.cli.options import Format, FormatOption, Spec, StoreFolder, as_json, fail
from matrix.cli.showing import Row, show
from matrix.judge.lifetimes import Lifetime, end_in_words, lifetimes
from matrix.run.context import Settings
from matrix.spec.files import folder_of
from matrix.spec.methods import (
    METHODS,
    Listing,
    Methods,
    encode,
    method_of,
    methods_of,
    with_releases,
)
from matrix.spec.snapshot import Release
from matrix.spec.versions import parsed
from matrix.store.store import write_atomically
from matrix.untrusted.text import visible

LINE_CHARS = 1000


class Answer(msgspec.Struct, frozen=True):
    """All that the command shows."""

    schema: int
    taken: str
    """Date on which the newest list was read."""
    lifetimes: list[Lifetime]
    troubles: list[str]


def formats(
    method: Annotated[
        str | None, typer.Argument(help="Only this, such as gguf or pack-quantized.")
    ] = None,
    spec: Spec = None,
    store: StoreFolder = None,
    take: Annotated[
        bool, typer.Option("--take", help="Read the wheels that are new on the index.")
    ] = False,
    evidence: Annotated[
        str | None,
        typer.Option(
            help="A matrix.json, or its address: what was proven. "
            "Default reports/matrix.json, where it is."
        ),
    ] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Show which formats the releases of engines read, by the lists in their wheels.

    Nothing is run for it. Status 0; 1 where a wheel could not be read.
    """
    settings = Settings.of(spec=spec, store=store)
    methods, troubles = methods_of(settings.spec), list[str]()
    if take:
        methods, troubles = taken_in(methods, settings.store / "index")
        _write(folder_of(settings.spec) / METHODS, methods)
    result = last_evidence(evidence, settings)
    listed = lifetimes(methods, result)
    if method is not None:
        listed = _of_method(method, listed, methods)
    answer = Answer(1, methods.taken, listed, troubles)
    if output is Format.JSON:
        typer.echo(as_json(answer, indent=2))
    else:
        show(_lines(answer))
    for trouble in troubles:
        typer.echo(f"warning: {visible(trouble, LINE_CHARS)}", err=True)
    raise typer.Exit(bool(troubles))


def _of_method(name: str, listed: list[Lifetime], methods: Methods) -> list[Lifetime]:
    """Return those of one method; end with status 2 where none is, and name what is near."""
    wanted = method_of(name)
    if not (own := [lifetime for lifetime in listed if lifetime.method == wanted]):
        packages = ", ".join(methods.packages)
        near = did_you_mean(wanted, sorted({lifetime.method for lifetime in listed}))
        fail(f"{name!r} is no format in the lists of {packages}. {near}`matrix formats` shows all")
    return own


def taken_in(methods: Methods, folder: Path) -> tuple[Methods, list[str]]:
    """Return what engines list, with the releases that are new on the index, and a line for each
    that could not be read."""
    from matrix.index.client import Index  # requests and pypi-simple take half a second to import
    from matrix.index.engine_methods import SOURCES, lists_in
    from matrix.index.fetching import FetchError
    from matrix.index.settings import index_settings

    index = Index(index_settings(os.environ), folder)
    packages, troubles = dict(methods.packages), []
    for package, source in SOURCES.items():
        listing = packages.get(package) or Listing(source.file, [], {})
        lists = {}
        try:
            files = index.files_within(package, source.file, _is_new(listing, source.since))
        except FetchError as error:
            troubles.append(f"{package}: {error}. Ask again later")
            continue
        for version, raw in files.items():
            try:
                if isinstance(raw, FetchError):
                    raise raw
                lists[version] = lists_in(raw, source)
            except FetchError as error:
                troubles.append(f"{package} {version} {error}. Ask again later")
        packages[package] = with_releases(listing, lists)
    if packages == methods.packages:
        return methods, troubles
    return Methods(1, f"{datetime.now(UTC):%Y-%m-%d}", packages), troubles


def _is_new(listing: Listing, since: str) -> Callable[[Release], bool]:
    """Return what says of a release whether its wheel is still to be read.

    Pre-releases and what is yanked are passed by, as ranges of the spec do.
    """
    oldest = parsed(since)

    def is_new(release: Release) -> bool:
        version = parsed(release.version)
        return (
            version is not None
            and oldest is not None
            and version >= oldest
            and not version.is_prerelease
            and release.yanked is None
            and release.version not in listing.releases
        )

    return is_new


def _write(place: Path, methods: Methods) -> None:
    try:
        write_atomically(place, encode(methods))
    except OSError as error:
        fail(f"{place}: cannot be written ({error.strerror}). Make its folder writable")


def _lines(answer: Answer) -> Iterable[str]:
    """Yield a row for each format and package, and what became of those that are gone."""
    yield f"By the lists in their wheels, read until {answer.taken or '(never)'}; nothing was run."
    yield _row("format", "package", "since", "until", "releases", "last proof", "what became of it")
    for life in answer.lifetimes:
        proof = f"{life.proof.version} {life.proof.at[:10]}" if life.proof else ""
        readers = f"{life.readers} of {life.releases}"
        end = end_in_words(life) + (f" ({life.source})" if life.source else "")
        yield _row(life.method, life.package, life.since, life.until, readers, proof, end)


def _row(*cells: str) -> Row:
    widths = (20, 13, 13, 15, 12, 18, 0)
    line = "".join(f"{cell:{width}}" for cell, width in zip(cells, widths, strict=True))
    return Row(visible(line.rstrip(), LINE_CHARS), *cells, is_head=cells[0] == "format")
