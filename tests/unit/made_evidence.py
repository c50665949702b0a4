"""Made-up references, answers, inspections and thresholds, for the tests of checks."""

from __future__ import annotations

from typing import Any

import msgspec

from matrix.checkpoint.inspection import (
    ConfigFacts,
    Inspection,
    PackedLinearInfo,
    Quantization,
    TensorInfo,
    TokenizerFacts,
    WeightComparison,
)
from matrix.checkpoint.rounding import Rounding
from matrix.checkpoint.shapes import expected_bytes, float_shapes, linear_shapes
from matrix.checks.evidence import (
    Evidence,
    Load,
    LoadedTensor,
    Output,
    Prompt,
    Reference,
    ScoredText,
    Thresholds,
    read_generation,
)
from matrix.checks.formats import stored_bytes
from matrix.pipeline.outcomes import Finding, Judgement

THRESHOLDS = Thresholds(
    gptq_weight_error=0.3,
    gptq_weight_ratio=0.05,
    gptq_weight_row=0.2,
    gptq_weight_group=0.005,
    gptq_weight_offset=0.7,
    gptq_weight_misplaced=0.1,
    stored_size=0.01,
    tokenizer_failed=0.5,
    greedy_degraded=0.9,
    greedy_failed=0.5,
    greedy_right_failed=0.5,
    pretrained_greedy_degraded=0.3,
    pretrained_greedy_failed=0.1,
    logprobs_float_degraded=0.5,
    logprobs_float_failed=1.0,
    logprobs_reference_degraded=0.6,
    logprobs_reference_failed=1.2,
    pretrained_logprobs_degraded=1.5,
    pretrained_logprobs_failed=3.0,
    float_logprobs_reference_degraded=0.05,
    float_logprobs_reference_failed=0.2,
    perplexity_degraded=1.6,
    perplexity_failed=4.0,
    low_perplexity_degraded=0.75,
    memory_degraded=1.1,
    degenerate_failed=0.5,
)

REFERENCE = Reference(
    schema=1,
    prompts=[
        Prompt("The capital of", [5, 6, 7], [1, 2, 3, 4, 5, 6, 7, 8], " France is Paris"),
        Prompt("Water boils", [8, 9], [9, 8, 7, 6, 5, 4, 3, 2], " at one hundred"),
    ],
    held_out=[
        ScoredText("a text", [1, 2, 3], [-1.0, -2.0]),
        ScoredText("another", [4, 5, 6, 7], [-0.5, -3.0, -1.5]),
    ],
    memorised=[ScoredText("The capital of France is Paris", [5, 6, 7, 1], [-0.1, -0.1, -0.1])],
    max_new_tokens=8,
)


def right_facts() -> dict[str, Any]:
    """Return what a good engine's ``generate`` leaves behind."""
    return {
        "text_ids": [list(prompt.ids) for prompt in REFERENCE.prompts],
        "outputs": [
            {"ids": list(prompt.greedy_ids), "text": prompt.greedy_text}
            for prompt in REFERENCE.prompts
        ],
        "held_out": [list(text.logprobs) for text in REFERENCE.held_out],
        "tokens_per_second": 12.5,
    }


def output(*ids: int) -> Output:
    """Return an answer of these tokens."""
    return Output(list(ids), " ".join(map(str, ids)))


CONFIG = ConfigFacts(
    model_type="qwen2",
    hidden_size=256,
    intermediate_size=512,
    layers=2,
    heads=4,
    key_value_heads=2,
    vocabulary=512,
    torch_dtype="float16",
    rope_theta=True,
)
AWQ = Quantization("awq", bits=4, group_size=64, zero_point=True, version="gemm")
GPTQ = Quantization("gptq", bits=4, group_size=64, sym=True, desc_act=False)
DTYPES = {"F16": "float16", "I32": "int32", "F32": "float32", "BF16": "bfloat16"}


def made_inspection(scheme: Quantization | None = GPTQ, *, tied: bool = True) -> Inspection:
    """Return the inspection of a good checkpoint of a scheme; of the float model for ``None``."""
    linears = linear_shapes(CONFIG)
    packed = linears if scheme else {}
    shapes = {
        name: shape
        for name, shape in float_shapes(CONFIG, tied).items()
        if name.rpartition(".")[0] not in packed or not name.endswith(".weight")
    }
    tensors = [TensorInfo(name, "F16", list(shape), "m") for name, shape in shapes.items()]
    moved = scheme is not None and scheme.method == "gptq"
    if scheme:
        for module, (outputs, inputs) in packed.items():
            tensors += _packed_tensors(module, outputs, inputs, scheme)
    return Inspection(
        compared=True,
        tensors=tensors,
        tie_word_embeddings=tied,
        config=CONFIG,
        tokenizer=TokenizerFacts(tokenizer_class="Qwen2Tokenizer", merges="strings"),
        quantization=scheme,
        modules=[_module(name, *packed[name], scheme) for name in packed] if scheme else [],
        linears=list(linears),
        embedding=True,
        head=not tied,
        expected_bytes=expected_bytes(CONFIG, tied, scheme),
        weights=[
            WeightComparison(
                name=name,
                packed=True,
                error=0.1,
                rounding=Rounding.MOVED if moved else Rounding.NEAREST,
                strays=None if moved else 0,
                ratio=1.0,
                row=1.0 if moved else None,
                group=0.0,
            )
            for name in packed
        ]
        + [WeightComparison(name=name, packed=False, error=0.0, strays=0) for name in shapes],
    )


def _packed_tensors(
    module: str, outputs: int, inputs: int, scheme: Quantization
) -> list[TensorInfo]:
    bits, groups = scheme.bits or 4, inputs // (scheme.group_size or inputs)
    shapes = {
        "qweight": ("I32", [inputs, outputs * bits // 32]),
        "qzeros": ("I32", [groups, outputs * bits // 32]),
        "scales": ("F16", [groups, outputs]),
    }
    if scheme.method == "gptq":
        shapes["qweight"] = ("I32", [inputs * bits // 32, outputs])
        shapes["g_idx"] = ("I32", [inputs])
    return [TensorInfo(f"{module}.{part}", *of, "m") for part, of in shapes.items()]


def _module(name: str, outputs: int, inputs: int, scheme: Quantization) -> PackedLinearInfo:
    size = sum(map(stored_bytes, _packed_tensors(name, outputs, inputs, scheme)))
    zero = 2 ** ((scheme.bits or 4) - 1) - (scheme.checkpoint_format != "gptq_v2")
    return PackedLinearInfo(
        name=name,
        inputs=inputs,
        outputs=outputs,
        bits=scheme.bits or 4,
        group_size=scheme.group_size or 64,
        bits_per_weight=8 * size / (inputs * outputs),
        group_order="permuted" if scheme.desc_act else "in order",
        zero_points={str(zero): 99} if scheme.method == "gptq" else {str(n): 9 for n in range(16)},
    )


def made_load(inspection: Inspection, *, kernel: str | None = "SomeLinear") -> Load:
    """Return what an engine leaves behind that holds just what is in the checkpoint."""
    held = [
        LoadedTensor(tensor.name, DTYPES[tensor.dtype], stored_bytes(tensor))
        for tensor in inspection.tensors
    ]
    return Load(kernel=kernel, kernels={f"package.{kernel}": 14} if kernel else {}, tensors=held)


def made_evidence(scheme: Quantization | None = GPTQ, *, tied: bool = True) -> Evidence:
    """Return all that is known of a cell in which everything is right."""
    right = read_generation(right_facts(), REFERENCE)
    inspection = made_inspection(scheme, tied=tied)
    return Evidence(
        tied=tied,
        quantized=scheme is not None,
        reference=REFERENCE,
        thresholds=THRESHOLDS,
        inspection=inspection,
        load=made_load(inspection, kernel="SomeLinear" if scheme else None),
        generation=right,
        float_generation=right,
    )


def alarms(findings: list[Finding]) -> dict[str, Judgement]:
    """Return what is neither passed nor without a subject, by check."""
    quiet = (Judgement.PASSED, Judgement.NOT_APPLICABLE)
    return {f.check: f.judgement for f in findings if f.judgement not in quiet}


def add_tensor(
    inspection: Inspection, name: str, shape: list[int], dtype: str = "F16", **changes: Any
) -> Inspection:
    """Return an inspection of a checkpoint with one tensor more."""
    tensors = [*inspection.tensors, TensorInfo(name, dtype, shape, "m")]
    return msgspec.structs.replace(inspection, tensors=tensors, **changes)


def retype(inspection: Inspection, name: str, dtype: str) -> Inspection:
    """Return an inspection of a checkpoint in which one tensor has another type."""
    assert name in [tensor.name for tensor in inspection.tensors]
    tensors = [
        msgspec.structs.replace(tensor, dtype=dtype) if tensor.name == name else tensor
        for tensor in inspection.tensors
    ]
    return msgspec.structs.replace(inspection, tensors=tensors)
