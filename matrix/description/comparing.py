"""How what the files say differs from what the float model's say. Pure.

Only what changes answers is compared, and by what a reader makes of it: a setting that is written
elsewhere by another transformers, or left out where its default is meant, is no difference.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from matrix.description.families import Settings, defaults_of, is_tied, rope_of, value_of, window_of
from matrix.description.reading import Description

SIZES = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "intermediate_size", "vocab_size",
)  # fmt: skip
"""Settings without which no weight has its shape."""
SETTINGS = (
    "model_type", *SIZES, "hidden_act", "rms_norm_eps", "attention_bias", "mlp_bias",
    "max_position_embeddings", "hidden_activation", "layer_norm_eps", "layer_norm_epsilon",
    "activation_function", "partial_rotary_factor", "clip_qkv", "qkv_bias", "logit_scale",
    "attn_logit_softcapping", "final_logit_softcapping", "query_pre_attn_scalar", "logits_scaling",
    "embedding_multiplier", "residual_multiplier", "attention_multiplier", "scale_emb",
    "scale_depth", "dim_model_base", "num_experts", "num_local_experts", "n_routed_experts",
    "n_shared_experts", "num_experts_per_tok", "moe_intermediate_size", "norm_topk_prob",
    "decoder_sparse_step", "mlp_only_layers", "shared_expert_intermediate_size", "n_group",
    "topk_group", "topk_method", "scoring_func", "routed_scaling_factor", "first_k_dense_replace",
    "kv_lora_rank", "q_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim",
    "n_embd", "n_head", "n_layer", "n_positions", "n_inner", "parallel_attn", "alibi",
    "new_decoder_architecture", "multi_query", "use_parallel_residual", "rotary_pct",
    "sliding_window_pattern", "no_rope_layers", "use_qk_norm", "word_embed_proj_dim",
    "do_layer_norm_before",
)  # fmt: skip
"""Settings of config.json that change what a model answers, or whether it loads."""
SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
"""Settings of generation_config.json by which vLLM and transformers draw tokens."""
ENDS = ("eos_token_id", "bos_token_id")
_SHOWN = 60


def config_differences(ours: Settings, theirs: Settings, *, has_head: bool = False) -> list[str]:
    """Return where config.json differs from the original's in what changes answers.

    Args:
        ours: Of the checkpoint.
        theirs: Of the original.
        has_head: The checkpoint stores a head. A tied model that was untied answers the same then:
            llm-compressor 0.8.1 leaves them so.
    """
    lines = [*_scalar_differences(ours, theirs), *_position_differences(ours, theirs)]
    if _texts(ours.get("architectures")) != _texts(theirs.get("architectures")):
        lines.append(
            difference("architectures", ours.get("architectures"), theirs.get("architectures"))
        )
    tied = is_tied(ours), is_tied(theirs)
    is_copy = tied == (False, True) and has_head
    if None not in tied and tied[0] is not tied[1] and not is_copy:
        lines.append(difference("tie_word_embeddings", *tied))
    for name in ENDS:
        if (ids := ids_of(ours, name)) != (wanted := ids_of(theirs, name)) and wanted:
            lines.append(difference(name, sorted(ids) or None, sorted(wanted)))
    inner, outer = ours.get("text_config"), theirs.get("text_config")
    if isinstance(inner, dict) and isinstance(outer, dict):
        inside = config_differences({**inner, "text_config": None}, outer)
        lines += [f"text_config.{line}" for line in inside]
    return lines


def _scalar_differences(ours: Settings, theirs: Settings) -> Iterator[str]:
    for name in SETTINGS:
        have, want = value_of(ours, name), value_of(theirs, name)
        # What only a newer writer says is its own default, where nothing is known of it.
        if want is not None and not is_same(have, want):
            yield difference(name, have, want)


def _position_differences(ours: Settings, theirs: Settings) -> Iterator[str]:
    """Yield differences in what a model knows of the places of tokens."""
    (base, scaling), (wanted_base, wanted) = rope_of(ours), rope_of(theirs)
    if wanted_base is not None and not is_same(base, wanted_base):
        yield difference("rope_theta", base, wanted_base)
    kinds = scaling.get("type"), wanted.get("type")
    factors = {name: value for name, value in wanted.items() if value is not None}
    if kinds[0] != kinds[1] or any(
        not is_same(scaling.get(name), value) for name, value in factors.items()
    ):
        yield difference("rope_scaling", scaling or None, wanted or None)
    window, wanted_window = window_of(ours), window_of(theirs)
    if not is_same(window, wanted_window) and (defaults_of(theirs) or wanted_window is not None):
        yield difference("sliding_window", window, wanted_window)
    layers, wanted_layers = (side.get("max_window_layers") for side in (ours, theirs))
    if window is not None and wanted_layers is not None and layers != wanted_layers:
        yield difference("max_window_layers", layers, wanted_layers)
    kinds_of_layers, wanted_kinds = (
        _texts(ours.get("layer_types")),
        _texts(theirs.get("layer_types")),
    )
    if kinds_of_layers and wanted_kinds and kinds_of_layers != wanted_kinds:
        yield "layer_types are not the original's"
    elif "sliding_attention" in kinds_of_layers and wanted_window is None and not wanted_kinds:
        yield "layer_types has sliding_attention, which the original has not"


def generation_differences(ours: Description, theirs: Description) -> list[str]:
    """Return where generation_config.json differs from the original's, as far as both say it."""
    have, want = ours.generation or {}, theirs.generation or {}
    lines = []
    for name in ENDS:
        ids, wanted = ids_of(have, name), ids_of(want, name)
        if ids and wanted and ids != wanted:
            lines.append(difference(name, sorted(ids), sorted(wanted)))
    for name in SAMPLING:
        if None not in (have.get(name), want.get(name)) and not is_same(have[name], want[name]):
            lines.append(difference(name, have[name], want[name]))
    return lines


def ids_of(settings: Settings, name: str) -> set[int]:
    """Return the ids that a setting gives, which may be one or a list; empty for none."""
    value = value_of(settings, name)
    values = value if isinstance(value, list) else [value]
    return {number for number in values if isinstance(number, int)}


def is_same(first: Any, second: Any) -> bool:
    """Whether two settings mean the same."""
    if isinstance(first, float) or isinstance(second, float):
        try:
            return math.isclose(first, second, rel_tol=1e-6)
        except (TypeError, OverflowError):  # no number, or a whole one that is too large
            return False
    return bool(first == second)


def _texts(value: object) -> list[str]:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


def difference(name: str, have: object, want: object) -> str:
    """Return how a setting differs, for a person."""
    mine = "missing" if have is None else str(have)[:_SHOWN]
    return f"{name} is {mine} where the original has {str(want)[:_SHOWN] if want else want}"
