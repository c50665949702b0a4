"""What files say of themselves: forms that mean the same, and what no model says. Made-up files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix.checkpoint.files import CheckpointFiles
from matrix.checkpoint.inspection import Inspection
from matrix.description.comparing import SETTINGS, config_differences, generation_differences
from matrix.description.reading import (
    AddedToken,
    Description,
    TokenizerFile,
    TokenizerModel,
    read_description,
)
from matrix.description.soundness import config_faults, quantization_faults
from matrix.description.tokenizers import token_faults, tokenizer_differences, tokenizer_faults
from tests.unit import real_checkpoints as real

OLD: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu",
    "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 3, "vocab_size": 512,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
    "rms_norm_eps": 1e-6, "rope_theta": 1_000_000.0, "rope_scaling": None, "bos_token_id": 511,
    "eos_token_id": 511, "tie_word_embeddings": False, "torch_dtype": "float16",
    "sliding_window": 4096, "use_sliding_window": False,
}  # fmt: skip
"""As transformers 4.51.3 writes it."""
NEW = {name: value for name, value in OLD.items() if name not in ("rope_theta", "rope_scaling")} | {
    "rope_parameters": {"rope_theta": 1_000_000.0, "rope_type": "default"},
    "layer_types": ["full_attention"] * 3, "sliding_window": None, "dtype": "bfloat16",
    "pad_token_id": 511, "eos_token_id": [511], "head_dim": 64,
}  # fmt: skip
"""As transformers 5.23.0 writes it."""
SCALED = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0}


def without(config: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name not in names}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (OLD, OLD),
        (NEW, OLD),
        (OLD, NEW),
        (without(OLD, "hidden_act", "rms_norm_eps", "tie_word_embeddings"), OLD),
        (OLD | {"rms_norm_eps": 1e-06, "mlp_bias": False}, OLD),
        (
            without(OLD, "rope_theta") | {"rope_parameters": {"rope_theta": 1e6, **SCALED}},
            OLD | {"rope_scaling": SCALED},
        ),
        (
            OLD | {"rope_scaling": {"type": "linear", "factor": 2}},
            OLD | {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
        ),
        ({"text_config": NEW}, {"text_config": OLD}),
        (
            {"model_type": "new", "rope_parameters": {"full_attention": {"rope_theta": 1e6}}},
            {"model_type": "new", "rope_theta": 1_000_000},
        ),
        (
            {"model_type": "new", "hidden_size": 64, "num_attention_heads": 4, "head_dim": 32},
            {"model_type": "new", "hidden_size": 64, "num_attention_heads": 4},
        ),
        ({"model_type": "new", "its_own": 1, "num_experts": 8}, {"model_type": "new"}),
    ],
)
def test_forms_that_mean_the_same_are_no_difference(
    ours: dict[str, Any], theirs: dict[str, Any]
) -> None:
    assert config_differences(ours, theirs) == []


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        (OLD | {"rms_norm_eps": 1e-5}, OLD, "rms_norm_eps is 1e-05 where the original has 1e-06"),
        (without(OLD, "rope_theta"), OLD, "rope_theta is 10000.0"),
        (OLD | {"rope_scaling": SCALED}, OLD, "rope_scaling is {"),
        (OLD, OLD | {"rope_scaling": SCALED}, "rope_scaling is missing"),
        (OLD | {"use_sliding_window": True}, OLD, "sliding_window is 4096"),
        (without(OLD, "architectures"), OLD, "architectures is missing"),
        (without(OLD, "tie_word_embeddings"), OLD | {"tie_word_embeddings": True}, "tie_word"),
        (without(OLD, "eos_token_id"), OLD, "eos_token_id is missing"),
        (NEW | {"layer_types": ["sliding_attention"] * 3}, OLD, "layer_types has sliding"),
        ({"text_config": NEW | {"hidden_act": "gelu"}}, {"text_config": OLD}, "text_config.hidden"),
        ({"model_type": "new"}, {"model_type": "new", "num_experts": 8}, "num_experts is missing"),
    ],
)
def test_what_changes_answers_is_a_difference(
    ours: dict[str, Any], theirs: dict[str, Any], words: str
) -> None:
    (line,) = config_differences(ours, theirs)
    assert line.startswith(words)


def test_settings_of_generation_are_compared_where_both_have_them() -> None:
    def saying(**settings: Any) -> Description:
        return Description(generation=settings)

    theirs = saying(eos_token_id=[511], temperature=0.7)
    assert generation_differences(Description(), theirs) == []
    assert generation_differences(saying(do_sample=True), theirs) == []
    assert generation_differences(saying(eos_token_id=511, temperature=0.70), theirs) == []
    (end,) = generation_differences(saying(eos_token_id=[511, 3]), theirs)
    (heat,) = generation_differences(saying(temperature=1.5), theirs)
    assert end == "eos_token_id is [3, 511] where the original has [511]"
    assert heat.startswith("temperature is 1.5")


LETTERS = {"a": 0, "b": 1, "ab": 2}


def described(model: TokenizerModel | None = None, **changes: Any) -> Description:
    parts: dict[str, Any] = {
        "model": model or TokenizerModel("BPE", LETTERS, ["a b"]),
        "added_tokens": [AddedToken(3, "<end>")],
        "pre_tokenizer": {"type": "ByteLevel"},
        "decoder": {"type": "ByteLevel"},
    }
    return Description(
        files=frozenset({"tokenizer.json"}),
        config={"vocab_size": 4, "eos_token_id": 3},
        tokenizer=TokenizerFile(**parts | changes),
        tokenizer_config={"eos_token": "<end>"},
    )


def test_the_same_tokenizer_in_another_form_is_no_difference() -> None:
    pairs = described(
        TokenizerModel("BPE", LETTERS, [["a", "b"]]),
        normalizer={"type": "NFC"},
        post_processor={"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A"}}]},
    )
    properties = {"eos_token": {"content": "<end>", "lstrip": False}}
    assert tokenizer_differences(pairs, described()) == []
    assert tokenizer_faults(described()) == token_faults(described()) == []
    for other in (Description(special=properties), Description(tokenizer_config=properties)):
        assert tokenizer_differences(other, described()) == []


def test_a_tokenizer_of_another_kind_of_model_is_compared_too() -> None:
    unigram = TokenizerModel("Unigram", [("a", 0.0), ("b", -1.5), ("ab", -2.0)])
    turned = TokenizerModel("Unigram", [("b", 0.0), ("a", -1.5), ("ab", -2.0)])
    assert tokenizer_differences(described(unigram), described(unigram)) == []
    assert tokenizer_differences(described(turned), described(unigram)) == [
        "2 of 3 tokens have another id or none"
    ]


@pytest.mark.parametrize(
    ("own", "words"),
    [
        (Description(files=frozenset({"config.json"})), "there is no tokenizer"),
        (described(TokenizerModel("BPE", LETTERS | {"c": 9}, ["a b"])), "it has the id 9"),
        (described(TokenizerModel("BPE", LETTERS | {"c": 1}, ["a b"])), "two tokens have the same"),
        (described(TokenizerModel("BPE", LETTERS, [])), "no merge makes 1 of its 1 longer"),
        (described(TokenizerModel("BPE", LETTERS, ["a b", "b b"])), "1 of its merges make no"),
        (described(decoder=None), "its decoder is missing"),
        (described(pre_tokenizer=None), "its pre_tokenizer is missing"),
        (described(added_tokens=[]), "it has no token '<end>', which is its eos_token"),
    ],
)
def test_what_no_tokenizer_has(own: Description, words: str) -> None:
    (line,) = tokenizer_faults(own)
    assert line.startswith(words)


def test_a_token_may_hold_a_space() -> None:
    model = TokenizerModel("BPE", {"a": 0, " ": 1, "a ": 2, "a  ": 3}, [["a", " "], ["a ", " "]])
    assert tokenizer_faults(described(model, added_tokens=[AddedToken(4, "<end>")])) == [
        "it has the id 4 where the model has 4 tokens"
    ]


@pytest.mark.parametrize("name", ["qwen.tiktoken", "tokenization_x.py", "tokenizer.model"])
def test_a_tokenizer_need_not_be_json(name: str) -> None:
    assert tokenizer_faults(Description(files=frozenset({name}))) == []


def test_a_token_for_padding_needs_no_row() -> None:
    own = described(added_tokens=[AddedToken(3, "<end>"), AddedToken(4, "<pad>")])
    padded = {"eos_token": "<end>", "pad_token": "<pad>"}
    assert tokenizer_faults(own) == ["it has the id 4 where the model has 4 tokens"]
    fields = {name: getattr(own, name) for name in ("files", "config", "tokenizer")}
    assert tokenizer_faults(Description(**fields, tokenizer_config=padded)) == []


def test_words_of_old_files_are_read() -> None:
    own = Description(
        files=frozenset({"quant_config.json"}),
        config={"quantization_config": {"bits": 4, "group_size": 128, "version": "gemm"}},
        quantize={"w_bit": 4, "q_group_size": 64, "version": "GEMM"},
    )
    assert quantization_faults(own, Inspection()) == [
        "quant_config.json has group_size 64 where config.json has 128"
    ]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
    | st.sampled_from([10**400, "qwen2", "llama", "default", "linear"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["type", "rope_theta", "content", "single"]), inner),
    max_leaves=6,
)  # fmt: skip
NAMES = st.sampled_from([
    *SETTINGS, "architectures", "rope_theta", "rope_scaling", "rope_parameters", "text_config",
    "sliding_window", "use_sliding_window", "layer_types", "eos_token_id", "tie_word_embeddings",
    "quantization_config", "chat_template", "eos_token", "added_tokens_decoder",
])  # fmt: skip
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=8)


@given(OBJECTS, OBJECTS)
def test_whatever_stands_in_a_file_it_is_judged(
    ours: dict[str, Any], theirs: dict[str, Any]
) -> None:
    own = Description(
        config=OLD | ours,
        generation=ours,
        quantize=theirs,
        tokenizer=described(post_processor=ours).tokenizer,
        tokenizer_config=ours,
        special=theirs,
    )
    other = Description(
        config=OLD | theirs,
        generation=theirs,
        tokenizer=described().tokenizer,
        tokenizer_config=theirs,
    )
    lines = [
        *config_differences(own.config, other.config), *config_faults(own.config),
        *generation_differences(own, other), *tokenizer_differences(own, other),
        *token_faults(own), *tokenizer_faults(own), *quantization_faults(own, Inspection()),
    ]  # fmt: skip
    assert all(isinstance(line, str) for line in lines)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("generation_config.json", "{", "generation_config.json: "),
        ("quantize_config.json", "[1]", "quantize_config.json: "),
        ("tokenizer_config.json", '{"a":' * 200 + "1" + "}" * 200, "tokenizer_config.json is nest"),
        ("special_tokens_map.json", json.dumps("x" * 5 * 2**20), "special_tokens_map.json has mor"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, name: str, text: str, words: str
) -> None:
    checkpoint = real.copied(real.AWQ, tmp_path)
    (checkpoint / name).write_text(text)
    (problem,) = read_description(CheckpointFiles(checkpoint)).problems
    assert problem.startswith(words)
