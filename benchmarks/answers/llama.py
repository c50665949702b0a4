"""A Llama model's forward pass from any layer on, which lets planted damages share what is before.

Multiplies in bfloat16 and keeps the rest in float32: an engine's own drift, some 0.0005 nats.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.nn.functional import scaled_dot_product_attention, silu
from transformers import AutoConfig

Layer = dict[str, torch.Tensor]
LINEARS = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip
NORMS = ("input_layernorm", "post_attention_layernorm")


class Llama:
    """A tied model with its weights in float32, and what a loader may read wrong of it."""

    def __init__(self, folder: Path) -> None:
        config = AutoConfig.from_pretrained(folder)
        tensors = load_file(folder / "model.safetensors")
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.base, self.eps = float(config.rope_theta), float(config.rms_norm_eps)
        self.embedding = tensors["model.embed_tokens.weight"].float()
        self.norm = tensors["model.norm.weight"].float()
        self.layers: list[Layer] = [
            {
                name: tensors[f"model.layers.{index}.{name}.weight"].float()
                for name in (*LINEARS, *NORMS)
            }
            for index in range(config.num_hidden_layers)
        ]


def states(
    model: Llama, layers: list[Layer], ids: torch.Tensor, before: list[torch.Tensor], start: int
) -> list[torch.Tensor]:
    """Return what enters each layer from ``start`` on, and last what leaves; ``before`` is kept."""
    hidden = before[start] if start else model.embedding[ids]
    turn = rotation(model, ids.shape[1])
    result = [*before[:start], hidden]
    for layer in layers[start:]:
        attended = normed(hidden, layer["input_layernorm"], model.eps)
        hidden = hidden + attention(model, layer, attended, turn)
        inner = normed(hidden, layer["post_attention_layernorm"], model.eps)
        gated = silu(times(inner, layer["mlp.gate_proj"])) * times(inner, layer["mlp.up_proj"])
        hidden = hidden + times(gated, layer["mlp.down_proj"])
        result.append(hidden)
    return result


def logprobs(model: Llama, last: torch.Tensor, head: torch.Tensor) -> torch.Tensor:
    """Return the log-probabilities of all tokens after all places but the last: places x tokens."""
    hidden = normed(last[:, :-1], model.norm, model.eps).flatten(0, 1)
    return times(hidden, head).log_softmax(-1)


def times(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Multiply by a weight, in bfloat16."""
    return (values.bfloat16() @ weight.bfloat16().T).float()


def normed(values: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Return the values over their root mean square."""
    return values * (values.square().mean(-1, keepdim=True) + eps).rsqrt() * weight


def rotation(model: Llama, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cosine and sine of each position's rotary angles."""
    size = model.embedding.shape[1] // model.heads
    speeds = model.base ** -(torch.arange(0, size, 2).float() / size)
    angles = torch.outer(torch.arange(length).float(), speeds).repeat(1, 2)
    return angles.cos(), angles.sin()


def attention(
    model: Llama, layer: Layer, values: torch.Tensor, turn: tuple[torch.Tensor, torch.Tensor]
) -> torch.Tensor:
    """Return what attention adds."""
    batch, length, width = values.shape

    def heads(name: str, count: int) -> torch.Tensor:
        return times(values, layer[name]).view(batch, length, count, -1).transpose(1, 2)

    cosine, sine = turn
    query, key = (
        part * cosine + torch.cat((-part.chunk(2, -1)[1], part.chunk(2, -1)[0]), -1) * sine
        for part in (
            heads("self_attn.q_proj", model.heads), heads("self_attn.k_proj", model.kv_heads)
        )
    )  # fmt: skip
    value = heads("self_attn.v_proj", model.kv_heads)
    repeat = model.heads // model.kv_heads
    mixed = scaled_dot_product_attention(
        query,
        key.repeat_interleave(repeat, 1),
        value.repeat_interleave(repeat, 1),
        is_causal=True,
    )
    return times(mixed.transpose(1, 2).reshape(batch, length, width), layer["self_attn.o_proj"])
