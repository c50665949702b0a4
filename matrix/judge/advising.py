"""What to install for a model and a scheme, by what a result proves; what not, and what is likely.

Proven is a combination (a quantizer, an engine and a scheme) of which every cell works that was run
with such a model: tied or not, of the same architecture, with layers that groups divide as they
divide the other's. Pure over a result.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta

import msgspec

from matrix.judge.declarations import PackageMetadata
from matrix.judge.likely import Likelihood, alike, between
from matrix.judge.likeness import (
    ANSWERS,
    PUBLISHED,
    Trial,
    Wish,
    cause_of,
    fits,
    is_on,
    is_wanted,
    program,
    same_model,
    trials_of,
)
from matrix.judge.results import CanaryState, CellResult, MatrixResult, Side
from matrix.pipeline.outcomes import Verdict
from matrix.pipeline.steps import STAGES, RoleKind, Stage
from matrix.untrusted.text import natural

FLAKY = "flaky: it came to good and to bad ends by the same inputs"


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """A combination that works, and what proves it."""

    quantizer: str
    engine: str
    scheme: str
    environments: list[str]
    """The quantizer's and the engine's, by name."""
    models: list[str]
    cells: list[str]
    date: str
    """Of the oldest of its cells; of an earlier report's, that of the whole."""
    days: int
    """How old that is."""
    runs: int
    """How many runs observed a part of it; 0 where the report does not say."""
    devices: list[str]
    repairs: list[str]
    """What ``matrix repair`` mended in its checkpoints before they were loaded."""
    departures: list[str]
    """Differences from stock packages, without which it was not seen to work."""


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Combinations that were tried and do not work, for one cause, or are flaky."""

    verdict: Verdict
    quantizers: list[str]
    engines: list[str]
    cells: int
    message: str
    issue: str
    """Id of the known issue that it is, in ``MatrixResult.issues``; empty where it is none."""


class Advice(msgspec.Struct, frozen=True, kw_only=True):
    """All that evidence says to a wish, the newest releases first."""

    proven: list[Proof] = []
    faded: list[Proof] = []
    """Proven by evidence that is older than wanted."""
    likely: list[Likelihood] = []
    failed: list[Failure] = []


def advice_to(
    wish: Wish, result: MatrixResult, metadata: PackageMetadata, today: date, days: int
) -> Advice:
    """Return what a result says to a wish; nothing where its canaries are void.

    ``metadata`` says which releases there are, and since when. Evidence of more than ``days``
    before ``today`` fades.
    """
    if result.canaries is CanaryState.VOID:
        return Advice()
    likeness = [
        (cell, _likeness(cell, result, wish))
        for cell in result.cells
        if _counts(cell, result, wish)
    ]

    def tried(*wanted: tuple[bool, bool]) -> list[Trial]:
        cells = (cell for cell, like in likeness if like in wanted)
        return sorted(trials_of(cells), key=lambda trial: newness(trial, metadata), reverse=True)

    exact = tried((True, True))
    settled = {(trial.quantizer.name, trial.engine.name) for trial in exact}
    makes_none = {cell.quantizer.name for t in exact for cell in t.cells if _made_none(cell)}
    near = [
        trial
        for trial in tried((True, False), (False, True))
        if (trial.quantizer.name, trial.engine.name) not in settled
        and trial.quantizer.name not in makes_none
        and is_wanted(trial, wish)
    ]
    wanted = [trial for trial in exact if is_wanted(trial, wish)]
    proofs = [_proof(trial, result, today) for trial in wanted if trial.works]
    return Advice(
        proven=[proof for proof in proofs if proof.days <= days],
        faded=[proof for proof in proofs if proof.days > days],
        likely=[*between(exact, wish, metadata), *alike(near, result, wish)],
        failed=_failures(cell for trial in wanted for cell in trial.cells),
    )


def _counts(cell: CellResult, result: MatrixResult, wish: Wish) -> bool:
    """Whether a cell says something of packages, on the device and for the method of a wish."""
    scheme = result.schemes.get(cell.scheme)
    # Where nothing was made, the end does not hang on what it was to be made on.
    was_made = bool(cell.made_on) or cell.verdict is Verdict.WORKS
    return (
        cell.verdict in ANSWERS
        and cell.quantizer.adapter != PUBLISHED
        and scheme is not None
        and scheme.method == wish.scheme.method
        and cell.model in result.models
        and is_on(wish.device, cell.device)
        and (not was_made or is_on(wish.device, cell.made_on))
    )


def _likeness(cell: CellResult, result: MatrixResult, wish: Wish) -> tuple[bool, bool]:
    """Return whether a cell's model is as wanted, and whether its scheme is."""
    model, scheme = result.models[cell.model], result.schemes[cell.scheme]
    return same_model(wish.model, model, scheme, cell.engine), fits(wish.scheme, scheme)


def _made_none(cell: CellResult) -> bool:
    """Whether a quantizer made no checkpoint, which it does not for any other engine either."""
    ended_at = cell.stage or Stage.GENERATE
    return ended_at is not Stage.INSPECT and STAGES[ended_at].role is RoleKind.QUANTIZER


def newness(trial: Trial, metadata: PackageMetadata) -> tuple[object, ...]:
    """Return a key by which the newer release of the quantizer, then of the engine, is greater;
    no two combinations have the same."""

    def release_of(side: Side) -> tuple[object, ...]:
        package, version = program(side)
        release = metadata.snapshot.release(package, version)
        return (release.uploaded if release else "", natural(version))

    sides = (trial.quantizer, trial.engine)
    names = (trial.quantizer.name, trial.engine.name, trial.scheme)
    return (
        *map(release_of, sides),
        *(natural(side.environment) for side in sides),
        *(-len(side.name) for side in sides),  # a role without a suffix first
        natural(trial.scheme),
        *names,
    )


def _proof(trial: Trial, result: MatrixResult, today: date) -> Proof:
    dates = (cell.at or result.finished for cell in trial.cells)
    oldest = max(dates, key=lambda at: _age(at, today))
    return Proof(
        quantizer=trial.quantizer.name,
        engine=trial.engine.name,
        scheme=trial.scheme,
        environments=[trial.quantizer.environment, trial.engine.environment],
        models=[cell.model for cell in trial.cells],
        cells=[cell.id for cell in trial.cells],
        date=oldest[:10],
        days=_age(oldest, today),
        runs=len({run for cell in trial.cells for run in cell.runs}),
        devices=sorted({d for cell in trial.cells for d in (cell.made_on, cell.device) if d}),
        repairs=trial.quantizer.repairs,
        departures=sorted({name for cell in trial.cells for name in cell.departures}),
    )


def _age(at: str, today: date) -> int:
    """Return how many days ago it was; since the first day of all for a date that is none.

    So is one to come, which would stay new for ever. A day is for clocks that differ.
    """
    try:
        then = date.fromisoformat(at[:10])
    except ValueError:
        then = date.min
    if then - today > timedelta(days=1):
        then = date.min
    return max((today - then).days, 0)


def _failures(cells: Iterable[CellResult]) -> list[Failure]:
    """Return what does not work, each cause once: wrong answers first, then that of most cells."""
    causes: dict[tuple[Verdict, str], list[CellResult]] = {}
    for cell in cells:
        if cell.flaky or cell.verdict is not Verdict.WORKS:
            causes.setdefault((cell.verdict, FLAKY if cell.flaky else cause_of(cell)), []).append(
                cell
            )
    failures = [
        Failure(
            verdict=verdict,
            quantizers=list(dict.fromkeys(cell.quantizer.name for cell in alike_cells)),
            engines=list(dict.fromkeys(cell.engine.name for cell in alike_cells)),
            cells=len(alike_cells),
            message=cause if cause == FLAKY else alike_cells[0].message,
            issue="" if cause == FLAKY else alike_cells[0].issue,
        )
        for (verdict, cause), alike_cells in causes.items()
    ]
    return sorted(
        failures,
        key=lambda failure: (-ANSWERS.index(failure.verdict), -failure.cells, failure.message),
    )
