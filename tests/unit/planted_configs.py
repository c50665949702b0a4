"""Kinds of damage to the settings of real checkpoints, by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.unit import real_checkpoints as real
from tests.unit.planted_damages import Damage, NoEffectError, edit

SAME_SETTINGS = {"bits": "num_bits", "sym": "symmetric", "group_size": "group_size"}


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
        of_file = content["quantization_config"]
        groups = [group["weights"] for group in of_file.get("config_groups", {}).values()]
        for name, value in settings.items():
            key = SAME_SETTINGS.get(name, name) if groups else name
            if groups and name == "version":  # of compressed-tensors itself, for information
                raise NoEffectError
            for place in groups if groups and name in SAME_SETTINGS else [of_file]:
                if place[key] is None and groups:
                    raise NoEffectError
                place[key] = value

    return edit("config.json", change)


def of_group(**settings: Any) -> Damage:
    """Return the damage that sets keys of each of compressed-tensors' groups of layers."""

    def change(content: real.Config) -> None:
        for group in content["quantization_config"]["config_groups"].values():
            group.update(settings)

    return edit("config.json", change)


def store_otherwise(content: real.Config) -> None:
    """Say that compressed-tensors packed what lies there byte by byte, or the other way around."""
    for group in content["quantization_config"]["config_groups"].values():
        is_packed = group["format"] == "pack-quantized"
        group["format"] = "int-quantized" if is_packed else "pack-quantized"


def flip_symmetry(content: real.Config) -> None:
    """Say the other of whether compressed-tensors' groups are symmetric."""
    for group in content["quantization_config"]["config_groups"].values():
        group["weights"]["symmetric"] = not group["weights"]["symmetric"]


def leave_out(content: real.Config) -> None:
    """Say that layers are left out which compressed-tensors packed."""
    content["quantization_config"]["config_groups"]
    content["quantization_config"]["ignore"].append("re:.*down_proj")


def by_group(content: real.Config) -> None:
    """Say that compressed-tensors' groups follow the order of the activations."""
    for group in content["quantization_config"]["config_groups"].values():
        if group["weights"]["strategy"] != "group":
            raise NoEffectError
        group["weights"]["actorder"] = "group"


def beside(**settings: Any) -> Damage:
    """Return the damage that sets keys of quantize_config.json that are there."""

    def change(content: real.Config) -> None:
        for name, value in settings.items():
            content[name]
            content[name] = value

    return edit("quantize_config.json", change)


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


def only(kind: str, damage: Damage) -> Damage:
    """Return a damage that has an effect in one model type alone."""

    def checked(folder: Path) -> None:
        if json.loads((folder / "config.json").read_text())["model_type"] != kind:
            raise NoEffectError
        damage(folder)

    return checked


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
    "groups of layers of another format": edit("config.json", store_otherwise),
    "groups of layers that are not there": of_group(targets=["Conv2d"]),
    "symmetric flipped": edit("config.json", flip_symmetry),
    "ignored layers that are packed": edit("config.json", leave_out),
    "actorder group": edit("config.json", by_group),
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
