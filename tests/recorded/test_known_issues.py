"""The known issues over one real run: each red cell has its own, and none is contradicted."""

from __future__ import annotations

import pytest

from matrix.judge.diagnosing import DIAGNOSED
from matrix.judge.results import MatrixResult
from matrix.pipeline.outcomes import Verdict
from matrix.report.causes import causes
from tests.recorded.recording import observations, table_of


@pytest.fixture(scope="module")
def table() -> MatrixResult:
    return table_of("cpu", observations("cpu"))


def test_each_red_cell_has_a_known_issue_and_no_other_cell_has_one(table: MatrixResult) -> None:
    issues = {cell.id: (cell.verdict in DIAGNOSED, bool(cell.issue)) for cell in table.cells}
    assert [name for name, (is_red, has_issue) in issues.items() if is_red is not has_issue] == []
    assert {cell.issue for cell in table.cells if cell.issue} == table.issues.keys()


@pytest.mark.parametrize(
    ("quantizer", "engine", "issue"),
    [
        ("autoawq-0.2.7+transformers-4.46.3", "vllm-0.32.0", "awq-tied-embedding-dropped"),
        ("autoawq-0.2.7+transformers-4.46.3", "transformers-4.51.3+autoawq-0.2.9",
         "awq-tied-embedding-dropped"),
        ("autoawq-0.2.6+transformers-4.47.1", "vllm-0.32.0", "awq-shard-checkpoint"),
        ("autoawq-0.2.7+transformers-4.51.3", "vllm-0.32.0", "awq-448-attention-mask"),
        ("autoawq-0.2.9+transformers-4.57.6", "vllm-0.32.0", "awq-gelutanh"),
        ("autoawq-0.2.9+transformers-4.42.4", "vllm-0.32.0", "awq-transformers-floor"),
        ("autoawq-0.2.9+transformers-4.51.3", "vllm-0.32.0", ""),
    ],
)  # fmt: skip
def test_a_cell_of_the_tied_model_has_the_issue_that_is_known_of_it(
    table: MatrixResult, quantizer: str, engine: str, issue: str
) -> None:
    by_id = {cell.id: cell for cell in table.cells}
    cell = by_id[f"twin-tied/awq-4bit-g64/{quantizer}/{engine}"]
    assert cell.issue == issue
    assert (cell.verdict is Verdict.WORKS) is (issue == "")


def test_no_known_issue_is_contradicted(table: MatrixResult) -> None:
    assert table.issue_troubles == []


def test_hundreds_of_red_cells_read_as_a_few_causes(table: MatrixResult) -> None:
    listed = causes(table)
    red = (Verdict.BROKEN, Verdict.GARBAGE, Verdict.DEGRADED)
    assert (
        sum(len(cause.cells) for cause in listed)
        == sum(c.verdict in red for c in table.cells)
        > 300
    )
    assert len(listed) == len({cause.issue for cause in listed}) < 20
