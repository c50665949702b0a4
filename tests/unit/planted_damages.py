"""Kinds of damage that are planted in copies of real checkpoints, by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.unit import real_checkpoints as real

Damage = Callable[[Path], object]
LAYER = "model.layers.1"
Q, K, V, UP, DOWN = (
    f"{LAYER}.{part}"
    for part in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.up_proj",
                 "mlp.down_proj")
)  # fmt: skip
NORM, LAST_NORM = f"{LAYER}.input_layernorm.weight", "model.norm.weight"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
BIAS = f"{Q}.bias"


class NoEffectError(Exception):
    """A damage cannot be planted in a checkpoint, or changes nothing of what it answers."""


def tensors(change: Callable[[real.Tensors], object]) -> Damage:
    """Return the damage that changes arrays of the weights."""

    def damage(folder: Path) -> None:
        arrays, metadata = real.read_tensors(folder / real.WEIGHTS)
        if BIAS in arrays and not arrays[BIAS].view(np.uint8).any():
            del arrays[BIAS]  # of a model that has none; auto-gptq writes zeros
        before = {name: array.tobytes() for name, array in arrays.items()}
        try:
            change(arrays)
        except (KeyError, IndexError):
            raise NoEffectError from None
        if before == {name: array.tobytes() for name, array in arrays.items()}:
            raise NoEffectError
        real.write_tensors(folder / real.WEIGHTS, arrays, metadata)

    return damage


def edit(file: str, change: Callable[[real.Config], object]) -> Damage:
    """Return the damage that changes a JSON file."""

    def damage(folder: Path) -> None:
        if not (folder / file).exists():
            raise NoEffectError
        before = (folder / file).read_text()
        try:
            real.edit_json(folder / file, change)
        except KeyError:
            raise NoEffectError from None
        real.edit_json(folder / file, lambda _: None)
        if json.loads(before) == json.loads((folder / file).read_text()):
            raise NoEffectError

    return damage


def config(**settings: Any) -> Damage:
    """Return the damage that sets keys of config.json."""
    return edit("config.json", lambda content: content.update(settings))


def scaled(name: str, factor: float) -> Damage:
    """Return the damage that multiplies a number of config.json that is there."""

    def change(content: real.Config) -> None:
        content[name] = int(content[name] * factor)

    return edit("config.json", change)


def removed(*names: str) -> Damage:
    """Return the damage that removes keys of config.json."""

    def change(content: real.Config) -> None:
        for name in names:
            content.pop(name, None)

    return edit("config.json", change)


def quantization(**settings: Any) -> Damage:
    """Return the damage that sets keys of the quantization_config that are there."""

    def change(content: real.Config) -> None:
        for name, value in settings.items():
            content["quantization_config"][name]
            content["quantization_config"][name] = value

    return edit("config.json", change)


def beside(**settings: Any) -> Damage:
    """Return the damage that sets keys of quantize_config.json that are there."""

    def change(content: real.Config) -> None:
        for name, value in settings.items():
            content[name]
            content[name] = value

    return edit("quantize_config.json", change)


def relabel(metadata: dict[str, str]) -> Damage:
    """Return the damage that writes the weights with other metadata."""

    def damage(folder: Path) -> None:
        arrays, _ = real.read_tensors(folder / real.WEIGHTS)
        real.write_tensors(folder / real.WEIGHTS, arrays, metadata)

    return damage


def cut(name: str) -> Damage:
    """Return the damage that keeps the first half of a tensor's rows."""

    def change(arrays: real.Tensors) -> None:
        arrays[name] = arrays[name][: len(arrays[name]) // 2].copy()

    return tensors(change)


def fill(name: str, value: int) -> Damage:
    """Return the damage that sets all bytes of a tensor."""

    def change(arrays: real.Tensors) -> None:
        arrays[name] = arrays[name].copy()
        arrays[name].view(np.uint8)[...] = value

    return tensors(change)


def turn_rows(name: str) -> Damage:
    """Return the damage that turns the order of a tensor's rows around."""

    def change(arrays: real.Tensors) -> None:
        arrays[name] = arrays[name][::-1].copy()

    return tensors(change)


def exchange_rows(arrays: real.Tensors) -> None:
    """Exchange two rows of the embedding, and of the tied head beside it."""
    for name in {EMBEDDING, HEAD} & arrays.keys():
        arrays[name][[40, 90]] = arrays[name][[90, 40]]


def add_other_head(arrays: real.Tensors) -> None:
    """Put another head beside a tied embedding."""
    arrays[HEAD] = arrays[EMBEDDING][::-1].copy()


def drop_embedding(arrays: real.Tensors) -> None:
    """Lose the embedding, and the tied head beside it."""
    del arrays[EMBEDDING]
    arrays.pop(HEAD, None)


def add_layer(arrays: real.Tensors) -> None:
    """Store the last layer once more behind itself."""
    last = max(int(name.split(".")[2]) for name in arrays if name.startswith("model.layers."))
    for name in [name for name in arrays if name.startswith(f"model.layers.{last}.")]:
        arrays[name.replace(f".{last}.", f".{last + 1}.", 1)] = arrays[name].copy()


def drop_layer(arrays: real.Tensors) -> None:
    """Lose the last layer."""
    last = max(int(name.split(".")[2]) for name in arrays if name.startswith("model.layers."))
    for name in [name for name in arrays if name.startswith(f"model.layers.{last}.")]:
        del arrays[name]


def turn_words(arrays: real.Tensors) -> None:
    """Turn the bytes of a layer's codes around."""
    arrays[f"{UP}.qweight"] = arrays[f"{UP}.qweight"].byteswap()


def shift_zeros(arrays: real.Tensors) -> None:
    """Flip the lowest bit of each zero point of a layer."""
    arrays[f"{DOWN}.qzeros"] ^= np.int32(0x11111111)


def turn_order(arrays: real.Tensors) -> None:
    """Turn the order of a layer's groups upside down."""
    index = arrays[f"{DOWN}.g_idx"]
    arrays[f"{DOWN}.g_idx"] = (index.max() - index).astype(index.dtype)


def leave_range(arrays: real.Tensors) -> None:
    """Name a group that is not there."""
    arrays[f"{DOWN}.g_idx"][5] = 99


def flip_tie(content: real.Config) -> None:
    """Say the other of whether embedding and head are one."""
    content["tie_word_embeddings"] = not content["tie_word_embeddings"]


def lose_tie(content: real.Config) -> None:
    """Leave out that embedding and head are one; readers take them for two."""
    if not content["tie_word_embeddings"]:
        raise NoEffectError
    del content["tie_word_embeddings"]


def move_base(content: real.Config) -> None:
    """Give the rotary embedding the base that readers take where there is none."""
    content.pop("rope_parameters", None)
    content["rope_theta"] = 10_000.0


def scale_rope(kind: str) -> Callable[[real.Config], None]:
    """Return the change that stretches the rotary embedding."""

    def change(content: real.Config) -> None:
        scaling = {"rope_type": kind, "type": kind, "factor": 8.0}
        if "rope_parameters" in content:
            content["rope_parameters"] |= scaling
        else:
            content["rope_scaling"] = scaling

    return change


def write_generation(**settings: Any) -> Damage:
    """Return the damage that writes wrong settings of generation."""

    def damage(folder: Path) -> None:
        file = folder / "generation_config.json"
        before = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps(before | settings))

    return damage


def truncate(folder: Path) -> None:
    """Cut the weights off."""
    data = (folder / real.WEIGHTS).read_bytes()
    (folder / real.WEIGHTS).write_bytes(data[: len(data) * 2 // 3])


def only(kind: str, damage: Damage) -> Damage:
    """Return a damage that has an effect in one model type alone."""

    def checked(folder: Path) -> None:
        if json.loads((folder / "config.json").read_text())["model_type"] != kind:
            raise NoEffectError
        damage(folder)

    return checked


ROW, ENTRY = (slice(None), 3), (0, 3)
WEIGHTS: dict[str, Damage] = {
    "a NaN scale": tensors(real.put(f"{UP}.scales", np.nan, ENTRY)),
    "an infinite scale": tensors(real.put(f"{Q}.scales", np.inf, ENTRY)),
    "a scale of 0": tensors(real.put(f"{UP}.scales", 0, ENTRY)),
    "a group of scales 0": tensors(real.put(f"{DOWN}.scales", 0, 0)),
    "a scale of 60,000": tensors(real.put(f"{UP}.scales", 60_000, ENTRY)),
    "scales of a layer 5 % up": tensors(real.times(f"{DOWN}.scales", 1.05)),
    "scales of a layer 5 % down": tensors(real.times(f"{Q}.scales", 0.95)),
    "scales of a row 60 % up": tensors(real.times(f"{UP}.scales", 1.6, ROW)),
    "scales of a layer negative": tensors(real.times(f"{UP}.scales", -1.0)),
    "scales in another order": turn_rows(f"{UP}.scales"),
    "scales cut": cut(f"{UP}.scales"),
    "scales lost": tensors(real.drop(f"{UP}.scales")),
    "codes all equal": fill(f"{UP}.qweight", 0x77),
    "codes lost": tensors(real.drop(f"{UP}.qweight")),
    "codes turned around": tensors(turn_words),
    "codes in another order": turn_rows(f"{DOWN}.qweight"),
    "codes cut": cut(f"{DOWN}.qweight"),
    "zero points lost": tensors(real.drop(f"{UP}.qzeros")),
    "zero points off by one": tensors(shift_zeros),
    "g_idx upside down": tensors(turn_order),
    "g_idx out of range": tensors(leave_range),
    "a layer that is not packed": tensors(real.unpack(Q)),
    "two layers swapped": tensors(real.swap("model.layers.0", LAYER)),
    "q of two layers swapped": tensors(real.swap("model.layers.0.self_attn.q_proj", Q)),
    "k and v swapped": tensors(real.swap(V, K)),
    "the last layer lost": tensors(drop_layer),
    "a layer too many": tensors(add_layer),
    "a NaN in a norm": tensors(real.put(LAST_NORM, np.nan, 5)),
    "a norm 5 % up": tensors(real.times(NORM, 1.05)),
    "the last norm 5 % down": tensors(real.times(LAST_NORM, 0.95)),
    "a norm of zeros": fill(NORM, 0),
    "a norm of 60,000": tensors(real.put(NORM, 60_000, 3)),
    "a norm cut": cut(NORM),
    "a norm lost": tensors(real.drop(LAST_NORM)),
    "a bias negated": tensors(real.times(BIAS, -1.0)),
    "a bias lost": tensors(real.drop(BIAS)),
    "a bias cut": cut(BIAS),
    "a NaN in a bias": tensors(real.put(BIAS, np.nan, 0)),
    "the embedding cut by rows": cut(EMBEDDING),
    "rows of the embedding in another order": turn_rows(EMBEDDING),
    "the embedding doubled": tensors(real.times(EMBEDDING, 2.0)),
    "two rows of the embedding exchanged": tensors(exchange_rows),
    "the embedding of zeros": fill(EMBEDDING, 0),
    "the embedding lost": tensors(drop_embedding),
    "another head": tensors(add_other_head),
    "the file cut off": truncate,
    "metadata without a format": relabel({"made_by": "hand"}),
    "no metadata": relabel({}),
}
CONFIG: dict[str, Damage] = {
    "rms_norm_eps 0.01": config(rms_norm_eps=1e-2),
    "rms_norm_eps 1e-5": config(rms_norm_eps=1e-5),
    "twice the heads": scaled("num_attention_heads", 2),
    "twice the heads of both kinds": lambda folder: (
        scaled("num_attention_heads", 2)(folder), scaled("num_key_value_heads", 2)(folder)
    ),
    "twice the key-value heads": scaled("num_key_value_heads", 2),
    "another head_dim": config(head_dim=32),
    "hidden_act gelu": config(hidden_act="gelu"),
    "hidden_act relu": config(hidden_act="relu"),
    "rope_theta removed": removed("rope_theta", "rope_parameters"),
    "rope_theta 10000": edit("config.json", move_base),
    "rope_theta 100": config(rope_theta=100.0),
    "rope_scaling linear": edit("config.json", scale_rope("linear")),
    "rope_scaling dynamic": edit("config.json", scale_rope("dynamic")),
    "a sliding window": lambda folder: only("qwen2", config(
        use_sliding_window=True, sliding_window=4, max_window_layers=0,
        layer_types=["sliding_attention"] * 2,
    ))(folder),
    "model_type llama": lambda folder: only("qwen2", config(model_type="llama"))(folder),
    "model_type mistral": config(model_type="mistral"),
    "model_type qwen3": lambda folder: only("qwen2", config(model_type="qwen3"))(folder),
    "architectures of another model": config(architectures=["MistralForCausalLM"]),
    "architectures removed": removed("architectures"),
    "a layer less": lambda folder: edit("config.json", lambda content: content.update(
        num_hidden_layers=content["num_hidden_layers"] - 1))(folder),
    "a layer more": lambda folder: edit("config.json", lambda content: content.update(
        num_hidden_layers=content["num_hidden_layers"] + 1))(folder),
    "half the vocabulary": scaled("vocab_size", 0.5),
    "a larger vocabulary": scaled("vocab_size", 1.25),
    "half the hidden_size": scaled("hidden_size", 0.5),
    "twice the intermediate_size": scaled("intermediate_size", 2),
    "tie_word_embeddings flipped": edit("config.json", flip_tie),
    "tie_word_embeddings removed": edit("config.json", lose_tie),
    "eos_token_id another token": config(eos_token_id=17),
    "eos_token_id outside": config(eos_token_id=99_999),
    "eos_token_id removed": removed("eos_token_id"),
    "bos_token_id another token": config(bos_token_id=17),
    "max_position_embeddings a quarter": scaled("max_position_embeddings", 0.25),
    "max_position_embeddings eightfold": scaled("max_position_embeddings", 8),
    "another number of bits": quantization(bits=8),
    "another group_size": quantization(group_size=32),
    "another quant_method": quantization(quant_method="other"),
    "a packed head that is not there": edit(
        "config.json", lambda content: content["quantization_config"].update(lm_head=True)
    ),
    "desc_act lost": quantization(desc_act=False),
    "another checkpoint_format": quantization(checkpoint_format="gptq_v2"),
    "zero_point false": quantization(zero_point=False),
    "another version": quantization(version="gemv"),
    "modules_to_not_convert that are packed": quantization(modules_to_not_convert=["down_proj"]),
    "quantization_config removed": removed("quantization_config"),
    "quantize_config.json with other bits": beside(bits=3),
    "quantize_config.json with another group_size": beside(group_size=256),
    "quantize_config.json with another desc_act": edit(
        "quantize_config.json", lambda content: content.update(desc_act=not content["desc_act"])
    ),
    "quantize_config.json with another format": beside(checkpoint_format="marlin"),
    "generation_config.json ends at another token": write_generation(eos_token_id=17),
    "generation_config.json ends at no token": write_generation(eos_token_id=99_999),
}  # fmt: skip
