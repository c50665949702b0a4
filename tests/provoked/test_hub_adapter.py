"""What the adapter of models from the Hub promises before anything is downloaded.

torch and transformers are stood in for: what is asked of them is what is looked at.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from matrix.probe.child import load_adapter

MODELS = Path(__file__).parents[2] / "matrix" / "probe" / "models"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
ASKED = {"repository": "someone/model", "revision": COMMIT}


class Hub:
    """A Hub with one model, and what was asked of it."""

    def __init__(self) -> None:
        self.config = SimpleNamespace(tie_word_embeddings=True)
        self.finite = True
        self.asked: list[dict[str, Any]] = []

    def configuration(self, **named: Any) -> SimpleNamespace:
        self.asked.append(named)
        return self.config

    def tokenizer(self, **named: Any) -> str:
        self.asked.append(named)
        return "tokenizer"

    def model(self, **named: Any) -> SimpleNamespace:
        self.asked.append(named)
        weight = SimpleNamespace(isfinite=lambda: SimpleNamespace(all=lambda: self.finite))
        return SimpleNamespace(named_parameters=lambda: [("embed", weight)])


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
def adapter(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    torch: Any = ModuleType("torch")
    torch.no_grad = lambda: lambda function: function
    torch.float16 = "float16"
    transformers: Any = ModuleType("transformers")
    for name, answer in (
        ("AutoConfig", hub.configuration),
        ("AutoTokenizer", hub.tokenizer),
        ("AutoModelForCausalLM", hub.model),
    ):
        setattr(transformers, name, SimpleNamespace(from_pretrained=answer))
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "transformers", transformers)
    before = set(sys.modules)
    module: Any = load_adapter(MODELS / "hub.py")
    module.keep_float_model = lambda *_: None
    yield module
    for name in set(sys.modules) - before:
        if name.startswith("probe_adapters"):
            del sys.modules[name]


def take(adapter: Any, recipe: dict[str, Any], tied: bool = True) -> Any:
    recipe = {"max_new_tokens": 16, "tie_word_embeddings": tied, **recipe}
    return adapter.take(adapter.source(recipe), tied, Path("/job/output"))


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({}, "give directory, or repository and revision"),
        ({"directory": "/model", **ASKED}, "give directory, or repository and revision"),
        ({"repository": "someone/model"}, "give directory, or repository and revision"),
        ({**ASKED, "branch": "main"}, "give directory, or repository and revision"),
        ({"directory": "model"}, "directory 'model': give an absolute path"),
        ({**ASKED, "revision": "main"}, "revision 'main': give the 40 hexadecimal digits"),
        ({**ASKED, "revision": COMMIT[:7]}, "give the 40 hexadecimal digits of a commit"),
    ],
)
def test_a_wrong_recipe_is_named_and_nothing_is_asked_for(
    adapter: ModuleType, hub: Hub, recipe: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        take(adapter, recipe)
    assert hub.asked == []


@pytest.mark.parametrize("recipe", [ASKED, {"directory": "/model"}])
def test_neither_code_nor_pickles_are_taken_and_all_of_one_commit(
    adapter: ModuleType, hub: Hub, recipe: dict[str, Any]
) -> None:
    assert take(adapter, recipe) == "tokenizer"
    assert len(hub.asked) == 3
    assert all(request["trust_remote_code"] is False for request in hub.asked)
    assert hub.asked[-1]["use_safetensors"] is True
    assert {request.get("revision") for request in hub.asked} == {recipe.get("revision")}
    assert {request["cache_dir"] for request in hub.asked} == {Path("/job/download")}


@pytest.mark.parametrize(
    ("change", "message", "downloaded"),
    [
        ({"tie_word_embeddings": False}, "say so in the spec, tied", 1),
        ({"quantization_config": {"bits": 4}}, "give the float model that it was made of", 1),
        ({}, "embed has weights that are not finite in float16", 3),
    ],
)
def test_a_model_that_is_none_to_compare_with_is_refused(
    adapter: ModuleType, hub: Hub, change: dict[str, Any], message: str, downloaded: int
) -> None:
    vars(hub.config).update(change)
    hub.finite = bool(change)
    with pytest.raises(ValueError, match=message):
        take(adapter, ASKED)
    assert len(hub.asked) == downloaded
