"""``matrix run``: what has not been observed yet is done."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from matrix.cli.inspect import show_finding
from matrix.cli.options import LINE_CHARS, Profile, Spec, StoreFolder, fail
from matrix.cli.plan import Disk, Minutes
from matrix.cli.report import budget_lines, whole_profile
from matrix.judge.cells import command_of
from matrix.pipeline.outcomes import Verdict
from matrix.plan.budget import canaries_alone, narrowed
from matrix.plan.cells import Selection, select
from matrix.run.beforehand import beforehand
from matrix.run.context import Context, Settings
from matrix.run.estimates import choice_of, estimate
from matrix.run.interim import Interim
from matrix.run.progress import Progress
from matrix.run.regressions import run_again
from matrix.run.run import Run
from matrix.run.sources import check_sources
from matrix.run.workspace import Workspace
from matrix.untrusted.text import visible


def run(
    spec: Spec = None,
    profile: Profile = None,
    store: StoreFolder = None,
    environment: Annotated[str | None, typer.Option(help="Only this environment.")] = None,
    cell: Annotated[str | None, typer.Option(help="Only this cell and what it needs.")] = None,
    canaries: Annotated[
        bool, typer.Option("--canaries", help="Only the canaries and what they need.")
    ] = False,
    install_only: Annotated[
        bool, typer.Option("--install-only", help="Only install; not what others work on.")
    ] = False,
    regressions: Annotated[
        bool,
        typer.Option("--regressions", help="Only run again what this run found worse than before."),
    ] = False,
    minutes: Minutes = None,
    disk: Disk = None,
    reports: Annotated[
        Path | None, typer.Option(help="Write the report there again and again meanwhile.")
    ] = None,
) -> None:
    """Do what has not been observed yet, the canaries first; stop and start it as you like.

    All of a profile, one environment, one cell, or what a budget of minutes or GB buys. With a
    budget, what is settled is checked again when all else is done.
    """
    settings = Settings.of(spec=spec, profile=profile, store=store)
    context = Context(settings)
    if regressions:
        with context.store.use():
            run_again(context, typer.echo)
        return
    check_sources(context)
    budgeted = minutes is not None or disk is not None
    if budgeted and (environment is not None or cell is not None or canaries):
        fail("a budget chooses cells by itself. Leave out --environment, --cell and --canaries")
    if budgeted:
        choice = choice_of(context, estimate(context), minutes=minutes, disk_gb=disk)
        context = Context(settings, choice=choice)
    selection = _selected(context, environment, cell, canaries=canaries, install_only=install_only)
    is_whole = environment is None and cell is None and not canaries and not install_only
    first = [select(canaries_alone(context.plan))] if is_whole else []
    if cell is not None and not any(map(context.keys.unfinished, selection.cells)):
        typer.echo("this cell is done; nothing is run again, and this is what was observed:")
    with context.store.use():
        if is_whole or cell is not None:  # of the other parts, nox has said it already
            for line in beforehand(context, selection.cells, estimate(context), disk_gb=disk):
                typer.echo(line)
        _perform(context, [*first, selection], reports, install_only=install_only)
        if is_whole:
            run_again(context, typer.echo)
    if reports is not None and environment is None and cell is None:
        Interim(context, reports).write(is_over=is_whole)
    if cell is not None:
        _show_cell(context, cell)
    if budgeted and context.choice is not None:  # nox's own choice is told once, by its report
        typer.echo("\n".join(budget_lines(context.choice, whole_profile(settings))))


def _selected(
    context: Context,
    environment: str | None,
    cell: str | None,
    *,
    canaries: bool,
    install_only: bool,
) -> Selection:
    """Return the part of the plan that the options name; end where it has no such part."""
    plan = canaries_alone(context.plan) if canaries else context.plan
    if install_only:
        plan = narrowed(plan, {cell.id for cell in plan.cells if context.keys.unfinished(cell)})
    try:
        return select(plan, environment, cell)
    except KeyError as unknown:
        hint = f"`matrix plan --profile {context.plan.profile} --cells` lists the ids"
        fail(f"profile {context.plan.profile!r} has no {unknown.args[0]!r}. {hint}")


def _perform(
    context: Context, selections: list[Selection], reports: Path | None, *, install_only: bool
) -> None:
    """Do selections one after another; tell what happens, and report it where ``reports`` says."""
    progress = Progress(context.plan.cells, context.keys.unfinished, sys.stderr, os.environ)
    interim = Interim(context, reports) if reports else None

    def tell(line: str) -> None:
        progress.tell(line)
        if interim:
            interim.write_if_due(progress.tell)

    def verdict(cell_id: str) -> str:
        return context.fresh_judge().cell(cell_id).verdict

    run = Run(Workspace(context), tell, verdict, fork=True)
    for selection in selections:
        (run.install if install_only else run.perform)(selection)


def _show_cell(context: Context, cell: str) -> None:
    """Print what a cell is, by stage and by check."""
    judge = context.fresh_judge()
    result = judge.cell(cell)
    typer.echo(f"{result.id}: {result.verdict} (blame: {result.blame})")
    if result.message:
        typer.echo(f"  cause: {visible(result.message, LINE_CHARS)}")
    if result.issue:
        issue = judge.diagnoser.issues[result.issue]
        typer.echo(f"  known issue: {issue.title} ({issue.id})\n  fix: {issue.fix}")
        typer.echo(f"  source: {issue.sources[0]}")
    elif result.group:
        typer.echo(f"  known issue: none ({visible(result.group, LINE_CHARS)})")
    if not result.issue and result.verdict in (Verdict.BROKEN, Verdict.GARBAGE, Verdict.DEGRADED):
        command = command_of(context.loaded, context.plan, "specifiers")
        typer.echo(f"  what to do: use versions that worked together; `{command}` lists them")
    for stage in result.stages:
        message = visible(stage.message.strip(), LINE_CHARS)
        typer.echo(f"  {stage.stage:18} {stage.outcome:14} {message}")
    for finding in result.findings:
        show_finding(finding)
