"""``python -m matrix``: its commands, of which the older ones stand here."""

from __future__ import annotations

import errno
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import msgspec
import typer

from matrix.cli.clean import clean
from matrix.cli.inspect import MESSAGE_CHARS, inspect, show_finding
from matrix.cli.options import Profile, Spec, StoreFolder, fail
from matrix.cli.plan import Disk, Minutes, plan
from matrix.cli.releases import releases
from matrix.cli.resolve import resolve
from matrix.cli.specifiers import specifiers
from matrix.environments.locks import committed_name, read_lock
from matrix.machine.processes import die_with_parent
from matrix.outcomes import Outcome, Verdict
from matrix.plan.budget import Choice, canaries_alone, differences, in_words, read_choice
from matrix.plan.cells import Selection, select
from matrix.run.beforehand import beforehand
from matrix.run.choosing import choice_of, estimate
from matrix.run.context import Context, Settings, unreachable
from matrix.run.interim import Interim
from matrix.run.progress import Progress
from matrix.run.run import Run
from matrix.run.steps import Steps
from matrix.run.unchanged import digest_of_report, note_report
from matrix.spec.tables import SpecError
from matrix.store.store import write_atomically
from matrix.untrusted.text import visible

app = typer.Typer(
    help="Which quantizer's checkpoints load and answer correctly in which engine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


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
        fail(str(error))
    except Interrupted:
        sys.stderr.write("interrupted; what is finished is kept, the same command goes on\n")
        raise SystemExit(130) from None
    except OSError as error:
        if error.errno == errno.ENOSPC:
            fail("the disk of the store is full. Free some space; the same command goes on")
        # Where a file is named, the system did not let us at it, and the name tells more than a
        # traceback. It is not looked for below the store and the like: it may be a parent of them.
        if error.filename is None:
            raise
        fail(unreachable(error))


def _interrupted(_signal: int, _frame: FrameType | None) -> None:
    raise Interrupted


for command in (clean, inspect, plan, releases, resolve, specifiers):
    app.command()(command)


@app.command()
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
    minutes: Minutes = None,
    disk: Disk = None,
    reports: Annotated[
        Path | None, typer.Option(help="Write the report there again and again meanwhile.")
    ] = None,
) -> None:
    """Do what has not been observed yet: all of it, the canaries first; one environment, one cell,
    or what a budget buys. With a budget, what is settled is checked again when all else is done."""
    settings = Settings.of(spec=spec, profile=profile, store=store)
    context = Context(settings)
    budgeted = minutes is not None or disk is not None
    if budgeted and (environment is not None or cell is not None or canaries):
        fail("a budget chooses cells by itself. Leave out --environment, --cell and --canaries")
    if budgeted:
        choice = choice_of(context, estimate(context), minutes=minutes, disk_gb=disk)
        context = Context(settings, choice=choice)
    try:
        plan = canaries_alone(context.plan) if canaries else context.plan
        selection = select(plan, environment, cell)
    except KeyError as unknown:
        hint = f"`python -m matrix plan --profile {context.plan.profile} --cells` lists the ids"
        fail(f"profile {context.plan.profile!r} has no {unknown.args[0]!r}. {hint}")
    is_whole = environment is None and cell is None and not canaries and not install_only
    first = [select(canaries_alone(context.plan))] if is_whole else []
    if cell is not None and not any(context.keys.unfinished(each) for each in selection.cells):
        typer.echo("this cell is done; nothing is run again, and this is what was observed:")
    with context.store.use():
        if is_whole or cell is not None:  # of the other parts, nox has said it already
            for line in beforehand(context, selection.cells, disk_gb=disk):
                typer.echo(line)
        _perform(context, [*first, selection], reports, install_only=install_only)
    if reports is not None and environment is None and cell is None:
        Interim(context, reports).write(is_over=is_whole)
    if cell is not None:
        _show_cell(context, cell)
    if budgeted and context.choice is not None:  # nox's own choice is told once, by its report
        typer.echo("\n".join(_of_budget(context.choice, _whole(settings))))


def _perform(
    context: Context, selections: list[Selection], reports: Path | None, *, install_only: bool
) -> None:
    """Do selections one after another; tell what happens, and report it where ``reports`` says."""
    progress = Progress(context.plan.cells, context.keys.unfinished, sys.stderr, os.environ)
    interim = Interim(context, reports) if reports else None

    def tell(line: str) -> None:
        progress.tell(line)
        if interim:
            interim.write_if_due()

    def verdict(cell_id: str) -> str:
        return context.fresh_judge().cell(cell_id).verdict

    run = Run(context.plan, _steps(context), tell, verdict, fork=True)
    for selection in selections:
        (run.install if install_only else run.perform)(selection)


def _whole(settings: Settings) -> Context:
    """Open a profile with all its cells, whichever a budget bought."""
    return Context(msgspec.structs.replace(settings, cells=None))


def _of_budget(choice: Choice, whole: Context) -> list[str]:
    """Return lines on what a budget bought, what it left out, and what came out otherwise."""
    changed = differences(choice, lambda cell: whole.judge.cell(cell).verdict)
    return [*in_words(choice), *(visible(line, MESSAGE_CHARS) for line in changed)]


def _steps(context: Context) -> Steps:
    return Steps(
        context.loaded, context.store, context.keys, os.environ, lambda: datetime.now(UTC),
        machine=context.machine,
    )  # fmt: skip


def _show_cell(context: Context, cell: str) -> None:
    result = context.fresh_judge().cell(cell)
    typer.echo(f"{result.id}: {result.verdict} (blame: {result.blame})")
    if result.message:
        typer.echo(f"  cause: {visible(result.message, MESSAGE_CHARS)}")
    for stage in result.stages:
        message = visible(stage.message.strip(), MESSAGE_CHARS)
        typer.echo(f"  {stage.stage:18} {stage.outcome:14} {message}")
    for finding in result.findings:
        show_finding(finding)


@app.command()
def lock(
    spec: Spec = None,
    profile: Profile = None,
    store: StoreFolder = None,
    remake: Annotated[bool, typer.Option(help="Also where the inputs are the same.")] = False,
) -> None:
    """Have uv make the locks beside the spec, pinned and as released, where one is missing or
    answers other inputs."""
    context = Context(Settings.of(spec=spec, profile=profile, store=store))
    steps = _steps(context)
    folder = context.settings.spec.parent / "locks"
    (folder / "released").mkdir(parents=True, exist_ok=True)
    for name in context.plan.environments:
        for environment in context.loaded.resolutions(name):
            beside = committed_name(environment)
            if not beside:
                continue  # it is not for committing
            file = folder / beside
            if not remake and read_lock(file, environment) is not None:
                continue
            made, judged, end = steps.make_lock(environment)
            if made is None:
                fail(f"{name}: no lock, {judged.reason}: {judged.message.strip()}")
            write_atomically(file, made.text.encode())
            state = "refused" if judged.outcome is Outcome.FAILED else "resolved"
            typer.echo(f"{name} ({environment.resolution}): {state} [{end.seconds:.1f} s]")


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
    whole = _whole(settings)
    made_of = digest_of_report(whole)
    bought = _of_budget(read_choice(settings.cells), whole) if settings.cells else []
    left = [] if bought else [cell for cell in whole.plan.cells if cell.runs]
    left = [cell for cell in left if whole.keys.unfinished(cell)]
    to_do = f"{len(left):,} of {len(whole.plan.cells):,} cells are still to be done"
    table = msgspec.structs.replace(whole.table(), budget=bought, going_on=to_do if left else "")
    files = rendering.write(table, settings.reports)
    lines = "\n".join(rendering.summary(table, settings.reports)) + "\n"
    if later := os.environ.get("MATRIX_SUMMARY"):
        Path(later).write_text(lines, encoding="utf-8")  # nox's last word would come after it
    else:
        typer.echo(lines, nl=False)
    unwanted: set[Any] = set(fail_on or ())
    if table.canaries == "void" or any(result.verdict in unwanted for result in table.cells):
        raise typer.Exit(1)
    if not bought:  # whose lines are of this run
        note_report(whole, made_of, files, lines)
