"""``matrix resolve``: whether uv finds a set of packages, then and now."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Literal, get_args

import msgspec
import typer

from matrix.cli.options import Format, FormatOption, Spec, StoreFolder, as_json
from matrix.environments.resolving import Resolved, resolve_all
from matrix.judge.declarations import PackageMetadata
from matrix.judge.results import Standing
from matrix.judge.standings import Solution, differences, standing
from matrix.plan.cells import make_plan
from matrix.run.context import Settings, sandbox_of
from matrix.spec.loading import LoadedSpec, load, role_names
from matrix.spec.tables import Resolution
from matrix.store.store import Store
from matrix.untrusted.text import visible

EXAMPLES = 8
"""Environments that a table shows of each kind of difference; JSON has all."""
LINE_CHARS = 200
CORES = len(os.sched_getaffinity(0))
"""That this process may use, the measure of ``hardware.environments_at_once``."""

State = Literal["resolved", "refused", "trouble"]
_STATES: dict[str, State] = {"yes": "resolved", "no": "refused", "not asked": "trouble"}


class ResolutionChoice(StrEnum):
    """The resolutions, as an option takes them."""

    PINNED = "pinned"
    RELEASED = "released"
    TODAY = "today"


class Stands(msgspec.Struct, frozen=True):
    """One environment in the resolutions that were asked for, and where they differ."""

    environment: str
    standings: list[Standing]
    differences: list[str]

    def state(self, resolution: Resolution) -> State | None:
        """Return what became of it in a resolution; ``None`` where it has none or was not asked."""
        at = {standing.resolution: standing.resolves for standing in self.standings}
        return _STATES[at[resolution]] if resolution in at else None


class Survey(msgspec.Struct, frozen=True):
    """All that the command shows."""

    schema: int
    asked: str
    """When the index was asked whose snapshot says what there is today."""
    counts: dict[Resolution, dict[State, int]]
    pairs: int
    """Of a quantizer's environment with an engine's."""
    pairs_resolve: dict[Resolution, int]
    """Those of which both do."""
    environments: list[Stands]
    troubles: dict[str, str]
    """Environment and resolution -> what kept uv from answering."""
    locks: str
    """Where the answers lie."""


def resolve(
    spec: Spec = None,
    profile: Annotated[str | None, typer.Option(help="Only the environments of this one.")] = None,
    store: StoreFolder = None,
    jobs: Annotated[
        int, typer.Option(min=1, help="How many to resolve at once.", show_default="one a core")
    ] = CORES,
    resolutions: Annotated[
        list[ResolutionChoice],
        typer.Option("--resolution", help="In which; once for each."),
    ] = [ResolutionChoice.RELEASED, ResolutionChoice.TODAY],  # noqa: B006 - typer copies it
    output: FormatOption = Format.TABLE,
) -> None:
    """Ask uv whether each environment resolves, as released and as of today.

    Needs no GPU and downloads no wheels. Answers are kept; the same command asks what is missing.
    """
    settings = Settings.of(spec=spec, store=store)
    loaded = load(settings.spec)
    names, pairs = _chosen(loaded, profile)
    spelled = [environment for name in names for environment in loaded.resolutions(name)]
    kept = Store(settings.store)
    kept.sweep()
    resolved = resolve_all(
        (environment for environment in spelled if environment.resolution in resolutions),
        loaded.folder / "locks", kept, os.environ, loaded.spec.limits.resolve,
        sandbox_of(loaded, settings), _tell, jobs,
    )  # fmt: skip
    survey = surveyed(loaded, list(resolved), pairs, str(kept.root / "locks"))
    if output is Format.JSON:
        typer.echo(as_json(survey, indent=2))
    else:
        typer.echo("\n".join(visible(line, LINE_CHARS) for line in _lines(survey)))
    if survey.troubles:
        name, message = next(iter(survey.troubles.items()))
        more = f"{len(survey.troubles)} resolutions found no answer: {name}: {message}"
        _tell(f"warning: {more}. The same command asks them again")


def _tell(text: str) -> None:
    sys.stderr.write(f"{visible(text, 2 * LINE_CHARS)}\n")
    sys.stderr.flush()


def _chosen(loaded: LoadedSpec, profile: str | None) -> tuple[list[str], set[tuple[str, str]]]:
    """Return environments, and the pairs of one that quantizes with one that loads."""
    if profile is not None:
        plan = make_plan(loaded, profile)
        cells = ((cell.checkpoint.quantizer, cell.engine) for cell in plan.cells)
        return list(plan.environments), {(a.environment, b.environment) for a, b in cells}
    quantizers = role_names(loaded, loaded.spec.quantizers).values()
    engines = role_names(loaded, loaded.spec.engines).values()
    makes = {(environment, form) for environment, role in quantizers for form in role.formats}
    reads = {(environment, form) for environment, role in engines for form in role.formats}
    pairs = {(q, e) for q, made in makes for e, read in reads if made == read}
    return list(loaded.environments), pairs


def surveyed(
    loaded: LoadedSpec, resolved: Iterable[Resolved], pairs: set[tuple[str, str]], locks: str
) -> Survey:
    """Return what became of environments, counted and compared."""
    metadata = PackageMetadata(loaded.snapshot, loaded.spec.metadata)
    by_name: dict[str, list[Standing]] = {}
    troubles: dict[str, str] = {}
    for environment, lock, conclusion in resolved:
        solution = Solution(lock.pins, lock.refusal) if lock else None
        here = by_name.setdefault(environment.name, [])
        here.append(standing(environment, solution, (), metadata))
        if lock is None:
            troubles[f"{environment.name} ({environment.resolution})"] = conclusion.message.strip()
    environments = [
        Stands(name, by_name[name], differences(by_name[name]))
        for name in loaded.environments
        if name in by_name
    ]
    counts: dict[Resolution, dict[State, int]] = {}
    both: dict[Resolution, int] = {}
    for resolution in get_args(Resolution):
        states = {stands.environment: stands.state(resolution) for stands in environments}
        if not any(states.values()):
            continue
        counts[resolution] = dict(Counter(state for state in states.values() if state))
        both[resolution] = sum(states.get(q) == states.get(e) == "resolved" for q, e in pairs)
    return Survey(
        schema=1,
        asked=loaded.snapshot.asked,
        counts=counts,
        pairs=len(pairs),
        pairs_resolve=both,
        environments=environments,
        troubles=troubles,
        locks=locks,
    )


def _lines(survey: Survey) -> Iterator[str]:
    yield f"{len(survey.environments)} environments, {survey.pairs} pairs of quantizer and engine"
    for resolution, counts in survey.counts.items():
        states = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
        both = survey.pairs_resolve[resolution]
        yield f"  {resolution:9} {states}; both of {both} pairs resolved"
    yield f"(today is {survey.asked}, when the index was asked)"
    for kind, examples in _kinds(survey.environments).items():
        yield ""
        yield f"{len(examples)} {kind}"
        shown = list(examples.items())[:EXAMPLES]
        yield from (f"  {name}: {what}" if what else f"  {name}" for name, what in shown)
        if len(examples) > EXAMPLES:
            yield f"  and {len(examples) - EXAMPLES} more; --format json has all"
    yield ""
    yield f"The answers lie in {survey.locks}"


def _kinds(environments: Iterable[Stands]) -> Mapping[str, dict[str, str]]:
    """Return kind of difference -> environment -> what is different."""
    kinds: dict[str, dict[str, str]] = {}
    for stands in environments:
        differ = stands.differences
        if (stands.state("released"), stands.state("today")) == ("refused", "resolved"):
            differ = [*differ, "refused as released, resolves today"]
        for difference in differ:
            kind, _, what = difference.partition(": ")
            kinds.setdefault(kind, {})[stands.environment] = what or _why_refused(stands)
    return dict(sorted(kinds.items(), key=lambda item: len(item[1])))


def _why_refused(stands: Stands) -> str:
    """Return the first cause that uv names; empty where nothing was refused."""
    refusal = next((s.refusal for s in stands.standings if s.refusal), "")
    lines = [line.strip() for line in refusal.splitlines()]
    causes = [line for line in lines if line.startswith("cause:")]
    return next(iter(causes or lines), "").removeprefix("cause:").strip()
