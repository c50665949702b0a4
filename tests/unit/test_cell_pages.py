"""Each cell's own page: the cause first, all that was observed, and inert whatever was said."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix.history.changes import PastVerdict
from matrix.judge.results import CellResult, MatrixResult, Measures, ModelFacts, Side
from matrix.judge.stories import CellStory, StageStory
from matrix.pipeline.outcomes import Finding, Judgement, Reason, Verdict
from matrix.pipeline.steps import Blame, Stage
from matrix.report import Material, files, write
from matrix.report.addresses import anchor, file_of, page_of, place_of
from matrix.report.cell_pages import FIRST, STYLE
from tests.unit.hostile_results import hostile, results
from tests.unit.report_pages import INVISIBLE, LAYOUT, Page, empty, slow, with_issue
from tests.unit.report_results import NO_IPEX, cell_result, realistic, render, texts_of

TAGS = (
    "html head meta title link body nav main a h1 h2 h3 p section span bdi b code pre dl div dt dd "
    "br table thead tbody tr th td figure figcaption details summary ul ol li time article"
)
CAUSE = "the embedding is not stored; then generate: 8 of 8 answers are wrong"
GOOD = "tied/awq-4bit-g64/autoawq-0.2.9+transformers-4.51.3/vllm-0.32.0"
VLLM_LINE = (
    "uv venv --python 3.11 vllm-0.32.0 &amp;&amp; "
    "uv pip install --python vllm-0.32.0 --no-deps -r locks/vllm-0.32.0.txt"
)


def garbage(**more: Any) -> CellResult:
    cell = cell_result(Side("q", "q"), Side("e", "e"), "m", None)
    told = {
        "verdict": Verdict.GARBAGE, "blame": Blame.CHECKPOINT, "stage": Stage.INSPECT,
        "reason": Reason.UNSUITED_FILE, "message": CAUSE,
    }  # fmt: skip
    return msgspec.structs.replace(cell, **told, **more)


def page(cell: CellResult, story: CellStory = CellStory(), **more: Any) -> str:  # noqa: B008
    """Return the page of a cell that is alone in its table."""
    result = msgspec.structs.replace(empty(), cells=[cell], **more)
    return texts_of(Material(result, lambda _: story))[page_of(cell.id)]


def row(text: str, title: str) -> str:
    """Return what stands beside a word in a page's lists."""
    return text.partition(f"<dt>{title}</dt><dd>")[2].partition("</dd>")[0]


# Stories are read from JSON, which holds no lone surrogate.
stored = hostile.map(lambda text: text.encode("utf-8", "replace").decode())


@st.composite
def stories(draw: st.DrawFn) -> CellStory:
    stages = [
        StageStory(
            stage=stage,
            at=draw(stored),
            machine=draw(st.dictionaries(stored, stored, max_size=1)),
            peak_bytes=draw(st.integers(0, 2**50)),
            exception=draw(stored),
            traceback=draw(stored),
            warnings=draw(st.lists(stored, max_size=2)),
            log=draw(stored),
        )
        for stage in draw(st.lists(st.sampled_from(Stage), max_size=2, unique=True))
    ]
    return CellStory(stages=stages)


@slow
@given(results(), stories(), stored)
def test_hostile_text_stays_text_on_each_page(
    result: MatrixResult, story: CellStory, text: str
) -> None:
    past = {cell.id: [PastVerdict(text, text, Verdict.WORKS)] for cell in result.cells}
    models = {
        cell.model: ModelFacts(tied=True, about=text, repository=text) for cell in result.cells
    }
    result = msgspec.structs.replace(result, models=models)
    made = files(Material(result, lambda _: story, past=past))
    texts = {name: data.decode() for name, data in made if not name.endswith(".parquet")}
    for name in texts:
        if not name.endswith(".html") or not name.startswith("cells/"):
            continue
        assert not INVISIBLE.search(texts[name])
        read = Page(texts[name])
        assert set(read.tags) <= set(TAGS.split())
        assert not {name for name in read.attributes if name.startswith("on") or name == "style"}
        for link in read.links:
            file = link.partition("#")[0] or posixpath.basename(name)
            local = posixpath.normpath(posixpath.join("cells", file))
            assert local in texts or link.startswith("https://"), link
        assert len(read.ids) == len(set(read.ids))


def test_a_page_stands_alone_under_a_strict_policy() -> None:
    text = page(garbage())
    assert text.startswith(FIRST)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; style-src 'self' file:;")
    assert "unsafe" not in policy[1]
    assert not re.search(r"<script|<style| style=|https?://", text)
    assert 'href="../index.html#table" target="_top"' in text


def test_each_cell_has_a_page_that_the_index_and_its_causes_lead_to() -> None:
    result = realistic()
    texts = render(result)
    links = Page(texts["index.html"]).links
    for cell in result.cells:
        assert page_of(cell.id) in links
        assert cell.command in texts[page_of(cell.id)]
        assert f"<code>{cell.id}</code>" in texts[page_of(cell.id)]
    assert STYLE in texts


def test_the_known_issue_stands_before_how_it_shows() -> None:
    result = with_issue()
    texts = render(result)
    red = [cell for cell in result.cells if cell.issue == "layout"]
    assert red
    for cell in red:
        text = texts[page_of(cell.id)]
        assert text.count("MyEngine does not read <code>rows</code>") == 1
        assert text.index("MyEngine does not read") < text.index("How it shows")
        assert row(text, "Fix") == "my-engine&gt;=1.1"
        assert row(text, "In the files") == "Turn the rows."
        assert text.count('<a href="https://example.org/issues/7" rel="noopener noreferrer"') == 1
        assert 'href="javascript' not in text


def test_the_finding_that_explains_stands_before_its_symptom() -> None:
    finding = Finding("tied-embedding", Stage.INSPECT, Judgement.NOTICE, message="only the head")
    message = "load-memory: 1.52 MB; explained by tied-embedding: only the head"
    cell = garbage(findings=[finding], explained_by="tied-embedding")
    text = page(msgspec.structs.replace(cell, message=message))
    assert text.index("<b>tied-embedding</b>: <bdi>only the head</bdi>") < text.index("load-memory")


def test_the_message_stands_before_stage_reason_and_blame_where_that_is_all() -> None:
    text = page(garbage(group="1:ValueError in a.py, b"))
    assert f"<pre><bdi>{CAUSE}</bdi></pre>" in text
    assert "How it shows, at inspect (unsuited-file):" in text
    assert text.index(CAUSE) < text.index("Blame: the checkpoint")
    assert "No known issue explains it. Cells that fail at the same place: 1" in text


def test_a_look_alike_is_told_as_such() -> None:
    text = page(garbage(looks_like="layout"), issues={"layout": LAYOUT})
    assert text.index("an issue of other versions or models") < text.index("MyEngine does not")


def test_only_cells_that_work_say_how_to_install_them() -> None:
    result = realistic()
    texts = render(result)
    in_vllm = [cell for cell in result.cells if cell.engine.name == "vllm-0.32.0"]
    assert {cell.verdict for cell in in_vllm} >= {Verdict.WORKS, Verdict.GARBAGE, Verdict.BROKEN}
    for cell in in_vllm:
        text = texts[page_of(cell.id)]
        installs = text.partition("<h2>What works instead</h2>")[0]
        assert (VLLM_LINE in installs) == (cell.verdict is Verdict.WORKS), cell.id
        assert ("<h2>Install it</h2>" in text) == (cell.verdict is Verdict.WORKS), cell.id
        assert ("uv pip install" in installs) == (cell.verdict is Verdict.WORKS), cell.id
        assert ("in the folder of the report" in text) == ("uv pip install" in text), cell.id


def test_a_cell_that_does_not_work_names_what_works_in_its_place() -> None:
    result = realistic()
    red = next(
        c for c in result.cells
        if c.id == "tied/awq-4bit-g64/autoawq-0.2.7+transformers-4.47.1/vllm-0.32.0"
    )  # fmt: skip
    text = render(result)[page_of(red.id)]
    instead = row(text, "Quantize by, for this engine")
    assert (
        f'<a href="../{page_of(GOOD)}"><bdi>autoawq-0.2.9+transformers-4.51.3</bdi></a>' in instead
    )
    assert "locks/autoawq-0.2.9+transformers-4.51.3.toml --no-deps" in instead
    assert instead.count("<code class") <= 3
    engines = row(text, "Load such a checkpoint in")
    assert "uv venv --python 3.11 transformers-5.23.0" in engines


def test_a_repaired_row_that_works_gives_the_repair_command() -> None:
    broken, engine = Side("q", "q-env"), Side("e", "e-env")
    mended = Side("q+repaired", "q-env", repairs=["tied-embedding"])
    cells = [
        msgspec.structs.replace(garbage(), quantizer=broken, engine=engine, id="m/s/q/e"),
        msgspec.structs.replace(
            cell_result(mended, engine, "m", None), id="m/s/q+repaired/e", scheme=garbage().scheme
        ),
    ]
    texts = render(msgspec.structs.replace(empty(), cells=cells))
    repair = row(texts[page_of("m/s/q/e")], "Repair the checkpoint")
    assert "matrix repair path/to/checkpoint" in repair
    assert "--repair tied-embedding</code>" in repair
    assert page_of("m/s/q+repaired/e") in repair


def test_checks_that_do_not_apply_are_left_out() -> None:
    finding = Finding("scales", Stage.INSPECT, Judgement.NOT_APPLICABLE)
    ran = msgspec.structs.replace(
        finding, judgement=Judgement.PASSED, value=0.25, threshold=0.5, message="layer 2"
    )
    for findings, times in (([finding], 0), ([finding, ran], 1)):
        text = page(msgspec.structs.replace(realistic().cells[0], findings=findings))
        assert text.count('<th scope="row">scales</th>') == text.count("<h2>Checks") == times
        assert text.count('<td class="num">0.25</td><td class="num">0.5</td>') == times
        assert "not-applicable" not in text


def test_what_was_observed_is_told_stage_by_stage() -> None:
    load = StageStory(
        stage=Stage.LOAD, at="2026-11-30T01:02:03+00:00", peak_bytes=2_500_000_000,
        exception="builtins.ValueError", traceback="Traceback\n  File x", warnings=["old <name>"],
        log="last line", machine={"system": "Linux"},
    )  # fmt: skip
    failed = (Stage.LOAD, Reason.EXCEPTION, "no such format")
    cell = cell_result(Side("q", "q"), Side("e", "e"), "m", failed)
    text = page(cell, CellStory(stages=[load]))
    stages = text.partition("<h2>Stages</h2>")[2].partition("</table>")[0]
    (line,) = [line for line in stages.splitlines() if '<th scope="row">load</th>' in line]
    assert "<td>failed</td>" in line
    assert "2,500 MB" in line
    assert "2026-11-30T01:02" in line
    assert "exception: <bdi>no such format</bdi>" in line
    left = text.partition("<h2>Left by load</h2>")[2].partition("</section>")[0]
    assert "<code>builtins.ValueError</code>" in left
    assert "<pre><bdi>Traceback\n  File x</bdi></pre>" in left
    assert "<summary>1 warning</summary><ul><li><bdi>old &lt;name&gt;</bdi></li></ul>" in left
    assert "<details open><summary>The end of its log" in left
    assert row(text, "Machine") == "<bdi>system: Linux</bdi>"


def test_environments_that_passed_leave_nothing_on_the_page() -> None:
    story = StageStory(stage=Stage.ENGINE_IMPORT, log="chatter", warnings=["old"])
    cell = cell_result(Side("q", "q"), Side("e", "e"), "m", None)
    assert "chatter" not in page(cell, CellStory(stages=[story]))
    broken = cell_result(
        Side("q", "q"), Side("e", "e"), "m", (Stage.ENGINE_IMPORT, Reason.EXCEPTION, "no")
    )
    assert "chatter" in page(broken, CellStory(stages=[story]))


def test_measures_are_told_where_there_are_some() -> None:
    measured = Measures(
        kernel="Marlin", tokens_per_second=12.5, peak_bytes=3_000_000, perplexity=9.25, nats=0.0125,
        divergence=0.034, high_divergence=0.5, same_top=0.912,
    )  # fmt: skip
    text = page(garbage(measures=measured))
    assert row(text, "Kernel") == "<bdi>Marlin</bdi>"
    assert row(text, "Tokens per second") == "12.5"
    assert row(text, "Most memory to load") == "3 MB"
    assert row(text, "Perplexity").startswith("9.25 ")
    assert row(text, "Off the float model").startswith("0.0125 nats")
    assert row(text, "Next tokens") == (
        "0.034 nats from the float model's in the mean, 0.5 at 99.9 % of the places; "
        "the same top token at 91.2 % of them"
    )
    assert "<h2>Measured</h2>" not in page(garbage())


def test_what_ran_is_told_with_model_departures_canary_and_runs() -> None:
    cell = garbage(
        canary=Verdict.GARBAGE, runs=["r-1", "r-2"], at="2026-11-30T01:02:03", attempts=3,
        elsewhere={"cpu x86-64-v3": "untested here", "cpu x86-64-v4": "garbage"}, flaky=True,
    )  # fmt: skip
    cell = msgspec.structs.replace(cell, departures=[NO_IPEX])
    text = page(
        cell,
        departures={NO_IPEX: "it is dropped"},
        models={"m": ModelFacts(tied=True, about="Three layers.")},
    )
    assert row(text, "Model") == "<bdi>m: Three layers.</bdi>"
    assert row(text, "Canary").endswith(": it does")
    assert row(text, "Departure") == f"<bdi>{NO_IPEX}</bdi>: <bdi>it is dropped</bdi>"
    assert row(text, "Runs").split() == ["<code>r-1</code>", "<code>r-2</code>"]
    assert "at the 3th try" not in text
    assert "tried 3 times" in row(text, "Last observed")
    assert "Flaky" in text
    for device, verdict in cell.elsewhere.items():
        assert f"{verdict}: <bdi>{device}</bdi>" in text


@pytest.mark.parametrize(("early", "words"), [(False, "Ran on"), (True, "Meant for")])
def test_what_never_reached_an_engine_ran_on_nothing(early: bool, words: str) -> None:
    failed = (Stage.QUANTIZE, Reason.EXCEPTION, "no") if early else None
    device = "cpu x86-64-v4, avx512_bf16"
    cell = cell_result(Side("q", "q"), Side("e", "e"), "m", failed)
    text = page(msgspec.structs.replace(cell, device=device))
    assert row(text, words) == f"<bdi>{device}</bdi>"


def test_each_earlier_run_has_an_address_of_its_own() -> None:
    past = [
        PastVerdict("2026-11-28", "r-1", Verdict.WORKS),
        PastVerdict("2026-11-29", "r 2", Verdict.GARBAGE),
    ]
    material = Material(
        msgspec.structs.replace(empty(), cells=[garbage()]), past={garbage().id: past}
    )
    text = texts_of(material)[page_of(garbage().id)]
    newest, oldest = re.findall(r'<li id="([^"]+)">', text)
    place = place_of(garbage().id)
    assert (newest, oldest) == tuple(f"{place}.{anchor(run, 'run')}" for run in ("r 2", "r-1"))
    assert "2026-11-28" in text.partition(oldest)[2]


@pytest.mark.parametrize("verdict", [Verdict.NOT_RUN, Verdict.UNTESTED])
def test_what_never_ran_has_a_short_page_without_a_script(verdict: Verdict) -> None:
    cell = msgspec.structs.replace(garbage(), verdict=verdict, findings=[], expected="", output="")
    texts = render(msgspec.structs.replace(empty(), cells=[cell]))
    assert "Without this project" not in texts[page_of(cell.id)]
    for title in ("Checks", "What it answered", "Measured", "Left by", "History"):
        assert f"<h2>{title}" not in texts[page_of(cell.id)]


def test_the_cells_of_one_checkpoint_share_a_file_in_which_each_has_a_place() -> None:
    cells = {
        name: msgspec.structs.replace(garbage(), id=name, message=f"of {name}")
        for name in ("m/s/q/e", "m/s/q/f", "m/s/q/" + 13 * "e", "m/s/q2/e", "no-slash")
    }
    texts = render(msgspec.structs.replace(empty(), cells=list(cells.values())))
    assert {name for name in texts if re.fullmatch("cells/[^#]+[.]html", name)} == {
        file_of(name) for name in ("m/s/q/e", "m/s/q2/e", "no-slash")
    }
    assert len({page_of(name) for name in cells}) == len(cells)
    for name in cells:
        assert f"<bdi>of {name}</bdi>" in texts[page_of(name)]
        assert f'<article id="{place_of(name)}">' in texts[file_of(name)]
        assert f'<a href="#{place_of(name)}">' in texts[file_of(name)]


def test_pages_of_cells_that_are_gone_are_removed_and_only_ours(tmp_path: Path) -> None:
    other = msgspec.structs.replace(garbage(), id="a/b/c/d")
    write(Material(msgspec.structs.replace(empty(), cells=[garbage(), other])), tmp_path)
    (tmp_path / "cells" / "notes.html").write_text("mine")
    gone, kept = tmp_path / file_of("a/b/c/d"), tmp_path / file_of(garbage().id)
    before = kept.stat()
    names = write(Material(msgspec.structs.replace(empty(), cells=[garbage()])), tmp_path)
    assert file_of(garbage().id) in names
    assert not gone.exists()
    assert (tmp_path / "cells" / "notes.html").read_text() == "mine"
    assert kept.stat().st_mtime_ns == before.st_mtime_ns  # the same bytes are not written again
    assert kept.stat().st_ino == before.st_ino
    assert not [file for file in (tmp_path / "cells").iterdir() if file.name.startswith(".")]


def test_a_changed_page_takes_the_old_one_s_place(tmp_path: Path) -> None:
    for message in ("before", "after!", "after it"):
        cell = msgspec.structs.replace(garbage(), message=message)
        write(Material(msgspec.structs.replace(empty(), cells=[cell])), tmp_path)
        assert f"<bdi>{message}</bdi>" in (tmp_path / file_of(cell.id)).read_text()
