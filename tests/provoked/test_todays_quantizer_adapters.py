"""What the adapters of llm-compressor and AutoRound promise that needs no package.

The packages are stood in for by modules with the names that the adapters use.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.provoked.test_quantizer_adapters import adapter

SCHEME = {"method": "compressed-tensors", "bits": 4, "group_size": 64, "zero_point": True}
SCHEME |= {"sym": True, "desc_act": False, "format": "pack-quantized"}


class Saved:
    """Stands in for models and tokenizers that are loaded and saved: texts become their lengths."""

    @classmethod
    def from_pretrained(cls, *_values: Any, **_named: Any) -> Saved:
        return cls()

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": list(range(len(text)))}

    def save_pretrained(self, folder: str, **_named: Any) -> None:
        Path(folder).mkdir(exist_ok=True)


@pytest.fixture(autouse=True)
def _transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"AutoModelForCausalLM": Saved, "AutoTokenizer": Saved}
    monkeypatch.setitem(sys.modules, "transformers", SimpleNamespace(**names))


@pytest.fixture
def llm_compressor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., dict[str, Any]]:
    """Quantize by options and what a scheme says otherwise; what oneshot() was given."""
    given: dict[str, Any] = {}
    modules = {
        "llmcompressor": ModuleType("llmcompressor"),
        "datasets": SimpleNamespace(Dataset=SimpleNamespace(from_dict=dict)),
    }
    modules["llmcompressor"].__dict__.update(
        __path__=[], oneshot=lambda **named: given.update(named)
    )
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)

    def quantize(options: dict[str, Any], **scheme: Any) -> dict[str, Any]:
        job = {"model": "model", "output": str(tmp_path), "calibration": ["abc", "abcde"]}
        adapter("llm_compressor").quantize(
            {**job, "options": options, "scheme": {**SCHEME, **scheme}}
        )
        return given

    return quantize


def modifiers_of(given: dict[str, Any]) -> dict[str, Any]:
    stages = json.loads(given["recipe"])
    (stage,) = stages.values()
    (modifiers,) = stage.values()
    assert isinstance(modifiers, dict)
    return modifiers


def test_llm_compressor_is_given_all_texts_whole(
    llm_compressor: Callable[..., dict[str, Any]],
) -> None:
    given = llm_compressor({"modifier": "gptq"})
    assert given["dataset"] == {"input_ids": [[0, 1, 2], [0, 1, 2, 3, 4]]}
    assert (given["num_calibration_samples"], given["max_seq_length"]) == (2, 5)


@pytest.mark.parametrize(
    ("scheme", "weights"),
    [
        ({}, {"strategy": "group", "group_size": 64, "symmetric": True}),
        ({"sym": False}, {"strategy": "group", "group_size": 64, "symmetric": False}),
        ({"group_size": -1, "bits": 8}, {"strategy": "channel", "num_bits": 8}),
        ({"desc_act": True}, {"actorder": "group"}),
    ],
)
def test_a_scheme_is_said_in_llm_compressors_words(
    llm_compressor: Callable[..., dict[str, Any]], scheme: dict[str, Any], weights: dict[str, Any]
) -> None:
    modifiers = modifiers_of(llm_compressor({"modifier": "gptq"}, **scheme))
    group = modifiers["GPTQModifier"]["config_groups"]["group_0"]
    assert weights.items() <= group["weights"].items()
    assert ("actorder" in group["weights"]) == ("desc_act" in scheme)
    assert "input_activations" not in group
    assert modifiers["GPTQModifier"]["ignore"] == ["lm_head"]


def test_activations_are_quantized_for_each_token(
    llm_compressor: Callable[..., dict[str, Any]],
) -> None:
    modifiers = modifiers_of(
        llm_compressor({"modifier": "smoothquant+gptq"}, activations="int8", group_size=-1, bits=8)
    )
    assert list(modifiers) == ["SmoothQuantModifier", "GPTQModifier"]
    group = modifiers["GPTQModifier"]["config_groups"]["group_0"]
    assert group["input_activations"] == {
        "type": "int", "num_bits": 8, "symmetric": True, "strategy": "token", "dynamic": True
    }  # fmt: skip


@pytest.mark.parametrize(("activations", "scheme"), [("fp8", "FP8_DYNAMIC"), ("fp4", "NVFP4")])
def test_floating_point_is_a_scheme_of_llm_compressors_own(
    llm_compressor: Callable[..., dict[str, Any]], activations: str, scheme: str
) -> None:
    modifiers = modifiers_of(llm_compressor({"modifier": "round"}, activations=activations))
    assert modifiers == {
        "QuantizationModifier": {"scheme": scheme, "targets": ["Linear"], "ignore": ["lm_head"]}
    }


def test_awq_rounds_by_itself_or_by_another_modifier_as_the_release_has_it(
    llm_compressor: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    old = modifiers_of(llm_compressor({"modifier": "awq"}))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name.endswith("transform.awq"))
    new = modifiers_of(llm_compressor({"modifier": "awq"}))
    assert list(new) == ["AWQModifier", "QuantizationModifier"]
    assert new == {"AWQModifier": {}, "QuantizationModifier": old["AWQModifier"]}


def test_a_users_own_recipe_is_given_as_it_is(
    llm_compressor: Callable[..., dict[str, Any]],
) -> None:
    recipe = "stage:\n  modifiers:\n    GPTQModifier: {scheme: W4A16}\n"
    assert llm_compressor({"recipe": recipe})["recipe"] == recipe


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give modifier, or recipe"),
        ({"recipe": "a", "modifier": "gptq"}, "give modifier, or recipe"),
        ({"modifier": "gqtp"}, "must be round, gptq, awq or smoothquant"),
    ],
)
def test_options_that_name_no_recipe_are_refused(
    llm_compressor: Callable[..., dict[str, Any]], options: dict[str, str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        llm_compressor(options)


def test_awq_pins_nothing_under_its_departure_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Tensor:
        def pin_memory(self) -> object:
            raise RuntimeError("Cannot access accelerator device when none is available.")

    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(Tensor=Tensor))
    tensor = Tensor()
    with adapter("llm_compressor").DEPARTURES["llm-compressor-cpu-pinning"]():
        assert tensor.pin_memory() is tensor
    with pytest.raises(RuntimeError, match="accelerator"):
        tensor.pin_memory()


class Tokens(list[int]):
    """Stands in for a tensor of token ids."""

    def reshape(self, *shape: int) -> list[list[int]]:
        assert shape[:2] == (-1, 1)
        return [self[start : start + shape[2]] for start in range(0, len(self), shape[2])]


@pytest.fixture
def auto_round(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Quantize by what a scheme says otherwise; what AutoRound was given."""
    given: dict[str, Any] = {}

    class AutoRound:
        def __init__(self, _model: object, **named: Any) -> None:
            given.update(named)

        def quantize_and_save(self, output: str, format: str) -> None:
            given["format"] = format
            folder = Path(output) / "model-w4g64"
            folder.mkdir(parents=True)
            (folder / "config.json").write_text("{}")

    monkeypatch.setitem(sys.modules, "auto_round", SimpleNamespace(AutoRound=AutoRound))
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(tensor=Tokens))

    def quantize(**scheme: Any) -> dict[str, Any]:
        job = {"model": "model", "output": str(tmp_path), "calibration": ["abc", "abcde"]}
        adapter("auto_round").quantize(
            {**job, "options": {"iters": 3, "seqlen": 3}, "scheme": {**SCHEME, **scheme}}
        )
        return given

    return quantize


@pytest.mark.parametrize(
    ("scheme", "name", "sym"),
    [
        ({"method": "awq", "format": "awq"}, "auto_awq", False),
        ({"method": "awq", "format": "awq", "zero_point": False}, "auto_awq", True),
        ({"method": "gptq", "format": "gptq"}, "auto_gptq", True),
        ({}, "llm_compressor", True),
        ({"sym": False}, "llm_compressor", False),
    ],
)
def test_autoround_stores_in_the_schemes_format(
    auto_round: Callable[..., dict[str, Any]],
    scheme: dict[str, Any],
    name: str,
    sym: bool,
) -> None:
    given = auto_round(**scheme)
    assert (given["format"], given["sym"]) == (name, sym)
    assert (given["bits"], given["group_size"], given["iters"]) == (4, 64, 3)
    assert given["enable_torch_compile"] is False


def test_autoround_is_given_texts_of_one_length(auto_round: Callable[..., dict[str, Any]]) -> None:
    given = auto_round()
    assert given["dataset"] == [[0, 1, 2], [0, 1, 2]]
    assert (given["nsamples"], given["seqlen"]) == (2, 3)


def test_what_autoround_puts_into_a_folder_of_its_own_is_the_checkpoint(
    auto_round: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    auto_round()
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]
