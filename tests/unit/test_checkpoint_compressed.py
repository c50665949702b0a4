"""Reading compressed-tensors: what the tests pack by its published layout comes out again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matrix.checkpoint import targets
from matrix.checkpoint.files import CheckpointFiles
from matrix.checkpoint.inspecting import inspect
from matrix.checkpoint.inspection import (
    CheckpointError,
    Inspection,
    PackedLinearInfo,
    Quantization,
)
from matrix.checkpoint.packed import PackedLinear, read_packed
from matrix.checkpoint.quantizing import QuantizationConfig
from matrix.checkpoint.tensors import Tensors
from matrix.checks.evidence import Evidence
from matrix.checks.formats import stored_formats
from matrix.checks.packing import group_size, zero_points
from matrix.pipeline.outcomes import Judgement
from tests.unit.made_evidence import THRESHOLDS

Array = npt.NDArray[Any]
Codes = npt.NDArray[np.uint8]
_DTYPES = {
    "I32": "<i4", "I64": "<i8", "I8": "i1", "U8": "u1", "F8_E4M3": "u1", "F16": "<f2", "F32": "<f4",
    "F64": "<f8",
}  # fmt: skip
Stored = dict[str, tuple[str, Array]]
HALVES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def pack(codes: Array, bits: int) -> Array:
    """Pack rows of codes into int32 words, the first in the lowest bits; fill up the last word."""
    per_word = 32 // bits
    spare = -codes.shape[1] % per_word
    whole = np.pad(codes, ((0, 0), (0, spare))).astype(np.uint64)
    words = np.zeros((len(codes), whole.shape[1] // per_word), np.uint64)
    for position in range(per_word):
        words |= whole[:, position::per_word] << np.uint64(bits * position)
    return words.astype(np.uint32).view(np.int32)


def write(folder: Path, stored: Stored, arguments: dict[str, Any], **config: Any) -> Path:
    """Write a checkpoint of these tensors; ``arguments`` are those of the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    header, body, end = {}, b"", 0
    for name, (dtype, array) in stored.items():
        data = np.ascontiguousarray(array, dtype=_DTYPES[dtype]).tobytes()
        start, end = end, end + len(data)
        header[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": [start, end]}
        body += data
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + body)
    quantization = {
        "quant_method": "compressed-tensors",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": arguments}},
        "ignore": ["lm_head"],
        "quantization_status": "compressed",
        **config,
    }
    text = json.dumps({"quantization_config": quantization}).encode()
    (folder / "config.json").write_bytes(text)
    return folder


def read(folder: Path, module: str = "m") -> PackedLinear:
    """Return a packed Linear of a checkpoint, as its own config.json says."""
    files = CheckpointFiles(folder)
    quantization = files.config().quantization
    assert quantization is not None
    return read_packed(Tensors(files), module, quantization)


sizes = st.tuples(st.integers(1, 40), st.integers(1, 5), st.sampled_from([8, 16, 24]))


@settings(deadline=None, max_examples=40)
@given(
    size=sizes,
    bits=st.sampled_from([4, 8]),
    points=st.sampled_from(["", "packed", "bytes"]),
    order=st.sampled_from(["", "group", "unset"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_packed_integers_come_out_again(
    tmp_path_factory: pytest.TempPathFactory,
    size: tuple[int, int, int],
    bits: int,
    points: str,
    order: str,
    seed: int,
) -> None:
    outputs, groups, group_size = size
    random = np.random.default_rng(seed)
    # The last group may be a shorter one, and a row end within a word.
    inputs = groups * group_size - (int(random.integers(0, group_size - 1)) if not order else 0)
    middle = 2 ** (bits - 1)
    values = random.integers(-middle, middle, (outputs, inputs))
    scales = random.uniform(0.5, 2, (outputs, groups)).astype(np.float16)
    zeros = random.integers(-middle, middle, (outputs, groups)) * bool(points)
    stored: Stored = {
        "m.weight_packed": ("I32", pack(values + middle, bits)),
        "m.weight_scale": ("F16", scales),
        "m.weight_shape": ("I64", np.array([outputs, inputs])),
    }
    if points == "packed":
        stored["m.weight_zero_point"] = ("I32", pack(zeros.T + middle, bits).T)
    elif points:
        stored["m.weight_zero_point"] = ("I8", zeros)
    group_of = np.arange(inputs) // group_size
    if order:
        random.shuffle(group_of)
        index = group_of if order == "group" else np.full(inputs, -1)
        group_of = group_of if order == "group" else np.arange(inputs) // group_size
        stored["m.weight_g_idx"] = ("I32", index)
    arguments = {
        "num_bits": bits, "group_size": group_size, "strategy": "group",
        "symmetric": not points, "actorder": "group" if order else None,
    }  # fmt: skip
    folder = write(tmp_path_factory.mktemp("c"), stored, arguments, format="pack-quantized")
    wanted = (values - zeros[:, group_of]) * scales.astype(np.float32)[:, group_of]
    linear = read(folder)
    assert linear.shape.group_size == group_size
    np.testing.assert_array_equal(linear.weight(), wanted)


@settings(deadline=None, max_examples=40)
@given(
    strategy=st.sampled_from(["channel", "tensor", "group", "block"]),
    is_float=st.booleans(),
    is_symmetric=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_bytes_come_out_again(
    tmp_path_factory: pytest.TempPathFactory,
    strategy: str,
    is_float: bool,
    is_symmetric: bool,
    seed: int,
) -> None:
    random = np.random.default_rng(seed)
    outputs, inputs = int(random.integers(2, 50)), 8 * int(random.integers(2, 12))
    shape = {
        "channel": (outputs, 1), "tensor": (1,), "group": (outputs, inputs // 8),
        "block": (-(-outputs // 16), -(-inputs // 16)),
    }[strategy]  # fmt: skip
    scales = random.uniform(0.5, 2, shape).astype(np.float32)
    stored_bytes = random.integers(0, 256, (outputs, inputs)).astype(np.uint8)
    if is_float:
        stored_bytes[stored_bytes & 0x7F == 0x7F] = 0
        values = e4m3(stored_bytes)
    else:
        values = stored_bytes.view(np.int8).astype(np.float32)
    stored: Stored = {
        "m.weight": ("F8_E4M3" if is_float else "I8", stored_bytes),
        "m.weight_scale": ("F32", scales),
    }
    zeros = np.zeros(shape, np.int64)
    if not is_symmetric and not is_float:
        zeros = random.integers(-128, 128, shape)
        stored["m.weight_zero_point"] = ("I8", zeros)
    arguments = {
        "num_bits": 8, "type": "float" if is_float else "int", "strategy": strategy,
        "symmetric": is_symmetric or is_float,
        "group_size": 8 if strategy == "group" else None,
        "block_structure": [16, 16] if strategy == "block" else None,
    }  # fmt: skip
    form = "naive-quantized" if seed % 2 else "float-quantized" if is_float else "int-quantized"
    folder = write(tmp_path_factory.mktemp("c"), stored, arguments, format=form)
    rows, columns = np.indices((outputs, inputs))
    wide = {
        "channel": (rows, columns * 0), "tensor": (rows * 0,), "group": (rows, columns // 8),
        "block": (rows // 16, columns // 16),
    }[strategy]  # fmt: skip
    wanted = (values - zeros[wide]).astype(np.float32) * scales[wide]
    np.testing.assert_array_equal(read(folder).weight(), wanted)


def e4m3(codes: Codes) -> Array:
    """Return the values of E4M3 codes, by the definition: 4 bits of exponent, bias 7."""
    sign = np.where(codes & 0x80, -1.0, 1.0)
    exponent, mantissa = codes >> 3 & 15, codes & 7
    normal = 2.0 ** (exponent.astype(int) - 7) * (1 + mantissa / 8)
    return (sign * np.where(exponent, normal, 2.0**-6 * mantissa / 8)).astype(np.float32)


def test_nvfp4_comes_out_again(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    codes = random.integers(0, 16, (24, 64)).astype(np.uint8)
    scales = random.integers(1, 0x7E, (24, 4)).astype(np.uint8)
    stored: Stored = {
        "m.weight_packed": ("U8", codes[:, ::2] | codes[:, 1::2] << 4),
        "m.weight_scale": ("F8_E4M3", scales),
        "m.weight_global_scale": ("F32", np.array([3.0])),
    }
    arguments = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}
    folder = write(tmp_path, stored, arguments, format="nvfp4-pack-quantized")
    values = np.array([*HALVES, *(-half for half in HALVES)])[codes]
    wanted = values * np.repeat(e4m3(scales) / np.float32(3), 16, axis=1)
    np.testing.assert_allclose(read(folder).weight(), wanted, rtol=1e-6)


def test_a_divisor_of_no_size_is_named(tmp_path: Path) -> None:
    stored: Stored = {
        "m.weight_packed": ("U8", np.zeros((8, 16))),
        "m.weight_scale": ("F8_E4M3", np.full((8, 2), 0x38)),
        "m.weight_global_scale": ("F32", np.zeros(1)),
    }
    arguments = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}
    folder = write(tmp_path, stored, arguments, format="nvfp4-pack-quantized")
    assert "scale of its scales is 0" in inspect(folder).modules[0].note


def test_a_block_gives_float_codes_as_ranks(tmp_path: Path) -> None:
    """So that the ends of a group are those of its values."""
    codes = np.arange(256, dtype=np.uint8).reshape(8, 32)
    codes[codes & 0x7F == 0x7F] = 0
    stored: Stored = {
        "m.weight": ("F8_E4M3", codes),
        "m.weight_scale": ("F32", np.ones((8, 1))),
    }
    arguments = {"num_bits": 8, "type": "float", "strategy": "channel"}
    linear = read(write(tmp_path, stored, arguments, format="float-quantized"))
    block = linear.block(0, 8)
    order = np.argsort(block.codes, axis=1, kind="stable")
    assert (np.diff(np.take_along_axis(block.levels, order, axis=1)) >= 0).all()
    low, high = block.ends
    values = block.weight()
    assert (values[low] == np.repeat(values.min(axis=1), low.sum(axis=1))).all()
    assert (values[high] == np.repeat(values.max(axis=1), high.sum(axis=1))).all()


PACKED: Stored = {
    "m.weight_packed": ("I32", np.zeros((16, 8), np.int32)),
    "m.weight_scale": ("F16", np.ones((16, 2))),
    "m.weight_shape": ("I64", np.array([16, 64])),
}
GROUPS = {"num_bits": 4, "group_size": 32, "strategy": "group"}


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"m.weight_shape": ("I64", np.array([16, 2**40]))}, "but the codes are"),
        ({"m.weight_shape": ("I64", np.array([16, -64]))}, "but the codes are"),
        ({"m.weight_shape": ("I64", np.array([8, 64]))}, "but the codes are"),
        ({"m.weight_shape": ("F32", np.array([16, 64]))}, "two sides"),
        ({"m.weight_shape": ("I64", np.zeros((2, 2)))}, "two sides"),
        ({"m.weight_scale": ("F16", np.ones((16, 3)))}, "do not agree"),
        ({"m.weight_scale": ("F16", np.ones((5, 2)))}, "do not agree"),
        ({"m.weight_scale": ("F16", np.ones((0, 2)))}, "no matrix"),
        ({"m.weight_scale": ("F16", np.ones((16, 32)))}, "too small"),
        ({"m.weight_scale": ("U8", np.ones((16, 2)))}, "is U8 beside codes"),
        ({"m.weight_zero_point": ("I32", np.ones((16, 2)))}, "fits no layout"),
        ({"m.weight_g_idx": ("I32", np.full(64, 9))}, "beyond 2"),
        ({"m.weight_g_idx": ("I32", np.zeros(63))}, "Has 64 inputs"),
        ({"m.weight_packed": ("I32", np.zeros((16, 0)))}, "no matrix"),
        ({"m.weight_packed": ("F16", np.zeros((16, 8)))}, "codes are F16"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, changed: Stored, problem: str) -> None:
    folder = write(tmp_path, {**PACKED, **changed}, GROUPS, format="pack-quantized")
    with pytest.raises(CheckpointError, match=problem):
        read(folder)
    inspect(folder)  # says something of it, and does not stop


@pytest.mark.parametrize("lost", sorted(PACKED)[1:])
def test_a_lost_part_is_named(tmp_path: Path, lost: str) -> None:
    stored = {name: tensor for name, tensor in PACKED.items() if name != lost}
    folder = write(tmp_path, stored, GROUPS, format="pack-quantized")
    with pytest.raises(CheckpointError, match=f"{lost}: is missing"):
        read(folder)
    assert [lost in module.note for module in inspect(folder).modules] == [True]


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"format": "int-quantized"}, "laid out as pack-quantized"),
        ({"ignore": ["m"]}, "leaves it out"),
        ({"ignore": ["re:.*m$"]}, "leaves it out"),
        ({"ignore": ["Linear"]}, "leaves it out"),
    ],
)
def test_other_than_config_says(tmp_path: Path, config: dict[str, Any], problem: str) -> None:
    folder = write(tmp_path, PACKED, GROUPS, **{"format": "pack-quantized", **config})
    with pytest.raises(CheckpointError, match=problem):
        read(folder)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [({**GROUPS, "num_bits": 8}, "has 4 bits"), ({**GROUPS, "group_size": 16}, "has groups of 32")],
)
def test_other_numbers_than_config_says(
    tmp_path: Path, arguments: dict[str, Any], problem: str
) -> None:
    folder = write(tmp_path, PACKED, arguments, format="pack-quantized")
    with pytest.raises(CheckpointError, match=problem):
        read(folder)


def test_a_nan_among_codes_is_counted(tmp_path: Path) -> None:
    codes = np.zeros((8, 16), np.uint8)
    codes[3, 4], codes[5, 6] = 0x7F, 0xFF
    stored: Stored = {"m.weight": ("F8_E4M3", codes), "m.weight_scale": ("F32", np.ones(1))}
    arguments = {"num_bits": 8, "type": "float", "strategy": "tensor"}
    folder = write(tmp_path, stored, arguments, format="float-quantized")
    assert inspect(folder).not_finite == {"m.weight": 2}
    assert np.argwhere(np.isnan(read(folder).weight())).tolist() == [[3, 4], [5, 6]]


def quantization(**config: Any) -> Quantization:
    """Return what a config.json of two groups and these settings says."""
    groups = {
        "four": {"targets": ["re:.*mlp.*", "exact.name"], "weights": {**GROUPS}},
        "eight": {
            "targets": ["Linear"],
            "weights": {"num_bits": 8, "strategy": "channel"},
            "format": "int-quantized",
            "input_activations": {"num_bits": 8, "dynamic": True},
        },
    }
    raw = {"quant_method": "compressed-tensors", "format": "mixed-precision",
           "config_groups": groups, **config}  # fmt: skip
    return msgspec.json.decode(json.dumps(raw).encode(), type=QuantizationConfig).facts


@pytest.mark.parametrize(
    ("module", "bits"),
    [
        ("model.layers.0.mlp.up_proj", 4),
        ("model.layers.0.self_attn.q_proj", 8),
        ("exact.name", 4),
        ("exact.name.more", 8),
        ("lm_head", None),
        ("model.layers.3.self_attn.q_proj", None),
    ],
)
def test_each_module_has_its_group(module: str, bits: int | None) -> None:
    scheme = quantization(ignore=["lm_head", "re:.*layers\\.3\\."]).of(module)
    assert (scheme.bits if scheme else None) == bits


def test_groups_that_differ_agree_on_nothing() -> None:
    facts = quantization()
    assert (facts.bits, facts.group_size, facts.activations) == (None, None, "")
    assert facts.groups[1].scheme.activations == "int8"


@pytest.mark.parametrize(
    ("config", "arguments", "is_of_autoround"),
    [
        ({}, {"observer": None}, True),
        ({"provider": "auto-round"}, {"observer": "minmax"}, True),
        ({}, {"observer": "minmax"}, False),
        ({"version": "0.19.0"}, {"observer": None}, False),
        ({}, {}, False),
    ],
)
def test_autoround_is_known_by_what_only_it_writes(
    config: dict[str, Any], arguments: dict[str, Any], is_of_autoround: bool
) -> None:
    """Its asymmetric weights, clipped by many steps, are taken for GPTQ's otherwise."""
    groups = {"group_0": {"targets": ["Linear"], "weights": {**GROUPS, **arguments}}}
    assert quantization(config_groups=groups, **config).autoround is is_of_autoround


@pytest.mark.parametrize(
    "pattern",
    ["(a+)+b", "(a|a)*b", "(?=a)a", r"(a)\1", "[", "a{100000}", "x" * 1_500, "((a{99}){99}){99}"],
)
def test_hostile_expressions_take_no_time_and_harm_nothing(pattern: str) -> None:
    """Python's own would take years for the first two."""
    facts = quantization(ignore=["lm_head", f"re:{pattern}"])
    assert facts.of("a" * 400) is not None
    assert facts.of("lm_head") is None


def test_an_expression_is_run_once_on_all_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling one of 1,000 characters takes milliseconds, and a model may have 50,000 modules."""
    runs: list[str] = []
    run = targets._matching

    def count(pattern: str, texts: list[str]) -> list[str]:
        runs.append(pattern)
        return run(pattern, texts)

    facts = quantization(ignore=["re:.*layers\\.3\\."])
    monkeypatch.setattr(targets, "_matching", count)
    modules = [f"model.layers.{layer}.mlp.up_proj" for layer in range(5)]
    facts.match(modules)
    left = [module for module in modules if facts.of(module) is None]
    assert left == ["model.layers.3.mlp.up_proj"]
    ran = [pattern for pattern in runs if runs.count(pattern) > 2]
    assert not ran, "once to see whether it can be run, and once to run it"


def test_checks_of_a_stored_inspection_run_an_expression_on_all_modules_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is read from a store has not yet run any."""
    runs: list[int] = []
    run = targets._matching

    def count(pattern: str, texts: list[str]) -> list[str]:
        runs.append(len(texts))
        return run(pattern, texts)

    names = [f"model.layers.{layer}.mlp.up_proj" for layer in range(5)]
    modules = [PackedLinearInfo(name=name, bits=4, group_size=32, inputs=64) for name in names]
    facts = quantization(ignore=["re:.*layers\\.3\\."])
    made = Inspection(quantization=facts, modules=modules)
    stored = msgspec.json.decode(msgspec.json.encode(made), type=Inspection)
    monkeypatch.setattr(targets, "_matching", count)
    evidence = Evidence(tied=False, quantized=True, thresholds=THRESHOLDS, inspection=stored)
    for check in (zero_points, group_size, stored_formats):
        check(evidence)
    assert runs == [1, 1, 5, 5], "two, each run once to see whether it can be, and once on all"


def test_more_groups_than_there_are_ways_to_round_are_refused() -> None:
    groups = {str(number): {"targets": ["Linear"], "weights": GROUPS} for number in range(33)}
    with pytest.raises(msgspec.ValidationError, match="length"):
        quantization(config_groups=groups)


def test_a_block_taller_than_the_weights_takes_no_memory(tmp_path: Path) -> None:
    """It is repeated for each output, and what a file says of it is not bounded."""
    stored: Stored = {
        "m.weight": ("I8", np.ones((4, 8))),
        "m.weight_scale": ("F32", np.ones((1, 1))),
    }
    arguments = {"num_bits": 8, "strategy": "block", "block_structure": [9_999_999, 8]}
    linear = read(write(tmp_path, stored, arguments, format="int-quantized"))
    assert linear.shape.block_rows == 4
    np.testing.assert_array_equal(linear.weight(), np.ones((4, 8)))


@pytest.mark.parametrize("dtype", ["F16", "F32", "F64"])
def test_scales_of_all_types_that_are_read_are_right(tmp_path: Path, dtype: str) -> None:
    stored = PACKED | {"m.weight_scale": (dtype, np.full((16, 2), 0.5))}
    folder = write(tmp_path, stored, GROUPS, format="pack-quantized")
    np.testing.assert_array_equal(read(folder).scales, np.full((16, 2), 0.5))
    evidence = Evidence(
        tied=False, quantized=True, thresholds=THRESHOLDS, inspection=inspect(folder)
    )
    assert stored_formats(evidence).judgement is Judgement.PASSED


def test_expressions_that_are_not_run_are_told() -> None:
    assert quantization(ignore=["re:(?=a)a"]).unread
    assert quantization(ignore=[f"re:{number}" for number in range(33)]).unread
    assert not quantization(ignore=["re:.*a", "(?=a)a"]).unread


@pytest.mark.parametrize(
    "config",
    [
        {"config_groups": []},
        {"config_groups": {"a": {"targets": "Linear"}}},
        {"config_groups": {"a": {"weights": {"num_bits": "4"}}}},
        {"ignore": "lm_head"},
        {"ignore": ["x" * 2_001]},
        {"format": 4},
    ],
)
def test_wrong_types_are_a_problem_of_the_config(tmp_path: Path, config: dict[str, Any]) -> None:
    folder = write(tmp_path, PACKED, GROUPS, **config)
    assert [problem.where for problem in inspect(folder).problems] == ["config.json"]


@pytest.mark.parametrize("form", ["mxfp4-pack-quantized", "marlin-24", "\x1b[31m", ""])
def test_a_format_that_is_not_read_is_named_and_nothing_claimed(tmp_path: Path, form: str) -> None:
    stored: Stored = {
        "m.weight_packed": ("U8", np.zeros((16, 32))),
        "m.weight_scale": ("U8", np.ones((16, 2))),
    }
    inspection = inspect(write(tmp_path, stored, GROUPS, format=form))
    assert (inspection.unread, inspection.modules, inspection.missing) == (
        form or "no format",
        [],
        [],
    )


@pytest.mark.parametrize(
    ("packing", "method", "form"),
    [
        ("auto_round:auto_gptq", "gptq", "gptq"),
        ("auto_round", "gptq", "gptq_v2"),
        ("auto_round:auto_awq", "awq", ""),
        ("auto_round:gguf", "auto-round auto_round:gguf", ""),
        (None, "auto-round", ""),
    ],
)
def test_autoround_names_the_layouts_of_others(packing: str | None, method: str, form: str) -> None:
    raw = {"quant_method": "auto-round", "packing_format": packing, "bits": 4, "group_size": 64}
    facts = msgspec.json.decode(json.dumps(raw).encode(), type=QuantizationConfig).facts
    assert (facts.method, facts.checkpoint_format, facts.autoround) == (method, form, True)


@pytest.mark.parametrize("written", ["compressed_tensors", "Compressed-Tensors"])
def test_a_method_is_read_however_engines_let_it_be_written(tmp_path: Path, written: str) -> None:
    inspection = inspect(
        write(tmp_path, PACKED, GROUPS, format="pack-quantized", quant_method=written)
    )
    assert inspection.quantization is not None
    assert inspection.quantization.method == "compressed-tensors"
    assert [(module.name, module.note) for module in inspection.modules] == [("m", "")]


@pytest.mark.parametrize("ignore", [["lm_head"], []])
def test_a_packed_head_is_right_where_it_is_meant(tmp_path: Path, ignore: list[str]) -> None:
    stored = {name.replace("m.", "lm_head."): tensor for name, tensor in PACKED.items()}
    folder = write(tmp_path, stored, GROUPS, format="pack-quantized", ignore=ignore)
    inspection = inspect(folder)
    assert inspection.quantization is not None
    assert inspection.quantization.lm_head == (not ignore)
