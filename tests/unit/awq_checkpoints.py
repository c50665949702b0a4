"""Makes small Qwen2-like float models and AWQ checkpoints of them, for the tests.

Quantizing here is written from the published algorithm (scale by activations, fold, round to
nearest) and shares no code with the reader.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

Array = npt.NDArray[Any]
GROUP = 64
# The sizes of the twin that the project quantizes for real.
HIDDEN, INTERMEDIATE, HEADS, KV_HEADS, VOCABULARY, LAYERS = 256, 512, 4, 2, 48, 1
# casper-hansen/AutoAWQ v0.2.9, awq/modules/linear/gemm.py, from_linear: order_map.
ORDER_MAP = [0, 2, 4, 6, 1, 3, 5, 7]


def config(*, tied: bool, quantized: bool) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "architectures": ["Qwen2ForCausalLM"],
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "tie_word_embeddings": tied,
    }
    if quantized:
        fields["quantization_config"] = {
            "quant_method": "awq",
            "bits": 4,
            "group_size": GROUP,
            "zero_point": True,
            "version": "gemm",
            "modules_to_not_convert": None,
        }
    return fields


def linear_shapes(layer: int, kv_heads: int = KV_HEADS) -> dict[str, tuple[int, int]]:
    prefix, kv = f"model.layers.{layer}", HIDDEN // HEADS * kv_heads
    return {
        f"{prefix}.self_attn.q_proj": (HIDDEN, HIDDEN),
        f"{prefix}.self_attn.k_proj": (kv, HIDDEN),
        f"{prefix}.self_attn.v_proj": (kv, HIDDEN),
        f"{prefix}.self_attn.o_proj": (HIDDEN, HIDDEN),
        f"{prefix}.mlp.gate_proj": (INTERMEDIATE, HIDDEN),
        f"{prefix}.mlp.up_proj": (INTERMEDIATE, HIDDEN),
        f"{prefix}.mlp.down_proj": (HIDDEN, INTERMEDIATE),
    }


def float_model(*, tied: bool, seed: int = 0, kv_heads: int = KV_HEADS) -> dict[str, Array]:
    """Return a float16 model whose norms have outlier channels, as real models have them."""
    random = np.random.default_rng(seed)
    tensors = {"model.embed_tokens.weight": random.normal(0, 0.05, (VOCABULARY, HIDDEN))}
    for layer in range(LAYERS):
        for name, shape in linear_shapes(layer, kv_heads).items():
            tensors[f"{name}.weight"] = random.normal(0, 0.05, shape)
            if "self_attn" in name and "o_proj" not in name:
                tensors[f"{name}.bias"] = random.normal(0, 0.1, shape[0])
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.{layer}.{norm}.weight"] = random.uniform(0.8, 1.2, HIDDEN)
        add_outliers(tensors, f"model.layers.{layer}")
    tensors["model.norm.weight"] = random.uniform(0.8, 1.2, HIDDEN)
    if not tied:
        tensors["lm_head.weight"] = random.normal(0, 0.05, (VOCABULARY, HIDDEN))
    return {name: tensor.astype(np.float16) for name, tensor in tensors.items()}


def add_outliers(tensors: dict[str, Array], layer: str) -> None:
    """Make a few channels large and what reads them small, with the function unchanged."""
    for norm, block in (("input_layernorm", "self_attn"), ("post_attention_layernorm", "mlp")):
        tensors[f"{layer}.{norm}.weight"][:4] *= 16
        for part in ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"):
            if f"{layer}.{block}.{part}.weight" in tensors:
                tensors[f"{layer}.{block}.{part}.weight"][:, :4] /= 16


def fold(tensors: dict[str, Array], seed: int = 1) -> dict[str, Array]:
    """Return the model with AWQ's scales folded in as AutoAWQ does; its function is the same."""
    random = np.random.default_rng(seed)
    folded = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}

    def scales(count: int) -> Array:
        return np.exp(random.uniform(-0.5, 0.5, count))

    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        attention, mlp = f"{prefix}.self_attn", f"{prefix}.mlp"
        for norm, following in (
            ("input_layernorm", [f"{attention}.{part}_proj" for part in "qkv"]),
            ("post_attention_layernorm", [f"{mlp}.gate_proj", f"{mlp}.up_proj"]),
        ):
            s = scales(HIDDEN)
            s[:4] *= 6  # AWQ gives the channels with large inputs larger weights
            folded[f"{prefix}.{norm}.weight"] /= s
            for name in following:
                folded[f"{name}.weight"] *= s
        for first, second in (("self_attn.v", "self_attn.o"), ("mlp.up", "mlp.down")):
            writer, reader = f"{prefix}.{first}_proj", f"{prefix}.{second}_proj"
            rows = len(folded[f"{writer}.weight"])
            if rows != folded[f"{reader}.weight"].shape[1]:
                continue
            s = scales(rows)
            folded[f"{writer}.weight"] /= s[:, None]
            folded[f"{reader}.weight"] *= s
            if f"{writer}.bias" in folded:
                folded[f"{writer}.bias"] /= s
    return {name: tensor.astype(np.float16) for name, tensor in folded.items()}


def pack(codes: Array) -> Array:
    """Pack [rows, columns] of 4-bit codes into int32 words, position by position as published."""
    words = np.zeros((len(codes), codes.shape[1] // 8), dtype=np.uint32)
    for position, output in enumerate(ORDER_MAP):
        words |= codes[:, output::8].astype(np.uint32) << np.uint32(4 * position)
    return words.view(np.int32)


def quantize_weight(weight: Array, clip: float = 1.0, group: int = GROUP) -> tuple[Array, ...]:
    """Return codes [in, out], zeros and scales [groups, out], by rounding to nearest."""
    outputs, inputs = weight.shape
    grouped = weight.astype(np.float64).reshape(outputs, inputs // group, group)
    high, low = grouped.max(axis=2, keepdims=True) * clip, grouped.min(axis=2, keepdims=True) * clip
    scales = (np.maximum(high - low, 1e-5) / 15).astype(np.float16).astype(np.float64)
    zeros = np.clip(-np.round(low / scales), 0, 15)
    codes = np.clip(np.round(grouped / scales) + zeros, 0, 15).reshape(outputs, inputs)
    arrays = codes.T, zeros[..., 0].T, scales[..., 0].T.astype(np.float16)
    return tuple(np.ascontiguousarray(array) for array in arrays)


@cache
def awq_model(*, tied: bool, kv_heads: int, clip: float) -> dict[str, Array]:
    """Return the tensors of an AWQ GEMM checkpoint of a float model."""
    packed = fold(float_model(tied=tied, kv_heads=kv_heads))
    linears = [n.removesuffix(".weight") for n in packed if n.endswith("_proj.weight")]
    for name in linears:
        # AutoAWQ clips all but q and k.
        keep = "q_proj" in name or "k_proj" in name
        codes, zeros, scales = quantize_weight(packed.pop(f"{name}.weight"), 1.0 if keep else clip)
        packed[f"{name}.qweight"], packed[f"{name}.qzeros"] = pack(codes), pack(zeros)
        packed[f"{name}.scales"] = scales
    return packed


def write(directory: Path, tensors: dict[str, Array], *, tied: bool, quantized: bool) -> Path:
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(config(tied=tied, quantized=quantized)))
    plain = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    save_file(plain, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def write_pair(
    root: Path,
    *,
    tied: bool = True,
    kv_heads: int = KV_HEADS,
    clip: float = 0.95,
    damage: Callable[[dict[str, Array]], object] | None = None,
) -> tuple[Path, Path]:
    """Write a float model and a (damaged) checkpoint of it; return checkpoint and original."""
    tensors = float_model(tied=tied, kv_heads=kv_heads)
    packed = {
        name: tensor.copy()
        for name, tensor in awq_model(tied=tied, kv_heads=kv_heads, clip=clip).items()
    }
    if damage is not None:
        damage(packed)
    original = write(root / "original", tensors, tied=tied, quantized=False)
    return write(root / "checkpoint", packed, tied=tied, quantized=True), original
