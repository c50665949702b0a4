from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from matrix.checkpoint.inspection import (
    Inspection,
    PackedLinearInfo,
    Problem,
    Quantization,
    TokenizerFacts,
    WeightComparison,
)
from matrix.checks import CHECKS, judge
from matrix.checks.evidence import Evidence
from matrix.outcomes import Finding, Judgement, Stage
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

replace = msgspec.structs.replace
L0 = "model.layers.0"
UP = f"{L0}.mlp.up_proj"
FAILED, DEGRADED, NOTICE = Judgement.FAILED, Judgement.DEGRADED, Judgement.NOTICE
PASSED, ABSENT = Judgement.PASSED, Judgement.NOT_APPLICABLE
Damage = Callable[[Inspection], Inspection]

GPTQ_8 = replace(GPTQ, bits=8, group_size=128)
DESC_ACT = replace(GPTQ, desc_act=True)
V2 = replace(GPTQ, checkpoint_format="gptq_v2")


def findings(inspection: Inspection | None, **changes: Any) -> dict[str, Finding]:
    evidence = replace(made_evidence(), inspection=inspection, **changes)
    return {found.check: found for found in judge(evidence, Stage.INSPECT)}


def fired(inspection: Inspection, **changes: Any) -> dict[str, Judgement]:
    return alarms(list(findings(inspection, **changes).values()))


def test_ids_and_stages_are_the_functions_own() -> None:
    evidence = Evidence(tied=True, quantized=True, thresholds=THRESHOLDS)
    for check in CHECKS:
        found = check.function(evidence)
        assert (found.check, found.stage) == (check.id, check.stage)
        assert found.judgement is ABSENT
        assert check.title.endswith(".")
    assert len({check.id for check in CHECKS}) == len(CHECKS)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.id)
def test_a_docstring_says_what_it_is_for(check: Any) -> None:
    text = check.function.__doc__
    assert "Protects from" in text or "Answers" in text
    assert "Value: " in text.replace("\n    ", " ")
    assert "https://" in text


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("said", [None, AWQ, GPTQ, GPTQ_8, DESC_ACT, V2])
def test_quiet_on_what_is_good(said: Quantization | None, tied: bool) -> None:
    evidence = made_evidence(said, tied=tied)
    assert alarms(judge(evidence)) == {}
    without_reference = replace(evidence, reference=None, generation=None, load=None)
    assert alarms(judge(without_reference)) == {}


def change_module(**changes: Any) -> Damage:
    def damage(inspection: Inspection) -> Inspection:
        modules = [replace(m, **changes) if m.name == UP else m for m in inspection.modules]
        return replace(inspection, modules=modules)

    return damage


def change_every_module(**changes: Any) -> Damage:
    def damage(inspection: Inspection) -> Inspection:
        return replace(inspection, modules=[replace(m, **changes) for m in inspection.modules])

    return damage


def change(**changes: Any) -> Damage:
    return lambda inspection: replace(inspection, **changes)


def change_said(**changes: Any) -> Damage:
    def damage(inspection: Inspection) -> Inspection:
        assert inspection.quantization is not None
        return replace(inspection, quantization=replace(inspection.quantization, **changes))

    return damage


def change_weight(name: str, **changes: Any) -> Damage:
    def damage(inspection: Inspection) -> Inspection:
        assert name in [weight.name for weight in inspection.weights]
        weights = [replace(w, **changes) if w.name == name else w for w in inspection.weights]
        return replace(inspection, weights=weights)

    return damage


def lose_norm(inspection: Inspection) -> Inspection:
    tensors = [t for t in inspection.tensors if t.name != "model.norm.weight"]
    return replace(inspection, tensors=tensors, missing=["model.norm.weight"])


def lose_embedding(inspection: Inspection) -> Inspection:
    tensors = [t for t in inspection.tensors if t.name != "model.embed_tokens.weight"]
    return replace(inspection, tensors=tensors, embedding=False)


def leave_unpacked(inspection: Inspection) -> Inspection:
    tensors = [t for t in inspection.tensors if not t.name.startswith(f"{UP}.")]
    modules = [module for module in inspection.modules if module.name != UP]
    unpacked = replace(inspection, tensors=tensors, modules=modules)
    return add_tensor(unpacked, f"{UP}.weight", [512, 256])


def pack_the_head(inspection: Inspection) -> Inspection:
    modules = [*inspection.modules, replace(inspection.modules[0], name="lm_head")]
    return replace(inspection, modules=modules)


def embed_in_float32(inspection: Inspection) -> Inspection:
    return retype(inspection, "model.embed_tokens.weight", "F32")


def add_bias(name: str, **changes: Any) -> Damage:
    return lambda inspection: add_tensor(inspection, name, [512], **changes)


BIAS = f"{UP}.bias"


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
            change_said(bits=8),
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
            lambda good: add_tensor(good, "lm_head.weight", [512, 256], head=True),
            {"stored-size": NOTICE},
            "262 kB are the tied embedding again, as lm_head.weight",
        ),
        (
            lambda good: add_tensor(good, "model.layers.0.extra", [512, 256]),
            {"stored-size": DEGRADED},
            "262 kB are unaccounted for",
        ),
        (change_module(not_finite_scales=2), {"scales": FAILED}, "2 scales that are not finite"),
        (change_module(zero_scales=3), {"scales": FAILED}, "3 scales that are 0 under codes"),
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
            change_said(checkpoint_format="gptq_v2"),
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
            change_said(group_size=96),
            {"group-size": FAILED},
            "has 256 inputs, no multiple of the group size 96",
        ),
        (
            change_said(group_size=128),
            {"group-size": FAILED},
            "has groups of 64 where config.json says 128",
        ),
        (change_module(group_order="wrong"), {"group-size": FAILED}, "has a g_idx that gives no"),
        (
            change_module(group_order="permuted"),
            {"group-size": FAILED},
            "has a permuted g_idx, though config.json says nothing of desc_act",
        ),
        (change_weight(UP, error=0.31), {"weights-match": FAILED}, "differs by 0.31"),
        (change_weight(UP, ratio=1.06), {"weights-match": FAILED}, "has scale 1.060"),
        (change_weight(UP, group=0.05), {"weights-match": FAILED}, "at least 5 % off"),
        (change_weight(UP, offset=0.98), {"weights-match": FAILED}, "0.98 steps off in the mean"),
        (change_weight(UP, row=0.7), {"weights-match": FAILED}, "has a row's scale 0.700"),
        (change_weight(UP, column=1.3), {"weights-match": FAILED}, "has a column's scale 1.300"),
        (
            change_weight("model.norm.weight", error=0.02),
            {"weights-match": FAILED},
            "model.norm.weight differs by 0.02 of its size (bound 0.01)",
        ),
        (
            change_weight(UP, error=None, note="is 3-bit odd"),
            {"weights-match": FAILED},
            f"{UP} could not be compared: is 3-bit odd",
        ),
        (change_weight(UP, not_finite=4), {"weights-match": FAILED}, "4 values that are not"),
        (change(weights=[]), {"weights-match": FAILED}, "no weight could be compared"),
        (
            change(config=replace(CONFIG, rope_theta=False, rope_parameters=True)),
            {"config-drift": NOTICE},
            "rope_parameters and no rope_theta",
        ),
        (
            change(config=replace(CONFIG, dtype="float16", torch_dtype=None)),
            {"config-drift": NOTICE},
            "dtype and no torch_dtype",
        ),
        (
            change(tokenizer=TokenizerFacts(tokenizer_class="TokenizersBackend")),
            {"tokenizer-drift": NOTICE},
            "tokenizer_class is one of transformers 5",
        ),
        (
            change(tokenizer=TokenizerFacts(merges="pairs")),
            {"tokenizer-drift": NOTICE},
            "merges are written as pairs",
        ),
    ],
)
def test_fires_on_its_planted_defect_alone(
    damage: Damage, expected: dict[str, Judgement], message: str
) -> None:
    damaged = damage(made_inspection())
    assert fired(damaged) == expected
    assert any(message in one.message for one in findings(damaged).values())


@pytest.mark.parametrize(
    ("missing", "embedding", "head"),
    [("lm_head.weight", True, False), ("model.embed_tokens.weight", False, True)],
)
def test_untied_needs_both(missing: str, embedding: bool, head: bool) -> None:
    good = made_inspection(tied=False)
    tensors = [tensor for tensor in good.tensors if tensor.name != missing]
    damaged = replace(good, tensors=tensors, embedding=embedding, head=head)
    assert fired(damaged, tied=False) == {"tied-embedding": FAILED, "stored-size": FAILED}
    assert findings(damaged, tied=False)["tied-embedding"].message.endswith(f"{missing} is missing")


def test_head_in_the_place_of_a_tied_embedding_has_its_size() -> None:
    lost = replace(lose_embedding(made_inspection()), head=True)
    damaged = add_tensor(lost, "lm_head.weight", [512, 256])
    assert fired(damaged) == {"tied-embedding": NOTICE}


def test_float_model_has_nothing_packed() -> None:
    evidence = replace(made_evidence(), quantized=False)
    found = {one.check: one for one in judge(evidence, Stage.INSPECT)}["packed-layers"]
    assert found.judgement is FAILED
    assert "packed, but should not be" in found.message
    assert "config.json of the float model has a quantization_config" in found.message


def test_nothing_packed_of_an_unknown_model_is_seen() -> None:
    empty = replace(made_inspection(), linears=[], modules=[])
    assert findings(empty)["packed-layers"].message == "nothing is packed"
    unknown = replace(made_inspection(), linears=[])
    assert findings(unknown)["packed-layers"].judgement is PASSED
    assert "is not known" in findings(unknown)["packed-layers"].message


def test_a_head_that_config_says_is_packed_is_no_fault() -> None:
    head = pack_the_head(change_said(lm_head=True)(made_inspection()))
    assert findings(head)["packed-layers"].judgement is PASSED


def test_formats_are_told() -> None:
    message = findings(made_inspection(AWQ))["stored-formats"].message
    assert message == (
        "4.31 bits per weight in 14 packed layers; biases, embed_tokens, norms in F16"
    )
    assert findings(made_inspection(None))["stored-formats"].message.startswith("nothing packed; ")


def test_zero_biases_are_named_and_tolerated() -> None:
    biases = [f"{module.name}.bias" for module in made_inspection().modules if "mlp" in module.name]
    found = made_inspection()
    for name in biases:
        found = add_tensor(found, name, [100_000], zero_tensors=biases)
    assert fired(found) == {}
    said = findings(found)
    assert said["checkpoint-complete"].message == "6 unexpected tensors all zero (harmless)"
    assert "1.2 MB are zero tensors" in said["stored-size"].message


def test_rotary_buffers_of_old_files_are_no_fault() -> None:
    name = f"{L0}.self_attn.rotary_emb.inv_freq"
    found = add_tensor(made_inspection(), name, [32], "F32", unexpected=[name])
    assert fired(found) == {"checkpoint-complete": NOTICE}


def test_a_left_out_index_is_no_loss() -> None:
    good = made_inspection()
    tensors = [tensor for tensor in good.tensors if not tensor.name.endswith(".g_idx")]
    assert fired(replace(good, tensors=tensors)) == {}


def test_size_of_an_unknown_model_is_not_judged() -> None:
    found = findings(replace(made_inspection(), expected_bytes=None))["stored-size"]
    assert (found.judgement, found.value) == (ABSENT, None)


def test_a_second_copy_matters_to_engines_that_stop_at_it() -> None:
    both = add_tensor(made_inspection(), "lm_head.weight", [512, 256], head=True)
    assert fired(both, engine={"sglang": "0.4.1"}) == {"stored-size": NOTICE}
    assert fired(both, engine={"transformers": "4.51.3"}) == {}


@pytest.mark.parametrize(("sym", "judgement"), [(False, PASSED), (None, PASSED), (True, FAILED)])
def test_asymmetric_zeros_may_be_anything(sym: bool | None, judgement: Judgement) -> None:
    every = change_every_module(zero_points={str(n): 4 for n in range(16)})(made_inspection())
    assert findings(change_said(sym=sym)(every))["zero-points"].judgement is judgement


def test_where_sym_is_not_said_one_zero_for_all_is_taken_for_symmetric() -> None:
    unsaid = change_said(sym=None)(made_inspection())
    assert fired(unsaid) == {}
    assert fired(change_every_module(zero_points={"8": 64})(unsaid)) == {"zero-points": FAILED}


def test_permuted_groups_belong_to_desc_act() -> None:
    permuted = change_every_module(group_order="permuted")
    assert fired(permuted(made_inspection(DESC_ACT))) == {}


def test_one_group_a_row_is_written_as_minus_one() -> None:
    whole = [replace(m, group_size=m.inputs) for m in made_inspection().modules]
    found = replace(change_said(group_size=-1)(made_inspection()), modules=whole)
    assert findings(found)["group-size"].judgement is PASSED


def odd_groups(intermediate: int) -> Inspection:
    good = made_inspection(GPTQ)
    return replace(good, config=replace(CONFIG, intermediate_size=intermediate, heads=8))


@pytest.mark.parametrize(
    ("intermediate", "size", "judgement", "value"),
    [(448, 1, PASSED, 1), (448, 2, NOTICE, 1), (512, 4, PASSED, 4), (512, 8, NOTICE, 4)],
)
def test_tensor_parallel(intermediate: int, size: int, judgement: Judgement, value: int) -> None:
    found = findings(odd_groups(intermediate), tensor_parallel=size)["tensor-parallel"]
    assert (found.judgement, found.value) == (judgement, value)
    assert ("224 inputs of down_proj" in found.message) == (intermediate == 448)
    assert fired(odd_groups(intermediate), tensor_parallel=size).keys() <= {"tensor-parallel"}


def test_tensor_parallel_of_an_unknown_model_is_not_judged() -> None:
    unknown = replace(made_inspection(), config=replace(CONFIG, model_type="mamba"))
    assert findings(unknown, tensor_parallel=2)["tensor-parallel"].judgement is ABSENT


@pytest.mark.parametrize(
    ("engine", "config", "tokenizer"),
    [
        ({}, NOTICE, NOTICE),
        ({"transformers": "4.51.3", "tokenizers": "0.21.1"}, NOTICE, NOTICE),
        ({"transformers": "5.23.0", "tokenizers": "0.22.1"}, PASSED, PASSED),
        ({"transformers": "5.0.0rc1", "tokenizers": "0.19.1"}, NOTICE, NOTICE),
        ({"transformers": "not a version"}, NOTICE, NOTICE),
        ({"llama-cpp-python": "0.3"}, PASSED, PASSED),
    ],
)
def test_drift_concerns_readers_older_than_the_writer(
    engine: dict[str, str], config: Judgement, tokenizer: Judgement
) -> None:
    drifted = replace(
        made_inspection(),
        config=replace(CONFIG, rope_theta=False, rope_parameters=True),
        tokenizer=TokenizerFacts(tokenizer_class="TokenizersBackend", merges="pairs"),
    )
    found = findings(drifted, engine=engine)
    assert found["config-drift"].judgement is config
    assert found["tokenizer-drift"].judgement is tokenizer
    assert (found["config-drift"].value, found["tokenizer-drift"].value) == (1, 2)


def test_a_config_in_both_forms_is_read_by_all() -> None:
    both = replace(CONFIG, rope_parameters=True, dtype="float16")
    found = findings(replace(made_inspection(), config=both))["config-drift"]
    assert (found.judgement, found.value) == (PASSED, 0)


def test_weights_of_awq_and_gptq_have_their_own_bounds() -> None:
    between = change_weight(UP, error=0.27)
    assert fired(between(made_inspection(GPTQ))) == {}
    assert fired(between(made_inspection(AWQ))) == {"weights-match": FAILED}
    group = change_weight(UP, group=0.004)
    assert fired(group(made_inspection(GPTQ))) == {}
    assert fired(group(made_inspection(AWQ))) == {"weights-match": FAILED}


def test_without_an_original_no_weight_is_judged() -> None:
    alone = replace(made_inspection(), compared=False, weights=[])
    assert findings(alone)["weights-match"].judgement is ABSENT


@pytest.mark.parametrize(
    "inspection",
    [
        Inspection(),
        Inspection(compared=True, quantization=Quantization("gptq")),
        Inspection(
            quantization=Quantization("gptq", bits=4, group_size=0),
            modules=[PackedLinearInfo(name="m")],
            weights=[WeightComparison(name="m", packed=True)],
            expected_bytes=1,
        ),
    ],
)
def test_an_inspection_that_found_little_is_judged(inspection: Inspection) -> None:
    assert FAILED in fired(inspection).values()


def test_what_config_does_not_say_is_not_held_against_a_file() -> None:
    good = made_inspection(AWQ)
    assert findings(good, tied=None)["tied-embedding"].judgement is Judgement.NOT_APPLICABLE
    other_names = replace(good, embedding=False, head=False, linears=[])
    said = findings(other_names, tied=True)["tied-embedding"]
    assert said.judgement is Judgement.NOT_APPLICABLE
    for size in (None, 0):
        unsaid = change_said(group_size=size)(good)
        assert findings(unsaid)["group-size"].judgement is Judgement.PASSED


def test_layers_that_the_config_leaves_out_need_not_be_packed() -> None:
    lost = leave_unpacked(made_inspection())
    assert "packed-layers" in fired(lost)
    declared = replace(lost, left_out=sorted(set(lost.linears) - {m.name for m in lost.modules}))
    assert declared.left_out
    assert findings(declared)["packed-layers"].judgement is PASSED
