"""``matrix pairs``: which releases can share an environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from typing import Annotated

import msgspec
import typer

from matrix.cli.choosing import did_you_mean
from matrix.cli.options import Format, FormatOption, Spec, StoreFolder, as_json, fail
from matrix.cli.resolve import CORES
from matrix.cli.showing import Row, show
from matrix.environments.resolving import Resolved, resolve_all
from matrix.environments.sharing import answers_of
from matrix.run.context import Settings, sandbox_of
from matrix.spec.files import folder_of
from matrix.spec.loading import load
from matrix.spec.pairs import PAIRS, Pair, Pairs, Questions, encode, pairs_of
from matrix.spec.tables import Environment
from matrix.store.store import Store, write_atomically
from matrix.untrusted.text import counted, visible

LINE_CHARS = 600


def pairs(
    package: Annotated[
        str | None, typer.Argument(help="Only its releases, such as llmcompressor.")
    ] = None,
    spec: Spec = None,
    store: StoreFolder = None,
    take: Annotated[
        bool, typer.Option("--take", help="Ask uv, and keep the answers beside the spec.")
    ] = False,
    jobs: Annotated[
        int, typer.Option(min=1, help="How many to resolve at once.", show_default="one a core")
    ] = CORES,
    output: FormatOption = Format.TABLE,
) -> None:
    """Show which releases of two packages can share an environment, by resolving alone.

    Each is asked for beside the newest of the others, and where that is refused, beside older
    ones. Status 0; 1 where uv could not answer, which the same command asks again.
    """
    settings = Settings.of(spec=spec, store=store)
    troubles: list[str] = []
    if take:
        troubles = _take(settings, jobs)
    kept = pairs_of(settings.spec)
    if kept is None:
        fail(f"{folder_of(settings.spec) / PAIRS}: nothing is kept. Ask uv: matrix pairs --take")
    if package is not None and package not in kept.since:
        near = did_you_mean(package.lower(), list(kept.since))
        fail(f"{package!r} is none of {', '.join(kept.since)}. {near}".rstrip(". "))
    shown = [pair for pair in kept.pairs if package in (None, pair.package)]
    if output is Format.JSON:
        typer.echo(as_json(msgspec.structs.replace(kept, pairs=shown), indent=2))
    else:
        show(_lines(kept, shown))
    for trouble in troubles:
        typer.echo(f"warning: {visible(trouble, LINE_CHARS)}", err=True)
    raise typer.Exit(bool(troubles))


def _take(settings: Settings, jobs: int) -> list[str]:
    """Ask uv, keep its answers beside the spec, and return a line for each trouble."""
    loaded = load(settings.spec)
    if not loaded.spec.pairs:
        fail(f"{settings.spec}: it has no [pairs], so there is nothing to ask")
    kept = Store(settings.store)
    kept.sweep()

    def resolve(environments: Iterable[Environment]) -> Iterator[Resolved]:
        return resolve_all(
            environments, loaded.folder / "locks", kept, os.environ, loaded.spec.limits.resolve,
            sandbox_of(loaded, settings), _tell, jobs,
        )  # fmt: skip

    answers, troubles = answers_of(Questions(loaded), loaded.snapshot.asked, resolve)
    place = loaded.folder / PAIRS
    try:
        write_atomically(place, encode(answers))
    except OSError as error:
        fail(f"{place}: cannot be written ({error.strerror}). Make its folder writable")
    return troubles


def _tell(text: str) -> None:
    sys.stderr.write(f"{visible(text, LINE_CHARS)}\n")
    sys.stderr.flush()


def _lines(kept: Pairs, shown: list[Pair]) -> Iterator[str]:
    together = sum(not pair.refusal for pair in shown)
    yield f"{together} of {counted(len(shown), 'pair')} resolve, as of {kept.as_of[:10]}"
    yield _row("release", "beside", "answer", "why", is_head=True)
    for pair in shown:
        yield _row(f"{pair.package} {pair.release}", *_answer(pair))


def _answer(pair: Pair) -> tuple[str, str, str]:
    newest = f"{pair.partner} {pair.newest}"
    if not pair.refusal:
        return newest, "resolves", ""
    older = f"refused, {pair.instead} resolves" if pair.instead else "refused, and each older"
    return newest, older, pair.refusal


def _row(*cells: str, is_head: bool = False) -> Row:
    widths = (24, 24, 36, 0)
    line = "".join(f"{cell:{width}}" for cell, width in zip(cells, widths, strict=True))
    return Row(visible(line.rstrip(), LINE_CHARS), *cells, is_head=is_head)
