"""Checks, verdicts, table and report over one real run, with the outcomes measured by hand."""

from __future__ import annotations

import json
import random
from collections import Counter
from fnmatch import fnmatchcase

import msgspec
import pytest

from matrix import report
from matrix.observations import Observation
from matrix.outcomes import Blame, Stage, Verdict
from matrix.results import CellResult, MatrixResult
from tests.recorded.recording import judge, observations, records

VLLM = ("vllm-0.19.1", "vllm-0.32.0")
TF5 = "transformers-5.23.0+gptqmodel-7.6.0"
TF4 = "transformers-4.51.3+autoawq-0.2.9"


@pytest.fixture(scope="module")
def seen() -> list[Observation]:
    return observations()


@pytest.fixture(scope="module")
def table(seen: list[Observation]) -> MatrixResult:
    return judge(seen).table()


def cells(table: MatrixResult, pattern: str) -> list[CellResult]:
    found = [cell for cell in table.cells if fnmatchcase(cell.id, pattern)]
    assert found, pattern
    return found


def verdicts(table: MatrixResult, pattern: str) -> set[Verdict]:
    return {cell.verdict for cell in cells(table, pattern)}


def test_the_table_is_whole_and_its_canaries_stand(table: MatrixResult) -> None:
    assert len(table.cells) == 208
    assert table.canaries == "established"
    assert not [cell.id for cell in table.cells if cell.verdict is Verdict.INFRA]


def test_the_float_model_works_everywhere(table: MatrixResult) -> None:
    assert verdicts(table, "*/float/none/*") == {Verdict.WORKS}


@pytest.mark.parametrize("transformers", ["4.46.3", "4.47.1"])
def test_a_tied_model_by_autoawq_0_2_7(table: MatrixResult, transformers: str) -> None:
    made = f"twin-tied/*/autoawq-0.2.7+transformers-{transformers}"
    for engine in VLLM:
        (cell,) = cells(table, f"{made}/{engine}")
        assert (cell.verdict, cell.blame) == (Verdict.GARBAGE, Blame.CHECKPOINT)
    assert verdicts(table, f"{made}/{TF5}") == {Verdict.WORKS}
    (cell,) = cells(table, f"{made}/{TF4}")
    assert (cell.verdict, cell.stage) == (Verdict.BROKEN, Stage.LOAD)
    assert "meta tensor" in cell.message


@pytest.mark.parametrize(
    "quantizer",
    ["autoawq-0.2.6+transformers-4.4[26]*", "autoawq-0.2.7.post3+transformers-4.4[67]*",
     "autoawq-0.2.9+transformers-4.51.3", "autoawq-0.2.9+transformers-5.23.0"],
)  # fmt: skip
def test_the_good_quantizers_work_in_both_vllm(table: MatrixResult, quantizer: str) -> None:
    assert verdicts(table, f"twin-tied/awq-*/{quantizer}/vllm-*") == {Verdict.WORKS}


def test_the_untied_model_works_everywhere_it_loads(table: MatrixResult) -> None:
    loaded = [
        cell
        for cell in cells(table, "twin-untied/awq-*")
        if Stage.GENERATE in {Stage(stage) for stage in cell.timings}
        and not cell.quantizer.name.endswith("+stock")
    ]
    assert len(loaded) >= 30
    assert {cell.verdict for cell in loaded} == {Verdict.WORKS}


@pytest.mark.parametrize(
    ("quantizer", "stage", "text"),
    [
        ("autoawq-0.2.6+transformers-4.47.1", Stage.QUANTIZER_IMPORT, "shard_checkpoint"),
        ("autoawq-0.2.6+transformers-4.51.3", Stage.QUANTIZER_IMPORT, ""),
        ("autoawq-0.2.6+transformers-4.57.6", Stage.QUANTIZER_IMPORT, ""),
        ("autoawq-0.2.6+transformers-5.23.0", Stage.QUANTIZER_IMPORT, ""),
        ("autoawq-0.2.7+transformers-4.57.6", Stage.QUANTIZER_IMPORT, "PytorchGELUTanh"),
        ("autoawq-0.2.9+transformers-4.57.6", Stage.QUANTIZER_IMPORT, "PytorchGELUTanh"),
        ("autoawq-0.2.9+transformers-4.47.1", Stage.QUANTIZER_IMPORT, "qwen3"),
        ("autoawq-0.2.7+transformers-4.51.3", Stage.QUANTIZE, "attention_mask"),
        ("autoawq-0.2.9+transformers-4.42.4", Stage.QUANTIZER_RESOLVE, "4.45.0"),
    ],
)
def test_a_broken_quantizer_breaks_all_its_cells(
    table: MatrixResult, quantizer: str, stage: Stage, text: str
) -> None:
    found = cells(table, f"*/{quantizer}/*")
    assert {(c.verdict, c.blame, c.stage) for c in found} == {
        (Verdict.BROKEN, Blame.QUANTIZER, stage)
    }
    assert all(text in cell.message for cell in found)


def test_the_stock_row_fails_the_weight_check_and_is_garbage(table: MatrixResult) -> None:
    for cell in cells(table, "*+stock/*"):
        said = {finding.check: finding.judgement for finding in cell.findings}
        assert said["weights-match"] == "failed", cell.id
        assert (cell.verdict, cell.blame) == (Verdict.GARBAGE, Blame.CHECKPOINT), cell.id
        assert "autoawq-cpu-scale-search" not in cell.departures


def test_what_was_compared_is_in_every_cell_that_works(table: MatrixResult) -> None:
    for cell in table.cells:
        if cell.verdict is Verdict.WORKS:
            values = {finding.check: finding.value for finding in cell.findings}
            assert values["greedy-text"] == 1.0, cell.id
            assert values["logprobs-reference"] is not None, cell.id


def test_the_report_is_the_same_from_observations_in_any_order(
    seen: list[Observation], table: MatrixResult
) -> None:
    shuffled = random.Random(7).sample(seen, len(seen))
    assert report.render(judge(shuffled).table()) == report.render(table)


def test_the_json_spells_out_every_cell(table: MatrixResult) -> None:
    document = json.loads(report.render(table)["matrix.json"])
    assert document["schema"] == 1
    one = next(
        c
        for c in document["cells"]
        if c["id"].endswith("autoawq-0.2.9+transformers-4.51.3/vllm-0.32.0")
    )
    assert one["quantizer"]["packages"].keys() == {"autoawq", "transformers", "torch"}
    assert {
        "verdict",
        "blame",
        "stage",
        "reason",
        "departures",
        "findings",
        "timings",
    } <= one.keys()
    assert {"check", "value", "threshold"} <= one["findings"][0].keys()


def test_every_step_has_one_record(seen: list[Observation]) -> None:
    written = Counter(record.key for record in records() if record.step != "check")
    assert written == Counter(one.key for one in seen)


@pytest.mark.parametrize("step", ["resolve", "import", "quantize", "inspect", "load", "generate"])
def test_a_step_that_is_missing_is_never_taken_for_passed(
    seen: list[Observation], step: str
) -> None:
    left = [one for one in seen if one.step != step]
    cells = judge(left).table().cells
    assert Verdict.WORKS not in {c.verdict for c in cells if c.quantizer.name != "none"}


def test_wrong_answers_in_a_good_cell_are_garbage(seen: list[Observation]) -> None:
    name = "twin-tied/awq-4bit-g64/autoawq-0.2.9+transformers-4.51.3/vllm-0.32.0"
    good = next(one for one in seen if one.step == "generate" and one.subject == name)
    zeros = [{"ids": [0] * len(o["ids"]), "text": "!!!!"} for o in good.facts["outputs"]]
    spoilt = msgspec.structs.replace(good, facts={**good.facts, "outputs": zeros})
    judged = judge([one for one in seen if one is not good] + [spoilt]).cell(name)
    assert judged.verdict is Verdict.GARBAGE
    failed = {f.check for f in judged.findings if f.judgement == "failed"}
    assert failed == {"greedy-text", "degenerate-output"}
