"""``matrix report``: what was observed, judged and written as pages and data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from matrix.cli.options import LINE_CHARS, Profile, Spec, StoreFolder, fail
from matrix.cli.showing import show
from matrix.judge.results import CanaryState
from matrix.pipeline.outcomes import Verdict
from matrix.plan.budget import Choice, differences, in_words, read_choice
from matrix.run.context import Context, Settings
from matrix.run.reporting import remembered
from matrix.run.unchanged import digest_of_report, note_report, unchanged_summary
from matrix.untrusted.reading import UnreadableError, decode, read_file
from matrix.untrusted.text import visible

MAX_REPORT_BYTES = 500_000_000


class _Written(msgspec.Struct):
    """What counts of a report that was written before."""

    runs: list[Any] = []
    """The runs whose observations it shows; none where there were none."""


def report(
    spec: Spec = None,
    profile: Profile = None,
    store: StoreFolder = None,
    reports: Annotated[
        Path | None, typer.Option(help="Where to (or MATRIX_REPORTS; default reports).")
    ] = None,
    fail_on: Annotated[
        list[Verdict] | None, typer.Option(help="End with status 1 where a cell is this.")
    ] = None,
) -> None:
    """Judge what was observed, write the report, print its summary.

    A report that lies there and would be the same is left as it is.
    """
    from matrix import report as rendering  # pandas takes half a second to import

    settings = Settings.of(spec=spec, profile=profile, store=store, reports=reports)
    whole = whole_profile(settings)
    _check_store(whole)
    if not (settings.cells or fail_on) and (kept := unchanged_summary(whole)):
        _tell(kept)
        return
    made_of = digest_of_report(whole)
    bought = budget_lines(read_choice(settings.cells), whole) if settings.cells else []
    left = [] if bought else whole.keys.unfinished_of(whole.plan.cells)
    to_do = f"{len(left):,} of {len(whole.plan.cells):,} cells are still to be done"
    table = msgspec.structs.replace(whole.table(), budget=bought, going_on=to_do if left else "")
    material, troubles = remembered(whole, table)
    for line in troubles:
        typer.echo(f"history: {visible(line, LINE_CHARS)}", err=True)
    files = rendering.write(material._replace(story=whole.stories()), settings.reports)
    lines = "\n".join(rendering.summary(table, settings.reports, material.changes)) + "\n"
    _tell(lines)
    unwanted: set[Any] = set(fail_on or ())
    is_void = table.canaries is CanaryState.VOID
    if is_void or any(result.verdict in unwanted for result in table.cells):
        raise typer.Exit(1)
    if not bought:  # whose lines are of this run
        note_report(whole, made_of, files, lines)


def _tell(summary: str) -> None:
    if later := os.environ.get("MATRIX_SUMMARY"):
        Path(later).write_text(summary, encoding="utf-8")  # nox's last word would come after it
    else:
        show(summary.splitlines())


def _check_store(context: Context) -> None:
    """End where there is no store, or an empty one would replace a report that is not: its name may
    be mistyped."""
    store, reports = context.store, context.settings.reports
    if not store.root.is_dir():
        fail(
            f"{store.root}: there is no store here, so there is nothing to report. `matrix run` "
            "makes one; name one that lies elsewhere by --store or MATRIX_STORE"
        )
    if store.segments():
        return
    try:
        written = decode(read_file(reports / "matrix.json", MAX_REPORT_BYTES), _Written)
    except (OSError, UnreadableError):
        return  # there is none, or nothing that anybody can read
    if written.runs:
        fail(
            f"{store.root}: nothing was observed there, and the report in {reports} shows what was "
            "observed elsewhere. Name its store by --store or MATRIX_STORE, or another folder for "
            "an empty report by --reports"
        )


def whole_profile(settings: Settings) -> Context:
    """Open a profile with all its cells, whichever a budget bought."""
    return Context(msgspec.structs.replace(settings, cells=None))


def budget_lines(choice: Choice, whole: Context) -> list[str]:
    """Return lines on what a budget bought, what it left out, and what came out otherwise."""
    changed = differences(choice, lambda cell: whole.judge.cell(cell).verdict)
    return [*in_words(choice), *(visible(line, LINE_CHARS) for line in changed)]
