"""An adapter for an engine: the one file that drives it inside its environment.

It may import the package under test and the standard library, and files from beside it. Nothing of
the harness is there. Facts are plain data; docs/design.md lists them under "Probes".
"""

from __future__ import annotations

import math
import time
from typing import Any

Json = dict[str, Any]


def import_package(_options: Json) -> None:
    """Import what is slow to import: once, before the processes that do the work are forked."""
    import torch  # noqa: F401
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401


def load(job: Json) -> tuple[Any, Json]:
    """Load ``job["checkpoint"]``; return whatever ``generate`` needs, and the facts of the load."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    dtype = getattr(torch, job["options"]["dtype"])
    model = AutoModelForCausalLM.from_pretrained(job["checkpoint"], torch_dtype=dtype).eval()
    tokenizer = AutoTokenizer.from_pretrained(job["checkpoint"])
    tensors = [
        (name, str(tensor.dtype).removeprefix("torch."), tensor.nbytes)
        for name, tensor in model.named_parameters()
    ]
    return (model, tokenizer), {"kernel": None, "kernels": {}, "tensors": tensors}


def generate(handle: Any, job: Json) -> Json:
    """Answer the prompts and score the held-out texts, which are given as token ids."""
    model, tokenizer = handle
    count = job["max_new_tokens"]
    started = time.perf_counter()
    answers = [continue_greedily(model, prompt["ids"], count) for prompt in job["prompts"]]
    seconds = time.perf_counter() - started
    return {
        "text_ids": [tokenizer(prompt["text"])["input_ids"] for prompt in job["prompts"]],
        "outputs": [{"ids": ids, "text": tokenizer.decode(ids)} for ids in answers],
        "held_out": [score(model, text["ids"]) for text in job["held_out"]],
        "tokens_per_second": count * len(answers) / seconds,
    }


def continue_greedily(model: Any, ids: list[int], count: int) -> list[int]:
    """Return ``count`` new token ids."""
    import torch

    given = torch.tensor([ids])
    whole = model.generate(
        given, attention_mask=torch.ones_like(given), do_sample=False, pad_token_id=0,
        min_new_tokens=count, max_new_tokens=count,
    )  # fmt: skip
    new: list[int] = whole[0, len(ids) :].tolist()
    return new


def score(model: Any, ids: list[int]) -> list[float | None]:
    """Return the log-probability of each token but the first; ``None`` where it is not finite."""
    import torch

    given = torch.tensor([ids])
    with torch.no_grad():
        logits = model(given).logits[0, :-1].float()
    values = logits.log_softmax(-1).gather(1, given[0, 1:, None])[:, 0].tolist()
    return [value if math.isfinite(value) else None for value in values]
