"""``python -m matrix``: plan, lock, run, report, inspect."""

from __future__ import annotations

import errno
import os
import signal
import sys
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import msgspec
import typer

from matrix import environments
from matrix.checkpoint.files import CONFIG
from matrix.checkpoint.inspection import CheckpointError
from matrix.checks import judge
from matrix.checks.evidence import Evidence
from matrix.context import Context, Settings
from matrix.judge import thresholds
from matrix.outcomes import Finding, Judgement, Outcome, Stage, Verdict
from matrix.plan import select
from matrix.processes import die_with_parent
from matrix.progress import Progress
from matrix.run import Run
from matrix.spec import SpecError, load
from matrix.steps import Steps
from matrix.text import visible

MESSAGE_CHARS = 300
ERROR_CHARS = 4000

app = typer.Typer(
    help="Which quantizer's checkpoints load and answer correctly in which engine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Spec = Annotated[Path | None, typer.Option(help="A spec of your own (or MATRIX_SPEC).")]
Profile = Annotated[str | None, typer.Option(help="Which profile of it (or MATRIX_PROFILE).")]
StoreFolder = Annotated[Path | None, typer.Option("--store", help="Store (or MATRIX_STORE).")]


class Format(StrEnum):
    """How a plan is shown."""

    TABLE = "table"
    JSON = "json"


class Interrupted(BaseException):
    """SIGINT or SIGTERM arrived. No ``except Exception`` on the way may hold it up."""


def main() -> None:
    """Run a command; a mistake of the user's is one line, never a traceback."""
    if parent := os.environ.pop("MATRIX_UNDER_NOX", None):
        die_with_parent(int(parent))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupted)
    try:
        app()
    except SpecError as error:
        _fail(str(error))
    except Interrupted:
        sys.stderr.write("interrupted; what is finished is kept, the same command goes on\n")
        raise SystemExit(130) from None
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _fail("the disk of the store is full. Free some space; the same command goes on")


def _interrupted(_signal: int, _frame: FrameType | None) -> None:
    raise Interrupted


def _fail(message: str) -> NoReturn:
    # It may quote a file, a package or uv.
    sys.stderr.write(f"error: {visible(message, ERROR_CHARS)}\n")
    raise SystemExit(2)


@app.command()
def plan(
    spec: Spec = None,
    profile: Profile = None,
    output: Annotated[Format, typer.Option("--format", help="How to show it.")] = Format.TABLE,
) -> None:
    """Show environments and cells; build nothing."""
    found = Context(Settings.of(spec=spec, profile=profile)).plan
    if output is Format.JSON:
        document = {
            "schema": 1,
            "profile": found.profile,
            "environments": [
                {"name": e.name, "python": e.python, "requirements": e.requirements,
                 "departures": e.departures}
                for e in found.environments.values()
            ],
            "cells": [
                {"id": c.id, "model": c.checkpoint.model.name, "scheme": c.checkpoint.scheme_name,
                 "quantizer": c.checkpoint.quantizer.name, "engine": c.engine.name,
                 "parts": c.parts, "excluded": c.exclusion.reason if c.exclusion else None}
                for c in found.cells
            ],
        }  # fmt: skip
        typer.echo(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())
        return
    typer.echo(f"Profile {found.profile}: {found.title}\n")
    typer.echo(f"{len(found.environments)} environments")
    for environment in found.environments.values():
        typer.echo(f"  {environment.name:46} {', '.join(environment.requirements)}")
    typer.echo(f"\n{len(found.cells)} cells (model/scheme/quantizer/engine)")
    for cell in found.cells:
        excluded = f"  not run: {cell.exclusion.reason}" if cell.exclusion else ""
        typer.echo(f"  {cell.id}{excluded}")


@app.command()
def run(
    spec: Spec = None,
    profile: Profile = None,
    store: StoreFolder = None,
    environment: Annotated[str | None, typer.Option(help="Only this environment.")] = None,
    cell: Annotated[str | None, typer.Option(help="Only this cell and what it needs.")] = None,
) -> None:
    """Do what has not been observed yet: all of it, one environment, or one cell."""
    context = Context(Settings.of(spec=spec, profile=profile, store=store))
    try:
        selection = select(context.plan, environment, cell)
    except KeyError as unknown:
        hint = f"`python -m matrix plan --profile {context.plan.profile}` lists the ids"
        _fail(f"profile {context.plan.profile!r} has no {unknown.args[0]!r}. {hint}")
    progress = Progress(context.plan.cells, context.keys.unfinished, sys.stderr, os.environ)

    def verdict(cell_id: str) -> str:
        return context.fresh_judge().cell(cell_id).verdict

    Run(context.plan, _steps(context), progress.tell, verdict, fork=True).perform(selection)
    if cell is not None:
        _show_cell(context, cell)


def _steps(context: Context) -> Steps:
    return Steps(context.loaded, context.store, context.keys, os.environ, lambda: datetime.now(UTC))


def _show_cell(context: Context, cell: str) -> None:
    result = context.fresh_judge().cell(cell)
    typer.echo(f"{result.id}: {result.verdict} (blame: {result.blame})")
    for stage in result.stages:
        message = visible(stage.message.strip(), MESSAGE_CHARS)
        typer.echo(f"  {stage.stage:18} {stage.outcome:14} {message}")
    for finding in result.findings:
        _show_finding(finding)


def _show_finding(finding: Finding) -> None:
    message = visible(finding.message.strip(), MESSAGE_CHARS)
    typer.echo(f"  {finding.check:19} {finding.judgement:14} {message}")


@app.command()
def inspect(
    checkpoint: Annotated[Path, typer.Argument(help="Directory with config.json and weights.")],
    original: Annotated[
        Path | None, typer.Option(help="The float model it was made of, to compare weights with.")
    ] = None,
    tensor_parallel: Annotated[
        int, typer.Option(min=1, help="Among how many GPUs to divide it.")
    ] = 1,
) -> None:
    """Say what is wrong with a checkpoint of yours by reading its files; load and write nothing.

    Status 0 where no check fails, 1 where one does, 2 where it cannot be read at all.
    """
    from matrix.checkpoint.inspecting import inspect as read  # numpy takes a while to import

    try:
        found = read(checkpoint, original)
    except CheckpointError as error:
        _fail(str(error))
    if found.problems:
        # Without a config.json it is no model, whatever else is wrong.
        first = min(found.problems, key=lambda problem: problem.where != CONFIG)
        more = len(found.problems) - 1
        _fail(f"{first}" + (f" And {more} more such problems." if more else ""))
    evidence = Evidence(
        tied=found.tie_word_embeddings,
        quantized=found.quantization is not None,
        thresholds=thresholds(load()),
        tensor_parallel=tensor_parallel,
        inspection=found,
    )
    findings = judge(evidence, Stage.INSPECT)
    for finding in findings:
        _show_finding(finding)
    raise typer.Exit(any(finding.judgement is Judgement.FAILED for finding in findings))


@app.command()
def lock(
    spec: Spec = None,
    profile: Profile = None,
    store: StoreFolder = None,
    remake: Annotated[bool, typer.Option(help="Also where the inputs are the same.")] = False,
) -> None:
    """Have uv make the locks beside the spec that are missing or answer other inputs."""
    context = Context(Settings.of(spec=spec, profile=profile, store=store))
    steps = _steps(context)
    folder = context.settings.spec.parent / "locks"
    folder.mkdir(exist_ok=True)
    for environment in context.plan.environments.values():
        file = folder / f"{environment.name}.txt"
        if not remake and environments.read_lock(file, environment) is not None:
            continue
        made, judged, end = steps.make_lock(environment)
        if made is None:
            _fail(f"{environment.name}: no lock, {judged.reason}: {judged.message.strip()}")
        else:
            file.write_text(made.text, encoding="utf-8")
            state = "refused" if judged.outcome is Outcome.FAILED else "resolved"
            typer.echo(f"{environment.name}: {state} [{end.seconds:.1f} s]")


@app.command()
def report(
    spec: Spec = None,
    profile: Profile = None,
    store: StoreFolder = None,
    reports: Annotated[Path | None, typer.Option(help="Where to (or MATRIX_REPORTS).")] = None,
    fail_on: Annotated[
        list[Verdict] | None, typer.Option(help="End with status 1 where a cell is this.")
    ] = None,
) -> None:
    """Judge what was observed, write the report, print its summary."""
    from matrix import report as rendering  # pandas takes half a second to import

    settings = Settings.of(spec=spec, profile=profile, store=store, reports=reports)
    table = Context(settings).judge.table()
    rendering.write(table, settings.reports)
    lines = "\n".join(rendering.summary(table, settings.reports)) + "\n"
    if later := os.environ.get("MATRIX_SUMMARY"):
        Path(later).write_text(lines, encoding="utf-8")  # nox's last word would come after it
    else:
        typer.echo(lines, nl=False)
    unwanted: set[Any] = set(fail_on or ())
    if table.canaries == "void" or any(result.verdict in unwanted for result in table.cells):
        raise typer.Exit(1)
