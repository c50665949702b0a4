"""SGLang from 0.5.3 on: load a checkpoint into its engine, and generate.

As read in the wheels of 0.5.3, 0.5.6 and 0.5.23 (``srt/entrypoints/engine.py``,
``srt/managers/tokenizer_manager.py``, ``srt/server_args.py``), in which all of this is the same.
The model lies in processes of the engine's own, which tell how much memory it takes, and neither
its tensors nor which kernels multiply.
"""

from __future__ import annotations

import inspect
import math
import time
from typing import Any

from .causal_lm import LIKELIEST, packed

Json = dict[str, Any]

SMALL = {
    "context_length": 128,
    "max_running_requests": 4,
    "max_total_tokens": 1024,
    "disable_cuda_graph": True,
    "disable_radix_cache": True,
}
"""Limits that suit our short texts: memory goes to the model, and no text is answered from what was
kept of another."""

GIB = 2**30


def import_package(_options: Json) -> None:
    """Import what a user of SGLang's offline engine imports, and what holds its arguments."""
    import sglang  # noqa: F401
    from sglang.srt.server_args import ServerArgs  # noqa: F401


def load(job: Json) -> tuple[Any, Json]:
    """Start the engine on ``job["checkpoint"]``.

    Options go to ``sglang.Engine`` as they are (``dtype``, ...), over the small limits that the
    release has; ``tensor_parallel_size`` under the name that it has there, and ``dtype = "unset"``
    gives none.
    """
    import sglang
    from sglang.srt.server_args import ServerArgs

    taken = inspect.signature(ServerArgs).parameters
    limits = {name: value for name, value in SMALL.items() if name in taken}
    options = dict(job["options"])
    if options.get("dtype") == "unset":
        del options["dtype"]
    ranks = options.pop("tensor_parallel_size", 1)
    engine = sglang.Engine(
        model_path=job["checkpoint"],
        trust_remote_code=False,
        load_format="safetensors",
        random_seed=0,
        tp_size=ranks,
        **{**limits, **options},
    )
    return engine, {"kernel": None, "kernels": {}, "tensors": [], **gpu_facts(engine)}


def gpu_facts(engine: Any) -> Json:
    """Facts ``device`` and ``gpu_peak_bytes``, by what the engine's first rank says of its memory.

    It rounds gigabytes to two or three places. None where it does not say that the model takes any.
    """
    states = [
        state.get("memory_usage", {}) for state in engine.get_server_info()["internal_states"]
    ]
    used = [usage["weight"] + usage.get("kvcache", 0) for usage in states if usage.get("weight")]
    device = str(engine.server_args.device)
    if not used or not device.startswith("cuda"):
        return {}
    return {"device": "cuda", "gpu_peak_bytes": int(max(used) * GIB)}


def generate(engine: Any, job: Json) -> Json:
    """Continue the prompts greedily and score the held-out texts, both given as token ids."""
    tokenizer = engine.tokenizer_manager.tokenizer
    prompts, count = [prompt["ids"] for prompt in job["prompts"]], job["max_new_tokens"]
    run(engine, prompts[:1], 1)  # what only the first call does is not timed
    started = time.perf_counter()
    answers = run(engine, prompts, count)
    seconds = time.perf_counter() - started
    scored = run(
        engine, [text["ids"] for text in job["held_out"]], 1,
        return_logprob=True, logprob_start_len=0, top_logprobs_num=LIKELIEST,
    )  # fmt: skip
    return {
        "text_ids": [tokenizer.encode(prompt["text"]) for prompt in job["prompts"]],
        "outputs": [
            {"ids": list(answer["output_ids"]), "text": answer["text"]} for answer in answers
        ],
        "held_out": [
            given_logprobs(text["ids"], answer["meta_info"]["input_token_logprobs"])
            for text, answer in zip(job["held_out"], scored, strict=True)
        ],
        "likeliest": [likeliest(answer["meta_info"]["input_top_logprobs"]) for answer in scored],
        "tokens_per_second": count * len(answers) / seconds,
        **gpu_facts(engine),
    }


def run(engine: Any, prompts: list[list[int]], count: int, **more: Any) -> list[Json]:
    """Give token ids to the engine; its greedy answers, in the order of the prompts."""
    sampling = {"temperature": 0.0, "max_new_tokens": count, "ignore_eos": True}
    answers: list[Json] = engine.generate(input_ids=prompts, sampling_params=sampling, **more)
    return answers


def given_logprobs(
    ids: list[int], scored: list[tuple[float | None, int, Any]]
) -> list[float | None]:
    """Log-probability of each given token but the first; ``None`` for one that is not finite.

    ``scored`` has a log-probability, a token (0.5.3: 0 for the vocabulary's last) and a text in the
    place of each. Raises :class:`ValueError` where it is not of as many tokens as were given.
    """
    values = [value for (value, _, _), _ in zip(scored, ids, strict=True)][1:]
    return [value if value is not None and math.isfinite(value) else None for value in values]


def likeliest(choices: list[list[tuple[float, int, Any]]]) -> Json:
    """Return the likeliest tokens after each given token but the last, as ``packed`` has them.

    ``choices`` are those in the place of each given token, the likeliest first; in that of the
    first token there is no list.
    """
    kept = [choice for in_place in choices[1:] for choice in in_place]
    return packed([token for _, token, _ in kept], [value for value, _, _ in kept])
