"""How a report shows what is declared, resolves and works, where it was seen, and what holds."""

from __future__ import annotations

import re
from collections import Counter

import msgspec
import pytest

from matrix.judge.results import MatrixResult, Side
from matrix.pipeline.outcomes import Reason, Verdict
from matrix.pipeline.steps import Stage
from matrix.report import PAGE, summary
from matrix.report.addresses import page_of
from matrix.report.standings import overview, rows
from matrix.report.table import group_and_label
from tests.unit.report_pages import Page, empty
from tests.unit.report_results import cell_result, realistic, render
from tests.unit.report_standings import a_thousand, standing_result

TITLE = "Declared, resolves, works"


def section(text: str, title: str) -> list[str]:
    """Return the rows of a section's table in Markdown."""
    lines = text.partition(f"## {title}\n")[2].partition("\n## ")[0].splitlines()
    return [line for line in lines if line.startswith("| ")][2:]


def test_each_environment_has_its_row_with_three_answers_in_three_times() -> None:
    rows = section(render(standing_result())["matrix.md"], TITLE)
    assert len(rows) == 24
    row = next(line for line in rows if line.startswith("| autoawq-0.2.7+transformers-4.57.6 "))
    _, _, declared, then, today, pinned, differs, _ = (text.strip() for text in row.split("|"))
    assert declared == "allowed (autoawq 0.2.7 wants transformers&gt;=4.35.0)"
    assert then.startswith("◇ resolves: torch 2.5.1, 64 packages")
    assert today.startswith("◇ resolves: torch 2.15.0")
    assert pinned.startswith("✗ broken: torch 2.13.0, 61 packages; quantizer-import: builtins")
    assert "yanked: intel-extension-for-pytorch 2.4.0 (for security)" in differs
    refused = next(line for line in rows if "0.2.7.post3+transformers-4.42.4 " in line)
    assert refused.count("⊗ refused: × No solution found") == 3


def without_pins(result: MatrixResult, *, but: int) -> MatrixResult:
    """Return a result in which the first ``but`` environments with standings have pins."""
    some = [environment.name for environment in result.environments if environment.standings][:but]
    environments = [
        environment
        if environment.name in some
        else msgspec.structs.replace(
            environment,
            standings=[
                standing for standing in environment.standings if standing.resolution != "pinned"
            ],
        )
        for environment in result.environments
    ]
    return msgspec.structs.replace(result, environments=environments)


def test_a_resolution_that_an_environment_does_not_have_was_not_left_unasked() -> None:
    texts = render(without_pins(standing_result(), but=0))
    table = texts["matrix.md"].partition("## Declared, resolves, works")[2].partition("\n## ")[0]
    assert "| as released | as of today | what differs |" in table
    rows = section(render(without_pins(standing_result(), but=1))["matrix.md"], TITLE)
    assert [row.split("|")[5].strip() for row in rows].count("– none") == len(rows) - 1
    page = Page(render(without_pins(standing_result(), but=1))[PAGE])
    assert sum("pinned none; " in label for label in page.labels) == len(rows) - 1


def test_the_page_links_the_overview_to_the_rows() -> None:
    page = Page(render(standing_result())[PAGE])
    places = [place for place in page.ids if place.startswith("environment-")]
    assert len(places) == len(set(places)) == 24
    assert Counter(link[1:] for link in page.links if link[1:] in places) == Counter(places)
    assert "No resolver was asked yet" not in "".join(page.words)


def test_only_what_differs_in_more_than_packages_that_moved_is_marked() -> None:
    text = render(standing_result())[PAGE]
    named = {environment.name: environment for environment in standing_result().environments}
    slots = re.findall(r'<a class="stands" .*?</a>', text, re.DOTALL)
    marked = {"moved": 0, "more": 0}
    for slot in slots:
        label = re.search(r'aria-label="([^":]*):', slot)
        assert label is not None
        differences = named[label[1]].differences
        more = any(
            not difference.startswith("resolved to other packages") for difference in differences
        )
        assert ("they differ" in slot) == ("<b>!</b>" in slot) == more
        marked["more" if more else "moved"] += bool(differences)
    assert marked["moved"] > 0
    assert marked["more"] > 0


def test_a_thousand_environments_stay_readable() -> None:
    text = render(a_thousand())[PAGE]
    assert len(text) < 3_000_000
    page = Page(text)
    assert sum(place.startswith("environment-") for place in page.ids) == 1000
    overview = text.partition('<table class="matrix overview">')[2].partition("</table>")[0]
    assert overview.count("<tr>") == 41  # a row for each release, and the versions across
    assert overview.count('<th scope="col">') == 25
    assert '<details class="of-release">' in text
    assert "<summary>1,000 environments</summary>" in text
    assert "pinned" not in re.sub(r"<details.*", "", overview)


def test_what_was_never_asked_says_how_to_ask() -> None:
    texts = render(realistic())
    assert "matrix resolve" in texts[PAGE]
    assert section(texts["matrix.md"], TITLE) == []


def test_specifiers_that_hold_stand_beside_the_declared_ones() -> None:
    texts = render(standing_result())
    rows = section(texts["matrix.md"], "Specifiers that hold")
    row = next(line for line in rows if line.startswith("| autoawq 0.2.7 |"))
    assert "`transformers>=4.46,<4.48` | transformers&gt;=4.35.0 |" in row
    assert "allowed by metadata, but does not work: 4.42.4, 4.51.3, 4.57.6, 5.23.0" in row
    assert "worked: 4.46.3, 4.47.1; did not work: 4.42.4" in row
    assert "not tried: 4.44-4.45, 4.48-4.50" in row
    unknown = next(line for line in rows if line.startswith("| autoawq 0.2.9 |"))
    assert unknown.count("not known") == 2
    assert '<code class="copy">transformers&gt;=4.46,&lt;4.48</code>' in texts[PAGE]


# ------------------------------------------------------------------------------- where it was seen


def on(*devices: str) -> MatrixResult:
    """Return a result of one cell a device; an empty one stands for a cell that did not run."""
    made = [cell_result(Side("q", "q"), Side(f"e{n}", "e"), "m", None) for n in range(len(devices))]
    need = {"verdict": Verdict.UNTESTED, "message": "needs 2 GPUs with 18 GiB (here: no GPU)"}
    cells = [
        msgspec.structs.replace(cell, **({"device": device} if device else need))
        for cell, device in zip(made, devices, strict=True)
    ]
    return msgspec.structs.replace(empty(), cells=cells)


def test_evidence_from_a_cpu_is_marked_as_such() -> None:
    texts = render(on("cpu", ""))
    head = texts[PAGE].partition("<h2>")[0]
    assert "<b>evidence from a CPU</b>" in head
    assert "All cells evidence from a CPU" in "".join(Page(texts[PAGE]).words)
    assert "Evidence from: cpu." in texts["matrix.md"]


def test_of_several_devices_each_cell_says_its_own() -> None:
    texts = render(on("cpu", "cuda 8.0"))
    assert "evidence from cpu; cuda 8.0: each cell says its own" in texts[PAGE]
    assert "<b>some of the evidence is from a CPU</b>" in texts[PAGE]
    for cell in on("cpu", "cuda 8.0").cells:
        assert f"<dt>Ran on</dt><dd><bdi>{cell.device}</bdi>" in texts[page_of(cell.id)]
    assert "✓ works †a on cuda 8.0" in texts["matrix.md"]


V4 = "cpu x86-64-v4, avx512_bf16, avx512_vnni"


def test_a_cpu_with_features_is_a_cpu_and_blows_up_no_slot() -> None:
    texts = render(on(V4, ""))
    assert "<b>evidence from a CPU</b>" in texts[PAGE].partition("<h2>")[0]
    assert "All cells evidence from a CPU" in "".join(Page(texts[PAGE]).words)
    assert V4 not in texts[PAGE]
    assert f"<dt>Ran on</dt><dd><bdi>{V4}</bdi>" in texts[page_of(on(V4).cells[0].id)]
    assert f"Evidence from: {V4}.".replace("_", "\\_") in texts["matrix.md"]


def test_of_several_cpus_each_cell_says_its_own_in_short() -> None:
    texts = render(on(V4, "cpu x86-64-v3"))
    head = texts[PAGE].partition("<h2>")[0]
    assert "<b>evidence from a CPU</b>" in head
    assert f"evidence from cpu x86-64-v3; {V4}: each cell says its own" in head
    assert "✓ works †a on cpu x86-64-v4" in texts["matrix.md"]


def test_what_never_reached_an_engine_ran_on_nothing() -> None:
    early = cell_result(
        Side("q", "q"), Side("x", "e"), "m", (Stage.QUANTIZE, Reason.EXCEPTION, "no")
    )
    result = on(V4)
    texts = render(msgspec.structs.replace(result, cells=[*result.cells, early]))
    assert "<dt>Meant for</dt><dd><bdi>cpu</bdi>" in texts[page_of(early.id)]
    assert "<dt>Ran on</dt>" not in texts[page_of(early.id)]


@pytest.mark.parametrize("devices", [("cuda 8.0",), ("",), ()])
def test_nothing_is_said_of_a_cpu_that_gave_no_evidence(devices: tuple[str, ...]) -> None:
    assert "from a CPU" not in render(on(*devices))[PAGE]


def test_a_cell_that_did_not_run_shows_what_it_needs() -> None:
    texts = render(on("cpu", ""))
    needs = "untested here: m in e1, needs 2 GPUs with 18 GiB"
    assert needs in Page(texts[PAGE]).labels
    assert "○ untested here †a (needs 2 GPUs with 18 GiB (here: no GPU))" in texts["matrix.md"]


@pytest.mark.parametrize(
    ("reason", "shown"),
    [("no-library", "needs a library of the system"), ("no-gpu", "needs hardware")],
)
def test_a_need_that_a_package_told_in_its_own_words(reason: str, shown: str) -> None:
    result = on("")
    cell = msgspec.structs.replace(
        result.cells[0], reason=Reason(reason), message="ImportError: GLIBCXX"
    )
    page = Page(render(msgspec.structs.replace(result, cells=[cell]))[PAGE])
    assert f"untested here: m in e0, {shown}" in page.labels


@pytest.mark.parametrize(
    ("name", "axes", "row", "column", "group"),
    [
        ("autoawq-0.2.7+transformers-4.47.1", ["autoawq", "transformers"],
         "autoawq-0.2.7", "4.47.1", "autoawq-0.2.7"),
        ("autoawq-0.2.7+transformers-4.47.1+bounds", ["autoawq", "transformers"],
         "autoawq-0.2.7+bounds", "4.47.1", "autoawq-0.2.7"),
        ("transformers-4.51.3+autoawq-0.2.9", ["autoawq", "transformers"],
         "transformers+autoawq-0.2.9", "4.51.3", "transformers-4.51.3"),
        ("auto-gptq-0.7.1+transformers-4.46.3", ["auto_gptq", "transformers"],
         "auto-gptq-0.7.1", "4.46.3", "auto-gptq-0.7.1"),
        ("vllm-0.32.0", ["vllm"], "vllm-0.32.0", "", "vllm-0.32.0"),
        ("my-own+transformers-4.47.1", ["transformers"], "my-own", "4.47.1",
         "my-own+transformers-4.47.1"),
        ("no-axis+transformers-4.47.1", [], "no-axis+transformers-4.47.1", "",
         "no-axis+transformers-4.47.1"),
    ],
)  # fmt: skip
def test_an_environment_has_its_place_in_the_overview(
    name: str, axes: list[str], row: str, column: str, group: str
) -> None:
    first = next(
        environment for environment in standing_result().environments if environment.standings
    )
    versions = dict(part.rsplit("-", 1) for part in name.split("+") if part[-1].isdigit())
    values = {axis: versions[axis.replace("_", "-")] for axis in axes}
    named = msgspec.structs.replace(first, name=name, axes=values)
    shown = rows(msgspec.structs.replace(empty(), environments=[named]))
    assert [row.group for row in shown] == [group]
    by_name = overview(shown).rows
    assert {key: list(slots) for key, slots in by_name.items()} == {row: [column]}


def test_what_several_resolutions_declare_is_told_once() -> None:
    first = next(
        environment for environment in standing_result().environments if environment.standings
    )
    says = ("a wants b>=1", "a wants b>=1; a wants torch>=2", "a wants b>=1")
    stands = [
        msgspec.structs.replace(standing, declared="allowed", declared_by=by)
        for standing, by in zip(first.standings, says, strict=True)
    ]
    named = msgspec.structs.replace(first, standings=stands)
    (row,) = rows(msgspec.structs.replace(empty(), environments=[named]))
    assert row.declared == [("allowed", "a wants b>=1; a wants torch>=2")]


def test_new_releases_are_told_in_the_head() -> None:
    texts = render(standing_result())
    changes = texts[PAGE].partition('<section id="changes">')[2].partition("</section>")[0]
    assert "vllm 0.32.0" in changes
    releases = [f"{name} (taken in on 2026-11-23)" for name in ("autoawq 0.2.9", "vllm 0.32.0")]
    assert f"New releases: {', '.join(releases)}." in texts["matrix.md"]
    assert f"new releases: {', '.join(releases)}" in summary(standing_result())
    assert "New releases" not in render(realistic())[PAGE]


def test_a_release_is_no_beginning_of_another_ones_name() -> None:
    axes = {"autoawq": "0.2.7"}
    assert group_and_label("autoawq-0.2.7+bounds", axes) == ("autoawq-0.2.7", "bounds")
    for name in ("autoawq-0.2.7", "autoawq-0.2.7.post3+bounds"):
        assert group_and_label(name, axes) == (name, name)
