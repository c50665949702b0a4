"""``matrix plan``: what a profile would do, need and cost. Nothing is built or run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
import typer

from matrix.cli.options import Format, FormatOption, Profile, Spec, StoreFolder, as_json
from matrix.cli.showing import Row, show
from matrix.machine.hardware import Machine, gpus_in_words
from matrix.plan.budget import Choice, in_words
from matrix.plan.cell_steps import steps_of
from matrix.plan.cells import Cell, Plan
from matrix.plan.needs import GIB, Needs, describe, needs_of
from matrix.plan.predictions import GB, Cost, Prediction, name_of_cell, parameters
from matrix.plan.unlisted import unlisted
from matrix.run.context import Context, Settings
from matrix.run.estimates import Estimate, choice_of, estimate
from matrix.run.sources import check_sources
from matrix.spec.methods import methods_of
from matrix.untrusted.text import counted, visible

SHOWN = 20
"""How many chosen cells are listed, and groups of needs, where not all are asked for."""
TITLE_CHARS = 72
KINDS = ("wheels", "environment", "import", "model", "checkpoint", "cell")
"""The first words of costs' names, in the order in which they are paid."""

Minutes = Annotated[
    float | None, typer.Option(min=0, help="Choose cells for so many minutes of work.")
]
Disk = Annotated[
    float | None, typer.Option(min=0, help="Choose cells that add so many GB to the disk.")
]


def plan(
    spec: Spec = None,
    profile: Profile = None,
    store: StoreFolder = None,
    minutes: Minutes = None,
    disk: Disk = None,
    cells: Annotated[bool, typer.Option("--cells", help="List environments and cells.")] = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """Show what a profile holds, needs and is predicted to cost; build and run nothing."""
    context = Context(Settings.of(spec=spec, profile=profile, store=store))
    check_sources(context)
    work = PlannedWork(context, estimate(context), minutes, disk)
    if output is Format.JSON:
        typer.echo(as_json(document(work), indent=2))
        return
    show(lines(work, everything=cells))


class PlannedWork:
    """What a profile would do, with what it is predicted to cost and what a budget buys of it."""

    def __init__(
        self, context: Context, expected: Estimate, minutes: float | None, disk_gb: float | None
    ) -> None:
        """Take a budget of minutes and 10^9 bytes, where one is given."""
        self.plan: Plan = context.plan
        self.expected = expected
        self.prediction: Prediction = expected.prediction
        self.machine: Machine = context.machine
        self.unlisted = unlisted(context.plan, methods_of(context.loaded.file))
        cells = self.plan.cells
        self.to_do = [cell.id for cell in cells if cell.id in expected.unfinished]
        self.elsewhere = [cell.id for cell in cells if cell.unmet and not cell.exclusion]
        # A machine on which nothing runs can still say what one with the hardware would do.
        self.for_another = bool(self.elsewhere) and not any(cell.runs for cell in cells)
        self.choice: Choice | None = None
        if minutes is not None or disk_gb is not None:
            self.choice = choice_of(
                context, expected, minutes=minutes, disk_gb=disk_gb, elsewhere=self.for_another
            )

    def state(self, cell: Cell) -> str:
        """Return what is to be done of a cell here, in two words."""
        if cell.exclusion:
            return "not run"
        if cell.unmet:
            return "untested here"
        return "to do" if cell.id in self.expected.unfinished else "done"

    def needs(self, cell: Cell) -> list[Needs]:
        """Return what each step of a cell needs of a machine."""
        environments = self.plan.environments
        return [needs_of(step, environments[step.environment]) for step in steps_of(cell)]


def lines(work: PlannedWork, *, everything: bool) -> Iterator[str]:
    """Yield the lines that a person is shown."""
    plan, machine = work.plan, work.machine
    yield f"Profile {plan.profile}: {_cut(plan.title)}"
    gpus = gpus_in_words(machine.gpus) or f"no GPU ({machine.note})"
    yield f"Here: {machine.cores} cores, {machine.memory / GIB:.0f} GiB of memory, {gpus}"
    yield (
        f"{counted(len(plan.environments), 'environment')}, {counted(len(plan.models), 'model')}, "
        f"{counted(sum(c.scheme is not None for c in plan.checkpoints), 'checkpoint')}, "
        f"{counted(len(plan.cells), 'cell')}"
    )
    yield from _parts(work)
    yield from _unmet(work)
    yield from _unlisted(work)
    yield from _models(work)
    if work.to_do:
        yield from _costs(work, "Still to be done here", work.to_do, work.expected.paid)
    else:
        yield from ("", "Nothing is left to be done that can be done here.")
    if work.elsewhere:
        title = "Untested here; on a machine with the hardware, from the beginning"
        yield from _costs(work, title, work.elsewhere, frozenset())
    yield from _chosen(work, everything)
    if everything:
        yield from _details(work)
    else:
        yield from ("", "Each environment and cell: --cells")


def _parts(work: PlannedWork) -> Iterator[str]:
    yield ""
    heads = ("cells", "done", "to do", "untested", "not run")
    line = f"{'part':{TITLE_CHARS}} {'cells':>6} {'done':>6} {'to do':>6} untested not run"
    yield Row(line, "part", *heads, is_head=True)
    for part in work.plan.parts:
        states = Counter(work.state(cell) for cell in work.plan.cells if part in cell.parts)
        numbers = (states["done"], states["to do"], states["untested here"], states["not run"])
        done, to_do, untested, not_run = numbers
        line = f"{_cut(part):{TITLE_CHARS}} {sum(numbers):6,} {done:6,} {to_do:6,}"
        counted = [f"{number:,}" for number in (sum(numbers), *numbers)]
        yield Row(f"{line} {untested:8,} {not_run:7,}", visible(part), *counted)


def _unmet(work: PlannedWork) -> Iterator[str]:
    """Say what this machine lacks, and for how many cells."""
    groups = Counter(cell.unmet for cell in work.plan.cells if work.state(cell) == "untested here")
    if groups:
        yield ""
        yield f"{sum(groups.values()):,} cells untested here:"
    for unmet, number in groups.most_common(SHOWN):
        yield f"  {number:6,} {'cell' if number == 1 else 'cells'}: {visible(unmet)}"
    if len(groups) > SHOWN:
        rest = sum(number for _, number in groups.most_common()[SHOWN:])
        yield f"  {rest:6,} cells of {len(groups) - SHOWN} further needs: --cells"


def _unlisted(work: PlannedWork) -> Iterator[str]:
    """Say which engines do not list a format that they are to read."""
    if work.unlisted:
        yield ""
        yield "Likely to be refused, by the lists in the engines' wheels (`matrix formats`):"
    for line, number in work.unlisted.most_common():
        yield f"  {number:6,} {'cell' if number == 1 else 'cells'}: {visible(line)}"


def _models(work: PlannedWork) -> Iterator[str]:
    """Say how large the models are, and the most that their steps need."""
    sizes = {model.name: parameters(model) for model in work.plan.models}
    if not any(sizes.values()):
        return
    most: dict[str, Needs] = {}
    for cell in work.plan.cells:
        name = cell.checkpoint.model.name
        of_steps = work.needs(cell)
        needs = max(of_steps, key=lambda needs: (needs.vram * needs.gpus, needs.vram))
        before = most.get(name, needs)
        if needs.vram * needs.gpus < before.vram * before.gpus:
            needs = before
        memory = max(before.memory, *(step.memory for step in of_steps))
        most[name] = msgspec.structs.replace(needs, memory=memory)
    width = max(len(name) for name in sizes)
    heads = ("model", "parameters", "16-bit GB", "predicted to need at most")
    yield ""
    yield Row(f"{heads[0]:{width}} {heads[1]} {heads[2]}  {heads[3]}", *heads, is_head=True)
    for name, size in sizes.items():
        needs_text = describe(most[name]) or "nothing of a GPU"
        sizes_text = f"{size / GB:9.2f}B", f"{2 * size / GB:9.1f}"
        line = f"{name:{width}} {' '.join(sizes_text)}  {needs_text}"
        yield Row(line, name, *sizes_text, needs_text)


def _costs(work: PlannedWork, title: str, cells: list[str], paid: frozenset[str]) -> Iterator[str]:
    """Give a table of what some cells cost, by kind, each thing counted once."""
    rows: dict[str, Cost] = dict.fromkeys(KINDS, Cost())
    counted: Counter[str] = Counter()
    for name in work.prediction.names(cells, paid):
        kind = name.partition(" ")[0]
        rows[kind] += work.prediction.costs[name]
        counted[kind] += 1
    yield ""
    yield f"{title}, predicted:"
    heads = ("number", "download", "disk", "work")
    line = f"  {'':14} {'number':>7} {'download':>11} {'disk':>11} {'work':>11}"
    yield Row(line, "", *heads, is_head=True)
    for kind in KINDS:
        if counted[kind]:
            yield _row(f"{kind}s" if kind != "wheels" else kind, counted[kind], rows[kind])
    total = sum(rows.values(), Cost())
    yield _row("together", None, total)
    yield f"  {_sources(total)}; one environment after another"


def _chosen(work: PlannedWork, everything: bool) -> Iterator[str]:
    """Say what the budget buys: new releases, then stale evidence, then re-checks."""
    if work.choice is None:
        return
    yield ""
    if work.for_another:
        yield "Nothing of it runs here. On a machine with the hardware, from the beginning:"
    yield from in_words(work.choice)
    yield "  new: never observed, the newest release first; stale: observed with other inputs;"
    yield "  re-check: settled, the longest ago first. A cell brings its float model's along."
    chosen = list(work.choice.cells.items())
    for cell, worth in chosen if everything else chosen[:SHOWN]:
        yield f"  {worth:9} {cell}"
    if len(chosen) > SHOWN and not everything:
        yield f"  and {len(chosen) - SHOWN:,} more: --cells"


def _details(work: PlannedWork) -> Iterator[str]:
    yield from ("", "environments")
    for environment in work.plan.environments.values():
        where = f"{environment.device}, {environment.resolution}"
        yield f"  {environment.name:46} {where:15} {', '.join(environment.requirements)}"
    yield from ("", "cells (model/scheme/quantizer/engine)")
    for cell in work.plan.cells:
        why = cell.exclusion.reason if cell.exclusion else cell.unmet
        state = f"{work.state(cell)}: {visible(why)}" if why else work.state(cell)
        yield f"  {cell.id}  {state}"


def document(work: PlannedWork) -> dict[str, Any]:
    """Return the same as data."""
    costs = work.prediction.costs
    return {
        "schema": 1,
        "profile": work.plan.profile,
        "machine": work.machine.facts(),
        "environments": [
            {"name": e.name, "python": e.python, "device": e.device,
             "resolution": e.resolution, "requirements": e.requirements,
             "departures": e.departures}
            for e in work.plan.environments.values()
        ],
        "cells": [
            {"id": c.id, "model": c.checkpoint.model.name, "scheme": c.checkpoint.scheme_name,
             "quantizer": c.checkpoint.quantizer.name, "engine": c.engine.name,
             "parts": c.parts, "excluded": c.exclusion.reason if c.exclusion else None,
             "state": work.state(c), "unmet": c.unmet,
             "vram_bytes": max(needs.vram for needs in work.needs(c)),
             "predicted_seconds": round(costs[name_of_cell(c.id)].seconds, 1)}
            for c in work.plan.cells
        ],
        "predicted": {
            "to do here": work.prediction.of_cells(work.to_do, work.expected.paid),
            "untested here": work.prediction.of_cells(work.elsewhere),
        },
        "unlisted": work.unlisted,
        "budget": work.choice,
        "budget_for_another_machine": work.for_another,
    }  # fmt: skip


def _cut(title: str) -> str:
    shown = visible(title)
    return shown if len(shown) <= TITLE_CHARS else f"{shown[: TITLE_CHARS - 1]}…"


def _row(name: str, number: int | None, cost: Cost) -> Row:
    counted = "" if number is None else f"{number:,}"
    download, disk = f"{cost.download / GB:8,.1f} GB", f"{cost.disk / GB:8,.1f} GB"
    work = f"{cost.seconds / 60:7,.1f} min"
    line = f"  {name:14} {counted:>7} {download} {disk} {work}"
    return Row(line, name, counted, download, disk, work)


def _sources(total: Cost) -> str:
    """Say how much of the time was measured here, and where the rest comes from."""
    if not total.measured:
        return "from the constants of the spec: nothing like it was timed here"
    share = total.measured / total.seconds
    shown = f"{share:.0%}" if share >= 0.01 else "less than 1%"
    return f"{shown} of the work as timed here, the rest from the constants of the spec"
