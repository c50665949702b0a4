"""The pictures of a report: what they show, and that they are inert, small and always the same."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from matrix.history.changes import Night
from matrix.judge.results import CellResult, MatrixResult, Measures
from matrix.pipeline.outcomes import Verdict
from matrix.report import files, write
from matrix.report.material import Material
from matrix.report.plots import BARS, captions, plots
from matrix.report.table import normalise
from tests.unit.hostile_results import HOSTILE, results
from tests.unit.report_results import realistic

NIGHTS = [
    Night("2026-11-28", "a", {Verdict.WORKS: 3, Verdict.BROKEN: 5}, believed=True),
    Night("2026-11-29", "b", {Verdict.WORKS: 4, Verdict.NOT_RUN: 4}, believed=False),
]
ALL = ["plots/quality-speed.svg", "plots/memory.svg", "plots/verdicts.svg", "plots/time.svg"]
SVG = "{http://www.w3.org/2000/svg}"


def measured(number: int, cell: CellResult) -> CellResult:
    """Return a cell whose engine answered, the faster and the worse the higher the number."""
    measures = Measures(
        tokens_per_second=number + 1.0, nats=(number + 1) / 1000, peak_bytes=10**9 - number * 1000
    )
    side = msgspec.structs.replace(cell.engine, adapter=cell.engine.name.partition("-")[0])
    return msgspec.structs.replace(cell, measures=measures, engine=side)


def material(cells: Sequence[CellResult] | None = None) -> Material:
    """Return what a report is made of that has something to show in all of its pictures."""
    result = realistic()
    if cells is None:
        cells = [measured(number, cell) for number, cell in enumerate(result.cells)]
    return Material(msgspec.structs.replace(result, cells=list(cells)), nights=NIGHTS)


def texts(picture: bytes) -> list[str]:
    """Return what can be read in a picture."""
    return ["".join(text.itertext()) for text in ElementTree.fromstring(picture).iter(f"{SVG}text")]


def test_all_pictures_are_in_the_report_with_a_caption() -> None:
    whole = material()
    whole = whole._replace(result=normalise(whole.result))
    drawn = dict(plots(whole))
    assert list(drawn) == list(captions(whole)) == ALL
    assert drawn.items() <= dict(files(whole)).items()


def test_a_picture_in_which_nothing_is_to_be_seen_is_left_out() -> None:
    none = Material(msgspec.structs.replace(realistic(), cells=[]), nights=NIGHTS[:1])
    assert not list(plots(none))
    assert not captions(none)


def test_pictures_that_a_report_has_no_more_are_removed_and_only_ours(tmp_path: Path) -> None:
    write(material(), tmp_path)
    folder = tmp_path / "plots"
    (folder / "mine.svg").write_text("<svg/>")
    assert {f"plots/{file.name}" for file in folder.iterdir()} == {*ALL, "plots/mine.svg"}
    write(Material(msgspec.structs.replace(realistic(), cells=[])), tmp_path)
    assert [file.name for file in folder.iterdir()] == ["mine.svg"]


def test_only_cells_that_answer_are_points() -> None:
    cells = material().result.cells
    answer = [cell for cell in cells if cell.verdict in {Verdict.WORKS, Verdict.DEGRADED}]
    garbage = [cell for cell in cells if cell.verdict is Verdict.GARBAGE]
    whole = material([*answer[:3], *garbage])
    assert "3 cells that answer" in captions(whole)["plots/quality-speed.svg"]
    drawn = dict(plots(whole))["plots/quality-speed.svg"]
    marks = re.findall(rb"<use [^>]*fill: #", drawn)
    assert len(marks) == 3 + len({cell.engine.adapter for cell in answer[:3]})  # and the legend


def test_the_extremes_are_named() -> None:
    works = [cell for cell in material().result.cells if cell.verdict is Verdict.WORKS]
    best, worst = works[0].id, works[-1].id
    whole = material(works)
    speed, memory = (captions(whole)[name] for name in ALL[:2])
    assert f"A  fastest, 208 tokens/s, 0.21 nats: {worst}" in speed
    assert f"B  nearest to the float model, 1 tokens/s, 0.001 nats: {best}" in speed
    assert f"A  smallest, 1,000 MB, 0.21 nats: {worst}" in memory
    assert "C" in texts(dict(plots(whole))[ALL[0]])


def test_what_degrades_is_hollow() -> None:
    cell = next(c for c in material().result.cells if c.verdict is Verdict.WORKS)
    degraded = msgspec.structs.replace(cell, id="other", verdict=Verdict.DEGRADED)
    drawn = dict(plots(material([cell, degraded])))[ALL[0]]
    assert {f"{cell.engine.adapter}", f"{cell.engine.adapter}, degraded"} <= set(texts(drawn))
    assert len(re.findall(rb"<use [^>]*fill-opacity: 0;", drawn)) == 2  # one of them in the legend


def test_verdicts_over_nights_doubt_a_void_one() -> None:
    drawn = dict(plots(material()))["plots/verdicts.svg"]
    words = texts(drawn)
    assert {"works", "broken", "not run", "not to be believed", "2026-11-28"} <= set(words)
    assert "garbage" not in words
    assert captions(material())["plots/verdicts.svg"].endswith("4 works, 4 not run.")


def test_time_that_cells_share_counts_once() -> None:
    cell = next(c for c in realistic().cells if c.verdict is Verdict.WORKS)
    timings = {"quantizer-install": 60.0, "quantize": 120.0, "generate": 30.0}
    first = msgspec.structs.replace(cell, timings=timings)
    second = msgspec.structs.replace(first, id="other", engine=cell.quantizer)
    caption = captions(material([first, second]))["plots/time.svg"]
    assert "Where 4 minutes of work went" in caption
    assert caption.endswith("install 1.0, quantize 2.0, generate 1.0.")


def test_environments_beyond_the_longest_share_a_bar() -> None:
    cell = next(c for c in realistic().cells if c.verdict is Verdict.WORKS)
    cells = [
        msgspec.structs.replace(
            cell, id=str(number), timings={"quantize": 10.0 + number},
            quantizer=msgspec.structs.replace(cell.quantizer, environment=f"number-{number:02}"),
        )
        for number in range(BARS + 3)
    ]  # fmt: skip
    words = texts(dict(plots(material(cells)))["plots/time.svg"])
    assert [word for word in words if word.startswith("number")] == [
        f"number-{number:02}" for number in reversed(range(3, BARS + 3))
    ]
    assert "3 others" in words


def test_same_bytes_whatever_the_settings_of_the_machine() -> None:
    expected = list(plots(material()))
    with matplotlib.rc_context({"font.size": 40, "svg.fonttype": "path", "text.color": "red"}):
        assert list(plots(material())) == expected
        assert matplotlib.rcParams["font.size"] == 40


def test_text_has_the_readers_colour_light_or_dark() -> None:
    for _, drawn in plots(material()):
        assert b"prefers-color-scheme: dark" in drawn
        assert b"#010203" not in drawn
        assert b"#000000" not in drawn
        assert not re.search(rb"<text [^>]*fill: #", drawn)
        assert b"currentColor" in drawn


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_stay_text(text: str) -> None:
    cell = next(c for c in material().result.cells if c.verdict is Verdict.WORKS)
    side = msgspec.structs.replace(cell.engine, name=text, environment=text, adapter=text)
    planted = msgspec.structs.replace(cell, id=text, engine=side, quantizer=side)
    nights = [Night(text, text, night.counts, night.believed) for night in NIGHTS]
    result = msgspec.structs.replace(realistic(), profile=text, cells=[planted])
    for name, drawn in plots(Material(result, nights=nights)):
        harmless(name, drawn)


@given(results(), st.lists(st.floats(), min_size=4, max_size=4))
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
def test_hostile_results_are_drawn(result: MatrixResult, numbers: list[float]) -> None:
    speed, nats, *_ = numbers
    measures = Measures(tokens_per_second=speed, nats=nats, peak_bytes=1)
    cells = [msgspec.structs.replace(cell, measures=measures) for cell in result.cells]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, drawn in plots(Material(normalise(msgspec.structs.replace(result, cells=cells)))):
            harmless(name, drawn)


def harmless(name: str, drawn: bytes) -> None:
    """Fail where a picture is no SVG, reaches out of itself, or has what could run."""
    root = ElementTree.fromstring(drawn)
    assert root.tag == f"{SVG}svg", name
    allowed = {"svg", "style", "defs", "g", "path", "use", "text", "tspan", "clipPath", "rect",
               "pattern"}  # fmt: skip
    for element in root.iter():
        assert element.tag.removeprefix(SVG) in allowed, name
        for attribute, value in element.attrib.items():
            assert not attribute.startswith("on"), name
            assert "href" not in attribute or value.startswith("#"), name
            assert not re.search(r"url\((?!#)", value), name
    assert not re.search("[\u202e\u2066\u200b\x00-\x08]", drawn.decode())


def test_dollars_in_names_are_no_formula() -> None:
    cell = next(c for c in material().result.cells if c.verdict is Verdict.WORKS)
    side = msgspec.structs.replace(cell.engine, environment=r"a$\frac{1}$b")
    drawn = dict(plots(material([msgspec.structs.replace(cell, engine=side)])))
    assert r"a$\frac{1}$b" in texts(drawn["plots/time.svg"])


def test_many_cells_are_drawn_as_few_points() -> None:
    works = [cell for cell in material().result.cells if cell.verdict is Verdict.WORKS]
    many = [
        msgspec.structs.replace(
            cell, id=f"{cell.id}/{number}",
            measures=Measures(tokens_per_second=1 + number % 97, nats=0.001 * (1 + number % 89)),
        )
        for number, cell in enumerate(works * (20_000 // len(works)))
    ]  # fmt: skip
    drawn = dict(plots(material(many)))["plots/quality-speed.svg"]
    assert len(drawn) < 1_000_000
