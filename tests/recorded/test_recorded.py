"""Checks, verdicts, table and report over one real run, with the outcomes measured by hand."""

from __future__ import annotations

import json
import random
from collections import Counter
from fnmatch import fnmatchcase

import msgspec
import pytest

from matrix.cli.proofs import proofs_of
from matrix.judge.results import CellResult, MatrixResult, Measures
from matrix.pipeline.outcomes import Verdict
from matrix.pipeline.steps import Blame, Stage
from matrix.plan.cells import make_plan
from matrix.repair.proofs import load_proofs
from matrix.spec.loading import role_names
from matrix.store.observations import Observation
from tests.recorded.recording import judge, observations, records, spec, table_of
from tests.unit.report_results import render

VLLM = ("vllm-0.19.1", "vllm-0.32.0")
TF5 = "transformers-5.23.0+gptqmodel-7.6.0"
TF4 = "transformers-4.51.3+autoawq-0.2.9"
TF446 = "transformers-4.46.3+auto-gptq-0.7.1"
AUTO_GPTQ = "auto-gptq-0.7.1+transformers-4.46.3"
GPTQMODEL = "gptqmodel-7.6.0+transformers-5.23.0"
OLD_GPTQMODEL = "gptqmodel-2.2.0+transformers-4.51.3"


@pytest.fixture(scope="module")
def recorded() -> list[Observation]:
    return observations("cpu")


@pytest.fixture(scope="module")
def table(recorded: list[Observation]) -> MatrixResult:
    return table_of("cpu", recorded)


def cells(table: MatrixResult, pattern: str) -> list[CellResult]:
    matching = [cell for cell in table.cells if fnmatchcase(cell.id, pattern)]
    assert matching, pattern
    return matching


def verdicts(table: MatrixResult, pattern: str) -> set[Verdict]:
    return {cell.verdict for cell in cells(table, pattern)}


def test_the_table_is_whole_and_its_canaries_stand(table: MatrixResult) -> None:
    planned = make_plan(spec("cpu"), "cpu").cells
    assert {cell.id for cell in table.cells} == {cell.id for cell in planned}
    assert not [cell.id for cell in table.cells if cell.verdict is Verdict.NOT_RUN]
    assert table.canaries == "established"
    assert not [cell.id for cell in table.cells if cell.verdict is Verdict.INFRA]


def judgements(cell: CellResult) -> dict[str, str]:
    return {finding.check: finding.judgement.value for finding in cell.findings}


def test_the_float_model_works_everywhere_and_float32_takes_twice_the_memory(
    table: MatrixResult,
) -> None:
    by_name = {cell.id: cell for cell in cells(table, "*/float/none/*")}
    # transformers 4 takes float32 where it is told nothing, transformers 5 what the config says.
    wide = [f"{TF446}+dtype-float32", f"{TF446}+dtype-unset", f"{TF5}+dtype-float32"]
    for engine in wide:
        cell = by_name.pop(f"twin-tied/float/none/{engine}")
        assert cell.verdict is Verdict.DEGRADED
        assert {c for c, j in judgements(cell).items() if j == "degraded"} == {"load-memory"}
    ran = {cell.verdict for cell in by_name.values() if "vllm-0.10.2" not in cell.engine.name}
    assert ran == {Verdict.WORKS}


def test_a_library_that_the_machine_lacks_is_nobody_s_fault(table: MatrixResult) -> None:
    cell = cells(table, "twin-tied/float/none/vllm-0.10.2.post2")[0]
    assert (cell.verdict, cell.blame) == (Verdict.UNTESTED, Blame.NOBODY)
    assert "GLIBCXX_3.4.32" in cell.message


@pytest.mark.parametrize("transformers", ["4.46.3", "4.47.1"])
def test_a_tied_model_by_autoawq_0_2_7(table: MatrixResult, transformers: str) -> None:
    made = f"twin-tied/*/autoawq-0.2.7+transformers-{transformers}"
    for engine in VLLM:
        (cell,) = cells(table, f"{made}/{engine}")
        assert (cell.verdict, cell.blame) == (Verdict.GARBAGE, Blame.CHECKPOINT)
        assert (cell.stage, cell.explained_by) == (Stage.INSPECT, "tied-embedding")
        assert cell.message.startswith("tied-embedding: tied, but only lm_head.weight is stored")
    assert verdicts(table, f"{made}/{TF5}") == {Verdict.WORKS}
    (cell,) = cells(table, f"{made}/{TF4}")
    assert (cell.verdict, cell.blame) == (Verdict.BROKEN, Blame.CHECKPOINT)
    assert (cell.stage, cell.explained_by) == (Stage.LOAD, "tied-embedding")
    assert cell.message.startswith("NotImplementedError: Cannot copy out of meta tensor")


@pytest.mark.parametrize(
    "quantizer",
    ["autoawq-0.2.6+transformers-4.4[26]*", "autoawq-0.2.7.post3+transformers-4.4[67]*",
     "autoawq-0.2.9+transformers-4.51.3", "autoawq-0.2.9+transformers-5.23.0"],
)  # fmt: skip
def test_the_good_quantizers_work_in_both_vllm(table: MatrixResult, quantizer: str) -> None:
    for engine in VLLM:
        assert verdicts(table, f"twin-tied/awq-*/{quantizer}/{engine}") == {Verdict.WORKS}


REFUSED_AFTER_REPAIR = (
    f"auto-gptq-0.7.1+transformers-4.51.3+repaired/{TF5}+own-loader"  # the field is not repaired
)


def test_a_repaired_checkpoint_works_in_each_engine(table: MatrixResult) -> None:
    repaired = cells(table, "*/*+repaired/*")
    left = [cell for cell in repaired if not cell.id.endswith(REFUSED_AFTER_REPAIR)]
    assert len(left) == len(repaired) - 1
    assert {cell.verdict for cell in left} == {Verdict.WORKS}


def test_what_repair_says_of_proofs_is_what_the_run_proves(table: MatrixResult) -> None:
    ran = spec("cpu")
    assert proofs_of(table, role_names(ran, ran.spec.quantizers)) == load_proofs()


def drifted(cell: CellResult) -> bool:
    return judgements(cell)["config-drift"] == "notice"


def test_what_transformers_5_wrote_transformers_4_reads_without_rope_theta(
    table: MatrixResult,
) -> None:
    drifting = [
        cell for cell in table.cells if drifted(cell) and Stage.GENERATE.value in cell.timings
    ]
    assert {cell.engine.packages["transformers"][0] for cell in drifting} == {"4"}
    assert {cell.quantizer.packages["transformers"][0] for cell in drifting} == {"5"}
    assert len(drifting) >= 12
    made_up = [cell for cell in drifting if cell.explained_by == "tied-head"]
    assert {cell.engine.name for cell in made_up} == {f"{TF446}+own-loader"}
    read = [cell for cell in drifting if cell not in made_up]
    assert {(c.verdict, c.blame, c.stage, c.explained_by) for c in read} == {
        (Verdict.GARBAGE, Blame.CHECKPOINT, Stage.INSPECT, "config-drift")
    }


@pytest.mark.parametrize("transformers", ["4.42.4", "4.46.3", "4.51.3"])
def test_gptq_by_autogptq_works_wherever_it_is_read(table: MatrixResult, transformers: str) -> None:
    for model in ("twin-tied", "twin-untied"):
        made = f"{model}/gptq-4bit-g64/auto-gptq-0.7.1+transformers-{transformers}"
        for engine in (*VLLM, TF5, TF446, f"{TF446}+own-loader"):
            (cell,) = cells(table, f"{made}/{engine}")
            assert cell.verdict is Verdict.WORKS, (cell.id, cell.message)
            assert "auto-gptq-cpu" in cell.departures
        (cell,) = cells(table, f"{made}/{TF5}+own-loader")
        assert refused(cell) == (Verdict.UNSUPPORTED, Blame.NOBODY, Stage.LOAD, "refused")
        assert "`is_marlin_format` is no longer supported" in cell.message
        assert "gptqmodel-is-marlin-format" in cell.message


def refused(cell: CellResult) -> tuple[Verdict, Blame, Stage | None, str]:
    return cell.verdict, cell.blame, cell.stage, cell.reason


def test_what_nobody_meant_is_broken(table: MatrixResult) -> None:
    matching = cells(table, "*/gptq-8bit-g128/*/vllm-0.19.1")
    loaded = [cell for cell in matching if Stage.LOAD.value in cell.timings]
    assert len(loaded) >= 3
    # Its wheel was looked into: the operator is in no library of it, so it is not the checkpoint.
    assert all((c.verdict, c.blame) == (Verdict.BROKEN, Blame.ENGINE) for c in loaded)
    assert all("gptq_shuffle is in no library" in cell.message for cell in loaded)
    assert {cell.stage for cell in loaded} == {Stage.LOAD}


@pytest.mark.parametrize(
    ("pattern", "stage", "text"),
    [
        ("*/gptq-8bit-g128/*/vllm-0.32.0", Stage.LOAD,
         "Marlin does not support weight_bits = uint8b128"),
        ("*/gptq-4bit-g128-desc_act/*/vllm-0.32.0", Stage.LOAD,
         "desc_act=True) is no longer supported"),
        (f"twin-qwen3/gptq-*/{AUTO_GPTQ}/*", Stage.QUANTIZE, "has model type `qwen3`"),
    ],
)  # fmt: skip
def test_what_is_refused_by_design_is_unsupported(
    table: MatrixResult, pattern: str, stage: Stage, text: str
) -> None:
    ran = [cell for cell in cells(table, pattern) if stage.value in cell.timings]
    assert len(ran) >= 3
    assert {refused(c) for c in ran} == {(Verdict.UNSUPPORTED, Blame.NOBODY, stage, "refused")}
    assert all(text in cell.message and "(refused by design: " in cell.message for cell in ran)


@pytest.mark.parametrize("quantizer", [OLD_GPTQMODEL, GPTQMODEL])
def test_autogptqs_loader_makes_up_the_head_of_a_tied_model_that_stores_none(
    table: MatrixResult, quantizer: str
) -> None:
    for cell in cells(table, f"twin-tied/gptq-*/{quantizer}/{TF446}+own-loader"):
        assert (cell.verdict, cell.blame, cell.stage, cell.explained_by) == (
            Verdict.GARBAGE, Blame.PAIR, Stage.LOAD, "tied-head"
        )  # fmt: skip


def test_its_other_readers_fill_the_head_and_it_fills_one_that_is_stored(
    table: MatrixResult,
) -> None:
    assert verdicts(table, f"twin-tied/gptq-4bit-g64/{OLD_GPTQMODEL}/{TF446}") == {Verdict.WORKS}
    untied = f"twin-untied/gptq-4bit-g64/{OLD_GPTQMODEL}/{TF446}+own-loader"
    assert verdicts(table, untied) == {Verdict.WORKS}


def test_an_odd_number_of_groups_is_garbage_between_two_and_its_padded_sibling_is_not(
    table: MatrixResult,
) -> None:
    for cell in cells(table, "twin-odd/*-4bit-g64/*/vllm-0.32.0+tp2"):
        assert (cell.verdict, cell.blame) == (Verdict.GARBAGE, Blame.CHECKPOINT)
        assert cell.output.startswith("!!!!")
        assert judgements(cell)["tensor-parallel"] == "notice"
        assert (cell.stage, cell.explained_by) == (Stage.INSPECT, "tensor-parallel")
    for pattern in ("twin-odd/float/none/*+tp2", "twin-odd/*-4bit-g64/*/vllm-0.32.0"):
        assert verdicts(table, pattern) == {Verdict.WORKS}
    assert verdicts(table, "twin-padded/*/vllm-0.32.0+tp2") == {Verdict.WORKS}


def test_groups_that_do_not_divide_are_refused_before_quantizing(table: MatrixResult) -> None:
    for cell in cells(table, "twin-odd/*-g128/*"):
        assert (cell.verdict, cell.blame) == (Verdict.UNSUPPORTED, Blame.NOBODY)
        assert "448 inputs of model.layers.0.mlp.down_proj" in cell.message


@pytest.mark.parametrize("quantizer", ["autoawq-0.2.9+transformers-4.51.3", GPTQMODEL])
def test_qwen3_llama_and_the_padded_model_work(table: MatrixResult, quantizer: str) -> None:
    for model in ("twin-qwen3", "twin-llama", "twin-padded"):
        assert verdicts(table, f"{model}/*-g64/{quantizer}/*") == {Verdict.WORKS}


def test_the_kernel_that_ran_and_its_speed_are_told(table: MatrixResult) -> None:
    for cell in table.cells:
        if cell.verdict is Verdict.WORKS and cell.scheme != "float":
            findings = {finding.check: finding for finding in cell.findings}
            assert findings["kernel"].message, cell.id
            assert (findings["speed"].value or 0) > 0, cell.id
            unnamed = "the engine does not name it"
            assert findings["kernel"].message.startswith(cell.measures.kernel or unnamed)
            speed = f"{cell.measures.tokens_per_second:.3g} tokens/s"
            speed += f" in {cell.measures.kernel}" if cell.measures.kernel else ""
            assert findings["speed"].message.startswith(speed), cell.id


def test_what_was_measured_of_a_cell_that_loaded_is_that_of_its_checks(table: MatrixResult) -> None:
    for cell in table.cells:
        measured = cell.measures
        findings = {finding.check: finding for finding in cell.findings}
        if Stage.LOAD not in cell.timings or not findings:
            assert measured == Measures(), cell.id
            continue
        assert measured.nats == findings["logprobs-float"].value, cell.id
        shown, message = measured.perplexity, findings["perplexity"].message
        assert shown is None or message.startswith(f"{shown:.4g}; "), cell.id
        assert (measured == Measures()) == (Stage.GENERATE not in cell.timings), cell.id
    name = "twin-untied/awq-*/autoawq-0.2.9+transformers-4.51.3"
    damaged = cells(table, f"{name}+stock/vllm-0.32.0")[0].measures
    sound = cells(table, f"{name}/vllm-0.32.0")[0].measures
    assert (damaged.nats or 0) > 4 * (sound.nats or 1)
    assert 10**8 < (sound.peak_bytes or 0) < 10**10
    assert (sound.perplexity or 0) > 1


def test_the_untied_model_works_everywhere_it_loads(table: MatrixResult) -> None:
    loaded = [
        cell
        for cell in cells(table, "twin-untied/awq-*")
        if Stage.GENERATE in {Stage(stage) for stage in cell.timings}
        and not cell.quantizer.name.endswith("+stock")
        and not drifted(cell)
    ]
    assert len(loaded) >= 46
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
    matching = cells(table, f"*/{quantizer}/*")
    assert {(c.verdict, c.blame, c.stage) for c in matching} == {
        (Verdict.BROKEN, Blame.QUANTIZER, stage)
    }
    assert all(text in cell.message for cell in matching)


def test_the_stock_row_fails_the_weight_check_and_is_garbage(table: MatrixResult) -> None:
    for cell in cells(table, "*+stock/*"):
        assert judgements(cell)["weights-match"] == "failed", cell.id
        if cell.verdict is Verdict.UNTESTED:
            assert (cell.stage, cell.reason) == (Stage.ENGINE_IMPORT, "no-library")
            continue
        assert (cell.stage, cell.explained_by) == (Stage.INSPECT, "weights-match")
        assert (cell.verdict, cell.blame) == (Verdict.GARBAGE, Blame.CHECKPOINT), cell.id
        assert "autoawq-cpu-scale-search" not in cell.departures


def test_what_was_compared_is_in_every_cell_that_works(table: MatrixResult) -> None:
    for cell in table.cells:
        if cell.verdict is Verdict.WORKS:
            values = {finding.check: finding.value for finding in cell.findings}
            assert values["greedy-text"] == 1.0, cell.id
            assert values["logprobs-reference"] is not None, cell.id


def test_the_report_is_the_same_from_observations_in_any_order(
    recorded: list[Observation], table: MatrixResult
) -> None:
    shuffled = random.Random(7).sample(recorded, len(recorded))
    assert render(table_of("cpu", shuffled)) == render(table)


def test_the_json_spells_out_every_cell(table: MatrixResult) -> None:
    text = render(table)["matrix.json"]
    document = json.loads(text)
    assert document["schema"] == 2
    assert len(text) < 2_000 * len(table.cells)
    cell = next(
        c
        for c in document["cells"]
        if c["id"].endswith("autoawq-0.2.9+transformers-4.51.3/vllm-0.32.0")
    )
    quantizer = document["quantizers"][cell["quantizer"]]
    assert quantizer["packages"].keys() == {"autoawq", "transformers", "torch"}
    assert {
        "verdict",
        "blame",
        "stage",
        "reason",
        "departures",
        "findings",
        "timings",
    } <= cell.keys()
    assert {"check", "value", "threshold"} <= document["findings"][cell["findings"][0]].keys()


def test_every_step_has_one_record(recorded: list[Observation]) -> None:
    written = Counter(record.key for record in records("cpu") if record.step != "check")
    assert written == Counter(observation.key for observation in recorded)


@pytest.mark.parametrize("step", ["resolve", "import", "quantize", "inspect", "load", "generate"])
def test_a_step_that_is_missing_is_never_taken_for_passed(
    recorded: list[Observation], step: str
) -> None:
    left = [observation for observation in recorded if observation.step != step]
    cells = table_of("cpu", left).cells
    assert Verdict.WORKS not in {c.verdict for c in cells if c.quantizer.name != "none"}


def test_wrong_answers_in_a_good_cell_are_garbage(recorded: list[Observation]) -> None:
    name = "twin-tied/awq-4bit-g64/autoawq-0.2.9+transformers-4.51.3/vllm-0.32.0"
    good = next(
        observation
        for observation in recorded
        if observation.step == "generate" and observation.subject == name
    )
    zeros = [{"ids": [0] * len(o["ids"]), "text": "!!!!"} for o in good.facts["outputs"]]
    spoilt = msgspec.structs.replace(good, facts={**good.facts, "outputs": zeros})
    cell = judge(
        "cpu", [observation for observation in recorded if observation is not good] + [spoilt]
    ).cell(name)
    assert cell.verdict is Verdict.GARBAGE
    failed = {f.check for f in cell.findings if f.judgement == "failed"}
    assert failed == {"greedy-text", "degenerate-output"}
