"""What transformers takes for a setting that a config.json does not have.

Of the classes ``LlamaConfig``, ``MistralConfig``, ``Qwen2Config`` and ``Qwen3Config`` of
transformers 4.51.3 (``models/*/configuration_*.py``). Of other models nothing is claimed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Settings = Mapping[str, Any]
"""What a JSON file of a checkpoint says."""

_COMMON: dict[str, Any] = {
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": False,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "hidden_size": 4096,
}
_QWEN = {
    "max_position_embeddings": 32_768,
    "num_key_value_heads": 32,
    "vocab_size": 151_936,
    "intermediate_size": 22_016,
    "use_sliding_window": False,
}
_MISTRAL = {
    "max_position_embeddings": 131_072,
    "num_key_value_heads": 8,
    "vocab_size": 32_000,
    "intermediate_size": 14_336,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "sliding_window": 4096,
}
_LLAMA = {
    "max_position_embeddings": 2048,
    "vocab_size": 32_000,
    "intermediate_size": 11_008,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": _COMMON | _LLAMA,
    "mistral": _COMMON | _MISTRAL,
    "qwen2": _COMMON | _QWEN,
    "qwen3": _COMMON | _QWEN | {"head_dim": 128},
}
"""Model type -> setting -> its value where config.json has none."""


def defaults_of(config: Settings) -> dict[str, Any]:
    """Return the defaults of a config's model type; empty for one that is not known here."""
    kind = config.get("model_type")
    return DEFAULTS.get(kind, {}) if isinstance(kind, str) else {}


def value_of(config: Settings, name: str) -> Any:
    """Return what a reader takes for a setting; ``None`` where that is not known."""
    value = config.get(name)
    if value is not None:
        return value
    defaults = defaults_of(config)
    if not defaults:
        return None
    if name == "num_key_value_heads" and name not in defaults:
        return value_of(config, "num_attention_heads")
    if name == "head_dim" and name not in defaults:
        hidden, heads = (value_of(config, part) for part in ("hidden_size", "num_attention_heads"))
        whole = isinstance(hidden, int) and isinstance(heads, int) and heads > 0
        return hidden // heads if whole else None
    return None if name in config and name == "sliding_window" else defaults.get(name)


def is_tied(config: Settings) -> bool | None:
    """Return whether embedding and head are one matrix; ``None`` where that is not known."""
    value = value_of(config, "tie_word_embeddings")
    return value if isinstance(value, bool) else None


def rope_of(config: Settings) -> tuple[Any, dict[str, Any]]:
    """Return the base of the rotary embedding, and how it is scaled; empty for not at all.

    transformers before 5 writes ``rope_theta`` and ``rope_scaling``, 5 both in ``rope_parameters``.
    """
    parts: dict[str, Any] = {}
    for name in ("rope_scaling", "rope_parameters"):
        value = config.get(name)
        if isinstance(value, dict):  # of models with two kinds of attention, one for each
            value = value.get("full_attention", value)
        parts |= value if isinstance(value, dict) else {}
    base = config.get("rope_theta")
    inner = parts.pop("rope_theta", None)
    kind = parts.pop("type", None)
    kind = parts.pop("rope_type", kind) or "default"
    base = base if base is not None else inner
    scaling = {"type": kind, **parts} if kind != "default" else {}
    return (base if base is not None else defaults_of(config).get("rope_theta")), scaling


def window_of(config: Settings) -> Any:
    """Return how many tokens attention looks back; ``None`` for all."""
    if value_of(config, "use_sliding_window") is False:
        return None
    return value_of(config, "sliding_window")
