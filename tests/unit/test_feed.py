"""The Atom feed of what changed from run to run."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree as ET

from matrix.history.changes import Night, PastVerdict
from matrix.pipeline.outcomes import Verdict
from tests.unit.report_pages import ATOM
from tests.unit.report_results import realistic
from tests.unit.test_exports import CELL, CHANGES, EARLIER, RUN, of_result


def feed(**more: Any) -> ET.Element:
    return ET.fromstring(of_result(realistic(), **more)["feed.xml"])


def text_of(element: ET.Element, name: str) -> str:
    return element.findtext(ATOM + name) or ""


def test_the_feed_has_an_entry_for_each_run_that_changed_something() -> None:
    nights = [Night(f"2026-11-{day}", f"run-{day}", {}, True) for day in (19, 20, 21)]
    nights.append(Night("2026-11-22", RUN, {}, True))
    verdicts = [(19, Verdict.WORKS), (20, Verdict.BROKEN)]
    past = {CELL: [PastVerdict(f"2026-11-{day}", f"run-{day}", v) for day, v in verdicts]}
    past[CELL].append(PastVerdict("2026-11-22", RUN, Verdict.WORKS))
    root = feed(changes=CHANGES, nights=nights, past=past)
    newest, older = root.findall(f"{ATOM}entry")
    assert text_of(newest, "title") == f"cpu: 1 change since 2026-11-21 {EARLIER}"
    assert text_of(newest, "content") == f"regressed: 1 cell since the CPU changed: {CELL}"
    assert text_of(newest, "updated") == text_of(root, "updated") == "2026-11-22T01:24:09+00:00"
    assert text_of(older, "content") == f"{CELL}: works -> broken"
    assert text_of(older, "updated") == "2026-11-20T00:00:00+00:00"


def test_ids_of_the_feed_are_stable_and_name_no_host() -> None:
    root = feed(changes=CHANGES)
    ids = [element.text for element in root.iter(f"{ATOM}id")]
    assert ids == [
        "tag:quantization-compatibility-matrix,2026:cpu",
        f"tag:quantization-compatibility-matrix,2026:cpu/{RUN}",
    ]


def test_a_run_has_the_same_entry_the_next_day() -> None:
    """Whatever runs its evidence is from, such as those that repeat a regression."""
    nights = [Night("2026-11-21", "a", {}, True), Night("2026-11-22", "b", {}, True)]
    changed = [
        PastVerdict("2026-11-21", "a", Verdict.WORKS),
        PastVerdict("2026-11-22", "b", Verdict.BROKEN),
    ]
    today = feed(changes=CHANGES, nights=nights)
    tomorrow = feed(nights=[*nights, Night("2026-11-23", "c", {}, True)], past={CELL: changed})
    (entry,), (same,) = today.findall(f"{ATOM}entry"), tomorrow.findall(f"{ATOM}entry")
    assert text_of(entry, "id") == text_of(same, "id")


def test_a_feed_of_many_changes_is_cut() -> None:
    past = {
        f"cell-{number}": [
            PastVerdict("2026-11-19", "a", Verdict.WORKS),
            PastVerdict("2026-11-20", "b", Verdict.BROKEN),
        ]
        for number in range(500)
    }
    nights = [Night(f"2026-11-{day}", run, {}, True) for day, run in ((20, "b"), (21, "c"))]
    (entry,) = feed(nights=nights, past=past).iter(f"{ATOM}entry")
    lines = text_of(entry, "content").splitlines()
    assert (len(lines), lines[-1]) == (31, "and 470 more")
