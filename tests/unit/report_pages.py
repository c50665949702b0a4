"""What tests of reports have in common: a page that is read, small results."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser

import msgspec
from hypothesis import HealthCheck, settings

from matrix.diagnose.catalogue import Confidence, Effect
from matrix.judge.results import CanaryState, KnownIssue, MatrixResult
from matrix.pipeline.outcomes import Verdict
from tests.unit.report_results import realistic

ATOM = "{http://www.w3.org/2005/Atom}"
INVISIBLE = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def empty() -> MatrixResult:
    return MatrixResult(
        profile="cpu", runs=[], finished="", machine={}, departures={}, canaries=CanaryState.NONE,
        environments=[], cells=[],
    )  # fmt: skip


class Page(HTMLParser):
    """What a browser would make of the page: its tags, attributes, ids, links and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: set[str] = set()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.labels: list[str] = []
        self.by_link: dict[str, list[dict[str, str | None]]] = {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        for name, value in attrs:
            self.attributes.add(name)
            if name == "id":
                self.ids.append(value or "")
            if name in {"href", "src"}:
                self.links.append(value or "")
                self.by_link.setdefault(value or "", []).append(dict(attrs))
            if name == "aria-label":
                self.labels.append(value or "")

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def markdown_tables(text: str) -> list[list[int]]:
    """Return the number of columns of each row, table by table, as GitHub counts them."""
    tables: list[list[int]] = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            tables[-1].append(len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) - 1)
        elif tables[-1]:
            tables.append([])
    return [rows for rows in tables if rows]


slow = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


GROUP = "1:ValueError in a.py, b"


LAYOUT = KnownIssue(
    title="MyEngine does not read `rows`", effect=Effect.FAULT, cause="Rows are new.",
    fix="my-engine>=1.1", repair="Turn the rows.", confidence=Confidence.CONFIRMED, cells=2,
    sources=["https://example.org/issues/7", "javascript:alert(1)"],
)  # fmt: skip


def with_issue() -> MatrixResult:
    """Return a table in which each cell that is garbage has a known issue."""
    table = realistic()
    red = [cell for cell in table.cells if cell.verdict is Verdict.GARBAGE]
    changed = [
        msgspec.structs.replace(cell, issue="layout") if cell in red else cell
        for cell in table.cells
    ]
    return msgspec.structs.replace(table, cells=changed, issues={"layout": LAYOUT})
