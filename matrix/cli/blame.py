"""``matrix blame``: which of a cell's two environments is to blame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

import typer

from matrix.cli.choosing import complete_cell, fail_unknown
from matrix.cli.options import Format, FormatOption, Profile, Spec, StoreFolder, as_json, fail
from matrix.judge.cells import CellJudge
from matrix.plan.cells import FLOAT_SCHEME, Cell
from matrix.run.context import Context, Settings
from matrix.run.sources import check_sources
from matrix.run.trying import observe
from matrix.search.answers import Answer
from matrix.search.blame import Culprit, Square, answer_of, culprit, square_of
from matrix.spec.requirements import named_releases


def blame(
    cell: Annotated[
        str, typer.Argument(help="model/scheme/quantizer/engine.", autocompletion=complete_cell)
    ],
    spec: Spec = None,
    profile: Profile = None,
    store: StoreFolder = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Set a cell beside a good quantizer's and a good engine's, and say which side is to blame.

    What has no evidence yet is run. The status is 1 where nothing can be blamed.
    """
    context = Context(Settings.of(spec=spec, profile=profile, store=store))
    check_sources(context)
    square = _square(context, cell_of(context, cell))
    missing = context.keys.unfinished_of(square)
    of_missing = f"of four cells, {len(missing)} have no evidence yet and are run now"
    typer.echo(of_missing, err=output is Format.JSON)
    observe(context, missing)
    judge = context.fresh_judge()
    culprit_of_square = culprit(*(judge.cell(part.id).verdict for part in square))
    blamed = sentence(square, culprit_of_square, judge)
    if output is Format.JSON:
        cells = [{"cell": part.id, "verdict": judge.cell(part.id).verdict} for part in square]
        answer = {"schema": 1, "culprit": culprit_of_square, "to_blame": blamed, "cells": cells}
        typer.echo(as_json(answer, indent=2))
    else:
        typer.echo("\n".join([*table(square, judge), "", f"To blame: {blamed}"]))
    if culprit_of_square in (Culprit.NOTHING, Culprit.UNCLEAR):
        raise SystemExit(1)


def cell_of(context: Context, name: str) -> Cell:
    """Return the cell of a quantizer that a user names; end where the profile has no such one."""
    cell = next((cell for cell in context.plan.cells if cell.id == name), None)
    if cell is None:
        fail_unknown(context.plan.profile, "cell", [cell.id for cell in context.plan.cells], name)
    if cell.checkpoint.scheme_name == FLOAT_SCHEME:
        fail(f"{name} is the float model's, which no quantizer made. Name one of a quantizer's")
    if not cell.runs:
        why = cell.exclusion.reason if cell.exclusion else cell.unmet
        fail(f"{name} is not run here: {why}. Name one that is")
    return cell


def _square(context: Context, cell: Cell) -> Square:
    judge = context.judge

    def works(other: Cell) -> bool:
        return answer_of(judge.cell(other.id).verdict) is Answer.GOOD

    releases = {name: named_releases(e) for name, e in context.plan.environments.items()}
    square = square_of(cell, context.plan.cells, works, releases)
    if square is None:
        fail(
            f"no other quantizer's {cell.checkpoint.model.name}/{cell.checkpoint.scheme_name} was "
            "seen to work in another engine, so there is nothing good to compare with. Run more "
            f"of the profile first: matrix run --profile {context.plan.profile}"
        )
    return square


def table(square: Square, judge: CellJudge) -> Iterator[str]:
    """Yield the four verdicts as lines: a quantizer in each row, an engine in each column."""
    rows: list[Sequence[str]] = [("", square.this.engine.name, square.good.engine.name)]
    for pair in ((square.this, square.other_engine), (square.other_quantizer, square.good)):
        verdicts = (judge.cell(cell.id).verdict.value for cell in pair)
        rows.append((pair[0].checkpoint.quantizer.name, *verdicts))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    yield f"{square.this.checkpoint.model.name}/{square.this.checkpoint.scheme_name}"
    for row in rows:
        cells = zip(row, widths, strict=True)
        yield f"  {'   '.join(text.ljust(width) for text, width in cells)}".rstrip()


def sentence(square: Square, culprit_of_square: Culprit, judge: CellJudge) -> str:
    """Return what is to blame, by its name, or why that cannot be told."""
    match culprit_of_square:
        case Culprit.QUANTIZER:
            return f"{culprit_of_square}, {square.this.checkpoint.quantizer.environment}"
        case Culprit.ENGINE:
            return f"{culprit_of_square}, {square.this.engine.environment}"
        case Culprit.UNCLEAR:
            untested = [
                cell for cell in square
                if answer_of(judge.cell(cell.id).verdict) is Answer.UNTESTABLE
            ]  # fmt: skip
            if not untested:
                return f"{culprit_of_square}: what is good with others does not work together"
            return f"{culprit_of_square}: {untested[0].id} is {judge.cell(untested[0].id).verdict}"
        case _:
            return culprit_of_square
