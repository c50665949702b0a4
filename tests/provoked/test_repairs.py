"""Repaired checkpoints as rows: made once, repaired between quantize and inspect, then loaded."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from matrix.checkpoint.files import CheckpointFiles
from matrix.checkpoint.tensors import Tensors
from matrix.judge.results import CellResult
from matrix.pipeline.outcomes import Outcome, Reason, Verdict
from matrix.pipeline.steps import ALWAYS, Blame, Stage
from tests.provoked.runs import Finished, perform

MADE = "made-up/awq-4bit-g64/plain"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def finished(store: Path) -> Finished:
    return perform("repairs", store)


def outcomes(cell: CellResult) -> dict[Stage | None, tuple[Outcome, Reason]]:
    return {result.stage: (result.outcome, result.reason) for result in cell.stages}


def tensors_by_key(store: Path) -> dict[str, set[str]]:
    """Return key -> names of the tensors in each checkpoint of a store that can be read."""
    folders = [path.parent for path in store.glob("checkpoints/*/checkpoint")]
    return {folder.name: set(Tensors(CheckpointFiles(folder / "checkpoint"))) for folder in folders}


def test_the_checkpoint_is_made_once_and_both_are_loaded(finished: Finished, store: Path) -> None:
    made = [line for line in finished.told if f"quantize {MADE}+dropped" in line]
    assert len(made) == 1
    assert f"quantize {MADE}+dropped: passed" in made[0]
    names = [frozenset(names & {EMBEDDING, HEAD}) for names in tensors_by_key(store).values()]
    assert names.count(frozenset({HEAD})) == 1
    assert names.count(frozenset({EMBEDDING})) == 2  # the good one, and the repaired one
    for row in ("dropped", "dropped+repaired"):
        stages = outcomes(finished.cell(f"{MADE}+{row}/plain+good"))
        assert stages[Stage.LOAD][0] is stages[Stage.GENERATE][0] is Outcome.PASSED


def test_only_a_repaired_row_has_the_stage(finished: Finished) -> None:
    plain = finished.cell(f"{MADE}+dropped/plain+good")
    repaired = finished.cell(f"{MADE}+dropped+repaired/plain+good")
    assert [stage.stage for stage in plain.stages] == list(ALWAYS)
    assert [stage.stage for stage in repaired.stages] == list(Stage)
    judgements = [
        finding.judgement.value
        for cell in (repaired, plain)
        for finding in cell.findings
        if finding.check == "tied-embedding"
    ]
    assert judgements == ["passed", "notice"]


def test_where_nothing_is_to_be_repaired_the_row_is_not_supported(finished: Finished) -> None:
    cell = finished.cell(f"{MADE}+good+repaired/plain+good")
    assert (cell.verdict, cell.blame) == (Verdict.UNSUPPORTED, Blame.NOBODY)
    assert (cell.stage, cell.message) == (Stage.REPAIR, "nothing to repair")
    assert outcomes(cell)[Stage.LOAD][0] is Outcome.BLOCKED


def test_a_repair_that_refuses_fails_in_its_own_words(finished: Finished) -> None:
    cell = finished.cell(f"{MADE}+truncated+repaired/plain+good")
    assert (cell.verdict, cell.blame) == (Verdict.BROKEN, Blame.CHECKPOINT)
    assert (cell.stage, cell.reason) == (Stage.REPAIR, Reason.UNREADABLE)
    assert cell.message.startswith("error: model.safetensors: its tensors need")
    assert outcomes(cell)[Stage.LOAD][0] is Outcome.BLOCKED


@pytest.mark.usefixtures("finished")
def test_a_repaired_checkpoint_that_was_taken_back_is_made_again_when_it_is_needed(
    store: Path,
) -> None:
    assert perform("repairs", store).told == []
    for folder in store.glob("checkpoints/*/checkpoint"):
        shutil.rmtree(folder)
    assert perform("repairs", store).told == []
    name = f"{MADE}+dropped+repaired/plain+wrong-text"
    for step in ("load", "generate"):
        for file in store.glob(f"observations/{step}/*.json"):
            if f'"{name}"' in file.read_text():
                file.unlink()
    lines = perform("repairs", store, cell=name).told
    steps = [line.partition(": ")[2].partition(" ")[0] for line in lines[:-1]]
    assert steps == ["quantize", "repair"]
    assert lines[-1].startswith(f"{name}: ")
    assert {EMBEDDING} in [n & {EMBEDDING, HEAD} for n in tensors_by_key(store).values()]
