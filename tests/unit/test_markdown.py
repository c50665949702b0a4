"""The report as Markdown: it fits into an issue, whatever is in it."""

from __future__ import annotations

import msgspec
import pytest

from matrix.judge.results import CellResult, MatrixResult
from matrix.pipeline.outcomes import Verdict
from matrix.report.exports.markdown import LIMIT
from matrix.report.table import normalise
from matrix.untrusted.text import markdown
from tests.unit.hostile_results import HOSTILE
from tests.unit.report_pages import markdown_tables
from tests.unit.report_results import realistic
from tests.unit.test_exports import CELL, CHANGES, of_result


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("thanks to @some-name_short", r"thanks to `@some-name`\_short"),
        ("an\\@name&#64;other", r"an\\`@name`&amp;`#64`;other"),
        ("mail who@example.org", "mail who`@example`.org"),
        ("as #12 and owner/name#3 and GH-4 say", "as `#12` and owner/name`#3` and `GH-4` say"),
        (f"at {'1a' * 20}, or abc1234", f"at `{'1a' * 20}`, or `abc1234`"),
        (f"owner/name@{'1a' * 20}", f"owner/name`@{'1a' * 20}`"),
        ("see https://github.com/o/n/issues/3", "see `https`://github.com/o/n/issues/3"),
        ("WWW.example.org, mailto:x", "`WWW`.example.org, `mailto`:x"),
        ("@first@second", "`@first@second`"),
        ("took 1073741824 bytes # and more, torch 2.9.1+cu126: ok",) * 2,
    ],
)
def test_what_github_makes_links_of_is_shown_as_code(text: str, shown: str) -> None:
    assert markdown(text) == shown


def many(number: int) -> MatrixResult:
    """Return a result of so many cells, each with a cause of its own."""
    result = realistic()
    cells: list[CellResult] = [
        msgspec.structs.replace(
            cell, id=f"{cell.id}/{turn}", message=f"{cell.message} {turn}", group=f"{turn}"
        )
        for turn in range(-(-number // len(result.cells)))
        for cell in result.cells
    ]
    return msgspec.structs.replace(result, cells=cells[:number])


def test_what_is_small_is_whole() -> None:
    text = of_result(realistic(), changes=CHANGES)["matrix.md"].decode()
    assert text.index("What changed since") < text.index("One cause") < text.index("## Table")
    assert f"- **regressed**: 1 cell since the CPU changed: {CELL}".replace("_", "\\_") in text
    head, _, cells = text.partition("\n## Cells")
    assert "see index.html" not in head
    assert len(text) > LIMIT - 3000
    assert "more: see index.html" in cells


def test_each_table_of_a_large_one_is_cut_at_a_row() -> None:
    result = normalise(many(2000))
    text = of_result(result)["matrix.md"].decode()
    assert LIMIT - 5000 < len(text) <= LIMIT
    number = {title.splitlines()[0]: title.count("\n| ") for title in text.split("\n## ")}
    assert number["One cause, counted once"] > 10
    assert number["Verdicts"] == len(Verdict) + 2
    cells = text.partition("\n## Cells")[2]
    shown = number["Cells"] - 2
    assert f"and {2000 - shown} more: see index.html" in cells
    for rows in markdown_tables(text):
        assert len(set(rows)) == 1


@pytest.mark.parametrize("text", HOSTILE)
def test_long_hostile_names_everywhere_leave_an_issue_of_its_size(text: str) -> None:
    long = ((text or "x") * 400)[:1000]
    result = many(60)
    cells = [
        msgspec.structs.replace(
            cell, id=f"{number}{long}", message=f"{number}{long}", departures=[f"{number}{long}"],
            quantizer=msgspec.structs.replace(cell.quantizer, name=f"{number % 7}{long}"),
            engine=msgspec.structs.replace(cell.engine, name=f"{number % 7}{long}"),
        )
        for number, cell in enumerate(result.cells)
    ]  # fmt: skip
    result = msgspec.structs.replace(
        result, cells=cells, canary_troubles=[long] * 60, budget=[long] * 60, going_on=long,
        machine={f"{number}{long}": long for number in range(60)}, issue_troubles=[long] * 60,
        parts=[f"{number}{long}" for number in range(5)],
    )  # fmt: skip
    issue = of_result(result)["matrix.md"].decode()
    assert len(issue) <= LIMIT
    assert "60 cells: " in issue
