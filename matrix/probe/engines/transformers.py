"""transformers: load a checkpoint with ``AutoModelForCausalLM`` and generate.

With AutoAWQ or GPTQModel installed beside it, transformers loads AWQ checkpoints through them.
"""

from __future__ import annotations

import collections
import importlib
import importlib.util
import math
import time
from typing import Any

Json = dict[str, Any]

BACKENDS = ("awq", "gptqmodel")


def import_package(_options: Json) -> None:
    """Import transformers and the backends installed beside it."""
    import torch  # noqa: F401
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401
    from transformers.models.qwen2 import modeling_qwen2  # noqa: F401

    for name in BACKENDS:
        if importlib.util.find_spec(name):
            importlib.import_module(name)


def load(job: Json) -> tuple[Any, Json]:
    """Load ``job["checkpoint"]`` and its tokenizer. Options: ``dtype`` (default ``float16``)."""
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # The parameter was renamed in 4.56; the old name warns there.
    version = tuple(int(part) for part in transformers.__version__.split(".")[:2])
    name = "dtype" if version >= (4, 56) else "torch_dtype"
    model = AutoModelForCausalLM.from_pretrained(
        job["checkpoint"],
        **{name: getattr(torch, job["options"].get("dtype", "float16"))},
        device_map="cpu",
        use_safetensors=True,
        trust_remote_code=False,
    )
    model.eval()
    tokenizer = AutoTokenizer.from_pretrained(job["checkpoint"], trust_remote_code=False)
    kernels: collections.Counter[str] = collections.Counter()
    for module in model.modules():
        if hasattr(module, "qweight") or isinstance(module, torch.nn.Linear):
            kernels[f"{type(module).__module__}.{type(module).__qualname__}"] += 1
    packed = [name for name in sorted(kernels) if not name.startswith("torch.nn.")]
    kernel = packed[0].rpartition(".")[2] if packed else None
    return (model, tokenizer), {"kernel": kernel, "kernels": dict(sorted(kernels.items()))}


def generate(handle: Any, job: Json) -> Json:
    """Continue the prompts greedily and score the held-out texts, both given as token ids."""
    model, tokenizer = handle
    count = job["max_new_tokens"]
    started = time.perf_counter()
    answers = [continuation(model, prompt["ids"], count) for prompt in job["prompts"]]
    seconds = time.perf_counter() - started
    return {
        "text_ids": [tokenizer(prompt["text"])["input_ids"] for prompt in job["prompts"]],
        "outputs": [{"ids": ids, "text": tokenizer.decode(ids)} for ids in answers],
        "held_out": [given_logprobs(model, text["ids"]) for text in job["held_out"]],
        "tokens_per_second": count * len(answers) / seconds,
    }


def continuation(model: Any, ids: list[int], count: int) -> list[int]:
    """Exactly ``count`` new tokens, greedily."""
    import torch

    given = torch.tensor([ids])
    with torch.no_grad():
        whole = model.generate(
            given,
            attention_mask=torch.ones_like(given),
            do_sample=False,
            min_new_tokens=count,
            max_new_tokens=count,
            pad_token_id=0,
        )
    new: list[int] = whole[0, len(ids) :].tolist()
    return new


def given_logprobs(model: Any, ids: list[int]) -> list[float | None]:
    """Log-probability of each given token but the first; ``None`` for one that is not finite."""
    import torch

    given = torch.tensor([ids])
    with torch.no_grad():
        logits = model(given).logits[0, :-1].float()
    values = logits.log_softmax(-1).gather(1, given[0, 1:, None])[:, 0].tolist()
    return [value if math.isfinite(value) else None for value in values]
