"""Real files held to the scheme that they were made by, and to every other one."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from matrix.checkpoint.formats import Format
from matrix.checkpoint.inspecting import inspect
from matrix.checkpoint.inspection import Inspection, Quantization
from matrix.checks.evidence import Evidence
from matrix.checks.schemes import scheme
from matrix.checks.wording import NotApplicableError, Opinion
from matrix.pipeline.outcomes import Judgement
from matrix.spec.tables import SchemeTable
from tests.unit import real_checkpoints as real
from tests.unit.made_evidence import AWQ, GPTQ, THRESHOLDS, made_inspection

replace = msgspec.structs.replace
AWQ_4 = SchemeTable(format=Format.AWQ, bits=4, group_size=64)
GPTQ_4 = SchemeTable(format=Format.GPTQ, bits=4, group_size=64)
PACKED_4 = SchemeTable(format=Format.PACK_QUANTIZED, bits=4, group_size=64)
INT8 = SchemeTable(format=Format.INT_QUANTIZED, bits=8, group_size=-1, activations="int8")
MADE = {
    "auto-gptq-0.7.1-4bit-g64": GPTQ_4,
    "auto-gptq-0.7.1-4bit-g64-desc_act": replace(GPTQ_4, desc_act=True),
    "auto-round-0.16.1-awq-4bit-g64": AWQ_4,
    "autoawq-0.2.7-4bit-g64": AWQ_4,
    "autoawq-0.2.9-4bit-g64": AWQ_4,
    "autoawq-0.2.9-4bit-g64-stock": AWQ_4,
    "gptqmodel-7.6.0-4bit-g64": GPTQ_4,
    "gptqmodel-7.6.0-8bit-g128": replace(GPTQ_4, bits=8, group_size=128),
    "llmcompressor-0.14.0.1-awq-4bit-g64": replace(PACKED_4, sym=False),
    "llmcompressor-0.14.0.1-fp8": SchemeTable(
        format=Format.FLOAT_QUANTIZED, bits=8, group_size=-1, activations="fp8"
    ),
    "llmcompressor-0.14.0.1-gptq-4bit-g64": PACKED_4,
    "llmcompressor-0.14.0.1-w8a8": INT8,
}


def judged(inspection: Inspection, meant: SchemeTable | None) -> Opinion:
    """Return what the check says of a file that was to be of a scheme."""
    evidence = Evidence(
        tied=True, quantized=True, thresholds=THRESHOLDS, inspection=inspection, scheme=meant
    )
    return scheme(evidence)


@pytest.mark.parametrize("name", MADE)
def test_a_real_file_is_of_its_own_scheme_and_of_no_other(name: str) -> None:
    inspection = inspect(real.FOLDER / name)
    assert judged(inspection, MADE[name]).judgement is Judgement.PASSED
    others = [other for other in MADE.values() if other != MADE[name]]
    wrong = [judged(inspection, other) for other in others]
    assert {opinion.judgement for opinion in wrong} == {Judgement.FAILED}
    assert {opinion.value for opinion in wrong} == {len(inspection.modules)}


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("llmcompressor-0.14.0.1-gptq-4bit-g64", {"sym": False},
         "symmetric, not asymmetric"),
        ("llmcompressor-0.14.0.1-awq-4bit-g64", {"sym": True},
         "asymmetric, not symmetric"),
        ("autoawq-0.2.9-4bit-g64", {"zero_point": False}, "asymmetric, not symmetric"),
        ("autoawq-0.2.9-4bit-g64", {"version": "GEMV"}, "version gemm, not GEMV"),
        ("auto-gptq-0.7.1-4bit-g64", {"sym": False}, "symmetric, not asymmetric"),
        ("auto-gptq-0.7.1-4bit-g64", {"group_size": 128}, "groups of 64, not 128"),
        ("auto-gptq-0.7.1-4bit-g64", {"group_size": -1},
         "groups of 64, not a whole row"),
        ("auto-gptq-0.7.1-4bit-g64", {"desc_act": True}, "desc_act false, not true"),
        ("gptqmodel-7.6.0-4bit-g64", {"format": Format.GPTQ_V2},
         "stored as gptq, not gptq_v2"),
        ("gptqmodel-7.6.0-8bit-g128", {"bits": 4}, "8 bits, not 4"),
        ("llmcompressor-0.14.0.1-w8a8", {"activations": ""},
         "inputs rounded to int8, not as they are"),
        ("llmcompressor-0.14.0.1-w8a8", {"format": Format.NAIVE_QUANTIZED},
         "stored as compressed-tensors int-quantized, not naive-quantized"),
        ("auto-round-0.16.1-awq-4bit-g64", {"format": Format.GPTQ},
         "stored as awq, not gptq"),
    ],
)  # fmt: skip
def test_a_difference_is_named(name: str, changes: dict[str, Any], message: str) -> None:
    opinion = judged(inspect(real.FOLDER / name), replace(MADE[name], **changes))
    assert opinion.judgement is Judgement.FAILED
    assert opinion.message.startswith(message), opinion.message


def test_a_layer_of_another_scheme_is_counted() -> None:
    good = made_inspection(GPTQ)
    first, *others = good.modules
    odd = replace(good, modules=[replace(first, group_size=128), *others])
    opinion = judged(odd, GPTQ_4)
    assert opinion.value == 1
    assert opinion.message.startswith("groups of 128, not 64 (1 of 14 layers). Quantize")


def test_a_row_shorter_than_a_group_is_one() -> None:
    good = made_inspection(GPTQ)
    short = replace(good, modules=[replace(good.modules[0], inputs=32, group_size=32)])
    assert judged(short, GPTQ_4).judgement is Judgement.PASSED


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        (Quantization("compressed-tensors", 8, checkpoint_format="int-quantized",
                      activations="int8"), "stored as compressed-tensors int-quantized, not"),
        (Quantization("compressed-tensors", 4, checkpoint_format="pack-quantized",
                      strategy="tensor"), "a scale for each tensor"),
    ],
)  # fmt: skip
def test_of_a_file_in_which_nothing_is_packed_the_config_is_judged(
    stated: Quantization, message: str
) -> None:
    nothing = replace(made_inspection(AWQ), quantization=stated, modules=[])
    opinion = judged(nothing, PACKED_4)
    assert (opinion.judgement, opinion.value) == (Judgement.FAILED, 1)
    assert message in opinion.message


def test_users_own_files_and_float_models_have_no_scheme_to_be_of() -> None:
    with pytest.raises(NotApplicableError, match="no scheme is named"):
        judged(made_inspection(GPTQ), None)
    with pytest.raises(NotApplicableError, match="names no scheme"):
        judged(made_inspection(None), GPTQ_4)
