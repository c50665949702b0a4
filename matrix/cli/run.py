"""``matrix run``: what has not been observed yet is done."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Set
from enum import IntEnum
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from matrix.cli.cell_text import cell_lines, short_line
from matrix.cli.choosing import (
    chosen_cells,
    chosen_environments,
    complete_cell,
    complete_environment,
)
from matrix.cli.options import LINE_CHARS, Profile, Spec, StoreFolder, fail
from matrix.cli.plan import Disk, Minutes
from matrix.cli.report import budget_lines, whole_profile
from matrix.cli.showing import show
from matrix.judge.results import CanaryState
from matrix.judge.verdict import canary_state
from matrix.pipeline.outcomes import NO_ANSWER, Verdict
from matrix.plan.budget import canaries_alone, narrowed
from matrix.plan.cells import Cell, Selection, select
from matrix.run.beforehand import beforehand
from matrix.run.context import Context, Settings
from matrix.run.estimates import Estimate, choice_of, estimate
from matrix.run.guarding import forget_ends
from matrix.run.interim import Interim
from matrix.run.progress import CLOCK, Progress
from matrix.run.regressions import run_again
from matrix.run.run import Run
from matrix.run.sources import check_sources
from matrix.run.time_left import TimeLeft, predicted_work
from matrix.run.workspace import Workspace
from matrix.untrusted.text import visible


class Status(IntEnum):
    """How the command ends; a mistake of the user's is trouble too."""

    WORKS = 0
    WORKS_NOT = 1
    TROUBLE = 2
    VOID = 3


class Part(NamedTuple):
    """The part of a profile that a run is about, as options name it."""

    cells: list[str] | None
    """Ids; ``None`` where no cells are named."""
    environments: list[str] | None
    canaries: bool
    install_only: bool

    @property
    def is_whole(self) -> bool:
        """Whether it is all of the profile."""
        return self == Part(None, None, canaries=False, install_only=False)

    def of(self, context: Context) -> Selection:
        """Return what is to be done of a plan."""
        plan = canaries_alone(context.plan) if self.canaries else context.plan
        if self.install_only:
            plan = narrowed(plan, {cell.id for cell in context.keys.unfinished_of(plan.cells)})
        in_plan = self.environments and [e for e in self.environments if e in plan.environments]
        return select(plan, in_plan, self.cells)


Cells = Annotated[
    list[str] | None,
    typer.Argument(
        help="Only these cells and what they need: ids, or patterns such as 'twin-*/vllm-*'.",
        autocompletion=complete_cell,
        show_default=False,
    ),
]
Environments = Annotated[
    list[str] | None,
    typer.Option(
        help="Only this environment, or those of a pattern; may be repeated.",
        autocompletion=complete_environment,
    ),
]
MoreCells = Annotated[
    list[str] | None, typer.Option(help="The same as CELLS.", autocompletion=complete_cell)
]
Canaries = Annotated[bool, typer.Option("--canaries", help="Only the canaries and what they need.")]
InstallOnly = Annotated[
    bool, typer.Option("--install-only", help="Only install; not what others work on.")
]
Regressions = Annotated[
    bool,
    typer.Option("--regressions", help="Only run again what came out worse than in the last run."),
]
Reports = Annotated[
    Path | None, typer.Option(help="Write the report there again and again meanwhile.")
]


def run(
    cells: Cells = None,
    spec: Spec = None,
    profile: Profile = None,
    store: StoreFolder = None,
    environment: Environments = None,
    cell: MoreCells = None,
    canaries: Canaries = False,
    install_only: InstallOnly = False,
    regressions: Regressions = False,
    minutes: Minutes = None,
    disk: Disk = None,
    reports: Reports = None,
) -> None:
    """Do what has not been observed yet, the canaries first; stop and start it as you like.

    All of a profile, some environments, some cells, or what a budget of minutes or GB buys. With a
    budget, what is settled is checked again when all else is done.

    Status of named cells: 0 where all work, 1 where one does not, 2 where one has no answer (infra,
    not run, untested here) or the command is mistaken, 3 where the canaries are void. Of a whole
    profile: 0, or 2 and 3 as above, where untested cells count as done; what does not work is a
    result. Of environments, canaries and installs: 0, as they are a part of something larger.
    """
    others = (cells, environment, cell, canaries, install_only, reports)
    if regressions and (any(others) or (minutes, disk) != (None, None)):
        fail("--regressions chooses cells by itself and writes no report. Leave out the rest")
    settings = Settings.of(spec=spec, profile=profile, store=store)
    context = Context(settings)
    if regressions:
        with context.store.use():
            run_again(context, typer.echo)
        return
    check_sources(context)
    named = [*(cells or []), *(cell or [])]
    if named and environment:
        fail("cells bring their environments along. Leave out --environment, or the cells")
    budgeted = minutes is not None or disk is not None
    if budgeted and (environment or named or canaries):
        fail("a budget chooses cells by itself. Leave out cells, --environment and --canaries")
    if budgeted:
        choice = choice_of(context, estimate(context), minutes=minutes, disk_gb=disk)
        context = Context(settings, choice=choice)
    part = Part(
        chosen_cells(context.plan, named) if named else None,
        chosen_environments(context.plan, environment) if environment else None,
        canaries=canaries, install_only=install_only,
    )  # fmt: skip
    _perform(context, part, reports, disk)
    if budgeted and context.choice is not None:  # nox's own choice is told once, by its report
        show(budget_lines(context.choice, whole_profile(settings)))
    raise typer.Exit(_shown_status(context, part))


def _perform(context: Context, part: Part, reports: Path | None, disk: float | None) -> None:
    """Do a part of a profile; tell what happens, and report it where ``reports`` says."""
    selection = part.of(context)
    first = [select(canaries_alone(context.plan))] if part.is_whole else []
    if part.cells and not context.keys.unfinished_of(selection.cells):
        these = "this cell is" if len(part.cells) == 1 else "these cells are"
        typer.echo(f"{these} done; nothing is run again, and this is what was observed:")
    interim = Interim(context, reports) if reports else None
    expected = None
    with context.store.use():
        if part.is_whole or part.cells:  # of the other parts, nox has said it already
            expected = estimate(context)
            lack = context.sandbox.lack
            show(beforehand(context, selection.cells, expected, disk_gb=disk, lack=lack))
        with _progress(context, part, selection, expected) as progress:

            def tell(line: str) -> None:
                progress.tell(line)
                if interim:
                    interim.write_if_due(progress.tell)

            def verdict(cell_id: str) -> str:
                return context.fresh_judge().cell(cell_id).verdict

            workspace = Workspace(context, tell=tell)
            if part.cells:
                forget_ends(workspace, (cell for cell in selection.cells if cell.id in part.cells))
            run = Run(workspace, tell, verdict, fork=True)
            for chosen in (*first, selection):
                (run.install if part.install_only else run.perform)(chosen)
        if part.is_whole:
            run_again(context, typer.echo)
    if interim and part.environments is None and part.cells is None:
        for line in interim.write(is_over=part.is_whole):
            typer.echo(f"history: {visible(line, LINE_CHARS)}", err=True)


def _progress(
    context: Context, part: Part, selection: Selection, expected: Estimate | None
) -> Progress:
    """Return what tells of a part: of all that runs, where a session of nox does the part."""
    of_nox = TimeLeft.of_session(os.environ)
    cells: Collection[Cell] = selection.cells
    if of_nox is not None:
        cells = [cell for cell in context.plan.cells if cell.runs]
    elif part.install_only:
        cells = []  # which finishes none
    elif part.cells:
        cells = [cell for cell in cells if cell.id in part.cells]
    time_left = of_nox
    if expected is not None and of_nox is None:
        left = [cell.id for cell in context.keys.unfinished_of(cells)]
        work = predicted_work(expected.prediction, expected.paid, left)
        time_left = TimeLeft.of(left, CLOCK.seconds(), work)
    return Progress(cells, context.keys.unfinished_of, sys.stderr, os.environ, time_left)


def _shown_status(context: Context, part: Part) -> Status:
    """Show the cells that were named, or why a whole run is no success; return how it ends."""
    if part.cells is None and not part.is_whole:
        return Status.WORKS
    judge = context.fresh_judge()
    state = canary_state(judge.cell(cell.id) for cell in context.plan.cells if cell.canary)
    if state is CanaryState.VOID:
        typer.echo("the canaries are void: trust no verdict before that is explained", err=True)
    if part.cells is not None:
        results = [judge.cell(cell) for cell in part.cells]
        show(cell_lines(judge, results[0]) if len(results) == 1 else map(short_line, results))
        return status_of({result.verdict for result in results}, state)
    verdicts = [judge.cell(cell.id).verdict for cell in context.plan.cells if cell.runs]
    left = [verdict for verdict in verdicts if verdict in (Verdict.INFRA, Verdict.NOT_RUN)]
    if left:
        counted, why = f"{len(left):,} of {len(verdicts):,} cells", ", ".join(sorted({*left}))
        again = "the same command tries them again"
        typer.echo(f"{counted} have no answer ({why}); {again}", err=True)
    else:
        name = context.settings.profile
        typer.echo(
            f"profile {name} is done: `matrix report --profile {name}` shows what came of it"
        )
    return status_of(set(left), state)


def status_of(verdicts: Set[Verdict], canaries: CanaryState) -> Status:
    """Return the status of a run by the verdicts of the cells that it is asked for."""
    if canaries is CanaryState.VOID:
        return Status.VOID
    if verdicts & NO_ANSWER:
        return Status.TROUBLE
    return Status.WORKS if verdicts <= {Verdict.WORKS} else Status.WORKS_NOT
