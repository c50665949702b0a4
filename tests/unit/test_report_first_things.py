"""What a reader sees first: how far a run is, whether it counts, the cause; and the layout."""

from __future__ import annotations

import re

import msgspec

from matrix.history.changes import ChangeGroup, ChangeKind, Changes
from matrix.judge.results import CanaryState, CellResult, Side
from matrix.pipeline.outcomes import Reason, Verdict
from matrix.pipeline.steps import Blame, Stage
from matrix.report import PAGE, summary
from matrix.report.addresses import page_of
from matrix.report.table import NO_SPECIFIERS
from tests.unit.report_pages import empty
from tests.unit.report_results import cell_result, realistic, render
from tests.unit.report_standings import hostile_specifier

FAR = "run goes on: 120 of 683 cells are done"
TROUBLE = "m/q/e must be garbage and came out as works; its lock differs"


def test_how_far_a_run_is_stands_first_wherever_the_report_is_read() -> None:
    result = msgspec.structs.replace(realistic(), going_on=FAR)
    texts = render(result)
    before, after = texts[PAGE].split(FAR)
    assert "<h2>" in after
    assert "<h2>" not in before
    assert '<ul class="counts"' not in before
    assert texts["matrix.md"].splitlines()[2] == f"**{FAR}**"
    assert summary(result)[0] == FAR
    over = render(realistic())
    assert not [name for name, text in over.items() if name != "matrix.json" and "goes on" in text]


def test_a_void_run_says_why_before_anything_else_is_believed() -> None:
    result = msgspec.structs.replace(
        realistic(), canaries=CanaryState.VOID, canary_troubles=[TROUBLE]
    )
    texts = render(result)
    note = texts[PAGE].partition("This run is void")[2].partition("</div>")[0]
    assert f"<li><bdi>{TROUBLE}</bdi></li>" in note
    assert "nothing is compared with a void run" in texts[PAGE]
    assert "there is no earlier run" not in texts[PAGE]
    head = texts["matrix.md"].partition("## ")[0]
    assert "**This run is void" in head
    assert f"- {TROUBLE}" in head
    lines = summary(result)
    place = next(n for n, line in enumerate(lines) if line.startswith("canaries: void"))
    assert lines[place + 1] == f"  {TROUBLE}"


def test_the_last_lines_count_what_changed() -> None:
    new, regressed = (
        ChangeGroup(kind=kind, title="t", cells=[f"{kind}-{number}" for number in range(2)])
        for kind in (ChangeKind.NEW, ChangeKind.REGRESSED)
    )
    changes = Changes(
        old="2026-11-29 a", new="2026-11-30 b", cells=[], groups=[regressed, new, new]
    )
    line = "since 2026-11-29 a: 2 regressed, 4 new (`matrix diff` says which)"
    assert line in summary(realistic(), changes=changes)
    same = msgspec.structs.replace(changes, groups=[])
    assert "since 2026-11-29 a: nothing changed" in summary(realistic(), changes=same)
    assert not [line for line in summary(realistic()) if line.startswith("since ")]


def test_canaries_that_could_not_be_judged_say_why() -> None:
    result = msgspec.structs.replace(
        realistic(), canaries=CanaryState.NOT_ESTABLISHED, canary_troubles=[TROUBLE]
    )
    texts = render(result)
    assert TROUBLE in texts[PAGE].partition("<h2>")[0]
    assert "This run is void" not in texts[PAGE] + texts["matrix.md"]


def test_a_void_run_says_why_it_has_no_specifiers() -> None:
    nothing = "Nothing was observed that says which versions go together."
    for canaries, words, other in (
        (CanaryState.VOID, NO_SPECIFIERS, nothing),
        (CanaryState.ESTABLISHED, nothing, NO_SPECIFIERS),
    ):
        texts = render(msgspec.structs.replace(realistic(), canaries=canaries))
        for text in (texts[PAGE], texts["matrix.md"]):
            assert words in text
            assert other not in text


def test_a_void_run_shows_no_specifier_even_where_there_is_one() -> None:
    result = msgspec.structs.replace(
        realistic(), canaries=CanaryState.VOID, specifiers=[hostile_specifier("transformers")]
    )
    texts = render(result)
    for text in (texts[PAGE], texts["matrix.md"]):
        assert "transformerstransformers" not in text


CAUSE = "the embedding is not stored; then generate: 8 of 8 answers are wrong"


def of_a_cause() -> CellResult:
    cell = cell_result(Side("q", "q"), Side("e", "e"), "m", None)
    return msgspec.structs.replace(
        cell, verdict=Verdict.GARBAGE, blame=Blame.CHECKPOINT, stage=Stage.INSPECT,
        reason=Reason.UNSUITED_FILE, message=CAUSE,
    )  # fmt: skip


def test_the_cause_stands_before_stage_and_reason() -> None:
    texts = render(msgspec.structs.replace(empty(), cells=[of_a_cause()]))
    row = texts[PAGE].partition('<tr id="cause=')[2].partition("</tr>")[0]
    assert row.index(CAUSE) < row.index("inspect: <b>unsuited-file</b>")
    assert f"</a> {CAUSE}" in texts[PAGE].partition('<ol class="top">')[2].partition("</ol>")[0]
    assert f"| ≠ garbage | {CAUSE} | inspect | unsuited-file | checkpoint |" in texts["matrix.md"]
    line = summary(msgspec.structs.replace(empty(), cells=[of_a_cause()]))[-2]
    assert line.split("cell ")[1].strip().startswith(CAUSE)


# -------------------------------------------------------------------------------- other machines


def test_a_cell_says_what_it_is_on_other_machines_and_is_marked_where_that_differs() -> None:
    cell = of_a_cause()
    other = {"cpu x86-64-v3": "untested here", "cpu x86-64-v4": "garbage"}
    texts = render(
        msgspec.structs.replace(empty(), cells=[msgspec.structs.replace(cell, elsewhere=other)])
    )
    details = texts[page_of(cell.id)]
    for device, verdict in other.items():
        assert f"<dt>On another machine</dt><dd>{verdict}: <bdi>{device}</bdi>" in details
    assert 'garbage: m in e, untested here on cpu x86-64-v3">≠<sup>⇄</sup>' in texts[PAGE]
    row = next(line for line in texts["matrix.md"].splitlines() if line.startswith("| q | "))
    assert "(elsewhere untested here on cpu x86-64-v3)" in row
    assert "cpu x86-64-v3: untested here; cpu x86-64-v4: garbage" in texts["matrix.csv"]


def test_a_cell_that_is_the_same_everywhere_bears_no_mark() -> None:
    same = msgspec.structs.replace(of_a_cause(), elsewhere={"cpu x86-64-v3": "garbage"})
    texts = render(msgspec.structs.replace(empty(), cells=[same]))
    table = texts[PAGE].partition('<table class="grid"')[2].partition("</table>")[0]
    assert "garbage: m in e" in table
    assert "⇄" not in table
    assert "elsewhere" not in texts["matrix.md"]


# ------------------------------------------------------------------------------- how it is laid out


def rules(selector: str) -> str:
    """Return what the page's style says of a selector by itself."""
    page = render(empty())[PAGE]
    return "".join(re.findall(rf"(?m)^{re.escape(selector)} {{([^}}]*)}}", page))


def test_what_is_hidden_in_a_wide_table_scrolls_with_it() -> None:
    # Words for screen readers are placed absolutely: without this they widen the whole page.
    assert "position: absolute" in rules(".sr")
    assert "position: relative" in rules(".scroll")


def test_the_script_makes_no_selector_for_each_cell() -> None:
    # Each search of the document takes milliseconds, and there are thousands of cells.
    script = render(realistic())[PAGE].rpartition("<script>")[2]
    calls = re.findall(r"(?<!\.)\b(?:find|all)\([^()]", script)
    assert len(calls) > 10
    assert all(call.endswith('"') for call in calls)
    assert script.count("querySelector") == 2  # in these two
