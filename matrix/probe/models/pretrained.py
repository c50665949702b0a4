"""What builders of pretrained models share: files every reader reads, and the model's answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from .plain_texts import CALIBRATION, HELD_OUT, PROMPTS
from .reference import continued, likeliest, scored, tensors_digest, write_merges_as_strings

Json = dict[str, Any]

ONE_FILE = "1000GB"
"""A shard's size that no model reaches: the digest of the tensors is that of one file."""


def keep_float_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Save a float16 model with its tokenizer, in the form that old and new readers understand."""
    model.save_pretrained(folder, safe_serialization=True, max_shard_size=ONE_FILE)
    write_config_for_old_readers(folder / "config.json")
    tokenizer.save_pretrained(folder)
    write_merges_as_strings(folder / "tokenizer.json")


def write_config_for_old_readers(file: Path) -> None:
    """Name the data type as all releases do: those before 4.56 do not know ``dtype``."""
    config = json.loads(file.read_text(encoding="utf-8"))
    config["torch_dtype"] = config.pop("dtype")
    file.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")


def write_reference(
    folder: Path, tokenizer: Any, max_new_tokens: int, calibration: list[str] = CALIBRATION
) -> Json:
    """Write ``reference.json`` beside a kept model; facts: its perplexity on the held-out texts.

    It is what the model answers: its saved float16 weights, computed in float32.
    """
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    reference = {
        "schema": 1,
        "prompts": [continued(model, tokenizer, text, max_new_tokens) for text in PROMPTS],
        "held_out": [scored(model, tokenizer, text) for text in HELD_OUT],
        "likeliest": [likeliest(model, tokenizer, text) for text in HELD_OUT],
        "memorised": [],
        "calibration": calibration,
        "max_new_tokens": max_new_tokens,
        "tensors_sha256": tensors_digest(folder / "model.safetensors"),
    }
    target = folder.with_name("reference.json")
    target.write_text(json.dumps(reference, indent=1), encoding="utf-8")
    logprobs = [value for text in reference["held_out"] for value in text["logprobs"]]
    return {"perplexity": torch.tensor(logprobs).mean().neg().exp().item()}
