"""The cells in their order, as tables of rows and columns, and what works together.

Everything here is a pure function of a ``MatrixResult``, and none depends on
the order in which its cells stand.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import NamedTuple, TypeVar

import msgspec

from matrix.judge.results import CellResult, MatrixResult, Side
from matrix.pipeline.outcomes import NO_ANSWER, Outcome, Reason, Verdict
from matrix.pipeline.steps import Blame, Stage
from matrix.untrusted.text import natural

SYMBOLS = {
    Verdict.WORKS: "✓",
    Verdict.DEGRADED: "≈",
    Verdict.GARBAGE: "≠",
    Verdict.BROKEN: "✗",
    Verdict.UNSUPPORTED: "⊘",
    Verdict.UNTESTED: "○",
    Verdict.INFRA: "↻",
    Verdict.NOT_RUN: "·",
}
MEANINGS = {
    Verdict.WORKS: "loads, and its text and log-probabilities agree with the float model's",
    Verdict.DEGRADED: "loads and answers, but measurably worse than 4 bits should be",
    Verdict.GARBAGE: "loads without an error and answers wrong",
    Verdict.BROKEN: "cannot be installed or imported, or raises, crashes or hangs",
    Verdict.UNSUPPORTED: "refused on purpose: the package says so, or the model's shapes forbid it",
    Verdict.UNTESTED: "needs hardware or a library not here; says nothing about the packages",
    Verdict.INFRA: "stopped by network, disk or memory of this machine; is tried again",
    Verdict.NOT_RUN: "not run yet; says nothing about the packages",
}
BLAMED = {
    Blame.QUANTIZER: "the quantizer",
    Blame.ENGINE: "the engine",
    Blame.CHECKPOINT: "the checkpoint: something in its files explains it",
    Blame.PAIR: "the pair: nothing says that quantizer or engine is at fault alone",
    Blame.NOBODY: "nobody",
}
NO_SPECIFIERS = "This run is void, so nothing is computed from it: explain its canaries first."
MARKERS = "abcdefghijklmnopqrstuvwxyz"
_NOTHING_CAME = frozenset({*NO_ANSWER, Verdict.UNSUPPORTED})
_TRIED = frozenset({Outcome.PASSED, Outcome.DEGRADED, Outcome.FAILED})


_T = TypeVar("_T")
_Key = TypeVar("_Key")
_S = TypeVar("_S", bound=msgspec.Struct)


class Row(NamedTuple):
    """One row of a table: a quantizer under a scheme."""

    group: str
    """The quantizer's own release, under which its rows stand."""
    label: str
    """What tells its environment apart in the group."""
    scheme: str
    quantizer: Side
    slots: list[list[CellResult]]
    """The cells of each column."""


class Together(NamedTuple):
    """One quantizer under one scheme, and where its checkpoints can be deployed."""

    quantizer: Side
    scheme: str
    engines: dict[str, list[str]]
    """Engine in which its checkpoint of every model works -> departures of those cells."""
    fails: frozenset[str]
    """Engines in which one was seen not to; of those in neither, it is not known."""
    flaky: frozenset[str]
    """Engines of those in which one is flaky: it came to good and to bad ends."""


class Part(NamedTuple):
    """One table of the report, and what works together in it."""

    title: str
    columns: list[tuple[str, str]]
    """Engine and model of each; an engine's columns stand together."""
    rows: list[Row]
    together: list[Together]
    devices: list[str]
    """What its evidence was made on."""
    sides: dict[str, Side]
    """Engine -> what it consists of."""

    @property
    def engines(self) -> Counter[str]:
        """Return each engine with how many columns it spans, in their order."""
        return Counter(engine for engine, _ in self.columns)


def grouped(items: Iterable[_T], key: Callable[[_T], _Key]) -> dict[_Key, list[_T]]:
    """Return key -> the items that have it, all in the order in which they came."""
    groups: dict[_Key, list[_T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def normalise(result: MatrixResult) -> MatrixResult:
    """Return ``result`` in its one order, with only numbers and text that JSON can hold."""
    # Replaced before it is sorted: what is read back must sort the same.
    table = _stored(msgspec.structs.replace(result, cells=[]))
    result = msgspec.structs.replace(table, cells=[_stored(cell) for cell in result.cells])
    order = {stage: place for place, stage in enumerate(Stage)}
    cells = sorted(
        (
            msgspec.structs.replace(
                cell,
                departures=sorted(set(cell.departures)),
                elsewhere=dict(sorted(cell.elsewhere.items())),
                findings=sorted(cell.findings, key=lambda f: (order[f.stage], f.check)),
                stages=sorted(cell.stages, key=lambda s: order[s.stage]),
            )
            for cell in result.cells
        ),
        key=_cell_order,
    )
    environments = sorted(
        result.environments, key=lambda environment: (environment.role, natural(environment.name))
    )
    specifiers = sorted(
        result.specifiers,
        key=lambda specifier: [
            natural(part) for part in (specifier.package, specifier.release, specifier.partner)
        ],
    )
    return msgspec.structs.replace(
        result,
        cells=cells,
        environments=environments,
        specifiers=specifiers,
        new_releases=dict(
            sorted(result.new_releases.items(), key=lambda release: natural(release[0]))
        ),
    )


def _cell_order(cell: CellResult) -> tuple[object, ...]:
    # A float model is what the others are compared with, so it stands first.
    quantizer = (cell.quantizer.name != "none", _natural(cell.quantizer.name))
    return (*quantizer, cell.scheme, _natural(cell.engine.name), _natural(cell.model), cell.id)


_natural = lru_cache(maxsize=10_000)(natural)
"""Thousands of cells have the same few names."""


def _stored(value: _S) -> _S:
    """Return a value with only numbers and text that JSON can hold: itself, where it has no other.

    To write and read it is a hundred times as fast as to look at all that it holds.
    """
    with suppress(ValueError):  # a lone surrogate; a number that is not finite is written as null
        if msgspec.json.decode(msgspec.json.encode(value), type=type(value)) == value:
            return value
    return msgspec.convert(_storable(msgspec.to_builtins(value)), type(value))


def _storable(value: object) -> object:
    """Replace lone surrogates and drop non-finite numbers, which neither JSON nor UTF-8 has."""
    match value:
        case str():
            return value.encode("utf-8", "replace").decode("utf-8")
        case dict():
            kept = {key: inner for key, inner in value.items() if not _non_finite(inner)}
            return {_storable(key): _storable(inner) for key, inner in kept.items()}
        case list():
            return [_storable(inner) for inner in value]
        case _:
            return value


def _non_finite(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _column_order(column: Sequence[str]) -> tuple[object, ...]:
    engine, model = column
    return (not serves_most(engine), natural(engine), natural(model))


def serves_most(engine: str) -> bool:
    """Return whether an engine is a vLLM, by which most people serve: it stands first."""
    return engine.startswith("vllm-")


def css_class(word: str) -> str:
    """Return a verdict, a state or a kind of change as a class of the style sheet."""
    return word.replace(" ", "-")


def counts(cells: Iterable[CellResult]) -> dict[Verdict, int]:
    """Return how many cells have each verdict, all of them, best first."""
    number = Counter(cell.verdict for cell in cells)
    return {verdict: number[verdict] for verdict in Verdict}


def devices(cells: Iterable[CellResult]) -> list[str]:
    """Return what some cells ran on; those whose engine was never given a model ran on nothing."""
    return sorted({cell.device for cell in cells if ran(cell)}, key=natural)


def ran(cell: CellResult) -> bool:
    """Return whether the engine was given the cell's model, and something came of it."""
    return cell.verdict not in _NOTHING_CAME and any(
        end.stage is Stage.LOAD and end.outcome in _TRIED for end in cell.stages
    )


def is_cpu(device: str) -> bool:
    """Return whether a device is a CPU, whatever else is told of it."""
    return device.partition(" ")[0] == "cpu"


def otherwise_elsewhere(cell: CellResult) -> dict[str, str]:
    """Return the other machines' devices on which a cell came out otherwise, and as what."""
    return {
        device: verdict for device, verdict in cell.elsewhere.items() if verdict != cell.verdict
    }


def new_releases(result: MatrixResult) -> list[str]:
    """Return the new releases, each with when the snapshot of the index took it in."""
    return [f"{name} (taken in on {day})" for name, day in result.new_releases.items()]


def need(cell: CellResult) -> str:
    """Return what a cell needs that was not there; empty where it is no matter of that."""
    if cell.verdict is not Verdict.UNTESTED:
        return ""
    if cell.message.startswith("needs "):
        return cell.message
    return "needs a library of the system" if cell.reason is Reason.NO_LIBRARY else "needs hardware"


def packages_in_words(side: Side) -> str:
    """Return what one side consists of: ``autoawq 0.2.9, torch 2.13.0+cpu``. Nothing to install by:
    what was taken in place of what packages require is not told by it.
    """
    return ", ".join(f"{name} {version}".strip() for name, version in packages(side).items())


def packages(side: Side) -> dict[str, str]:
    """Return one side's packages and versions by name, torch among them."""
    packages = dict(sorted(side.packages.items()))
    if side.torch:
        packages.setdefault("torch", side.torch)
    return packages


def parts(result: MatrixResult) -> list[Part]:
    """Return the tables of the report, in the order of the spec; a cell may stand in several."""
    titles = result.parts or [""]
    return [
        _part(title, [cell for cell in result.cells if title in (cell.parts or titles[:1])])
        for title in titles
    ]


def _part(title: str, cells: list[CellResult]) -> Part:
    slots: dict[tuple[str, str], dict[tuple[str, str], list[CellResult]]] = {}
    for cell in cells:
        row = slots.setdefault((cell.quantizer.name, cell.scheme), {})
        row.setdefault((cell.engine.name, cell.model), []).append(cell)
    columns = sorted({column for row in slots.values() for column in row}, key=_column_order)
    rows = []
    for (name, scheme), by_column in slots.items():  # rows stand as their cells do
        quantizer = next(iter(by_column.values()))[0].quantizer
        label = group_and_label(name, quantizer.axes)
        rows.append(Row(*label, scheme, quantizer, [by_column.get(key, []) for key in columns]))
    sides = {cell.engine.name: cell.engine for cell in cells}
    return Part(title, columns, rows, together(cells), devices(cells), sides)


def group_and_label(name: str, axes: Mapping[str, str]) -> tuple[str, str]:
    """Return the release under which an environment stands, and the rest of its name.

    That is the axis with which its name begins: ``autoawq-0.2.7+transformers-4.47.1`` gives
    ``autoawq-0.2.7`` and ``transformers-4.47.1``. Where it is named otherwise, its name is both.
    """
    for axis, version in axes.items():
        release = f"{axis.replace('_', '-')}-{version}"
        if name.startswith(f"{release}+"):
            return release, name.removeprefix(f"{release}+")
    return name, name


def together(cells: list[CellResult]) -> list[Together]:
    """Return the quantizers of a table whose checkpoint of every model works somewhere.

    The float model stands first, then those that work in most engines, the newest first.
    """
    models = {cell.model for cell in cells}
    harmless = {Verdict.WORKS, *NO_ANSWER}
    rows = []
    by_row = grouped(cells, lambda cell: (cell.quantizer.name, cell.scheme))
    for (_, scheme), own in by_row.items():
        good = {
            engine: sorted({name for cell in in_engine for name in cell.departures})
            for engine, in_engine in grouped(own, lambda cell: cell.engine.name).items()
            if all(cell.verdict is Verdict.WORKS and not cell.flaky for cell in in_engine)
            and {cell.model for cell in in_engine} == models
        }
        bad = (cell for cell in own if cell.verdict not in harmless and not cell.flaky)
        fails = frozenset(cell.engine.name for cell in bad)
        flaky = frozenset(cell.engine.name for cell in own if cell.flaky) - fails
        if good:
            rows.append(Together(own[0].quantizer, scheme, good, fails, flaky))
    rows.reverse()
    return sorted(rows, key=lambda row: (row.quantizer.name != "none", -len(row.engines)))


def markers(result: MatrixResult) -> dict[str, str]:
    """Return each departure's marker in the table: ``†a``, ``†b``, ..."""
    named = set(result.departures)
    named.update(name for cell in result.cells for name in cell.departures)
    named.update(name for environment in result.environments for name in environment.departures)
    return {name: "†" + _letters(number) for number, name in enumerate(sorted(named))}


def _letters(number: int) -> str:
    more, last = divmod(number, len(MARKERS))
    return (_letters(more - 1) if more else "") + MARKERS[last]
