"""How what the files say differs from what the float model's say. Pure.

Only what changes answers is compared, and by what a reader makes of it: a setting that is written
elsewhere by another transformers, or left out where its default is meant, is no difference.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from matrix.description.families import defaults_of, is_tied, rope_of, value_of, window_of
from matrix.description.reading import Description, Settings

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


def config_differences(ours: Settings, theirs: Settings) -> list[str]:
    """Return where config.json differs from the original's in what changes answers."""
    lines = [*_scalar_differences(ours, theirs), *_position_differences(ours, theirs)]
    if _texts(ours.get("architectures")) != _texts(theirs.get("architectures")):
        lines.append(_line("architectures", ours.get("architectures"), theirs.get("architectures")))
    tied = is_tied(ours), is_tied(theirs)
    if None not in tied and tied[0] is not tied[1]:
        lines.append(_line("tie_word_embeddings", *tied))
    for name in ENDS:
        if (ids := ids_of(ours, name)) != (wanted := ids_of(theirs, name)) and wanted:
            lines.append(_line(name, sorted(ids) or None, sorted(wanted)))
    inner, outer = ours.get("text_config"), theirs.get("text_config")
    if isinstance(inner, dict) and isinstance(outer, dict):
        lines += [f"text_config.{line}" for line in config_differences(inner, outer)]
    return lines


def _scalar_differences(ours: Settings, theirs: Settings) -> Iterator[str]:
    for name in SETTINGS:
        have, want = value_of(ours, name), value_of(theirs, name)
        # What only a newer writer says is its own default, where nothing is known of it.
        if want is not None and not is_same(have, want):
            yield _line(name, have, want)


def _position_differences(ours: Settings, theirs: Settings) -> Iterator[str]:
    """Yield differences in what a model knows of the places of tokens."""
    (base, scaling), (wanted_base, wanted) = rope_of(ours), rope_of(theirs)
    if wanted_base is not None and not is_same(base, wanted_base):
        yield _line("rope_theta", base, wanted_base)
    kinds = scaling.get("type"), wanted.get("type")
    factors = {name: value for name, value in wanted.items() if value is not None}
    if kinds[0] != kinds[1] or any(
        not is_same(scaling.get(name), value) for name, value in factors.items()
    ):
        yield _line("rope_scaling", scaling or None, wanted or None)
    window, wanted_window = window_of(ours), window_of(theirs)
    if not is_same(window, wanted_window) and (defaults_of(theirs) or wanted_window is not None):
        yield _line("sliding_window", window, wanted_window)
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
            lines.append(_line(name, sorted(ids), sorted(wanted)))
    for name in SAMPLING:
        if None not in (have.get(name), want.get(name)) and not is_same(have[name], want[name]):
            lines.append(_line(name, have[name], want[name]))
    return lines


def tokenizer_differences(ours: Description, theirs: Description) -> list[str]:
    """Return where the tokenizer is another one than the original's, in whatever form it is."""
    lines = []
    for role, token in theirs.roles.items():
        if role != "unk_token" and ours.roles.get(role) != token:
            lines.append(_line(role, ours.roles.get(role), token))
    if theirs.template.strip() and ours.template.strip() != theirs.template.strip():
        what = "is another one than" if ours.template else "is missing; copy"
        lines.append(f"the chat template {what} the original's")
    if ours.tokenizer is None or theirs.tokenizer is None:
        return lines
    have, want = ours.tokenizer, theirs.tokenizer
    if have.model.ids != want.model.ids:
        lines.append(_vocabulary_line(have.model.ids, want.model.ids))
    if have.model.pairs != want.model.pairs:
        lines.append(f"{len(have.model.pairs)} merges are not the original's")
    for token, number in want.added.items():
        if have.added.get(token, have.model.ids.get(token)) != number:
            lines.append(_line(f"the id of {token[:_SHOWN]!r}", have.added.get(token), number))
    frame = added_around(have.post_processor), added_around(want.post_processor)
    if frame[0] != frame[1]:
        lines.append(_line("what is put around a text", *frame))
    if want.decoder and not have.decoder:
        lines.append("the decoder is missing")
    if (want.pre_tokenizer or want.normalizer) and not (have.pre_tokenizer or have.normalizer):
        lines.append("pre_tokenizer and normalizer are missing")
    return lines


def _vocabulary_line(have: dict[str, int], want: dict[str, int]) -> str:
    other = sum(have.get(token) != number for token, number in want.items())
    if other:
        return f"{other} of {len(want)} tokens have another id or none"
    return f"{len(have) - len(want)} tokens are not the original's"


def added_around(processor: Settings | None) -> list[str]:
    """Return the special tokens that a post-processor puts around a text, which is ``...``."""
    if not isinstance(processor, dict):
        return []
    inner = processor.get("processors")
    if isinstance(inner, list):
        return [token for part in inner for token in added_around(part)]
    pieces = processor.get("single")
    tokens: list[str] = []
    for piece in pieces if isinstance(pieces, list) else []:
        special = piece.get("SpecialToken") if isinstance(piece, dict) else None
        tokens.append(str(special.get("id")) if isinstance(special, dict) else "...")
    return [] if tokens == ["..."] else tokens


def ids_of(settings: Settings, name: str) -> set[int]:
    """Return the ids that a setting gives, which may be one or a list; empty for none."""
    value = value_of(settings, name)
    values = value if isinstance(value, list) else [value]
    return {number for number in values if isinstance(number, int)}


def is_same(one: Any, other: Any) -> bool:
    """Whether two settings mean the same."""
    numbers = [value for value in (one, other) if isinstance(value, int | float)]
    if len(numbers) == 2:
        return math.isclose(numbers[0], numbers[1], rel_tol=1e-6)
    return bool(one == other)


def _texts(value: object) -> list[str]:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


def _line(name: str, have: object, want: object) -> str:
    """Return how a setting differs, for a person."""
    mine = "missing" if have is None else str(have)[:_SHOWN]
    return f"{name} is {mine} where the original has {str(want)[:_SHOWN] if want else want}"
