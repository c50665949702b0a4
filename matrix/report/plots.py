"""Pictures of a report: quality beside speed and memory, verdicts over nights, where time went.

Static SVG without colours of its own for text: a page that is dark shows it light. Each series
has a shape or a hatch beside its colour. Only as much is drawn as a picture can show, whatever
the number of cells.
"""

from __future__ import annotations

import io
import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, assert_never

from matrix.history.changes import Night
from matrix.judge.results import CellResult, Measures
from matrix.pipeline.outcomes import Verdict
from matrix.pipeline.steps import STAGES, RoleKind, Step, SubjectKind
from matrix.report.material import Material
from matrix.untrusted.text import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FOLDER = "plots"
INK = "#010203"
"""Stands for the colour of text, which is the reader's."""
SHEET = b"""<style>svg { color: #16191d }
@media (prefers-color-scheme: dark) { svg { color: #e6eaef } }</style>
"""
STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "matrix",
    "font.sans-serif": ["DejaVu Sans"],
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "hatch.linewidth": 0.6,
    **dict.fromkeys(
        ["text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"], INK
    ),
}
MARKS = [
    ("o", "#2f86c1"), ("s", "#d55e00"), ("^", "#009e73"), ("D", "#b85f90"),
    ("v", "#a88500"), ("P", "#7a62c9"), ("X", "#77818c"),
]  # fmt: skip
"""The shape and the colour of a family of engines; the last one is of all further families."""
VERDICTS = {
    Verdict.WORKS: ("#009e73", ""),
    Verdict.DEGRADED: ("#c9b100", "++"),
    Verdict.GARBAGE: ("#d55e00", "xx"),
    Verdict.BROKEN: ("#b85f90", "//"),
    Verdict.UNSUPPORTED: ("#8a929c", "--"),
    Verdict.UNTESTED: ("none", "\\\\"),
    Verdict.INFRA: ("#56a5d8", "||"),
    Verdict.NOT_RUN: ("none", ""),
}
"""The colour and the hatch of each verdict; dots would make a file of hundreds of kilobytes."""
STEPS = {
    Step.RESOLVE: ("#8a929c", ""),
    Step.INSTALL: ("#56a5d8", "//"),
    Step.IMPORT: ("#c9b100", ""),
    Step.QUANTIZE: ("#d55e00", "xx"),
    Step.REPAIR: ("#7a62c9", "||"),
    Step.INSPECT: ("#b85f90", "--"),
    Step.LOAD: ("#009e73", "\\\\"),
    Step.GENERATE: ("none", "++"),
}
LINES = {stage.value: line for stage, line in STAGES.items()}
BARS = 20
"""Environments that have a bar of their own; all others share one."""
GRID = 40
"""A scatter plot has so many places across and down; points of one kind in one are drawn once."""
LONGEST = 1e9
"""Seconds; no step took longer."""


class Plot(NamedTuple):
    """One picture that a report has."""

    name: str
    caption: str
    """What is seen in it, for who does not see it."""
    draw: Callable[[Figure], None]


class Point(NamedTuple):
    """One cell in a scatter plot."""

    x: float
    nats: float
    cell: CellResult

    @property
    def kind(self) -> tuple[str, bool]:
        """Return the family of the engine, and whether the cell fully works."""
        engine = self.cell.engine
        return visible(engine.adapter or engine.name, 40), self.cell.verdict is Verdict.WORKS


class Measure(NamedTuple):
    """What a scatter plot shows beside quality."""

    name: str
    title: str
    axis: str
    unit: str
    of: Callable[[Measures], float | None]
    best: Callable[..., Point]
    best_word: str


SPEED = Measure(
    "quality-speed", "Quality and speed", "tokens per second (more is better)", "tokens/s",
    lambda measures: measures.tokens_per_second, max, "fastest",
)  # fmt: skip
MEMORY = Measure(
    "memory", "Quality and memory", "most memory while loading, in MB (less is better)", "MB",
    lambda measures: measures.peak_bytes and measures.peak_bytes / 1e6, min, "smallest",
)  # fmt: skip


def plots(material: Material) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the SVG of each picture that there is something to see in."""
    for plot in _plots(material):
        yield plot.name, _svg(plot)


def captions(material: Material) -> dict[str, str]:
    """Return the name of each picture of :func:`plots` -> what is seen in it (untrusted text)."""
    return {plot.name: plot.caption for plot in _plots(material)}


def _plots(material: Material) -> Iterator[Plot]:
    cells = material.result.cells
    yield from _scatter(cells, SPEED)
    yield from _scatter(cells, MEMORY)
    yield from _verdicts(material.nights)
    yield from _time(cells)


def _svg(plot: Plot) -> bytes:
    """Return the same bytes for the same picture, whatever the settings of this machine."""
    # Here, since half a second is too long for a command that writes no report.
    from matplotlib import style
    from matplotlib.figure import Figure

    drawn = io.BytesIO()
    with style.context(STYLE, after_reset=True), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of characters that the font lacks, and the reader's has
        figure = Figure(figsize=(9, 5), layout="constrained")
        plot.draw(figure)
        nothing = dict.fromkeys(["Creator", "Date", "Format", "Type"])
        figure.savefig(drawn, format="svg", transparent=True, metadata=nothing)
    start = drawn.getvalue().index(b"<svg")
    head, end, rest = drawn.getvalue()[start:].partition(b">\n")
    return head + end + SHEET + rest.replace(INK.encode(), b"currentColor")


def _scatter(cells: Sequence[CellResult], measure: Measure) -> Iterator[Plot]:
    """Yield a picture of a measure and the nats that cells are off; none where none has both."""
    points = []
    for cell in cells:
        x, nats = measure.of(cell.measures), cell.measures.nats
        if cell.verdict in {Verdict.WORKS, Verdict.DEGRADED} and x and nats is not None:
            points.append(Point(_drawable(x), _drawable(nats), cell))
    if not points:
        return
    extremes = {
        measure.best_word: measure.best(points, key=lambda point: point.x),
        "nearest to the float model": min(points, key=lambda point: point.nats),
        "farthest from it": max(points, key=lambda point: point.nats),
    }
    notes = [
        f"{letter}  {word}, {_number(point.x)} {measure.unit}, {_number(point.nats)} nats: "
        f"{visible(point.cell.id, 120)}"
        for letter, (word, point) in zip("ABC", extremes.items(), strict=True)
    ]
    title = f"{measure.title} of {len(points)} cells that answer"

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot(xscale="log", yscale="log", xlabel=measure.axis, title=title)
        axes.set_ylabel("nats off the float model (less is better)")
        _draw_points(axes, points)
        for letter, point in zip("ABC", extremes.values(), strict=True):
            place = (point.x, point.nats)
            axes.annotate(letter, place, (5, 5), textcoords="offset points", weight="bold")
        figure.supxlabel("\n".join(notes), x=0.01, ha="left", size=7)

    yield Plot(f"{FOLDER}/{measure.name}.svg", ". ".join([title, *notes]), draw)


def _number(value: float) -> str:
    """Return a measure as a person reads it."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def _drawable(value: float) -> float:
    """Return what stands for a measure on a logarithmic axis, which has no zero."""
    return min(max(value, 1e-5), 1e7) if math.isfinite(value) else 1e7


def _draw_points(axes: Axes, points: Sequence[Point]) -> None:
    """Draw a shape for each family, filled where the cells work and hollow where they degrade."""
    from matplotlib.ticker import LogLocator

    columns, rows = _grid([point.x for point in points]), _grid([point.nats for point in points])
    places: dict[tuple[str, bool], dict[tuple[int, int], Point]] = {}
    for point in points:
        places.setdefault(point.kind, {})[columns(point.x), rows(point.nats)] = point
    families = sorted({family for family, _ in places})
    for (family, works), drawn in sorted(places.items()):
        shape, colour = MARKS[min(families.index(family), len(MARKS) - 1)]
        label = family if works else f"{family}, degraded"
        axes.plot(
            [point.x for point in drawn.values()], [point.nats for point in drawn.values()],
            shape, label=_label(label), color=colour, markeredgecolor=INK if works else colour,
            markeredgewidth=0.4 if works else 1.4, markerfacecolor=colour if works else "none",
            markersize=6, alpha=0.8,
        )  # fmt: skip
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))


def _grid(values: Sequence[float]) -> Callable[[float], int]:
    """Return a function from a value to its place among so many on a logarithmic axis."""
    low = math.log(min(values))
    width = (math.log(max(values)) - low) / GRID or 1
    return lambda value: int((math.log(value) - low) / width)


def _label(text: str) -> str:
    """Return a label that a legend shows: it leaves out those that begin with an underscore."""
    return f" {text}" if text.startswith("_") else text


def _verdicts(nights: Sequence[Night]) -> Iterator[Plot]:
    """Yield a picture of the verdicts of each night; none of less than two."""
    if len(nights) < 2:
        return
    first, last = (visible(night.day, 20) for night in (nights[0], nights[-1]))
    counts = nights[-1].counts
    latest = ", ".join(
        f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts.get(verdict)
    )
    title = f"Verdicts of {len(nights)} runs, from {first} to {last}"

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot(title=title, ylabel="cells")
        below = [0] * len(nights)
        for verdict, (colour, hatch) in VERDICTS.items():
            here = [night.counts.get(verdict, 0) for night in nights]
            above = [low + count for low, count in zip(below, here, strict=True)]
            if above != below:
                axes.stairs(
                    above, baseline=below, fill=True, label=verdict.value, facecolor=colour,
                    edgecolor=INK, hatch=hatch, linewidth=0.4,
                )  # fmt: skip
            below = above
        doubted = [place + 0.5 for place, night in enumerate(nights) if not night.believed]
        if doubted:
            top = [max(below) * 1.04] * len(doubted)
            axes.plot(doubted, top, "x", color=INK, label="not to be believed")
        ticks = range(0, len(nights), math.ceil(len(nights) / 6))
        axes.set_xticks([tick + 0.5 for tick in ticks])
        axes.set_xticklabels([visible(nights[tick].day, 20) for tick in ticks])
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), reverse=True)

    yield Plot(f"{FOLDER}/verdicts.svg", f"{title}. The last one: {latest}.", draw)


def _time(cells: Sequence[CellResult]) -> Iterator[Plot]:
    """Yield a picture of the seconds that steps took in each environment."""
    spent = _milliseconds(cells)
    if not spent:
        return
    longest = sorted(spent, key=lambda name: (-spent[name].total(), name))
    names, bars = longest[:BARS], [spent[name] for name in longest[:BARS]]
    if rest := longest[BARS:]:
        names.append(f"{len(rest)} others")
        bars.append(sum((spent[name] for name in rest), Counter[Step]()))
    steps = sum(bars, Counter[Step]())
    title = f"Where {steps.total() / 60_000:.0f} minutes of work went, by environment and step"
    shares = ", ".join(f"{step} {steps[step] / 60_000:.1f}" for step in STEPS if steps[step])

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot(title=title, xlabel="seconds, as if no two ran side by side")
        left = [0.0] * len(bars)
        for step, (colour, hatch) in STEPS.items():
            took = {place: bar[step] / 1000 for place, bar in enumerate(bars) if bar[step]}
            if took:
                axes.barh(
                    list(took), list(took.values()), left=[left[place] for place in took],
                    label=step.value, color=colour, edgecolor=INK, hatch=hatch, linewidth=0.4,
                )  # fmt: skip
            for place, seconds in took.items():
                left[place] += seconds
        axes.set_yticks(range(len(bars)), [visible(name, 60) for name in names])
        axes.invert_yaxis()
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))

    yield Plot(f"{FOLDER}/time.svg", f"{title}. Minutes by step: {shares}.", draw)


def _milliseconds(cells: Sequence[CellResult]) -> dict[str, Counter[Step]]:
    """Return environment -> step -> milliseconds; what cells share counts once."""
    spent: dict[str, Counter[Step]] = {}
    counted = set()
    for cell in cells:
        for name, seconds in cell.timings.items():
            line = LINES[name]
            side = cell.engine if line.role is RoleKind.ENGINE else cell.quantizer
            match line.subject:
                case SubjectKind.ENVIRONMENT:
                    subject: tuple[str, ...] = ()
                case SubjectKind.CHECKPOINT | SubjectKind.MODEL:
                    subject = (cell.model, cell.scheme)
                case SubjectKind.CELL:
                    subject = (cell.id,)
                case _:
                    assert_never(line.subject)
            # The seconds are part of it: a row of repairs shares the checkpoint of another row.
            step = (side.environment, line.step, seconds, *subject)
            if step not in counted and 0 < seconds < LONGEST:
                spent.setdefault(side.environment, Counter())[line.step] += round(seconds * 1000)
            counted.add(step)
    return spent
