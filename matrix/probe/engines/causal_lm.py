"""What the adapters share whose engine is a transformers model in this process.

Adapters import from it, beside them: it has no engine of its own.
"""

from __future__ import annotations

import base64
import collections
import contextlib
import importlib
import json
import math
import time
from array import array
from pathlib import Path
from typing import Any

Json = dict[str, Any]

LATER = (
    "transformers.models.qwen3.modeling_qwen3",
    "transformers.models.llama.modeling_llama",
    "torch._dynamo",
)
"""What transformers imports when a model is loaded or generates."""

TENSORS_LIMIT = 20_000
"""Of how many tensors the facts tell."""

LIKELIEST = 128
"""How many of the likeliest next tokens are told of after each token of a held-out text."""


def import_transformers() -> None:
    """Import transformers and the model code it would import later, which forked children share."""
    import torch  # noqa: F401
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401
    from transformers.models.qwen2 import modeling_qwen2  # noqa: F401

    # Only to save time: not every release has all of them, and one that is needed and cannot be
    # imported raises again, in the load.
    for name in LATER:
        with contextlib.suppress(Exception):
            importlib.import_module(name)


def device() -> str:
    """Where a model goes whole: the first GPU that this process is shown, or the CPU."""
    import torch

    return "cuda:0" if torch.cuda.is_available() else "cpu"


def load_pretrained(job: Json, **arguments: Any) -> Any:
    """Load ``job["checkpoint"]`` by ``AutoModelForCausalLM``. Option: ``dtype``."""
    import transformers
    from transformers import AutoModelForCausalLM

    # The parameter was renamed in 4.56; the old name warns there.
    version = tuple(int(part) for part in transformers.__version__.split(".")[:2])
    name = "dtype" if version >= (4, 56) else "torch_dtype"
    return AutoModelForCausalLM.from_pretrained(
        job["checkpoint"],
        **dtype_argument(job, name),
        device_map=device(),
        use_safetensors=True,
        trust_remote_code=False,
        **arguments,
    )


def dtype_argument(job: Json, name: str) -> Json:
    """Return the argument that gives a model's type, under the name a loader has for it.

    Option ``dtype``: a type of torch, ``auto``, or ``unset`` to give none (default ``float16``).
    """
    import torch

    dtype = job["options"].get("dtype", "float16")
    if dtype == "unset":
        return {}
    return {name: dtype if dtype == "auto" else getattr(torch, dtype)}


def quantization_config(job: Json) -> Json | None:
    """Return the ``quantization_config`` of the checkpoint; ``None`` for a float model."""
    config = json.loads((Path(job["checkpoint"]) / "config.json").read_text(encoding="utf-8"))
    found: Json | None = config.get("quantization_config")
    return found


def loaded(job: Json, model: Any) -> tuple[Any, Json]:
    """Return what an adapter's ``load`` returns: the model with its tokenizer, and its facts."""
    from transformers import AutoTokenizer

    model.eval()
    tokenizer = AutoTokenizer.from_pretrained(job["checkpoint"], trust_remote_code=False)
    return (model, tokenizer), {**kernels(model), "tensors": tensors_in_memory(model)}


def kernels(model: Any) -> Json:
    """Facts ``kernel`` and ``kernels``: the classes of modules that multiply, how many of each."""
    import torch

    counts: collections.Counter[str] = collections.Counter()
    for module in model.modules():
        if hasattr(module, "qweight") or isinstance(module, torch.nn.Linear):
            counts[f"{type(module).__module__}.{type(module).__qualname__}"] += 1
    packed = [name for name in sorted(counts) if not name.startswith("torch.nn.")]
    kernel = packed[0].rpartition(".")[2] if packed else None
    return {"kernel": kernel, "kernels": dict(sorted(counts.items()))}


def tensors_in_memory(model: Any) -> list[tuple[str, str, int]]:
    """Name, type and bytes of each parameter and buffer; one that has two names is given once."""
    distinct: dict[tuple[int, int], tuple[str, str, int]] = {}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if not tensor.is_meta and tensor.nbytes:
            fact = (name, str(tensor.dtype).removeprefix("torch."), tensor.nbytes)
            distinct.setdefault((tensor.data_ptr(), tensor.nbytes), fact)
    return list(distinct.values())[:TENSORS_LIMIT]


def generate(handle: Any, job: Json) -> Json:
    """Continue the prompts greedily and score the held-out texts, both given as token ids."""
    model, tokenizer = handle
    count = job["max_new_tokens"]
    continuation(model, job["prompts"][0]["ids"], 1)  # what only the first call does is not timed
    started = time.perf_counter()
    answers = [continuation(model, prompt["ids"], count) for prompt in job["prompts"]]
    seconds = time.perf_counter() - started
    scored = [score(model, text["ids"]) for text in job["held_out"]]
    return {
        "text_ids": [tokenizer(prompt["text"])["input_ids"] for prompt in job["prompts"]],
        "outputs": [{"ids": ids, "text": tokenizer.decode(ids)} for ids in answers],
        "held_out": [given for given, _ in scored],
        "likeliest": [likeliest for _, likeliest in scored],
        "tokens_per_second": count * len(answers) / seconds,
    }


def continuation(model: Any, ids: list[int], count: int) -> list[int]:
    """Exactly ``count`` new tokens, greedily."""
    import torch

    given = torch.tensor([ids], device=device())
    with torch.no_grad():
        whole = model.generate(
            input_ids=given,
            attention_mask=torch.ones_like(given),
            do_sample=False,
            min_new_tokens=count,
            max_new_tokens=count,
            pad_token_id=0,
        )
    new: list[int] = whole[0, len(ids) :].tolist()
    return new


def score(model: Any, ids: list[int]) -> tuple[list[float | None], Json]:
    """Return the log-probability of each token of a text but the first, and the likeliest tokens.

    The first are ``None`` where not finite; the second are as :func:`packed` gives them.
    """
    import torch

    given = torch.tensor([ids], device=device())
    with torch.no_grad():
        logits = model(input_ids=given).logits[0, :-1].float()
    logprobs = logits.log_softmax(-1)
    values = logprobs.gather(1, given[0, 1:, None])[:, 0].tolist()
    best = logprobs.topk(min(LIKELIEST, logprobs.shape[-1]))
    likeliest = packed(best.indices.flatten().tolist(), best.values.flatten().tolist())
    return [value if math.isfinite(value) else None for value in values], likeliest


def packed(ids: list[int], logprobs: list[float]) -> Json:
    """Return the likeliest tokens after all tokens of a text but the last, as short text.

    Both lists have as many entries for every token, the likeliest first. They become numbers of
    four bytes, little-endian, in base64: less than half of what they take as lists.
    """
    return {
        "ids": base64.b64encode(array("i", ids).tobytes()).decode(),
        "logprobs": base64.b64encode(array("f", logprobs).tobytes()).decode(),
    }
