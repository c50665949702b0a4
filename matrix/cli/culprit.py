"""``matrix culprit``: the smallest change that turns a good cell into a bad one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer
from packaging.utils import canonicalize_name

from matrix.cli.choosing import complete_cell
from matrix.cli.ends import SearchEnds, ends_of, opened_for
from matrix.cli.options import Format, FormatOption, Profile, Spec, StoreFolder, as_json, fail
from matrix.cli.searching import PinSets, Releases, Say, Status, echo
from matrix.pipeline.outcomes import Verdict
from matrix.run.context import Context, Settings
from matrix.run.sources import check_sources
from matrix.run.trying import Tries, TroubleError, observe, tell
from matrix.search.answers import Answer, WrongEnd
from matrix.search.made_up import SIDES, Ends, Pin, Side, differing, following, releases_between
from matrix.search.question import Question, in_words, question_of
from matrix.spec.requirements import named_releases


def culprit(
    good: Annotated[
        str,
        typer.Argument(
            help="A cell, model/scheme/quantizer/engine; or a lock.", autocompletion=complete_cell
        ),
    ],
    bad: Annotated[
        str,
        typer.Argument(help="Another of the same model and scheme.", autocompletion=complete_cell),
    ],
    cell: Annotated[
        str | None, typer.Option(help="Where GOOD and BAD are locks: the cell to try them in.")
    ] = None,
    package: Annotated[
        str | None, typer.Option(help="Look for the first bad release of this package.")
    ] = None,
    verdicts: Annotated[
        list[Verdict], typer.Option("--verdict", help="What counts as bad; once for each.")
    ] = [],  # noqa: B006 - typer copies it
    repeat: Annotated[int, typer.Option(min=1, help="Ask each try so often.")] = 1,
    jobs: Annotated[int, typer.Option(min=1, help="How many tries to run at once.")] = 1,
    spec: Spec = None,
    profile: Profile = None,
    store: StoreFolder = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Name the first bad release of a package, or the smallest set of pins, between two cells.

    Each try is a cell in an environment made up between the two; what was observed is not run
    again. The status is 0 where a culprit is named, 1 where none can be, 3 where answers waver.
    """
    context = Context(Settings.of(spec=spec, profile=profile, store=store))
    check_sources(context)
    ends = ends_of(context, good, bad, cell)
    opened = opened_for(context, ends)
    say = echo if output is Format.TABLE else tell
    try:
        question = _confirmed(opened, ends, frozenset(verdicts), say)
        status, culprits = Status.NOT_NAMED, list[Pin]()
        if question is not None:
            tries = Tries(opened, Ends(ends.good, ends.sides), question, repeat, jobs)
            status, culprits = _search(opened, tries, ends, package, jobs, say)
    except TroubleError as trouble:
        tell(f"error: a try got no answer: {trouble}. The same command goes on")
        raise SystemExit(Status.NOT_NAMED) from None
    if output is Format.JSON:
        typer.echo(as_json(_document(opened, ends, status, culprits), indent=2))
    if status is not Status.NAMED:
        raise SystemExit(status)


def _document(
    context: Context, ends: SearchEnds, status: Status, culprits: list[Pin]
) -> dict[str, object]:
    """Return what a search ended with, as data."""
    judge = context.fresh_judge()
    results = {name: judge.cell(end.id) for name, end in (("good", ends.good), ("bad", ends.bad))}
    return {
        "schema": 1,
        "status": status.name.lower().replace("_", " "),
        **{name: {"cell": result.id, "verdict": result.verdict, "message": result.message}
           for name, result in results.items()},
        "culprits": [
            {"side": pin.side, "package": pin.package, "good": pin.before, "bad": pin.version}
            for pin in culprits
        ],
    }  # fmt: skip


def _confirmed(
    context: Context, ends: SearchEnds, chosen: frozenset[Verdict], say: Say
) -> Question | None:
    """Run the ends where they were not; return what is asked; ``None`` where they do not differ."""
    if missing := context.keys.unfinished_of(ends[:2]):
        say(f"{len(missing)} of the two ends have no evidence yet and are run first")
        observe(context, missing)
    judge = context.fresh_judge()
    good, bad = (judge.cell(end.id) for end in ends[:2])
    question = question_of(good.verdict, bad.verdict, chosen)
    for name, result, wanted in (("GOOD", good, Answer.GOOD), ("BAD", bad, Answer.BAD)):
        say(f"{name:4} {result.id}")
        say(f"     {in_words(result)}")
        answer = question.answer(result)
        if answer is None:
            raise TroubleError(f"{result.id}: {result.message}")
        if answer is not wanted:
            say(f"None can be named: {name} is {answer}, as bad is {_listed(question.bad)}")
            return None
    return question


def _search(
    context: Context, tries: Tries, ends: SearchEnds, package: str | None, jobs: int, say: Say
) -> tuple[Status, list[Pin]]:
    """Look along the releases of the package that differs, else among all pins that do.

    Returns how it ended, and the pins to blame.
    """
    differ = _differing(context, ends)
    if axis := _axis(context, ends, differ, package):
        releases = context.loaded.snapshot.packages[axis.package]
        python = ends.sides[axis.side][0].python
        versions = releases_between(releases, axis, python)
        search = Releases(axis, versions, lambda pin: _followers(context, ends, pin), say)
        end = search.search(tries, jobs)
        if package is not None or not isinstance(end, WrongEnd):
            return search.print_end(end), search.culprits(end)
        say(f"{axis.package} alone does not turn it bad, so all pins that differ are searched")
    among = PinSets(differ, say)
    ended = among.search(tries, jobs)
    return among.print_end(ended), among.culprits(ended)


def _differing(context: Context, ends: SearchEnds) -> list[Pin]:
    """Return the pins that differ on both sides of the ends; there are some."""
    differ: list[Pin] = []
    for side in SIDES:
        locked = [(e, lock.pins if (lock := context.lock(e)) else {}) for e in ends.sides[side]]
        differ += differing(side, *locked)
    if not differ:
        fail("the environments of GOOD and BAD pin the same versions. Name two that differ")
    return differ


def _axis(context: Context, ends: SearchEnds, differ: list[Pin], package: str | None) -> Pin | None:
    """Return the pin whose releases are searched; ``None`` where more than one may be to blame."""
    listed = context.loaded.snapshot.packages
    if package is None:
        top = [pin for pin in differ if pin.package in _top(ends, pin.side)]
        alone = [pin for pin in top if not {*top} - {pin, *_followers(context, ends, pin)}]
        return next((p for p in alone if p.before and p.version and p.package in listed), None)
    name = canonicalize_name(package)
    chosen = [pin for pin in differ if pin.package == name and pin.before and pin.version]
    if len(chosen) != 1:
        others = _listed(pin.package for pin in differ)
        fail(f"{package} does not have two versions in GOOD and BAD. What differs: {others}")
    if name not in listed:
        fail(
            f"the snapshot of the index has no {name}, so its releases are not known. "
            "Leave --package out to search among the pins"
        )
    return chosen[0]


def _followers(context: Context, ends: SearchEnds, axis: Pin) -> list[Pin]:
    """Return the pins that a release brings along because it was built for them."""
    metadata = context.loaded.spec.metadata
    declares = context.loaded.snapshot.declares(axis.package, axis.version, metadata)
    return following(axis, declares or [], ends.sides[axis.side][0])


def _top(ends: SearchEnds, side: Side) -> set[str]:
    """Return the packages that the environments of a side name."""
    return {name for e in ends.sides[side] for name in named_releases(e, overrides=True)}


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
