"""vLLM from 0.3.3 on: load a checkpoint into the engine, in this process, and generate.

What a release accepts is asked of its signatures and names. As read in the source releases of
0.3.3, 0.4.1 to 0.4.3, 0.5.5, 0.6.0, 0.6.6, 0.7.0, 0.7.3, 0.8.5, 0.9.2, 0.10.2, 0.11.2, 0.13.0 and
0.33.0:

==================================  ==========================================================
token ids as ``prompt_token_ids=``  to 0.4.2; since then a prompt may be a dictionary of them
``num_gpu_blocks_override``         since 0.4.1
log-probabilities as numbers        0.3.3; since then as objects that hold them
a layer's ``linear_method``         to 0.4.1; since then ``quant_method``
``LLM.collective_rpc``              since 0.7; before, only the driver's model is within reach
``vllm._custom_ops``                since 0.4.1; before, the compiled code is imported as it is
==================================  ==========================================================
"""

from __future__ import annotations

import collections
import contextlib
import importlib
import importlib.util
import inspect
import math
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

from . import wna16
from .causal_lm import LIKELIEST, packed, tensors_in_memory

Json = dict[str, Any]
T = TypeVar("T")

LATER = (
    "vllm.v1.engine.llm_engine",
    "vllm.v1.engine.core",
    "vllm.v1.executor.uniproc_executor",
    "vllm.v1.worker.cpu_worker",
    "vllm.model_executor.model_loader",
    "vllm.model_executor.models.qwen2",
    "vllm.model_executor.models.qwen3",
    "vllm.model_executor.models.llama",
)
"""What the engine imports when it starts."""

COMPILED = ("vllm._C", "vllm._C_stable_libtorch")
"""Where the compiled operators are, in old and new releases."""

SMALL = {
    "max_model_len": 128,
    "max_num_seqs": 4,
    "max_num_batched_tokens": 512,
    "num_gpu_blocks_override": 64,
    "max_logprobs": LIKELIEST,
}
"""Limits that suit our short texts: memory goes to the model. Of the next tokens the likeliest are
enough: to make objects of a whole vocabulary takes minutes and gigabytes."""


AVX2_BUILD = "vllm-cpu-avx2"
BEYOND_AVX2 = (
    "_is_avx512_supported", "_is_avx512_bf16_supported", "_is_vnni_supported",
    "_is_amx_tile_supported", "_is_amx_fp16_supported",
)  # fmt: skip
"""What vLLM asks ``torch.cpu``, to choose its build and its kernels by (0.19.1, 0.32.0)."""

DEPARTURES = {
    AVX2_BUILD: contextlib.nullcontext,  # it is made before vLLM is imported
    wna16.DEPARTURE: wna16.give_operator,
}

MULTIPLIED_BY_OPERATOR = ("CPUWNA16LinearKernel", "CPUAWQLinearMethod")
"""Kernels that call ``cpu_gemm_wna16``."""


def import_package(options: Json) -> None:
    """Import vLLM and what its engine imports later, which every forked child then shares."""
    import torch

    if AVX2_BUILD in options["departures"]:
        for question in BEYOND_AVX2:
            setattr(torch.cpu, question, lambda: False)
    from vllm import LLM, SamplingParams  # noqa: F401

    with contextlib.suppress(ImportError):
        from vllm import _custom_ops  # noqa: F401
    # vLLM only warns where its compiled code cannot be loaded, and fails later over an operator
    # that is not there; imported once more, the code says what is wrong.
    if not hasattr(torch.ops._C, "silu_and_mul"):
        there = [name for name in COMPILED if importlib.util.find_spec(name)]
        importlib.import_module((there or COMPILED)[0])
    # Only to save time: modules move between versions, and what is needed and cannot be imported
    # raises again, in the load.
    for name in LATER:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    with contextlib.suppress(Exception):
        from vllm.model_executor.layers.quantization import get_quantization_config

        get_quantization_config("awq")


def load(job: Json) -> tuple[Any, Json]:
    """Start the engine on ``job["checkpoint"]``.

    Options go to ``vllm.LLM`` as they are (``dtype``, ``tensor_parallel_size``, ...), over the
    small limits that the release knows; ``dtype = "unset"`` gives none.
    """
    from vllm import LLM, EngineArgs

    known = inspect.signature(EngineArgs).parameters
    limits = {name: value for name, value in SMALL.items() if name in known}
    options = dict(job["options"])
    if options.get("dtype") == "unset":
        del options["dtype"]
    engine = LLM(
        model=job["checkpoint"],
        trust_remote_code=False,
        load_format="safetensors",
        **{"enforce_eager": True, "seed": 0, **limits, **options},
    )
    ranks = ask_ranks(engine, facts_of_worker)
    kernels: collections.Counter[str] = collections.Counter()
    for found, _ in ranks:
        kernels.update(found)
    # Ranks that cannot be asked may have more, and the others' parts would pass for the whole.
    whole = len(ranks) >= options.get("tensor_parallel_size", 1)
    return engine, {
        "kernel": kernel_in_words(quantized_kernel(kernels)),
        "kernels": dict(sorted(kernels.items())),
        "tensors": whole_tensors([tensors for _, tensors in ranks]) if whole else [],
        **departures_used(engine),
        **gpu_facts(engine),
    }


def kernel_in_words(kernel: str | None) -> str | None:
    """Name a kernel; also where it calls an operator that is not vLLM's own."""
    if kernel in MULTIPLIED_BY_OPERATOR and wna16.in_torch():
        return f"{kernel} with {wna16.OPERATOR} in torch"
    return kernel


def departures_used(engine: Any) -> Json:
    """Fact ``departures``: those that have really come to be used in a rank of an engine."""
    used = any(ask_ranks(engine, operator_calls))
    return {"departures": [wna16.DEPARTURE]} if used else {}


def operator_calls(_worker: Any) -> int:
    """Count the calls of the operator given in torch, in the process of a worker."""
    given = sys.modules.get("probe_adapters.wna16")  # a fork of this process has it as well
    return int(given.calls) if given else 0


def ask_ranks(engine: Any, question: Callable[[Any], T]) -> list[T]:
    """Ask the worker of every rank of an engine; of the first alone before 0.7."""
    if hasattr(engine, "collective_rpc"):
        import cloudpickle

        # Where workers are processes of their own, a function reaches them as code: what was
        # loaded from these files has no name there that could be imported.
        for function in (facts_of_worker, tensors_in_memory):
            cloudpickle.register_pickle_by_value(sys.modules[function.__module__])
        ranks: list[T] = engine.collective_rpc(question)
        return ranks
    executor = getattr(engine.llm_engine, "model_executor", engine.llm_engine)
    return [question(executor.driver_worker)]


def gpu_facts(engine: Any) -> Json:
    """Facts ``device`` and ``gpu_peak_bytes`` of workers that may be other processes.

    Only where every rank that can be asked has put something on a GPU.
    """
    peaks = ask_ranks(engine, gpu_peak)
    return {"device": "cuda", "gpu_peak_bytes": max(peaks)} if all(peaks) else {}


def gpu_peak(_worker: Any) -> int:
    """Most bytes of GPU memory that tensors of a worker ever took; 0 where it has no GPU."""
    import torch

    return int(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else 0


def facts_of_worker(worker: Any) -> tuple[dict[str, int], list[tuple[str, str, int]]]:
    """Count the kernels and list the tensors of one rank."""
    worker = getattr(worker, "worker", worker)  # before 0.7, Ray's is a wrapper
    model = worker.get_model() if hasattr(worker, "get_model") else worker.model_runner.model
    return linear_kernels(model), [*tensors_in_memory(model), *packed_away(model)]


def packed_away(model: Any) -> list[tuple[str, str, int]]:
    """Name, type and bytes of the weights that were handed to oneDNN.

    Its packed copy is no tensor of the model's any more; the bytes are those of the shape.
    """
    return [
        (
            f"{name}.weight",
            str(module.params_dtype).removeprefix("torch."),
            module.input_size_per_partition
            * module.output_size_per_partition
            * module.params_dtype.itemsize,
        )
        for name, module in model.named_modules()
        if hasattr(module, "output_size_per_partition")
        and getattr(module, "weight", None) is not None
        and not module.weight.numel()
    ]


def whole_tensors(ranks: list[list[tuple[str, str, int]]]) -> list[tuple[str, str, int]]:
    """Name, type and bytes of each tensor, with its parts on all ranks of a parallel engine."""
    whole: dict[tuple[str, str], int] = {}
    for name, dtype, size in (tensor for tensors in ranks for tensor in tensors):
        whole[name, dtype] = whole.get((name, dtype), 0) + size
    return [(name, dtype, size) for (name, dtype), size in whole.items()]


def linear_kernels(model: Any) -> dict[str, int]:
    """Count, over the model's modules, the code that multiplies by their weights.

    A method may hand over to a kernel it keeps (``quant_method.kernel``), or to the scheme of the
    layer; the innermost is what runs.
    """
    found: collections.Counter[str] = collections.Counter()
    for module in model.modules():
        method = getattr(module, "quant_method", None)
        if method is None and not any(module.children()):  # old models hold the layers' own too
            method = getattr(module, "linear_method", None)
        if method is None:
            continue
        inner = getattr(module, "scheme", None) or method
        kind = type(getattr(inner, "kernel", None) or inner)
        found[f"{kind.__module__}.{kind.__qualname__}"] += 1
    return dict(found)


def quantized_kernel(kernels: dict[str, int]) -> str | None:
    """Return the class name of the commonest kernel that is not the unquantized one."""
    names = [name.rpartition(".")[2] for name in sorted(kernels, key=lambda name: -kernels[name])]
    return next((name for name in names if not name.startswith("Unquantized")), None)


def generate(engine: Any, job: Json) -> Json:
    """Continue the prompts greedily and score the held-out texts, both given as token ids."""
    from vllm import SamplingParams

    tokenizer = engine.get_tokenizer()
    count = job["max_new_tokens"]
    greedy = SamplingParams(temperature=0.0, max_tokens=count, ignore_eos=True)
    once = SamplingParams(temperature=0.0, max_tokens=1)
    run(engine, [job["prompts"][0]["ids"]], once)  # what only the first call does is not timed
    started = time.perf_counter()
    answers = run(engine, [prompt["ids"] for prompt in job["prompts"]], greedy)
    seconds = time.perf_counter() - started
    scoring = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=LIKELIEST)
    scored = run(engine, [text["ids"] for text in job["held_out"]], scoring)
    outputs = [answer.outputs[0] for answer in answers]
    return {
        "text_ids": [tokenizer.encode(prompt["text"]) for prompt in job["prompts"]],
        "outputs": [{"ids": list(one.token_ids), "text": one.text} for one in outputs],
        "held_out": [given_logprobs(answer) for answer in scored],
        "likeliest": [likeliest(answer) for answer in scored],
        "tokens_per_second": count * len(outputs) / seconds,
        **departures_used(engine),
        **gpu_facts(engine),
    }


def run(engine: Any, prompts: list[list[int]], sampling: Any) -> list[Any]:
    """Give token ids to the engine; its answers, in the order of the prompts."""
    import vllm

    answers: list[Any]
    if hasattr(vllm, "TokensPrompt"):
        prompts_of_ids = [{"prompt_token_ids": ids} for ids in prompts]
        answers = engine.generate(prompts_of_ids, sampling, use_tqdm=False)
    else:
        answers = engine.generate(
            prompt_token_ids=prompts, sampling_params=sampling, use_tqdm=False
        )
    return answers


def given_logprobs(answer: Any) -> list[float | None]:
    """Log-probability of each given token but the first; ``None`` for one that is not finite."""
    values = []
    for token, choices in zip(answer.prompt_token_ids[1:], answer.prompt_logprobs[1:], strict=True):
        value = as_number(choices[token])
        values.append(value if math.isfinite(value) else None)
    return values


def likeliest(answer: Any) -> Json:
    """Return the likeliest tokens after each given token but the last, as ``packed`` has them.

    A given token that is not among them comes with them as one more, and is left out.
    """
    choices = [
        sorted(((as_number(value), token) for token, value in chosen.items()), reverse=True)
        for chosen in answer.prompt_logprobs[1:]
    ]
    count = min([LIKELIEST, *map(len, choices)])
    kept = [choice for chosen in choices for choice in chosen[:count]]
    return packed([token for _, token in kept], [value for value, _ in kept])


def as_number(logprob: Any) -> float:
    """Return a log-probability, which old releases give as it is and later ones in an object."""
    return float(getattr(logprob, "logprob", logprob))
