from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from matrix.checks import run_checks
from matrix.checks.evidence import Evidence, EvidenceError, Load, LoadedTensor, read_load
from matrix.checks.loading import UNFILLED
from matrix.pipeline.outcomes import Finding, Judgement, Symptom
from matrix.pipeline.steps import Stage
from tests.unit.made_evidence import (
    GPTQ,
    add_tensor,
    alarms,
    made_evidence,
    made_inspection,
    made_load,
)

replace = msgspec.structs.replace
PASSED, DEGRADED, FAILED = Judgement.PASSED, Judgement.DEGRADED, Judgement.FAILED
ABSENT = Judgement.NOT_APPLICABLE

BIASES = [f"model.layers.{n}.mlp.{p}_proj.bias" for n in (0, 1) for p in ("up", "down")]
UNUSED = "Some weights of the model checkpoint at m were not used when initializing A: "
NEWLY = "Some weights of A were not initialized ... and are newly initialized: "
TABLE = """A LOAD REPORT from: m
Key                                  | Status     |  |
model.layers.{0, 1}.mlp.up_proj.bias | UNEXPECTED |  |
"""


def warned(*warnings: str, **changes: Any) -> Finding:
    evidence = with_zero_biases()
    assert evidence.load is not None
    load = replace(evidence.load, warnings=list(warnings))
    return findings(replace(evidence, load=load, **changes))["load-warnings"]


def with_zero_biases() -> Evidence:
    evidence = made_evidence(GPTQ)
    assert evidence.inspection is not None
    inspection = evidence.inspection
    for name in BIASES:
        inspection = add_tensor(inspection, name, [256], zero_tensors=BIASES)
    return replace(evidence, inspection=inspection)


def findings(evidence: Evidence) -> dict[str, Finding]:
    return {finding.check: finding for finding in run_checks(evidence, Stage.LOAD)}


def answering(*values: float | None, **changes: Any) -> Finding:
    """Judge the head of a tied model whose held-out texts have these log-probabilities."""
    evidence = made_evidence(GPTQ)
    assert evidence.generation is not None
    held_out = [list(values)]
    answered = replace(evidence, generation=replace(evidence.generation, held_out=held_out))
    return findings(replace(answered, **changes))["tied-head"]


ZEROS = -math.log(512)
"""What each token of the vocabulary of 512 has where all are alike."""


@pytest.mark.parametrize(
    ("values", "loader", "judgement"),
    [
        ((None, ZEROS, None), "transformers", FAILED),
        ((ZEROS, ZEROS + 5e-4), "transformers", FAILED),
        ((-1e38, ZEROS), "transformers", FAILED),  # memory that happens to be finite
        ((None, None), "auto_gptq", FAILED),
        ((None, None), "transformers", PASSED),  # as of a NaN in some layer
        ((None, -3.0, ZEROS), "auto_gptq", PASSED),
        ((-0.1, -3.0), "auto_gptq", PASSED),
        ((ZEROS + 0.01,), "auto_gptq", PASSED),
    ],
)
def test_a_head_that_nothing_was_loaded_into_is_seen_by_what_it_answers(
    values: tuple[float | None, ...], loader: str, judgement: Judgement
) -> None:
    finding = answering(*values, loader=loader)
    assert finding.judgement is judgement
    if judgement is FAILED:
        assert (finding.value, finding.explains) == (1.0, UNFILLED)
        lost = None in values or -1e38 in values
        assert finding.symptom is (Symptom.NOT_FINITE if lost else Symptom.WRONG_ANSWERS)
        assert "lm_head.weight is not stored" in finding.message


def test_a_head_that_is_stored_or_not_tied_is_filled() -> None:
    untied = answering(None, ZEROS, tied=False, inspection=made_inspection(GPTQ, tied=False))
    stored = answering(None, ZEROS, inspection=replace(made_inspection(GPTQ), head=True))
    assert (untied.judgement, stored.judgement) == (PASSED, PASSED)


@pytest.mark.parametrize("shape", [[], [0, 256], [1, 256]])
def test_an_embedding_of_no_size_is_compared_with_nothing(shape: list[int]) -> None:
    good = made_inspection(GPTQ)
    tensors = [replace(t, shape=shape) if "embed" in t.name else t for t in good.tensors]
    finding = answering(None, 0.0, inspection=replace(good, tensors=tensors))
    assert finding.judgement is PASSED


def test_quiet_without_warnings() -> None:
    assert (warned().judgement, warned().message) == (PASSED, "")


@pytest.mark.parametrize(
    ("warning", "judgement", "value", "message"),
    [
        (f"{NEWLY}['a.bias', 'b.bias']", FAILED, 2, "made up by the engine: a.bias, b.bias"),
        (f"{NEWLY}['lm_head.weight']", PASSED, 0, "none of them of weights"),
        (f"{UNUSED}{BIASES}", PASSED, 0, "4 tensors not used, harmlessly: zero"),
        (TABLE, PASSED, 0, "2 tensors not used, harmlessly: zero"),
        (f"{UNUSED}['lm_head.weight']", PASSED, 0, "1 tensor not used, harmlessly"),
        (f"{UNUSED}['model.layers.0.mlp.up_proj.g_idx']", PASSED, 0, "harmlessly"),
        (f"{UNUSED}['model.layers.0.self_attn.rotary_emb.inv_freq']", PASSED, 0, "harmlessly"),
        (
            f"{UNUSED}{[*BIASES, 'model.layers.0.mlp.gate_proj.bias']}",
            DEGRADED,
            1,
            "not used, though not known to be zero: model.layers.0.mlp.gate_proj.bias",
        ),
        (
            f"{UNUSED}['model.layers.0.mlp.up_proj.qweight']",
            FAILED,
            1,
            "not known to be zero: model.layers.0.mlp.up_proj.qweight",
        ),
        (TABLE.replace("bias |", "qweight |"), FAILED, 2, "model.layers.1.mlp.up_proj.qweight"),
        (f"{UNUSED}{BIASES}"[:-5], DEGRADED, 0, "the list of names is cut short"),
        ("`torch_dtype` is deprecated", PASSED, 0, "1 warning kept, none of them of weights"),
        ("[" * 10_000, PASSED, 0, "1 warning kept"),
    ],
)
def test_load_warnings(warning: str, judgement: Judgement, value: int, message: str) -> None:
    finding = warned(warning)
    assert (finding.judgement, finding.value) == (judgement, value)
    assert message in finding.message


def test_a_head_is_missed_where_it_is_not_tied() -> None:
    assert warned(f"{NEWLY}['lm_head.weight']", tied=False).judgement is FAILED
    assert warned(f"{UNUSED}['lm_head.weight']", tied=False).judgement is DEGRADED


def test_zeros_are_believed_only_where_they_were_read() -> None:
    assert warned(f"{UNUSED}{BIASES}", inspection=None).judgement is DEGRADED


def test_permuted_index_is_no_surplus() -> None:
    evidence = with_zero_biases()
    assert evidence.inspection is not None
    modules = [replace(m, group_order="permuted") for m in evidence.inspection.modules]
    permuted = replace(evidence.inspection, modules=modules)
    unused = f"{UNUSED}['model.layers.0.mlp.up_proj.g_idx']"
    assert warned(unused, inspection=permuted).judgement is FAILED


def test_the_log_is_read_also_where_the_load_failed() -> None:
    log = "ValueError: Following weights were not initialized from checkpoint: {'model.x'}"
    by_check = findings(replace(made_evidence(), load=None, log=log))
    assert by_check["load-warnings"].judgement is FAILED
    assert by_check["load-warnings"].message == "made up by the engine: model.x"
    assert findings(replace(made_evidence(), load=None))["load-warnings"].judgement is ABSENT


def held_in(dtype: str, wide: str) -> Evidence:
    """Return a cell whose engine holds all that is not packed in another type."""
    evidence = made_evidence()
    assert evidence.load is not None
    tensors = [
        LoadedTensor(t.name, wide, 2 * t.bytes)
        if t.dtype == dtype and not t.name.endswith(".scales")
        else t
        for t in evidence.load.tensors
    ]
    return replace(evidence, load=replace(evidence.load, tensors=tensors))


def test_float32_in_memory_is_named_with_its_tensors() -> None:
    evidence = held_in("float16", "float32")
    finding = findings(evidence)["load-memory"]
    assert alarms(list(findings(evidence).values())) == {"load-memory": DEGRADED}
    assert finding.value == pytest.approx(1.29, abs=0.01)
    assert finding.message == (
        "1.19 MB in memory, 919 kB in the file; float32 takes 534 kB for 0 bytes in the file: "
        "model.embed_tokens.weight 524 kB, model.layers.*.self_attn.q_proj.bias 2.05 kB, "
        "model.layers.*.input_layernorm.weight 2.05 kB"
    )


def test_unpacked_codes_in_memory_are_named() -> None:
    evidence = made_evidence()
    assert evidence.load is not None
    tensors = [
        LoadedTensor(t.name.replace("qweight", "weight"), "float16", 4 * t.bytes)
        if t.name.endswith("qweight")
        else t
        for t in evidence.load.tensors
    ]
    by_check = findings(replace(evidence, load=replace(evidence.load, tensors=tensors)))
    assert by_check["load-memory"].judgement is DEGRADED
    assert "float16 takes" in by_check["load-memory"].message
    assert "model.layers.*.mlp.gate_proj.weight" in by_check["load-memory"].message


def test_memory_of_a_smaller_type_is_right() -> None:
    evidence = made_evidence(None)
    assert evidence.load is not None
    half = [replace(t, bytes=t.bytes // 2) for t in evidence.load.tensors]
    smaller = replace(evidence, load=replace(evidence.load, tensors=half))
    assert findings(smaller)["load-memory"].value == pytest.approx(0.5)


def test_memory_that_is_told_in_part_is_not_judged() -> None:
    evidence = made_evidence(None)
    assert evidence.load is not None
    norms = [tensor for tensor in evidence.load.tensors if "norm" in tensor.name]
    finding = findings(replace(evidence, load=replace(evidence.load, tensors=norms)))["load-memory"]
    assert finding.judgement is ABSENT
    assert finding.message == "only 2.56 kB of 2.63 MB are parameters or buffers"


def test_what_has_no_use_is_no_part_of_the_file() -> None:
    evidence = with_zero_biases()
    assert evidence.inspection is not None
    with_copy = add_tensor(evidence.inspection, "lm_head.weight", [512, 256], head=True)
    finding = findings(replace(evidence, inspection=with_copy))["load-memory"]
    assert (finding.judgement, finding.value) == (PASSED, 1.0)
    held = replace(evidence, inspection=with_copy, load=made_load(with_copy))
    assert findings(held)["load-memory"].judgement is DEGRADED


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"load": Load()}, "the engine does not tell what it holds"),
        ({"tensor_parallel": 2}, "divided among 2 processes"),
        ({"inspection": None}, "not inspected"),
        ({"load": None}, "not loaded"),
    ],
)
def test_memory_that_is_not_known(changes: dict[str, Any], message: str) -> None:
    finding = findings(replace(made_evidence(), **changes))["load-memory"]
    assert (finding.judgement, finding.message) == (ABSENT, message)


@pytest.mark.parametrize(
    ("kernel", "kernels", "slow"),
    [
        ("CPUWNA16LinearKernel", {"vllm.a.CPUWNA16LinearKernel": 12}, False),
        ("TorchAtenAwqLinear", {"gptqmodel.b.TorchAtenAwqLinear": 21}, False),
        ("TorchLinear", {"gptqmodel.b.TorchLinear": 21}, True),
        ("AwqTorchLinear", {"gptqmodel.b.AwqTorchLinear": 21}, True),
        ("QuantLinear", {"auto_gptq.nn_modules.qlinear.qlinear_cuda_old.QuantLinear": 21}, True),
        ("QuantLinear", {"auto_gptq.nn_modules.qlinear.qlinear_exllama.QuantLinear": 21}, False),
    ],
)
def test_kernel_is_named_and_never_an_alarm(
    kernel: str, kernels: dict[str, int], slow: bool
) -> None:
    held = {**kernels, "torch.nn.modules.linear.Linear": 1, "vllm.b.UnquantizedLinearMethod": 1}
    finding = findings(replace(made_evidence(), load=Load(kernel=kernel, kernels=held)))["kernel"]
    assert (finding.judgement, finding.value) == (PASSED, sum(kernels.values()))
    assert finding.message.startswith(f"{kernel}, {min(kernels)} x ")
    assert ("slow" in finding.message) == slow


@pytest.mark.parametrize("changes", [{"load": Load()}, {"quantized": False}, {"load": None}])
def test_kernel_that_is_not_known(changes: dict[str, Any]) -> None:
    assert findings(replace(made_evidence(), **changes))["kernel"].judgement is ABSENT


def test_facts_as_documented_are_read() -> None:
    facts = {"kernel": "K", "kernels": {"a.B": 3}, "tensors": [["w", "int32", 64]]}
    read = Load(["w"], "K", {"a.B": 3}, [LoadedTensor("w", "int32", 64)])
    assert read_load(facts, ["w"]) == read
    assert read_load({"kernel": None}, []) == Load()


@pytest.mark.parametrize(
    "tensors", [[["w", "int32"]], [["w", "int32", -1]], [["w", 5, 64]], 7, [["w", "i", 2]] * 20_001]
)
def test_facts_of_another_shape_are_named(tensors: object) -> None:
    with pytest.raises(EvidenceError, match="load: "):
        read_load({"tensors": tensors}, [])
