"""``matrix plan``: what a profile would do, need and cost. Nothing is built or run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
import typer

from matrix.cli.options import Format, FormatOption, Profile, Spec, StoreFolder
from matrix.machine.hardware import Machine, gpus_in_words
from matrix.plan.budget import Choice, in_words
from matrix.plan.cells import Cell, Plan
from matrix.plan.needs import GIB, Needs, describe, needs_of
from matrix.plan.predictions import GB, Cost, Prediction, name_of_cell, parameters
from matrix.plan.steps import steps_of
from matrix.run.choosing import Estimate, choice_of, estimate
from matrix.run.context import Context, Settings
from matrix.untrusted.text import visible

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
    known = estimate(context)
    shown = Shown(context, known, minutes, disk)
    if output is Format.JSON:
        encoded = msgspec.json.encode(shown.document())
        typer.echo(msgspec.json.format(encoded, indent=2).decode())
        return
    for line in shown.lines(everything=cells):
        typer.echo(line)


class Shown:
    """A plan with all that is known of it, as lines for a person or as data."""

    def __init__(
        self, context: Context, known: Estimate, minutes: float | None, disk_gb: float | None
    ) -> None:
        self._plan: Plan = context.plan
        self._known = known
        self._prediction: Prediction = known.prediction
        self._machine: Machine = context.machine
        cells = self._plan.cells
        self._to_do = [cell.id for cell in cells if cell.id in known.unfinished]
        self._elsewhere = [cell.id for cell in cells if cell.unmet and not cell.exclusion]
        # A machine on which nothing runs can still say what one with the hardware would do.
        self._for_another = bool(self._elsewhere) and not any(cell.runs for cell in cells)
        self._choice: Choice | None = None
        if minutes is not None or disk_gb is not None:
            self._choice = choice_of(
                context, known, minutes=minutes, disk_gb=disk_gb, elsewhere=self._for_another
            )

    def lines(self, *, everything: bool) -> Iterator[str]:
        """Give the lines of the whole."""
        plan, machine = self._plan, self._machine
        yield f"Profile {plan.profile}: {_cut(plan.title)}"
        gpus = gpus_in_words(machine.gpus) or f"no GPU ({machine.note})"
        yield f"Here: {machine.cores} cores, {machine.memory / GIB:.0f} GiB of memory, {gpus}"
        yield (
            f"{len(plan.environments)} environments, {len(plan.models)} models, "
            f"{sum(c.scheme is not None for c in plan.checkpoints)} checkpoints, "
            f"{len(plan.cells):,} cells"
        )
        yield from self._parts()
        yield from self._unmet()
        yield from self._models()
        if self._to_do:
            yield from self._costs("Still to be done here", self._to_do, self._known.paid)
        else:
            yield from ("", "Nothing is left to be done that can be done here.")
        if self._elsewhere:
            title = "Untested here; on a machine with the hardware, from the beginning"
            yield from self._costs(title, self._elsewhere, frozenset())
        yield from self._chosen(everything)
        if everything:
            yield from self._details()
        else:
            yield from ("", "Each environment and cell: --cells")

    def _parts(self) -> Iterator[str]:
        yield ""
        heads = f"{'cells':>6} {'done':>6} {'to do':>6} {'untested':>8} {'not run':>7}"
        yield f"{'part':{TITLE_CHARS}} {heads}"
        for part in self._plan.parts:
            states = Counter(self._state(cell) for cell in self._plan.cells if part in cell.parts)
            numbers = (states["done"], states["to do"], states["untested here"], states["not run"])
            done, to_do, untested, not_run = numbers
            yield (
                f"{_cut(part):{TITLE_CHARS}} {sum(numbers):6,} {done:6,} "
                f"{to_do:6,} {untested:8,} {not_run:7,}"
            )

    def _state(self, cell: Cell) -> str:
        if cell.exclusion:
            return "not run"
        if cell.unmet:
            return "untested here"
        return "to do" if cell.id in self._known.unfinished else "done"

    def _unmet(self) -> Iterator[str]:
        """Say what this machine lacks, and for how many cells."""
        groups = Counter(cell.unmet for cell in self._plan.cells if self._is_untested(cell))
        if groups:
            yield ""
            yield f"{sum(groups.values()):,} cells untested here:"
        for unmet, number in groups.most_common(SHOWN):
            yield f"  {number:6,} {'cell' if number == 1 else 'cells'}: {visible(unmet)}"
        if len(groups) > SHOWN:
            rest = sum(number for _, number in groups.most_common()[SHOWN:])
            yield f"  {rest:6,} cells of {len(groups) - SHOWN} further needs: --cells"

    def _is_untested(self, cell: Cell) -> bool:
        return self._state(cell) == "untested here"

    def _models(self) -> Iterator[str]:
        """Say how large the models are, and the most that their steps need."""
        sizes = {model.name: parameters(model) for model in self._plan.models}
        if not any(sizes.values()):
            return
        most: dict[str, Needs] = {}
        for cell in self._plan.cells:
            name = cell.checkpoint.model.name
            needs = max(self._needs(cell), key=lambda needs: (needs.vram * needs.gpus, needs.vram))
            known = most.get(name, needs)
            if needs.vram * needs.gpus < known.vram * known.gpus:
                needs = known
            memory = max(known.memory, *(step.memory for step in self._needs(cell)))
            most[name] = msgspec.structs.replace(needs, memory=memory)
        width = max(len(name) for name in sizes)
        yield from ("", f"{'model':{width}} parameters 16-bit GB  predicted to need at most")
        for name, size in sizes.items():
            needs_text = describe(most[name]) or "nothing of a GPU"
            yield f"{name:{width}} {size / GB:9.2f}B {2 * size / GB:9.1f}  {needs_text}"

    def _needs(self, cell: Cell) -> list[Needs]:
        environments = self._plan.environments
        return [needs_of(step, environments[step.environment]) for step in steps_of(cell)]

    def _costs(self, title: str, cells: list[str], paid: frozenset[str]) -> Iterator[str]:
        """Give a table of what some cells cost, by kind, each thing counted once."""
        rows: dict[str, Cost] = dict.fromkeys(KINDS, Cost())
        counted: Counter[str] = Counter()
        for name in self._prediction.names(cells, paid):
            kind = name.partition(" ")[0]
            rows[kind] += self._prediction.costs[name]
            counted[kind] += 1
        yield ""
        yield f"{title}, predicted:"
        yield f"  {'':14} {'number':>7} {'download':>11} {'disk':>11} {'work':>11}"
        for kind in KINDS:
            if counted[kind]:
                yield _row(f"{kind}s" if kind != "wheels" else kind, counted[kind], rows[kind])
        total = sum(rows.values(), Cost())
        yield _row("together", None, total)
        yield f"  {_sources(total)}; one environment after another"

    def _chosen(self, everything: bool) -> Iterator[str]:
        """Say what the budget buys: new releases, then stale evidence, then re-checks."""
        if self._choice is None:
            return
        yield ""
        if self._for_another:
            yield "Nothing of it runs here. On a machine with the hardware, from the beginning:"
        yield from in_words(self._choice)
        yield "  new: never observed, the newest release first; stale: observed with other inputs;"
        yield "  re-check: settled, the longest ago first. A cell brings its float model's along."
        chosen = list(self._choice.cells.items())
        for cell, worth in chosen if everything else chosen[:SHOWN]:
            yield f"  {worth:9} {cell}"
        if len(chosen) > SHOWN and not everything:
            yield f"  and {len(chosen) - SHOWN:,} more: --cells"

    def _details(self) -> Iterator[str]:
        yield from ("", "environments")
        for environment in self._plan.environments.values():
            where = f"{environment.device}, {environment.resolution}"
            yield f"  {environment.name:46} {where:15} {', '.join(environment.requirements)}"
        yield from ("", "cells (model/scheme/quantizer/engine)")
        for cell in self._plan.cells:
            why = cell.exclusion.reason if cell.exclusion else cell.unmet
            state = f"{self._state(cell)}: {visible(why)}" if why else self._state(cell)
            yield f"  {cell.id}  {state}"

    def document(self) -> dict[str, Any]:
        """Return the whole as data."""
        costs = self._prediction.costs
        return {
            "schema": 1,
            "profile": self._plan.profile,
            "machine": self._machine.facts(),
            "environments": [
                {"name": e.name, "python": e.python, "device": e.device,
                 "resolution": e.resolution, "requirements": e.requirements,
                 "departures": e.departures}
                for e in self._plan.environments.values()
            ],
            "cells": [
                {"id": c.id, "model": c.checkpoint.model.name, "scheme": c.checkpoint.scheme_name,
                 "quantizer": c.checkpoint.quantizer.name, "engine": c.engine.name,
                 "parts": c.parts, "excluded": c.exclusion.reason if c.exclusion else None,
                 "state": self._state(c), "unmet": c.unmet,
                 "vram_bytes": max(needs.vram for needs in self._needs(c)),
                 "predicted_seconds": round(costs[name_of_cell(c.id)].seconds, 1)}
                for c in self._plan.cells
            ],
            "predicted": {
                "to do here": self._prediction.of_cells(self._to_do, self._known.paid),
                "untested here": self._prediction.of_cells(self._elsewhere),
            },
            "budget": self._choice,
            "budget_for_another_machine": self._for_another,
        }  # fmt: skip


def _cut(title: str) -> str:
    shown = visible(title)
    return shown if len(shown) <= TITLE_CHARS else f"{shown[: TITLE_CHARS - 1]}…"


def _row(name: str, number: int | None, cost: Cost) -> str:
    counted = "" if number is None else f"{number:,}"
    return (
        f"  {name:14} {counted:>7} {cost.download / GB:8,.1f} GB {cost.disk / GB:8,.1f} GB "
        f"{cost.seconds / 60:7,.1f} min"
    )


def _sources(total: Cost) -> str:
    """Say how much of the time was measured here, and where the rest comes from."""
    if not total.measured:
        return "from the constants of the spec: nothing like it was timed here"
    share = total.measured / total.seconds
    shown = f"{share:.0%}" if share >= 0.01 else "less than 1%"
    return f"{shown} of the work as timed here, the rest from the constants of the spec"
