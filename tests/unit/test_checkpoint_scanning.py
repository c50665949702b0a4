"""A checkpoint by itself: what its files and its config.json say without an original."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from matrix.checkpoint.inspecting import inspect
from matrix.checkpoint.inspection import Inspection, PackedLinearInfo
from tests.unit import awq_checkpoints as made
from tests.unit import gptq_checkpoints as gptq

L0 = "model.layers.0"
Q = f"{L0}.self_attn.q_proj"


def change_config(directory: Path, **values: Any) -> None:
    file = directory / "config.json"
    config = json.loads(file.read_text()) | values
    kept = {key: value for key, value in config.items() if value is not ...}
    file.write_text(json.dumps(kept))


def change_tensors(directory: Path, change: Callable[[dict[str, made.Array]], object]) -> None:
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors")


def complete_config(directory: Path, **values: Any) -> Path:
    """Give config.json what it needs to follow the tensors from it."""
    sizes = {"num_hidden_layers": made.LAYERS, "vocab_size": made.VOCABULARY}
    change_config(directory, **{"model_type": "qwen2", **sizes, **values})
    return directory


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return complete_config(gptq.write_pair(tmp_path)[0])


def module(inspection: Inspection, name: str = Q) -> PackedLinearInfo:
    return next(module for module in inspection.modules if module.name == name)


def test_good_checkpoint_by_itself(checkpoint: Path) -> None:
    inspection = inspect(checkpoint)
    assert (inspection.compared, inspection.weights, inspection.problems) == (False, [], [])
    assert inspection.linears == sorted(made.linear_shapes(0))
    assert inspection.missing == inspection.unexpected == []
    assert len(inspection.zero_tensors) == 4
    assert inspection.not_finite == {}
    # auto-gptq's zero biases come on top.
    stored = sum(2 * size for size in (made.HIDDEN, made.HIDDEN, 2 * made.INTERMEDIATE))
    assert inspection.expected_bytes is not None
    taken = load_file(checkpoint / "model.safetensors")
    assert sum(array.nbytes for array in taken.values()) == inspection.expected_bytes + stored
    assert inspection.config.hidden_size == made.HIDDEN
    assert (inspection.config.layers, inspection.config.vocabulary) == (
        made.LAYERS,
        made.VOCABULARY,
    )


def test_float_model_by_itself(tmp_path: Path) -> None:
    tensors = made.float_model(tied=False)
    inspection = inspect(
        complete_config(made.write(tmp_path / "m", tensors, tied=False, quantized=False))
    )
    assert inspection.problems == []
    assert inspection.missing == inspection.unexpected == []
    assert inspection.expected_bytes == sum(array.nbytes for array in tensors.values())


def test_qwen3_has_its_norms(tmp_path: Path) -> None:
    tensors = {n: a for n, a in made.float_model(tied=True).items() if not n.endswith(".bias")}
    size = made.HIDDEN // made.HEADS
    tensors[f"{L0}.self_attn.q_norm.weight"] = np.ones(size, np.float16)
    directory = made.write(tmp_path / "m", tensors, tied=True, quantized=False)
    inspection = inspect(complete_config(directory, model_type="qwen3", head_dim=size))
    assert inspection.missing == [f"{L0}.self_attn.k_norm.weight"]
    assert inspection.unexpected == []


def test_missing_and_unexpected_by_config(checkpoint: Path) -> None:
    def change(tensors: dict[str, made.Array]) -> None:
        del tensors[f"{Q}.bias"]
        tensors["extra"] = np.ones(3, np.float16)
        tensors["empty"] = np.zeros(3, np.int32)

    change_tensors(checkpoint, change)
    inspection = inspect(checkpoint)
    assert inspection.missing == [f"{Q}.bias"]
    assert inspection.unexpected == ["extra"]
    assert "empty" in inspection.zero_tensors
    change_config(checkpoint, model_type="gpt2")
    unknown = inspect(checkpoint)
    assert unknown.missing == unknown.unexpected == unknown.linears == []
    assert unknown.expected_bytes is None


def store_plain(*modules: str) -> Callable[[dict[str, made.Array]], object]:
    """Return a change that puts float weights in place of packed ones."""

    def change(tensors: dict[str, made.Array]) -> None:
        for name in modules:
            for part in ("qweight", "qzeros", "scales", "g_idx"):
                tensors.pop(f"{name}.{part}", None)
            shape = made.linear_shapes(0)[name]
            tensors[f"{name}.weight"] = np.ones(shape, np.float16)

    return change


@pytest.mark.parametrize("entry", ["k_proj", "layers.0.self_attn.k"])
def test_modules_not_to_convert_are_expected_unpacked(tmp_path: Path, entry: str) -> None:
    directory = complete_config(made.write_pair(tmp_path)[0])
    key = f"{L0}.self_attn.k_proj"
    change_tensors(directory, store_plain(key))
    lost = inspect(directory)
    assert lost.left_out == []
    assert lost.missing == [f"{key}.{part}" for part in ("qweight", "qzeros", "scales")]
    assert lost.unexpected == [f"{key}.weight"]
    quantization = made.config(tied=True, quantized=True)["quantization_config"]
    quantization["modules_to_not_convert"] = ["visual", entry]
    change_config(directory, quantization_config=quantization)
    inspection = inspect(directory)
    assert inspection.left_out == [key]
    assert inspection.linears == lost.linears
    assert inspection.missing == inspection.unexpected == []
    taken = load_file(directory / "model.safetensors")
    assert inspection.expected_bytes == sum(array.nbytes for array in taken.values())
    quantization["modules_to_not_convert"] = ["visual"]
    change_config(directory, quantization_config=quantization)
    assert inspect(directory).left_out == []


@pytest.mark.parametrize("entries", ["k_proj", [1], ["x" * 201], ["x"] * 1001])
def test_modules_not_to_convert_are_bounded(checkpoint: Path, entries: object) -> None:
    change_config(checkpoint, quantization_config={"modules_to_not_convert": entries})
    inspection = inspect(checkpoint)
    assert [problem.where for problem in inspection.problems] == ["config.json"]
    assert "modules_to_not_convert" in str(inspection.problems[0])


def test_dynamic_leaves_out_whatever_is_not_packed(checkpoint: Path) -> None:
    change_tensors(checkpoint, store_plain(Q))
    assert inspect(checkpoint).left_out == []
    quantization = json.loads((checkpoint / "config.json").read_text())["quantization_config"]
    for dynamic, skipped in (({"-:.*q_proj": {}}, [Q]), ({}, []), (None, [])):
        change_config(checkpoint, quantization_config=quantization | {"dynamic": dynamic})
        assert inspect(checkpoint).left_out == skipped
        assert bool(inspect(checkpoint).missing) is not bool(skipped)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_not_finite_values_are_counted(checkpoint: Path, value: float, dtype: type) -> None:
    def change(tensors: dict[str, made.Array]) -> None:
        tensors["model.norm.weight"] = tensors["model.norm.weight"].astype(dtype)
        tensors["model.norm.weight"][[3, 7]] = value
        tensors[f"{Q}.scales"][0, 2] = value

    change_tensors(checkpoint, change)
    inspection = inspect(checkpoint)
    assert inspection.not_finite == {"model.norm.weight": 2}
    assert module(inspection).not_finite_scales == 1
    assert sum(module.not_finite_scales for module in inspection.modules) == 1


def test_zeros_with_a_sign_are_zeros_and_negative_numbers_are_not(checkpoint: Path) -> None:
    def change(tensors: dict[str, made.Array]) -> None:
        tensors["negative"] = np.full(3, -1e-4, np.float16)
        tensors["zero"] = np.array([0.0, -0.0], np.float16)

    change_tensors(checkpoint, change)
    inspection = inspect(checkpoint)
    assert inspection.unexpected == ["negative"]
    assert "zero" in inspection.zero_tensors


def test_shape_that_config_does_not_mean_is_noted(checkpoint: Path) -> None:
    change_config(checkpoint, intermediate_size=made.INTERMEDIATE + 64)
    inspection = inspect(checkpoint)
    note = module(inspection, f"{L0}.mlp.up_proj").note
    assert note == f"{L0}.mlp.up_proj: holds 512 x 256 weights; config.json means 576 x 256"
    assert module(inspection).note == ""


def test_three_bits_are_told_and_not_read(checkpoint: Path) -> None:
    def change(tensors: dict[str, made.Array]) -> None:
        tensors[f"{Q}.qweight"] = np.zeros((made.HIDDEN * 3 // 32, made.HIDDEN), np.int32)
        tensors[f"{Q}.qzeros"] = np.zeros((4, made.HIDDEN * 3 // 32), np.int32)

    change_tensors(checkpoint, change)
    linear = module(inspect(checkpoint))
    assert (linear.bits, linear.inputs, linear.outputs) == (3, made.HIDDEN, made.HIDDEN)
    assert linear.note == f"{Q}: codes of 3 bits are not read here"


def store_three_bits(form: str) -> Callable[[dict[str, made.Array]], object]:
    """Return a change that puts codes of 3 bits in place of all others, in a format."""

    def change(tensors: dict[str, made.Array]) -> None:
        for name, (outputs, inputs) in made.linear_shapes(0).items():
            for part in ("qweight", "qzeros"):
                del tensors[f"{name}.{part}"]
            scales = tensors[f"{name}.scales"]
            if form == "gptq":
                groups = len(scales)
                tensors[f"{name}.qweight"] = np.zeros((inputs * 3 // 32, outputs), np.int32)
                tensors[f"{name}.qzeros"] = np.zeros((groups, outputs * 3 // 32), np.int32)
                continue
            del tensors[f"{name}.scales"], tensors[f"{name}.g_idx"]
            # A word holds ten of them, and two bits of nothing.
            tensors[f"{name}.weight_packed"] = np.zeros((outputs, -(-inputs // 10)), np.int32)
            tensors[f"{name}.weight_scale"] = np.ascontiguousarray(scales.T)
            tensors[f"{name}.weight_shape"] = np.array([outputs, inputs])

    return change


def of_format(form: str, bits: int) -> dict[str, Any]:
    """Return a quantization_config of GPTQ, or of compressed-tensors' format."""
    if form == "gptq":
        return {"quant_method": form, "bits": bits, "group_size": 64, "sym": True}
    group = {"targets": ["Linear"], "weights": {"num_bits": bits, "group_size": 64}}
    method = "compressed-tensors"
    return {"quant_method": method, "format": form, "config_groups": {"group_0": group}}


@pytest.mark.parametrize("form", ["gptq", "pack-quantized"])
@pytest.mark.parametrize("is_compared", [False, True])
def test_a_file_of_three_bits_is_named_and_nothing_claimed(
    tmp_path: Path, form: str, is_compared: bool
) -> None:
    directory, original = gptq.write_pair(tmp_path)
    complete_config(directory, quantization_config=of_format(form, 3))
    change_tensors(directory, store_three_bits(form))
    inspection = inspect(directory, complete_config(original) if is_compared else None)
    assert inspection.unread == f"{form} of 3 bits"
    assert (inspection.modules, inspection.problems) == ([], [])
    assert inspection.missing == inspection.unexpected == []
    assert [weight for weight in inspection.weights if weight.packed] == []
    assert inspection.left_out == inspection.linears
    assert inspection.expected_bytes is None


def test_three_bits_that_only_config_says_are_a_fault(checkpoint: Path) -> None:
    change_config(checkpoint, quantization_config=of_format("gptq", 3))
    inspection = inspect(checkpoint)
    assert (inspection.unread, module(inspection).bits) == ("", 4)


def test_of_a_format_that_is_not_read_no_weight_is_missing(checkpoint: Path) -> None:
    change_config(checkpoint, quantization_config=of_format("marlin-24", 4))
    change_tensors(checkpoint, lambda tensors: tensors.pop("model.norm.weight"))
    inspection = inspect(checkpoint)
    assert inspection.unread == "marlin-24"
    assert inspection.missing == ["model.norm.weight"]


def test_tokenizer_and_config_of_newer_and_older_writers(checkpoint: Path) -> None:
    for merges, form in (([["a", "b"]], "pairs"), (["a b"], "strings"), ([], "")):
        model = {"type": "BPE", "merges": merges}
        (checkpoint / "tokenizer.json").write_text(json.dumps({"model": model}, indent=1))
        assert inspect(checkpoint).tokenizer.merges == form
    config = {"tokenizer_class": "TokenizersBackend"}
    (checkpoint / "tokenizer_config.json").write_text(json.dumps(config))
    change_config(checkpoint, dtype="bfloat16", rope_parameters={"rope_theta": 1e6})
    inspection = inspect(checkpoint)
    assert inspection.tokenizer.tokenizer_class == "TokenizersBackend"
    assert inspection.tokenizer.model_type == "BPE"
    assert (inspection.config.dtype, inspection.config.torch_dtype) == ("bfloat16", None)
    assert (inspection.config.rope_theta, inspection.config.rope_parameters) == (False, True)
    change_config(checkpoint, torch_dtype="float16", rope_theta=1e6, rope_parameters=...)
    inspection = inspect(checkpoint)
    assert inspection.config.torch_dtype == "float16"
    assert (inspection.config.rope_theta, inspection.config.rope_parameters) == (True, False)
