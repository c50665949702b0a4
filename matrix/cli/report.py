"""``matrix report``: what was observed, judged and written as pages and data."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from matrix.cli.options import LINE_CHARS, Profile, Spec, StoreFolder, fail
from matrix.cli.showing import show
from matrix.history.changes import Changes
from matrix.judge.results import CanaryState, MatrixResult
from matrix.pipeline.outcomes import NO_ANSWER, Verdict
from matrix.plan import budget
from matrix.run.context import Context, Settings
from matrix.run.light import copy_light, open_light
from matrix.run.reporting import remembered
from matrix.run.unchanged import digest_of_report, note_report, unchanged_summary
from matrix.untrusted.reading import UnreadableError, decode, read_file
from matrix.untrusted.text import counted, visible

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
    fail_on_regressed: Annotated[
        bool,
        typer.Option(
            "--fail-on-regressed",
            help="End with status 1 where a cell has regressed since the last run to be believed.",
        ),
    ] = False,
    light: Annotated[
        Path | None,
        typer.Option(help="Also copy what it is made of to this new folder: few MB, no packages."),
    ] = None,
    from_light: Annotated[
        Path | None,
        typer.Option(help="Report such a copy, by the machine that it is from; the store is not."),
    ] = None,
) -> None:
    """Judge what was observed, write the report, print its summary.

    A report that lies there and would be the same is left as it is.

    Status 0; 1 where the canaries are void, where the machine's trouble (infra) is all that came of
    this run or of all runs, where no cell can run on this machine, and where a --fail-on says so.
    """
    from matrix import report as rendering  # pandas takes half a second to import

    settings = Settings.of(spec=spec, profile=profile, store=from_light or store, reports=reports)
    whole = open_light(settings) if from_light else whole_profile(settings)
    _check_store(whole)
    if light is not None:
        copy_light(whole, light)
    if not (settings.cells or fail_on or fail_on_regressed) and (kept := unchanged_summary(whole)):
        _tell(kept)
        return
    made_of = digest_of_report(whole)
    bought = budget_lines(budget.read_choice(settings.cells), whole) if settings.cells else []
    left = [] if bought else whole.keys.unfinished_of(whole.plan.cells)
    to_do = f"{len(left):,} of {len(whole.plan.cells):,} cells are still to be done"
    table = msgspec.structs.replace(whole.table(), budget=bought, going_on=to_do if left else "")
    material, troubles = remembered(whole, table)
    for line in troubles:
        typer.echo(f"history: {visible(line, LINE_CHARS)}", err=True)
    files = rendering.write(material._replace(story=whole.stories()), settings.reports)
    lines = "\n".join(rendering.summary(table, settings.reports, material.changes)) + "\n"
    _tell(lines)
    changes = material.changes if fail_on_regressed else None
    why = list(faults(table, settings.run, fail_on or [], changes))
    for line in why:
        typer.echo(f"no success: {line}", err=True)
    if why:
        raise typer.Exit(1)
    if not bought:  # whose lines are of this run
        note_report(whole, made_of, files, lines)


def faults(
    table: MatrixResult, run: str, unwanted: Collection[Verdict], changes: Changes | None
) -> Iterator[str]:
    """Yield why a run is no success, a line for each reason.

    Args:
        table: What it came to.
        run: The id of the run that is reported.
        unwanted: Verdicts that are none.
        changes: Since the last run that is believed, where a regression is none.
    """
    if table.canaries is CanaryState.VOID:
        yield "the canaries are void: trust no verdict before that is explained"
    verdicts = [result.verdict for result in table.cells]
    worked_on = [result.verdict for result in table.cells if run in result.runs]
    if {*verdicts} <= NO_ANSWER and not _is_before_a_run(verdicts):
        yield f"no cell has an answer ({_counts(verdicts)})"
    elif worked_on and {*worked_on} <= {Verdict.INFRA, Verdict.NOT_RUN}:
        yield f"no cell that this run worked on has an answer ({_counts(worked_on)})"
    if bad := [verdict for verdict in verdicts if verdict in unwanted]:
        yield f"--fail-on: {_counts(bad)}"
    worse = [change.cell for change in changes.cells if change.is_regression] if changes else []
    if worse:
        first = f"{worse[0]}{', ...' if worse[1:] else ''}"
        yield visible(f"{counted(len(worse), 'cell')} regressed: {first}", LINE_CHARS)


def _is_before_a_run(verdicts: Collection[Verdict]) -> bool:
    """Whether cells have no answer because nobody has tried to get one yet."""
    return Verdict.INFRA not in verdicts and (not verdicts or Verdict.NOT_RUN in verdicts)


def _counts(verdicts: Iterable[Verdict]) -> str:
    return ", ".join(f"{number:,} {verdict}" for verdict, number in Counter(verdicts).items())


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


def budget_lines(choice: budget.Choice, whole: Context) -> list[str]:
    """Return lines on what a budget bought, what it left out, and what came out otherwise."""
    changed = budget.differences(choice, lambda cell: whole.judge.cell(cell).verdict)
    return [*budget.in_words(choice), *(visible(line, LINE_CHARS) for line in changed)]
