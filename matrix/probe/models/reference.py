"""What builders of models share: the float model's own answers, and files every reader reads."""

from __future__ import annotations

import base64
import hashlib
import json
from array import array
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

Json = dict[str, Any]

LIKELIEST = 64
"""How many of the likeliest next tokens are kept after each token of a held-out text."""


@torch.no_grad()
def continued(model: Any, tokenizer: Any, text: str, count: int) -> Json:
    """Continue a prompt by ``count`` tokens, each the likeliest after all before it."""
    ids = tokenizer(text)["input_ids"]
    whole = list(ids)
    for _ in range(count):
        whole.append(int(model(torch.tensor([whole])).logits[0, -1].argmax()))
    new = whole[len(ids) :]
    return {"text": text, "ids": ids, "greedy_ids": new, "greedy_text": tokenizer.decode(new)}


@torch.no_grad()
def scored(model: Any, tokenizer: Any, text: str) -> Json:
    """Give each token of a text but the first its natural log-probability after the ones before."""
    ids = tokenizer(text)["input_ids"]
    logprobs = predicted(model, ids).gather(1, torch.tensor(ids)[1:, None])[:, 0]
    return {"text": text, "ids": ids, "logprobs": logprobs.tolist()}


@torch.no_grad()
def likeliest(model: Any, tokenizer: Any, text: str) -> Json:
    """Return the likeliest tokens after each token of a text but the last, and how likely they are.

    As adapters of engines pack theirs: numbers of four bytes, little-endian, in base64.
    """
    logprobs = predicted(model, tokenizer(text)["input_ids"])
    best = logprobs.topk(min(LIKELIEST, logprobs.shape[-1]))
    return {
        "ids": base64.b64encode(array("i", best.indices.flatten().tolist()).tobytes()).decode(),
        "logprobs": base64.b64encode(array("f", best.values.flatten().tolist()).tobytes()).decode(),
    }


def predicted(model: Any, ids: list[int]) -> torch.Tensor:
    """Return the log-probability of every token after each of those given but the last."""
    logits: torch.Tensor = model(torch.tensor([ids])).logits[0, :-1]
    return logits.float().log_softmax(-1)


def write_merges_as_strings(file: Path) -> None:
    """Write merges as "a b" in a tokenizer.json: tokenizers before 0.20 cannot read pairs."""
    content = json.loads(file.read_text(encoding="utf-8"))
    merges = content["model"]["merges"]
    content["model"]["merges"] = [one if isinstance(one, str) else " ".join(one) for one in merges]
    file.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")


def tensors_digest(file: Path) -> str:
    """SHA-256 over name, type, shape and bytes of every tensor, in the order of names."""
    content = hashlib.sha256()
    with safe_open(file, framework="np") as tensors:
        for name in sorted(tensors.keys()):
            tensor = tensors.get_tensor(name)
            content.update(f"{name} {tensor.dtype} {tensor.shape}\n".encode())
            content.update(tensor.tobytes())
    return content.hexdigest()
