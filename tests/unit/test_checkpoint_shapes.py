from __future__ import annotations

import math

import msgspec
import pytest

from matrix.checkpoint.inspection import ConfigFacts, Quantization
from matrix.checkpoint.shapes import (
    expected_bytes,
    float_shapes,
    indivisible,
    linear_shapes,
    packed_parts,
    tensor_parallel_problem,
)

QWEN2 = ConfigFacts(
    model_type="qwen2", hidden_size=3584, intermediate_size=18944, layers=28, heads=28,
    key_value_heads=4, vocabulary=152_064,
)  # fmt: skip
GPTQ = Quantization("gptq", 4, 128, desc_act=False)


def changed(config: ConfigFacts, **values: object) -> ConfigFacts:
    return msgspec.structs.replace(config, **values)


def test_qwen2_7b_has_the_parameters_it_is_known_for() -> None:
    shapes = float_shapes(QWEN2, tied=False)
    assert sum(math.prod(shape) for shape in shapes.values()) == 7_615_616_512
    assert shapes["model.layers.27.self_attn.k_proj.bias"] == (512,)
    assert "model.layers.0.self_attn.o_proj.bias" not in shapes
    assert expected_bytes(QWEN2, False, None) == 2 * 7_615_616_512
    assert len(linear_shapes(QWEN2)) == 28 * 7


def test_qwen3_has_norms_of_queries_and_keys_and_a_head_of_its_own_size() -> None:
    config = changed(QWEN2, model_type="qwen3", hidden_size=1024, heads=16, key_value_heads=8)
    shapes = float_shapes(config, tied=True)
    assert shapes["model.layers.0.self_attn.q_norm.weight"] == (128,)
    assert shapes["model.layers.0.self_attn.q_proj.weight"] == (2048, 1024)
    assert shapes["model.layers.0.self_attn.o_proj.weight"] == (1024, 2048)
    assert not any(name.endswith(".bias") for name in shapes)
    assert "lm_head.weight" not in shapes


def test_llama_has_biases_where_its_config_says_so() -> None:
    config = changed(QWEN2, model_type="llama")
    assert not any(name.endswith(".bias") for name in float_shapes(config, tied=False))
    shapes = float_shapes(changed(config, attention_bias=True, mlp_bias=True), tied=False)
    assert sum(name.endswith(".bias") for name in shapes) == 28 * 7


@pytest.mark.parametrize(
    "values",
    [
        {"model_type": "qwen2_moe"},
        {"model_type": None},
        {"hidden_size": None},
        {"heads": 0},
        {"layers": -1},
        {"layers": 10**9},
        {"intermediate_size": 10**12},
        {"vocabulary": None},
    ],
)
def test_of_other_models_nothing_is_claimed(values: dict[str, object]) -> None:
    config = changed(QWEN2, **values)
    assert linear_shapes(config) == {}
    assert float_shapes(config, tied=False) == {}
    assert expected_bytes(config, False, GPTQ) is None
    assert tensor_parallel_problem(config, GPTQ, 3) == ""


def test_expected_bytes_of_packed_parts() -> None:
    config = changed(
        QWEN2, hidden_size=256, intermediate_size=512, layers=3, heads=4, key_value_heads=2,
        vocabulary=512,
    )  # fmt: skip
    # As the real files of gptqmodel 7.6.0 (4 bits, group 64) and autoawq 0.2.9 have it.
    scheme = Quantization("gptq", 4, 64)
    assert expected_bytes(config, True, scheme) == 1_247_232
    assert expected_bytes(config, False, scheme) == 1_247_232 + 2 * 512 * 256
    assert expected_bytes(config, True, Quantization("gptq", 8, 128)) == 2_104_320
    index = 4 * 3 * (6 * 256 + 512)
    assert expected_bytes(config, True, Quantization("awq", 4, 64)) == 1_247_232 - index
    assert expected_bytes(config, True, Quantization("fp8")) is None


@pytest.mark.parametrize("values", [{"bits": None}, {"bits": 0}, {"group_size": None}])
def test_of_an_unknown_scheme_no_size_is_claimed(values: dict[str, object]) -> None:
    assert expected_bytes(QWEN2, False, GPTQ) is not None
    assert expected_bytes(QWEN2, False, msgspec.structs.replace(GPTQ, **values)) is None


def test_packed_head_is_counted_as_packed() -> None:
    scheme = Quantization("gptq", 4, 128, lm_head=True)
    plain, packed = expected_bytes(QWEN2, False, GPTQ), expected_bytes(QWEN2, False, scheme)
    assert plain is not None
    assert packed is not None
    assert 1.4 * 152_064 * 3584 < plain - packed < 1.5 * 152_064 * 3584


def test_order_of_groups_is_required_by_desc_act_alone() -> None:
    assert packed_parts(GPTQ) == ("qweight", "qzeros", "scales")
    assert packed_parts(Quantization("gptq", 4, 128, desc_act=True))[-1] == "g_idx"


def test_groups_that_do_not_divide() -> None:
    shapes = linear_shapes(changed(QWEN2, intermediate_size=13696 + 64, layers=1))
    assert indivisible(shapes, 128) == ["model.layers.0.mlp.down_proj"]
    assert indivisible(shapes, 64) == []
    assert indivisible(shapes, -1) == []


@pytest.mark.parametrize(
    ("values", "scheme", "devices", "message"),
    [
        ({}, GPTQ, 1, ""),
        ({}, GPTQ, 2, ""),
        ({}, GPTQ, 4, ""),
        ({}, GPTQ, 8, "28 attention heads are not divisible by 8"),
        ({"heads": 14, "hidden_size": 896, "key_value_heads": 2}, GPTQ, 4, "14 attention heads"),
        ({"heads": 12, "key_value_heads": 2, "intermediate_size": 9216}, None, 6, ""),
        ({"heads": 12, "key_value_heads": 4}, None, 6, "4 key-value heads"),
        # Qwen1.5-14B: 13696 = 107 x 128, padded to 14336 = 112 x 128 in the published GPTQ.
        ({"intermediate_size": 13696}, GPTQ, 2, "6848 inputs of down_proj"),
        ({"intermediate_size": 13696}, Quantization("gptq", 4, 64), 2, ""),
        ({"intermediate_size": 13696}, Quantization("gptq", 4, -1), 4, ""),
        ({"intermediate_size": 13696}, None, 4, ""),
        ({"intermediate_size": 14336}, GPTQ, 4, ""),
        ({"intermediate_size": 13698}, None, 4, "intermediate_size 13698"),
        ({"intermediate_size": 13692}, GPTQ, 2, "6846 outputs of gate_proj and up_proj"),
    ],
)
def test_tensor_parallel(
    values: dict[str, object], scheme: Quantization | None, devices: int, message: str
) -> None:
    problem = tensor_parallel_problem(changed(QWEN2, **values), scheme, devices)
    assert problem.startswith(message)
    assert bool(problem) == bool(message)
