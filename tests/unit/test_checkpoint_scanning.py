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


def known(directory: Path, **values: Any) -> Path:
    """Give config.json what it needs to follow the tensors from it."""
    sizes = {"num_hidden_layers": made.LAYERS, "vocab_size": made.VOCABULARY}
    change_config(directory, **{"model_type": "qwen2", **sizes, **values})
    return directory


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return known(gptq.both(tmp_path)[0])


def module(inspection: Inspection, name: str = Q) -> PackedLinearInfo:
    return next(module for module in inspection.modules if module.name == name)


def test_good_checkpoint_by_itself(checkpoint: Path) -> None:
    found = inspect(checkpoint)
    assert (found.compared, found.weights, found.problems) == (False, [], [])
    assert found.linears == sorted(made.linear_shapes(0))
    assert found.missing == found.unexpected == []
    assert len(found.zero_tensors) == 4
    assert found.not_finite == {}
    # auto-gptq's zero biases come on top.
    stored = sum(2 * size for size in (made.HIDDEN, made.HIDDEN, 2 * made.INTERMEDIATE))
    assert found.expected_bytes is not None
    taken = load_file(checkpoint / "model.safetensors")
    assert sum(array.nbytes for array in taken.values()) == found.expected_bytes + stored
    assert found.config.hidden_size == made.HIDDEN
    assert (found.config.layers, found.config.vocabulary) == (made.LAYERS, made.VOCABULARY)


def test_float_model_by_itself(tmp_path: Path) -> None:
    tensors = made.float_model(tied=False)
    found = inspect(known(made.write(tmp_path / "m", tensors, tied=False, quantized=False)))
    assert found.problems == []
    assert found.missing == found.unexpected == []
    assert found.expected_bytes == sum(array.nbytes for array in tensors.values())


def test_qwen3_has_its_norms(tmp_path: Path) -> None:
    tensors = {n: a for n, a in made.float_model(tied=True).items() if not n.endswith(".bias")}
    size = made.HIDDEN // made.HEADS
    tensors[f"{L0}.self_attn.q_norm.weight"] = np.ones(size, np.float16)
    directory = made.write(tmp_path / "m", tensors, tied=True, quantized=False)
    found = inspect(known(directory, model_type="qwen3", head_dim=size))
    assert found.missing == [f"{L0}.self_attn.k_norm.weight"]
    assert found.unexpected == []


def test_missing_and_unexpected_by_config(checkpoint: Path) -> None:
    def change(tensors: dict[str, made.Array]) -> None:
        del tensors[f"{Q}.bias"]
        tensors["extra"] = np.ones(3, np.float16)
        tensors["empty"] = np.zeros(3, np.int32)

    change_tensors(checkpoint, change)
    found = inspect(checkpoint)
    assert found.missing == [f"{Q}.bias"]
    assert found.unexpected == ["extra"]
    assert "empty" in found.zero_tensors
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
    directory = known(made.both(tmp_path)[0])
    key = f"{L0}.self_attn.k_proj"
    change_tensors(directory, store_plain(key))
    lost = inspect(directory)
    assert lost.left_out == []
    assert lost.missing == [f"{key}.{part}" for part in ("qweight", "qzeros", "scales")]
    assert lost.unexpected == [f"{key}.weight"]
    quantization = made.config(tied=True, quantized=True)["quantization_config"]
    quantization["modules_to_not_convert"] = ["visual", entry]
    change_config(directory, quantization_config=quantization)
    found = inspect(directory)
    assert found.left_out == [key]
    assert found.linears == lost.linears
    assert found.missing == found.unexpected == []
    taken = load_file(directory / "model.safetensors")
    assert found.expected_bytes == sum(array.nbytes for array in taken.values())
    quantization["modules_to_not_convert"] = ["visual"]
    change_config(directory, quantization_config=quantization)
    assert inspect(directory).left_out == []


@pytest.mark.parametrize("entries", ["k_proj", [1], ["x" * 201], ["x"] * 1001])
def test_modules_not_to_convert_are_bounded(checkpoint: Path, entries: object) -> None:
    change_config(checkpoint, quantization_config={"modules_to_not_convert": entries})
    found = inspect(checkpoint)
    assert [problem.where for problem in found.problems] == ["config.json"]
    assert "modules_to_not_convert" in str(found.problems[0])


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
    found = inspect(checkpoint)
    assert found.not_finite == {"model.norm.weight": 2}
    assert module(found).not_finite_scales == 1
    assert sum(module.not_finite_scales for module in found.modules) == 1


def test_zeros_with_a_sign_are_zeros_and_negative_numbers_are_not(checkpoint: Path) -> None:
    def change(tensors: dict[str, made.Array]) -> None:
        tensors["negative"] = np.full(3, -1e-4, np.float16)
        tensors["zero"] = np.array([0.0, -0.0], np.float16)

    change_tensors(checkpoint, change)
    found = inspect(checkpoint)
    assert found.unexpected == ["negative"]
    assert "zero" in found.zero_tensors


def test_shape_that_config_does_not_mean_is_noted(checkpoint: Path) -> None:
    change_config(checkpoint, intermediate_size=made.INTERMEDIATE + 64)
    found = inspect(checkpoint)
    note = module(found, f"{L0}.mlp.up_proj").note
    assert note == f"{L0}.mlp.up_proj: holds 512 x 256 weights; config.json means 576 x 256"
    assert module(found).note == ""


def test_three_bits_are_told_and_not_read(checkpoint: Path) -> None:
    def change(tensors: dict[str, made.Array]) -> None:
        tensors[f"{Q}.qweight"] = np.zeros((made.HIDDEN * 3 // 32, made.HIDDEN), np.int32)
        tensors[f"{Q}.qzeros"] = np.zeros((4, made.HIDDEN * 3 // 32), np.int32)

    change_tensors(checkpoint, change)
    found = module(inspect(checkpoint))
    assert (found.bits, found.inputs, found.outputs) == (3, made.HIDDEN, made.HIDDEN)
    assert found.note == f"{Q}: codes of 3 bits are not read here"


def test_tokenizer_and_config_of_newer_and_older_writers(checkpoint: Path) -> None:
    for merges, form in (([["a", "b"]], "pairs"), (["a b"], "strings"), ([], "")):
        model = {"type": "BPE", "merges": merges}
        (checkpoint / "tokenizer.json").write_text(json.dumps({"model": model}, indent=1))
        assert inspect(checkpoint).tokenizer.merges == form
    config = {"tokenizer_class": "TokenizersBackend"}
    (checkpoint / "tokenizer_config.json").write_text(json.dumps(config))
    change_config(checkpoint, dtype="bfloat16", rope_parameters={"rope_theta": 1e6})
    found = inspect(checkpoint)
    assert found.tokenizer.tokenizer_class == "TokenizersBackend"
    assert found.tokenizer.model_type == "BPE"
    assert (found.config.dtype, found.config.torch_dtype) == ("bfloat16", None)
    assert (found.config.rope_theta, found.config.rope_parameters) == (False, True)
    change_config(checkpoint, torch_dtype="float16", rope_theta=1e6, rope_parameters=...)
    found = inspect(checkpoint)
    assert found.config.torch_dtype == "float16"
    assert (found.config.rope_theta, found.config.rope_parameters) == (True, False)
