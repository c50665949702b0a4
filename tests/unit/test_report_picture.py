"""The matrix as a picture, the chooser above it, and what changed: what the page shows first."""

from __future__ import annotations

import re
from html import unescape

import msgspec
import pytest
from packaging.requirements import Requirement

from matrix.history.changes import Change, ChangeGroup, ChangeKind, Changes
from matrix.judge.results import CanaryState, MatrixResult, ModelFacts, Side
from matrix.pipeline.outcomes import Reason
from matrix.pipeline.steps import Stage
from matrix.report.addresses import page_of
from matrix.report.causes import causes
from matrix.report.chooser import choices, traits
from matrix.report.material import Material
from matrix.report.picture import LONGEST, Notes, tables
from matrix.report.rendering import page
from matrix.report.table import markers, normalise, parts
from tests.unit.report_pages import Page, empty
from tests.unit.report_results import cell_result, realistic
from tests.unit.report_standings import standing_result

NOTHING = Notes({}, [], {}, {}, {})


def drawn(result: MatrixResult, notes: Notes = NOTHING) -> list[str]:
    """Return the tables of all parts of a result."""
    ordered = normalise(result)
    notes = notes._replace(marks=markers(ordered))
    return [str(block) for part in parts(ordered) for block in tables(part, notes, "caption")]


def squares(text: str) -> list[str]:
    return re.findall(r'<a class="[a-z-]+" href="([^"]+)"', text)


def of(quantizers: int, engines: int, models: int) -> MatrixResult:
    """Return a result with a cell for each quantizer, engine and model."""
    cells = [
        cell_result(Side(f"q-{q}", "q"), Side(f"vllm-{e}", "e"), f"m{m}", None)
        for q in range(quantizers)
        for e in range(engines)
        for m in range(models)
    ]
    return msgspec.structs.replace(empty(), cells=cells)


@pytest.mark.parametrize(("rows", "engines", "models"), [(5, 94, 1), (146, 3, 1), (60, 30, 3)])
def test_a_picture_is_cut_into_tables_that_fit_a_screen(
    rows: int, engines: int, models: int
) -> None:
    blocks = drawn(of(rows, engines, models))
    for block in blocks:
        lines = re.findall(r"<tr data-quantizer=.*", block)
        assert 0 < len(lines) <= LONGEST
        assert {line.count("<td>") for line in lines} == {lines[0].count("<td>")}
        assert lines[0].count("<td>") < LONGEST + models
        heads = re.findall(r'colspan="(\d+)"[^>]* data-engine=', block)
        assert {int(span) for span in heads} == {models}  # none is cut apart
        assert sum(map(int, heads)) == lines[0].count("<td>")
    addresses = [address for block in blocks for address in squares(block)]
    assert sorted(addresses) == sorted(
        {page_of(cell.id) for cell in of(rows, engines, models).cells}
    )


def test_each_cell_of_a_part_is_a_square_of_it() -> None:
    result = realistic()
    addresses = [address for block in drawn(result) for address in squares(block)]
    assert sorted(addresses) == sorted(page_of(cell.id) for cell in result.cells)


def test_departures_are_marked_at_heads_and_on_squares_where_no_head_says_them() -> None:
    departures = {
        ("q-0", "vllm-0"): ["maker"], ("q-0", "vllm-1"): ["maker", "runner"],
        ("q-1", "vllm-0"): ["kernel"], ("q-1", "vllm-1"): ["runner"],
    }  # fmt: skip
    result = of(2, 2, 1)
    cells = [
        msgspec.structs.replace(cell, departures=departures[cell.quantizer.name, cell.engine.name])
        for cell in result.cells
    ]
    (block,) = drawn(msgspec.structs.replace(result, cells=cells))
    marks = {"kernel": "†a", "maker": "†b", "runner": "†c"}
    heads = re.findall('data-engine="vllm-[01]".*?</span>', block)
    assert [head.count(marks["runner"]) for head in heads] == [0, 1]
    assert [head.count("†") for head in heads] == [0, 1]
    rows = re.findall('<tr data-quantizer="q-[01]".*?(?=<td)', block)
    assert [row.count(marks["maker"]) for row in rows] == [1, 0]
    assert [row.count("†") for row in rows] == [1, 0]
    marked = re.findall(
        r'<a [^>]*href="([^"]+)"[^>]*aria-label="([^"]*†[^"]*)">.<sup>†</sup>', block
    )
    (by_kernel,) = (cell for cell in cells if "kernel" in cell.departures)
    assert marked == [(page_of(by_kernel.id), "works: m0 in vllm-0, †a")]


def test_rows_that_never_got_to_an_engine_are_one_line_with_their_cause() -> None:
    result = normalise(realistic())
    listed = causes(result)
    notes = NOTHING._replace(
        causes={cell: number for number, cause in enumerate(listed) for cell in cause.cells},
        titles=[cause.title({}) for cause in listed],
    )
    (block,) = drawn(result, notes)
    folds = re.findall(r'<tr class="fold">.*?</details>', block, re.DOTALL)
    of_quantizer = list(Stage)[: list(Stage).index(Stage.REPAIR)]
    early = {cell.quantizer.name for cell in result.cells if cell.stage in of_quantizer}
    folded = [name for fold in folds for name in re.findall(r'data-quantizer="([^"]+)"', fold)]
    assert sorted(folded) == sorted(early)
    (line,) = [fold for fold in folds if "shard_checkpoint" in fold]
    assert "4 rows, transformers-4.47.1 to transformers-5.23.0" in line
    assert "(32 cells)" in line
    assert len(squares(line)) == len(re.findall('data-column="[0-7]"', line)) == 32


def test_a_row_of_which_a_cell_got_to_an_engine_is_not_folded() -> None:
    quantizer = Side("q-1", "q")
    early = (Stage.QUANTIZE, Reason.EXCEPTION, "no")
    cells = [
        cell_result(quantizer, Side("vllm-1", "e"), "m", early),
        cell_result(quantizer, Side("vllm-2", "e"), "m", None),
    ]
    (block,) = drawn(msgspec.structs.replace(empty(), cells=cells))
    assert 'class="fold"' not in block
    (block,) = drawn(msgspec.structs.replace(empty(), cells=cells[:1]))
    assert 'class="fold"' in block


def test_a_square_says_what_it_is_in_words_and_marks() -> None:
    cell = cell_result(Side("q-1", "q"), Side("vllm-1", "e"), "m", None)
    flaky = msgspec.structs.replace(cell, flaky=True)
    notes = NOTHING._replace(changes={cell.id: ChangeKind.CHANGED_CAUSE})
    (plain,) = drawn(msgspec.structs.replace(empty(), cells=[cell]))
    (marked,) = drawn(msgspec.structs.replace(empty(), cells=[flaky]), notes)
    assert 'aria-label="works: m in vllm-1">✓</a>' in plain
    assert 'aria-label="works: m in vllm-1, flaky, changed cause">✓<sup>~</sup></a>' in marked
    assert 'data-flaky="1"' in marked
    assert 'data-changed="changed-cause"' in marked


# ----------------------------------------------------------------------------------------- chooser


def test_the_chooser_begins_with_what_is_garbage_in_vllm_and_works_elsewhere() -> None:
    chosen = choices(normalise(realistic()))
    assert chosen is not None
    assert (chosen.model, chosen.quantizer[:13]) == ("tied", "autoawq-0.2.7")
    assert set(chosen.models) == {"tied", "untied"}
    assert "none" not in chosen.quantizers
    assert choices(empty()) is None


def test_a_model_is_told_by_what_decides_who_reads_it() -> None:
    models = {"a": ModelFacts(tied=True, model_type="qwen2"), "b": ModelFacts(tied=False)}
    result = msgspec.structs.replace(realistic(), models=models)
    assert [traits(model, result) for model in ("a", "b", "c")] == [
        "tied embedding, qwen2", "untied embedding", "",
    ]  # fmt: skip


# ----------------------------------------------------------------------------------------- changes


def changes_of(text: str) -> str:
    return text.partition('<section id="changes">')[2].partition("</section>")[0]


def with_changes(changes: Changes | None) -> str:
    return page(Material(normalise(realistic()), changes=changes), [])


def test_what_changed_is_told_with_its_cells_and_inputs() -> None:
    cells = [cell.id for cell in realistic().cells[:3]]
    changed = [
        Change(cell=name, kind=ChangeKind.REGRESSED, inputs=["engine: vllm 1 -> <b>2"])
        for name in cells
    ]
    group = ChangeGroup(kind=ChangeKind.REGRESSED, title="3 cells & a cause", cells=cells)
    text = with_changes(Changes(old="2026-11-29", new="2026-11-30", cells=changed, groups=[group]))
    section = changes_of(text)
    assert (
        '<a href="#changed=regressed"><b>regressed</b></a>: <bdi>3 cells &amp; a cause' in section
    )
    assert "<bdi>engine: vllm 1 -&gt; &lt;b&gt;2</bdi>" in section
    assert [f'href="{page_of(name)}"' in section for name in cells] == [True] * 3
    assert text.count('data-changed="regressed"') == 3


def test_no_earlier_run_and_no_change_are_told_apart() -> None:
    same = Changes(old="2026-11-29", new="2026-11-30", cells=[], groups=[])
    assert "there is no earlier run" in changes_of(with_changes(None))
    assert "Nothing, since <bdi>2026-11-29</bdi>." in changes_of(with_changes(same))


def test_a_run_that_goes_on_or_is_void_does_not_say_that_there_is_no_earlier_one() -> None:
    for state, word in (
        ({"going_on": "so far"}, "when it is over"),
        ({"canaries": CanaryState.VOID}, "void"),
    ):
        result = msgspec.structs.replace(realistic(), **state)
        text = changes_of(page(Material(normalise(result)), ()))
        assert word in text
        assert "no earlier run" not in text


# ------------------------------------------------------------------------------ what lies beside it


def test_the_page_links_what_lies_beside_it_and_nothing_else() -> None:
    material = Material(normalise(realistic()), neighbours={"gpu<": "gpu/index.html"})
    names = {"feed.xml", "matrix.csv", "cells/x.html", "plots/time.svg"}
    shown = Page(page(material, names))
    assert {"feed.xml", "matrix.csv", "plots/time.svg", "gpu/index.html"} <= set(shown.links)
    assert "cells/x.html" not in shown.links
    assert "matrix.parquet" not in shown.links
    assert shown.tags["img"] == 1
    assert "gpu<" in shown.words


GAPS = ">=4.51,<5.24,!=4.52.*,!=4.53.*,!=4.54.*,!=5.0.*"


def test_what_is_to_be_copied_as_a_specifier_is_one() -> None:
    result = standing_result()
    gaps = msgspec.structs.replace(result.specifiers[0], holds=GAPS)
    result = msgspec.structs.replace(result, specifiers=[*result.specifiers, gaps])
    text = page(Material(normalise(result)), [])
    section = text.partition('<section id="specifiers"')[2].partition("</section>")[0]
    copied = [unescape(text) for text in re.findall(r'<code class="copy">(.*?)</code>', section)]
    assert f"{gaps.partner}{GAPS}" in copied
    assert all(Requirement(text).specifier for text in copied)
    assert "without 4.52-4.54, 5.0" in section  # in short, beside it
