"""The report: inert whatever a package said, the same bytes for the same result, and complete."""

from __future__ import annotations

import csv
import io
import random
import re
from pathlib import Path

import msgspec
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix.judge.document import decode
from matrix.judge.results import CanaryState, CellResult, MatrixResult, Side
from matrix.pipeline.outcomes import Finding, Judgement, Verdict
from matrix.pipeline.steps import Stage
from matrix.report import PAGE, Material, files, summary, write
from matrix.report.addresses import page_of
from matrix.report.causes import causes
from matrix.report.rendering import ICON
from matrix.report.table import normalise, parts
from tests.unit.hostile_results import results
from tests.unit.report_pages import GROUP, INVISIBLE, Page, empty, markdown_tables, slow, with_issue
from tests.unit.report_results import cell_result, realistic, render

KNOWN_TAGS = (
    "html head meta title style body a header h1 h2 h3 h4 p em ul li strong span b bdi time nav "
    "main section div table caption thead tbody tr th td code br dl dt dd pre details summary "
    "form label input fieldset legend output small sup figure figcaption footer script "
    "i ol select option optgroup button dialog link"
)


@slow
@given(results())
def test_hostile_text_stays_text(result: MatrixResult) -> None:
    texts = render(result)
    page = Page(texts[PAGE])
    assert set(page.tags) <= set(KNOWN_TAGS.split())
    assert page.tags["script"] == page.tags["style"] == 1
    assert not {name for name in page.attributes if name.startswith("on") or name == "style"}
    beside = {*texts, "matrix.parquet", ICON}  # which are no text, and nothing to fetch
    assert all(link in beside or link.startswith("#") for link in page.links)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    for name, text in texts.items():
        assert not INVISIBLE.search(text), name
        text.encode()


@slow
@given(results())
def test_markdown_tables_keep_their_columns(result: MatrixResult) -> None:
    text = render(result)["matrix.md"]
    for rows in markdown_tables(text):
        assert len(set(rows)) == 1
    unescaped = re.sub(r"\\.", "", text)
    assert not re.search(r"<[a-zA-Z/!]", re.sub(r"`[^`\n]*`", "", unescaped))


@slow
@given(results())
def test_csv_reads_back_and_computes_nothing(result: MatrixResult) -> None:
    text = render(result)["matrix.csv"]
    table = pd.read_csv(io.StringIO(text), keep_default_na=False, dtype=str)
    assert len(table) == len(result.cells)
    assert sorted(table["verdict"]) == sorted(cell.verdict for cell in result.cells)
    for row in csv.reader(io.StringIO(text)):
        assert len(row) == len(table.columns)
        assert not [value for value in row if value.lstrip().startswith(tuple("=+-@\t\r＝＋－＠"))]


@slow
@given(results(), st.randoms(use_true_random=False))
def test_same_bytes_in_any_order(result: MatrixResult, shuffle: random.Random) -> None:
    # Cells that share an id are one cell twice; a matrix has none.
    result = msgspec.structs.replace(result, cells=distinct(result.cells))
    mixed = msgspec.structs.replace(
        result,
        cells=shuffle.sample(result.cells, len(result.cells)),
        environments=shuffle.sample(result.environments, len(result.environments)),
        departures=dict(reversed(result.departures.items())),
        machine=dict(reversed(result.machine.items())),
        specifiers=list(reversed(result.specifiers)),
        new_releases=dict(reversed(result.new_releases.items())),
    )
    assert render(result) == render(mixed) == render(mixed)
    assert summary(result) == summary(mixed)


def distinct(cells: list[CellResult]) -> list[CellResult]:
    return list({cell.id: cell for cell in cells}.values())


@slow
@given(results())
def test_json_is_the_result_itself(result: MatrixResult) -> None:
    text = render(result)["matrix.json"]
    read = decode(text.encode())
    assert sorted(cell.verdict for cell in read.cells) == sorted(c.verdict for c in result.cells)
    assert render(read)["matrix.json"] == text


def test_json_keeps_every_value_of_a_real_looking_result() -> None:
    result = realistic()
    read = decode(render(result)["matrix.json"].encode())
    by_id = {cell.id: cell for cell in result.cells}
    assert len(read.cells) == len(by_id) == 208
    assert all(set(cell.departures) == set(by_id[cell.id].departures) for cell in read.cells)
    assert all(cell.timings == by_id[cell.id].timings for cell in read.cells)


def test_empty_matrix() -> None:
    texts = render(empty())
    assert "There are no cells yet." in texts[PAGE]
    assert "There are no cells." in texts["matrix.md"]
    assert pd.read_csv(io.StringIO(texts["matrix.csv"])).empty
    assert summary(empty())[-1] == "report: reports/index.html"


@pytest.mark.parametrize("verdict", Verdict)
def test_every_verdict_is_told_in_words(verdict: Verdict) -> None:
    side = Side("q", "q")
    cell = msgspec.structs.replace(cell_result(side, Side("e", "e"), "tied", None), verdict=verdict)
    texts = render(msgspec.structs.replace(empty(), cells=[cell]))
    title = Page(texts[PAGE])
    assert title.words.count(f" {verdict}") >= 2  # counted, and in the legend
    assert sum(label.startswith(f"{verdict}: tied in e") for label in title.labels) == 1
    row = next(line for line in texts["matrix.md"].splitlines() if line.startswith("| q |"))
    assert verdict in row
    assert f"1 {verdict}" in summary(msgspec.structs.replace(empty(), cells=[cell]))[0]


def test_each_cell_is_a_square_that_leads_to_its_page_with_its_command() -> None:
    result = realistic()
    texts = render(result)
    page = Page(texts[PAGE])
    assert len(page.ids) == len(set(page.ids))
    for cell in result.cells:
        assert cell.command in "".join(Page(texts[page_of(cell.id)]).words)
        labels = [link.get("aria-label") or "" for link in page.by_link[page_of(cell.id)]]
        label = f"{cell.verdict}: {cell.model} in {cell.engine.name}"
        assert [text.partition(",")[0] for text in labels if text] == [label]


def test_departures_are_marked_and_explained() -> None:
    result = realistic()
    text = render(result)["matrix.md"]
    table = text.partition("## Table: ")[2].splitlines()
    row = next(line for line in table if "0.2.7+transformers-4.47.1 | awq" in line)
    assert "≠ garbage †a †b" in row
    assert "| †b | without-ipex | intel-extension-for-pytorch is dropped" in text


def test_a_broken_environment_is_one_cause() -> None:
    lines = summary(realistic())
    shard = [line for line in lines if "shard_checkpoint" in line]
    assert len(shard) == 1
    assert shard[0].split()[0] == "32"


def test_one_defect_in_the_files_is_one_cause_and_two_wrong_answers_are_two() -> None:
    text = render(realistic())["matrix.md"]
    causes = text.partition("## One cause")[2].partition("##")[0]
    assert causes.count("only lm\\_head.weight is stored") == 1
    assert "| 8 | tied by autoawq-0.2.9+transformers-4.51.3-stock, untied by" in causes


def test_a_red_cell_shows_its_known_issue_with_fix_and_source_everywhere() -> None:
    texts, result = render(with_issue()), with_issue()
    red = sum(cell.issue == "layout" for cell in result.cells)
    page = texts[PAGE]
    cells = [texts[page_of(cell.id)] for cell in result.cells if cell.issue == "layout"]
    assert page.count("MyEngine does not read <code>rows</code>") == 2  # above, and as a cause
    assert page.count('<a href="https://example.org/issues/7" rel="noopener noreferrer"') == 1
    assert page.count("Turn the rows.") == 1
    for text in cells:
        assert text.count("MyEngine does not read <code>rows</code>") == 1
        assert text.count('<a href="https://example.org/issues/7"') == 1
        assert text.count("Turn the rows.") == 1
    assert not [text for text in (page, *cells) if 'href="javascript' in text]
    rows = list(csv.DictReader(io.StringIO(texts["matrix.csv"])))
    columns = [(row["issue"], row["fix"], row["source"]) for row in rows if row["issue"]]
    assert columns == [("layout", "my-engine>=1.1", "https://example.org/issues/7")] * red
    (line,) = [line for line in texts["matrix.md"].splitlines() if "my-engine" in line]
    assert line.startswith(f"| {red} |")
    lines = summary(result)
    where = next(number for number, line in enumerate(lines) if "MyEngine does not" in line)
    assert lines[where + 1].strip() == "fix: my-engine>=1.1"


def test_cells_of_one_known_issue_or_one_group_are_one_cause() -> None:
    result = with_issue()
    assert [cause.issue for cause in causes(result)].count("layout") == 1
    grouped = [
        msgspec.structs.replace(cell, group=GROUP, explained_by="", message=cell.id)
        if cell.issue == "" and cell.verdict is Verdict.BROKEN
        else cell
        for cell in result.cells
    ]
    alike = msgspec.structs.replace(result, cells=grouped, environments=[])
    (cause,) = [cause for cause in causes(alike) if cause.group]
    assert cause.cells == tuple(cell.id for cell in grouped if cell.group)
    assert len(cause.cells) > 1
    text = render(alike)
    assert f"What these cells have in common: <code>{GROUP}</code>" in text[PAGE]
    assert f"not known: {GROUP}" in text["matrix.md"]


def test_a_known_issue_that_is_contradicted_is_reported() -> None:
    line = "layout: it is about a/b/c/d, which pass"
    result = msgspec.structs.replace(realistic(), issue_troubles=[line])
    texts = render(result)
    assert line in texts[PAGE]
    assert f"- {line}" in texts["matrix.md"]
    assert [row for row in summary(result) if line in row]


def test_engines_of_vllm_stand_first_in_the_table() -> None:
    for part in parts(realistic()):
        order = [engine.startswith("vllm-") for engine in part.engines]
        assert order == sorted(order, reverse=True)
        assert 0 < sum(order) < len(order)


def test_a_cause_leads_to_its_cells() -> None:
    result = realistic()
    texts = render(result)
    page = Page(texts[PAGE])
    section = texts[PAGE].partition('<section id="causes"')[2].partition("</section>")[0]
    rows = re.findall(r'<tr id="cause=([^"]*)"', section)
    listed = causes(normalise(result))
    assert rows == [cause.id for cause in listed]
    assert len(set(rows)) == len(rows)
    for number, cause in enumerate(listed):
        # By the filter, and without a script by the first of them.
        assert f"#cause={cause.id}" in page.links
        of_squares = [
            name
            for name in (cell.id for cell in result.cells)
            if any(link.get("data-cause") == str(number) for link in page.by_link[page_of(name)])
        ]
        assert sorted(of_squares) == sorted(cause.cells)
        for name in cause.cells[:6]:
            assert section.count(f'href="{page_of(name)}"') == 1
        if len(cause.cells) > 6:
            assert f"and {len(cause.cells) - 6} more" in section


def test_checks_that_do_not_apply_are_left_out_of_a_cell() -> None:
    finding = Finding("scales", Stage.INSPECT, Judgement.NOT_APPLICABLE)
    ran = msgspec.structs.replace(finding, judgement=Judgement.PASSED)
    for findings, times in (([finding], 0), ([finding, ran], 1)):
        cell = msgspec.structs.replace(realistic().cells[0], findings=findings)
        page = render(msgspec.structs.replace(empty(), cells=[cell]))[page_of(cell.id)]
        assert page.count('<th scope="row">scales</th>') == page.count("<h2>Checks") == times
        assert "not-applicable" not in page.partition("<body>")[2]


def test_what_works_together_needs_every_model() -> None:
    text = render(realistic())["matrix.md"]
    together = text.partition("## What works together")[2].partition("##")[0].splitlines()
    row = next(line for line in together if "autoawq-0.2.7+transformers-4.47.1" in line)
    assert row.count("✓ works") == 1
    assert not [line for line in together if "stock" in line]


def test_what_was_not_run_is_not_said_to_fail() -> None:
    result = realistic()
    works = next(cell for cell in result.cells if cell.verdict is Verdict.WORKS)
    rest = [
        msgspec.structs.replace(
            works, id=name, engine=msgspec.structs.replace(works.engine, name=name), verdict=verdict
        )
        for name, verdict in (("waits-1", Verdict.INFRA), ("fails-1", Verdict.GARBAGE))
    ]
    texts = render(msgspec.structs.replace(result, cells=[works, *rest], parts=[]))
    together = texts["matrix.md"].partition("## What works together")[2].partition("##")[0]
    assert together.count("| not known ") == 1
    assert texts[PAGE].count('<span class="label">not known: </span>waits-1<') == 1
    assert texts[PAGE].count('<span class="label">no: </span>fails-1<') == 1


def test_what_a_budget_left_out_is_told_wherever_the_report_is_read() -> None:
    note = "left out because of the budget: 2 cells (2 new)"
    result = msgspec.structs.replace(realistic(), budget=[note])
    texts = render(result)
    assert all(note in texts[name] for name in (PAGE, "matrix.md", "matrix.json"))
    assert summary(result)[0] == note


@pytest.mark.parametrize(("state", "words"), [("void", "void"), ("", "No canaries")])
def test_canaries_are_told_first(state: str, words: str) -> None:
    page = render(msgspec.structs.replace(realistic(), canaries=CanaryState(state)))[PAGE]
    assert words in page.partition("<h2>")[0]


def test_the_page_needs_nothing_from_elsewhere() -> None:
    page = render(realistic())[PAGE]
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    assert policy is not None
    assert "unsafe" not in policy[1]
    assert policy[1].startswith("default-src &#39;none&#39;")
    assert Page(page).by_link[ICON] == [{"rel": "icon", "href": ICON}]  # a browser fetches none
    assert not re.search(r"https?://", page)


def test_write_replaces_whole_files_and_the_page_last(tmp_path: Path) -> None:
    reports = tmp_path / "reports"
    write(Material(empty()), reports)
    before = reports.joinpath(PAGE).read_text(encoding="utf-8")
    reports.joinpath("matrix.md").unlink()
    reports.joinpath("matrix.md").mkdir()
    with pytest.raises(OSError, match=r"matrix\.md"):
        write(Material(realistic()), reports)
    assert reports.joinpath(PAGE).read_text(encoding="utf-8") == before
    assert sorted(path.name for path in reports.iterdir()) == sorted(dict(files(Material(empty()))))


def test_each_part_of_a_profile_is_a_table_of_its_own() -> None:
    result = realistic()
    first, second = "AutoAWQ in <vLLM>", "Shapes"
    cells = [
        msgspec.structs.replace(
            cell, parts=[first, second] if cell.quantizer.name == "none" else [first]
        )
        for cell in result.cells
    ]
    texts = render(msgspec.structs.replace(result, parts=[first, second], cells=cells))
    tables = texts["matrix.md"].split("## Table: ")[1:]
    assert [table.splitlines()[0] for table in tables] == ["AutoAWQ in &lt;vLLM&gt;", "Shapes"]
    rows = [table.partition("##")[0].count("\n| ") for table in tables]
    assert rows[1] == 3  # header, rule, and the float model, which stands in both
    assert rows[0] > rows[1]
    assert texts[PAGE].count('<table class="grid"') == 2
    assert "AutoAWQ in &lt;vLLM&gt;" in texts[PAGE]


def test_what_could_not_run_anywhere_is_no_cause_of_its_environments() -> None:
    result = realistic()
    cells = [msgspec.structs.replace(cell, verdict=Verdict.UNTESTED) for cell in result.cells]
    untested = msgspec.structs.replace(result, cells=cells)
    assert causes(result)
    assert causes(untested) == []
