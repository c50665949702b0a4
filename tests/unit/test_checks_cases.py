"""What the checks of an inspection say of single cases between good and bad."""

from __future__ import annotations

import pytest

from matrix.checkpoint.inspection import (
    Inspection,
    PackedLinearInfo,
    Quantization,
    TokenizerFacts,
    WeightComparison,
)
from matrix.checks import run_checks
from matrix.pipeline.outcomes import Judgement
from matrix.pipeline.steps import Stage
from tests.unit.inspection_damage import (
    ABSENT,
    DESC_ACT,
    FAILED,
    L0,
    NOTICE,
    PASSED,
    UP,
    change_every_module,
    change_quantization,
    change_weight,
    findings,
    fired,
    leave_unpacked,
    lose_embedding,
    pack_the_head,
    replace,
)
from tests.unit.made_evidence import (
    AWQ,
    CONFIG,
    GPTQ,
    add_tensor,
    made_evidence,
    made_inspection,
    made_load,
)


@pytest.mark.parametrize(
    ("missing", "embedding", "head"),
    [("lm_head.weight", True, False), ("model.embed_tokens.weight", False, True)],
)
def test_an_untied_model_needs_embedding_and_head(
    missing: str, embedding: bool, head: bool
) -> None:
    good = made_inspection(tied=False)
    tensors = [tensor for tensor in good.tensors if tensor.name != missing]
    damaged = replace(good, tensors=tensors, embedding=embedding, head=head)
    assert fired(damaged, tied=False) == {"tied-embedding": FAILED, "stored-size": FAILED}
    assert findings(damaged, tied=False)["tied-embedding"].message.endswith(
        f"{missing} is missing. Copy it from the float model"
    )


def test_head_in_the_place_of_a_tied_embedding_has_its_size() -> None:
    lost = replace(lose_embedding(made_inspection()), head=True)
    damaged = add_tensor(lost, "lm_head.weight", [512, 256])
    assert fired(damaged) == {"tied-embedding": NOTICE}


def test_float_model_has_nothing_packed() -> None:
    evidence = replace(made_evidence(), quantized=False)
    finding = {f.check: f for f in run_checks(evidence, Stage.INSPECT)}["packed-layers"]
    assert finding.judgement is FAILED
    assert "packed, but should not be" in finding.message
    assert "config.json of the float model has a quantization_config" in finding.message


def test_nothing_packed_of_an_unknown_model_is_seen() -> None:
    empty = replace(made_inspection(), linears=[], modules=[])
    assert findings(empty)["packed-layers"].message == (
        "nothing is packed. Give the quantized model"
    )
    unknown = replace(made_inspection(), linears=[])
    assert findings(unknown)["packed-layers"].judgement is PASSED
    assert "is not known" in findings(unknown)["packed-layers"].message


def test_an_untied_copy_of_a_tied_head_is_told_and_no_fault() -> None:
    """llm-compressor 0.7.1 and 0.8.1 leave tied models so."""
    untied = replace(made_inspection(tied=False), tie_word_embeddings=False)
    assert fired(untied, tied=True, load=made_load(untied)) == {"tied-embedding": NOTICE}
    load = run_checks(replace(made_evidence(), inspection=untied, load=made_load(untied)))
    assert {f.check: f for f in load}["load-memory"].value == 1.0
    lost = replace(untied, head=False)
    assert findings(lost, tied=True)["tied-embedding"].judgement is FAILED


def test_a_head_that_config_says_is_packed_is_no_fault() -> None:
    head = pack_the_head(change_quantization(lm_head=True)(made_inspection()))
    assert findings(head)["packed-layers"].judgement is PASSED


def test_formats_are_told() -> None:
    message = findings(made_inspection(AWQ))["stored-formats"].message
    assert message == (
        "awq, 4.31 bits per weight in 14 packed layers; biases, embed_tokens, norms in F16"
    )
    assert findings(made_inspection(None))["stored-formats"].message.startswith("nothing packed; ")


def test_zero_biases_are_named_and_tolerated() -> None:
    biases = [f"{module.name}.bias" for module in made_inspection().modules if "mlp" in module.name]
    inspection = made_inspection()
    for name in biases:
        inspection = add_tensor(inspection, name, [100_000], zero_tensors=biases)
    assert fired(inspection) == {}
    by_check = findings(inspection)
    assert by_check["checkpoint-complete"].message == "6 unexpected tensors all zero (harmless)"
    assert "1.2 MB are zero tensors" in by_check["stored-size"].message


def test_rotary_buffers_of_old_files_are_no_fault() -> None:
    name = f"{L0}.self_attn.rotary_emb.inv_freq"
    inspection = add_tensor(made_inspection(), name, [32], "F32", unexpected=[name])
    assert fired(inspection) == {"checkpoint-complete": NOTICE}


def test_a_left_out_index_is_no_loss() -> None:
    good = made_inspection()
    tensors = [tensor for tensor in good.tensors if not tensor.name.endswith(".g_idx")]
    assert fired(replace(good, tensors=tensors)) == {}


def test_size_of_an_unknown_model_is_not_judged() -> None:
    finding = findings(replace(made_inspection(), expected_bytes=None))["stored-size"]
    assert (finding.judgement, finding.value) == (ABSENT, None)


def test_a_second_copy_matters_to_engines_that_stop_at_it() -> None:
    with_copy = add_tensor(made_inspection(), "lm_head.weight", [512, 256], head=True)
    assert fired(with_copy, engine={"sglang": "0.4.1"}) == {"stored-size": NOTICE}
    assert fired(with_copy, engine={"transformers": "4.51.3"}) == {}


@pytest.mark.parametrize(("sym", "judgement"), [(False, PASSED), (None, PASSED), (True, FAILED)])
def test_asymmetric_zeros_may_be_anything(sym: bool | None, judgement: Judgement) -> None:
    every = change_every_module(zero_points={str(n): 4 for n in range(16)})(made_inspection())
    assert findings(change_quantization(sym=sym)(every))["zero-points"].judgement is judgement


def test_where_sym_is_not_said_one_zero_for_all_is_taken_for_symmetric() -> None:
    unsaid = change_quantization(sym=None)(made_inspection())
    assert fired(unsaid) == {}
    assert fired(change_every_module(zero_points={"8": 64})(unsaid)) == {"zero-points": FAILED}


def test_permuted_groups_belong_to_desc_act() -> None:
    permuted = change_every_module(group_order="permuted")
    assert fired(permuted(made_inspection(DESC_ACT))) == {}


def test_one_group_a_row_is_written_as_minus_one() -> None:
    whole = [replace(m, group_size=m.inputs) for m in made_inspection().modules]
    inspection = replace(change_quantization(group_size=-1)(made_inspection()), modules=whole)
    assert findings(inspection)["group-size"].judgement is PASSED


def odd_groups(intermediate: int) -> Inspection:
    good = made_inspection(GPTQ)
    return replace(good, config=replace(CONFIG, intermediate_size=intermediate, heads=8))


@pytest.mark.parametrize(
    ("intermediate", "size", "judgement", "value"),
    [(448, 1, PASSED, 1), (448, 2, NOTICE, 1), (512, 4, PASSED, 4), (512, 8, NOTICE, 4)],
)
def test_tensor_parallel(intermediate: int, size: int, judgement: Judgement, value: int) -> None:
    finding = findings(odd_groups(intermediate), tensor_parallel=size)["tensor-parallel"]
    assert (finding.judgement, finding.value) == (judgement, value)
    assert ("224 inputs of down_proj" in finding.message) == (intermediate == 448)
    assert fired(odd_groups(intermediate), tensor_parallel=size).keys() <= {"tensor-parallel"}


def test_tensor_parallel_of_an_unknown_model_is_not_judged() -> None:
    unknown = replace(made_inspection(), config=replace(CONFIG, model_type="mamba"))
    assert findings(unknown, tensor_parallel=2)["tensor-parallel"].judgement is ABSENT


@pytest.mark.parametrize(
    ("engine", "config", "tokenizer"),
    [
        ({}, PASSED, PASSED),
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
    by_check = findings(drifted, engine=engine)
    assert by_check["config-drift"].judgement is config
    assert by_check["tokenizer-drift"].judgement is tokenizer
    assert (by_check["config-drift"].value, by_check["tokenizer-drift"].value) == (1, 2)


def test_a_config_in_both_forms_is_read_by_all() -> None:
    config = replace(CONFIG, rope_parameters=True, dtype="float16")
    finding = findings(replace(made_inspection(), config=config))["config-drift"]
    assert (finding.judgement, finding.value) == (PASSED, 0)


def test_weights_of_awq_and_gptq_have_their_own_bounds() -> None:
    between = change_weight(UP, error=0.27)
    assert fired(between(made_inspection(GPTQ))) == {}
    strays = change_weight(UP, error=0.27, strays=1)
    assert fired(strays(made_inspection(AWQ))) == {"weights-match": FAILED}
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
    finding = findings(other_names, tied=True)["tied-embedding"]
    assert finding.judgement is Judgement.NOT_APPLICABLE
    for size in (None, 0):
        unsaid = change_quantization(group_size=size)(good)
        assert findings(unsaid)["group-size"].judgement is Judgement.PASSED


def test_layers_that_the_config_leaves_out_need_not_be_packed() -> None:
    lost = leave_unpacked(made_inspection())
    assert "packed-layers" in fired(lost)
    declared = replace(lost, left_out=sorted(set(lost.linears) - {m.name for m in lost.modules}))
    assert declared.left_out
    assert findings(declared)["packed-layers"].judgement is PASSED
