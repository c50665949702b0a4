"""The formats of other programs: valid, inert, and the same in any order."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import datetime
from typing import Any
from xml.etree import ElementTree as ET

import msgspec
import pyarrow.parquet as pq
import pytest
from hypothesis import given

from matrix.history.changes import Change, ChangeGroup, ChangeKind, Changes, Night, PastVerdict
from matrix.judge.results import CanaryState, MatrixResult, Measures
from matrix.pipeline.outcomes import Verdict
from matrix.report import Material, files
from matrix.report.exports import exports
from matrix.report.exports.frame import COLUMNS
from matrix.report.exports.markdown import LIMIT
from matrix.report.table import normalise
from tests.unit.hostile_results import HOSTILE, materials, planted
from tests.unit.report_pages import ATOM, INVISIBLE, empty, markdown_tables, slow, with_issue
from tests.unit.report_results import realistic
from tests.unit.report_standings import standing_result

LINKS = {"index.html", "feed.xml"}
RUN, EARLIER = "20261122T010000Z-9a2e", "20261121T203000Z-5f1c"
CELL = "tied/awq-4bit-g64/autoawq-0.2.9+transformers-4.51.3/vllm-0.32.0"
CHANGES = Changes(
    old=f"2026-11-21 {EARLIER}", new=f"2026-11-22 {RUN}",
    cells=[Change(cell=CELL, kind=ChangeKind.REGRESSED, old=Verdict.WORKS, new=Verdict.BROKEN)],
    groups=[ChangeGroup(kind=ChangeKind.REGRESSED, title="1 cell since the CPU changed",
                        cells=[CELL])],
)  # fmt: skip


def made(material: Material) -> dict[str, bytes]:
    normalised = material._replace(result=normalise(material.result))
    return dict(exports(normalised))


def of_result(result: MatrixResult, **more: Any) -> dict[str, bytes]:
    return made(Material(result, **more))


def texts_in(value: object) -> list[str]:
    match value:
        case str():
            return [value]
        case dict():
            return [text for pair in value.items() for inner in pair for text in texts_in(inner)]
        case list():
            return [text for inner in value for text in texts_in(inner)]
        case _:
            return []


# ------------------------------------------------------------------------------- whatever they say


def whole() -> Material:
    """Return material in which a text stands in each field that can hold one."""
    result = standing_result()
    cells = [
        msgspec.structs.replace(
            cell, verdict=verdict, issue="layout", looks_like="layout", group="a group", at="now",
            runs=["a run"], elsewhere={"a device": "works"}, measures=Measures(kernel="a kernel"),
            departures=["a departure"], parts=["a part"], flaky=True,
        )
        for cell, verdict in zip(result.cells, Verdict, strict=False)
    ]  # fmt: skip
    result = msgspec.structs.replace(
        result, cells=cells, issues=with_issue().issues, canary_troubles=["a line"],
        issue_troubles=["a line"], budget=["a line"], going_on="so far", parts=["a part"],
    )  # fmt: skip
    nights = [Night(day, day, {}, True) for day in ("2026-11-20", "2026-11-21")]
    past = {CELL: [PastVerdict(night.day, night.run, Verdict.WORKS) for night in nights]}
    return Material(result, changes=CHANGES, nights=nights, past=past)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_is_inert_in_each_format_whatever_field_has_it(text: str) -> None:
    plain = whole()
    check_that_all_is_inert(
        Material(
            result=planted(plain.result, text),
            changes=planted(plain.changes, text),
            nights=planted(list(plain.nights), text),
            past=planted(dict(plain.past), text),
        )
    )


@slow
@given(materials())
def test_hostile_text_is_inert_in_each_format(material: Material) -> None:
    check_that_all_is_inert(material)


def check_that_all_is_inert(material: Material) -> None:
    texts = made(material)
    for name in ("badge.json", "matrix.ctrf.json"):
        assert not [text for text in texts_in(json.loads(texts[name])) if INVISIBLE.search(text)]
    for name, tags in (
        ("feed.xml", "feed id title updated author name link entry content"),
        ("matrix.junit.xml", "testsuites testsuite testcase failure skipped system-out"),
    ):
        root = ET.fromstring(texts[name])
        assert {element.tag.removeprefix(ATOM) for element in root.iter()} <= set(tags.split())
        for element in root.iter():
            for text in (element.text or "", *element.attrib.values()):
                assert not INVISIBLE.search(text.strip("\n "))
        hrefs = {element.get("href") for element in root.iter(f"{ATOM}link")}
        assert hrefs <= LINKS
    for name in texts.keys() - {"matrix.parquet"}:
        assert not INVISIBLE.search(texts[name].decode()), name
    for row in csv.reader(io.StringIO(texts["matrix.csv"].decode())):
        assert not [value for value in row if value.lstrip().startswith(tuple("=+-@\t\r＝＋－＠"))]
    for row in pq.read_table(io.BytesIO(texts["matrix.parquet"])).to_pylist():
        assert not [text for text in texts_in(row) if INVISIBLE.search(text)]


@slow
@given(materials())
def test_markdown_is_inert_and_fits_into_an_issue(material: Material) -> None:
    text = made(material)["matrix.md"].decode()
    assert len(text) <= LIMIT
    for rows in markdown_tables(text):
        assert len(set(rows)) == 1
    unescaped = re.sub(r"\\.", "", text)
    no_code = re.sub(r"`[^`\n]*`", "`", unescaped)  # it keeps apart what stands around it
    assert not re.search(r"<[a-zA-Z/!]|@[a-zA-Z0-9]|#[0-9]|[a-z]://|www[.]", no_code)
    links = re.findall(r"\]\(([^)]*)\)", no_code)
    assert all(link.startswith("locks/") for link in links)


@slow
@given(materials())
def test_cases_are_as_many_as_cells_and_their_sums_are_right(material: Material) -> None:
    texts, number = made(material), len(material.result.cells) + 1
    report = json.loads(texts["matrix.ctrf.json"])["results"]
    assert report["summary"]["tests"] == len(report["tests"]) == number
    root = ET.fromstring(texts["matrix.junit.xml"])
    assert (root.get("tests"), len(list(root.iter("testcase")))) == (str(number), number)
    for suite in root.iter("testsuite"):
        for attribute, tag in (("failures", "failure"), ("skipped", "skipped")):
            assert suite.get(attribute) == str(len(list(suite.iter(tag))))
        assert re.fullmatch(r"\d+\.\d{3}", suite.get("time", ""))


def test_the_same_bytes_in_any_order() -> None:
    result = realistic()
    mixed = msgspec.structs.replace(result, cells=result.cells[::-1])
    material = Material(result, changes=CHANGES, past={"b": [], "a": []})
    assert made(material) == made(material._replace(result=mixed, past={"a": [], "b": []}))


# ------------------------------------------------------------------------------------ CSV, Parquet


def measured() -> MatrixResult:
    """Return a result of which one cell was measured and another is flaky."""
    result = normalise(realistic())
    measures = Measures(
        kernel="=Marlin", tokens_per_second=31.5, peak_bytes=2**40, perplexity=7.25, same_top=0.5
    )
    first, second, *rest = result.cells
    cells = [
        msgspec.structs.replace(
            first, measures=measures, at="2026-11-22T01:24:09+00:00", runs=[EARLIER, RUN]
        ),
        msgspec.structs.replace(second, flaky=True),
        *rest,
    ]
    return msgspec.structs.replace(result, cells=cells)


def test_measures_stand_in_csv_and_parquet() -> None:
    texts = of_result(measured())
    first, second, *_ = csv.DictReader(io.StringIO(texts["matrix.csv"].decode()))
    assert (first["kernel"], first["perplexity"], first["nats"]) == ("'=Marlin", "7.25", "")
    assert (first["tokens_per_second"], first["peak_bytes"]) == ("31.5", str(2**40))
    assert (first["runs"], first["flaky"], second["flaky"]) == (f"{EARLIER} {RUN}", "False", "True")
    table = pq.read_table(io.BytesIO(texts["matrix.parquet"]))
    assert table.column_names == list(COLUMNS) == list(first)
    row = table.to_pylist()[0]
    assert (row["kernel"], row["perplexity"], row["nats"]) == ("=Marlin", 7.25, None)
    assert (row["same_top"], row["divergence"]) == (0.5, None)
    assert (row["peak_bytes"], row["flaky"], row["at"]) == (
        2**40,
        False,
        "2026-11-22T01:24:09+00:00",
    )
    assert str(table.schema.field("seconds").type) == "double"
    assert not table.schema.metadata


def test_an_empty_table_has_its_columns() -> None:
    texts = of_result(empty())
    assert texts["matrix.csv"].decode().count('"') == 2 * len(COLUMNS)
    assert pq.read_table(io.BytesIO(texts["matrix.parquet"])).num_columns == len(COLUMNS)


# -------------------------------------------------------------------------------------- JUnit, CTRF


def case_of(verdict: Verdict, **more: Any) -> tuple[ET.Element, dict[str, Any]]:
    """Return a cell of a verdict as a test case of both formats."""
    cell = msgspec.structs.replace(with_issue().cells[0], verdict=verdict, issue="layout", **more)
    texts = of_result(msgspec.structs.replace(with_issue(), cells=[cell]))
    (junit,) = [c for c in ET.fromstring(texts["matrix.junit.xml"]).iter("testcase")
                if c.get("name") == cell.id]  # fmt: skip
    tests = json.loads(texts["matrix.ctrf.json"])["results"]["tests"]
    (ctrf,) = [test for test in tests if test["name"] == cell.id]
    return junit, ctrf


@pytest.mark.parametrize(
    ("verdict", "child", "status"),
    [
        (Verdict.WORKS, "system-out", "passed"),
        (Verdict.DEGRADED, "system-out", "passed"),
        (Verdict.GARBAGE, "failure", "failed"),
        (Verdict.BROKEN, "failure", "failed"),
        (Verdict.UNSUPPORTED, "skipped", "skipped"),
        (Verdict.UNTESTED, "skipped", "skipped"),
        (Verdict.INFRA, "skipped", "skipped"),
        (Verdict.NOT_RUN, "skipped", "pending"),
    ],
)
def test_a_verdict_is_what_readers_make_of_it(verdict: Verdict, child: str, status: str) -> None:
    junit, ctrf = case_of(verdict, message="why it is so")
    assert [element.tag for element in junit] == [child]
    assert (ctrf["status"], ctrf["rawStatus"]) == (status, verdict)
    assert junit.get("classname") == "/".join(ctrf["suite"]) == "none/float"
    if child == "failure":
        assert junit[0].attrib == {"type": verdict, "message": "why it is so"}
    if child != "skipped":
        assert "fix: my-engine>=1.1" in (junit[0].text or "").splitlines()
    assert "fix: my-engine>=1.1" in ctrf["stdout"]


def test_only_what_a_cell_does_itself_is_its_duration() -> None:
    junit, ctrf = case_of(Verdict.WORKS, timings={"quantize": 90.0, "load": 1.5, "generate": 0.25})
    assert (junit.get("time"), ctrf["duration"]) == ("1.750", 1750)


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (CanaryState.ESTABLISHED, "passed"),
        (CanaryState.VOID, "failed"),
        (CanaryState.NOT_ESTABLISHED, "skipped"),
        (CanaryState.NONE, "skipped"),
    ],
)
def test_canaries_are_a_case_of_their_own(state: CanaryState, status: str) -> None:
    result = msgspec.structs.replace(
        realistic(), canaries=state, canary_troubles=["it came out as works"]
    )
    texts = of_result(result)
    report = json.loads(texts["matrix.ctrf.json"])["results"]
    first = report["tests"][0]
    assert (first["name"], first["status"]) == ("canaries", status)
    assert first["stdout"] == ["it came out as works"]
    assert report["environment"]["healthy"] == (state is not CanaryState.VOID)


def test_ctrf_has_what_the_format_requires() -> None:
    document = json.loads(of_result(measured())["matrix.ctrf.json"])
    assert (document["reportFormat"], document["specVersion"]) == ("CTRF", "1.0.0")
    assert document.keys() == {"reportFormat", "specVersion", "results"}
    summary = document["results"]["summary"]
    assert document["results"]["tool"]["name"]
    statuses = ("passed", "failed", "skipped", "pending", "other")
    assert sum(summary[status] for status in statuses) == summary["tests"] == 209
    assert summary["flaky"] == 1
    moment = datetime.fromisoformat("2026-11-22T01:24:09+00:00").timestamp() * 1000
    assert summary["start"] == summary["stop"] == moment
    for test in document["results"]["tests"]:
        assert {"name", "status", "duration"} <= test.keys()
        assert test["name"]
        assert isinstance(test["duration"], int)


# --------------------------------------------------------------------------------------- the badge


@pytest.mark.parametrize(
    ("state", "changes", "message", "color"),
    [
        (CanaryState.ESTABLISHED, None, "82 of 208 work", "blue"),
        (CanaryState.NONE, None, "82 of 208 work", "yellow"),
        (CanaryState.ESTABLISHED, CHANGES, "82 of 208 work, 1 regressed", "orange"),
        (CanaryState.VOID, CHANGES, "void", "red"),
    ],
)
def test_the_badge_says_what_counts(
    state: CanaryState, changes: Changes | None, message: str, color: str
) -> None:
    result = msgspec.structs.replace(realistic(), canaries=state)
    badge = json.loads(of_result(result, changes=changes)["badge.json"])
    assert badge == {
        "schemaVersion": 1, "label": "quantization, cpu", "message": message, "color": color,
        "isError": state is CanaryState.VOID,
    }  # fmt: skip


def test_what_nobody_ran_is_no_number() -> None:
    badge = json.loads(of_result(empty())["badge.json"])
    assert badge["message"] == "nothing was run"


def test_all_formats_are_among_the_files_and_the_page_is_last() -> None:
    names = [name for name, _ in files(Material(realistic()))]
    assert {*made(Material(realistic()))} == {
        "matrix.csv", "matrix.parquet", "matrix.md", "matrix.junit.xml", "matrix.ctrf.json",
        "badge.json", "feed.xml",
    }  # fmt: skip
    assert names[-1] == "index.html"
    assert {*made(Material(realistic()))} < set(names)
