"""torch, vLLM and SGLang, made up as far as the adapters ask: with a GPU or without, old or new."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any


class Linear:
    """The unquantized layer of torch."""


class Tensor:
    def __init__(self, pointer: int, size: int) -> None:
        self.is_meta, self.dtype, self.nbytes = False, "torch.float16", size
        self.data_ptr = lambda: pointer


class GPTQLinearMethod:
    """The code that multiplies, as vLLM names it."""


class Layer:
    """A packed layer, which says how it is multiplied as old or as new releases do."""

    def __init__(self, old: bool) -> None:
        setattr(self, "linear_method" if old else "quant_method", GPTQLinearMethod())

    def children(self) -> list[Any]:
        return []


class Model:
    """Two packed layers. Old models hold the layers' method themselves too."""

    def __init__(self, old: bool) -> None:
        self._layers = [Layer(old), Layer(old)]
        if old:
            self.linear_method = GPTQLinearMethod()

    def children(self) -> list[Layer]:
        return self._layers

    def modules(self) -> list[Any]:
        return [self, *self._layers]

    def named_modules(self) -> list[Any]:
        return []

    def named_parameters(self) -> list[tuple[str, Tensor]]:
        return [("weight", Tensor(1, 100))]

    def named_buffers(self) -> list[tuple[str, Tensor]]:
        return []


def torch_with(gpu: bool) -> dict[str, Any]:
    """Return what a made-up torch holds: on a GPU, 700 bytes were taken at most."""

    def no_memory() -> int:
        raise AssertionError("without a GPU, its memory is not asked for")

    return {
        "cuda": SimpleNamespace(
            is_available=lambda: gpu, max_memory_allocated=(lambda: 700) if gpu else no_memory
        ),
        "nn": SimpleNamespace(Linear=Linear),
        "ops": SimpleNamespace(_C=SimpleNamespace(silu_and_mul=1)),
        "float16": "float16",
    }


class Engine:
    """What both shapes of ``vllm.LLM`` share."""

    made: list[dict[str, Any]]
    given: list[tuple[Any, dict[str, Any]]]
    old: bool
    ranks = 1

    def __init__(self, **arguments: Any) -> None:
        type(self).made.append(arguments)
        self.model = Model(self.old)

    def get_tokenizer(self) -> Any:
        return SimpleNamespace(encode=lambda text: [len(text)])

    def answer(self, prompts: list[list[int]], sampling: dict[str, Any]) -> list[Any]:
        type(self).given.append((prompts, sampling))
        number: Callable[[float], Any] = (
            (lambda value: value) if self.old else (lambda value: SimpleNamespace(logprob=value))
        )
        return [
            SimpleNamespace(
                prompt_token_ids=ids,
                prompt_logprobs=[None, *({token: number(-float(token))} for token in ids[1:])],
                outputs=[SimpleNamespace(token_ids=(7, 8), text="c d")],
            )
            for ids in prompts
        ]


def old_vllm() -> dict[str, Any]:
    """Return vLLM as in 0.3.3."""

    class LLM(Engine):
        made, given, old = [], [], True

        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)
            worker = SimpleNamespace(model_runner=SimpleNamespace(model=self.model))
            self.llm_engine = SimpleNamespace(driver_worker=worker)

        def generate(
            self,
            prompts: list[str] | None = None,
            sampling_params: Any = None,
            prompt_token_ids: list[list[int]] | None = None,
            use_tqdm: bool = True,
        ) -> list[Any]:
            assert prompts is None
            assert prompt_token_ids is not None
            assert not use_tqdm
            return self.answer(prompt_token_ids, sampling_params)

    class EngineArgs:
        def __init__(
            self, model: str, max_model_len: int = 0, max_num_seqs: int = 0,
            max_num_batched_tokens: int = 0,
        ) -> None: ...  # fmt: skip

    return {"LLM": LLM, "EngineArgs": EngineArgs, "SamplingParams": dict}


def new_vllm() -> dict[str, Any]:
    """Return vLLM as it is now."""

    class LLM(Engine):
        made, given, old = [], [], False

        def collective_rpc(self, method: Callable[[Any], Any]) -> list[Any]:
            worker = SimpleNamespace(get_model=lambda: self.model)
            return [method(SimpleNamespace(worker=worker)) for _ in range(self.ranks)]

        def generate(
            self, prompts: list[Any], sampling_params: Any, *, use_tqdm: bool
        ) -> list[Any]:
            assert not use_tqdm
            return self.answer([prompt["prompt_token_ids"] for prompt in prompts], sampling_params)

    class EngineArgs:
        def __init__(
            self, model: str, max_model_len: int = 0, max_num_seqs: int = 0,
            max_num_batched_tokens: int = 0, num_gpu_blocks_override: int = 0,
            max_logprobs: int = 0,
        ) -> None: ...  # fmt: skip

    return {"LLM": LLM, "EngineArgs": EngineArgs, "SamplingParams": dict, "TokensPrompt": dict}


class SGLang:
    """``sglang.Engine``, which answers every prompt alike."""

    made: list[dict[str, Any]]
    given: list[dict[str, Any]]
    memory: dict[str, float]

    def __init__(self, **arguments: Any) -> None:
        type(self).made.append(arguments)
        self.server_args = SimpleNamespace(device="cuda")
        tokenizer = SimpleNamespace(encode=lambda text: [len(text)])
        self.tokenizer_manager = SimpleNamespace(tokenizer=tokenizer)

    def get_server_info(self) -> dict[str, Any]:
        return {"internal_states": [{"memory_usage": self.memory}]}

    def generate(self, input_ids: list[list[int]], **named: Any) -> list[dict[str, Any]]:
        type(self).given.append({"input_ids": input_ids, **named})
        return [
            {
                "text": "c d",
                "output_ids": [7, 8],
                "meta_info": {
                    "input_token_logprobs": [
                        (None if place == 0 else -float(token), token, None)
                        for place, token in enumerate(ids)
                    ],
                    "input_top_logprobs": [
                        None,
                        *([(-1.0, 9, None), (-2.0, t, None)] for t in ids[1:]),
                    ],
                },
            }
            for ids in input_ids
        ]


def made_sglang(**memory: float) -> tuple[type[SGLang], dict[str, dict[str, Any]]]:
    """Return the engine's class, and the modules of a made-up sglang, by their names with "__"."""

    class Engine(SGLang):
        made, given = [], []

    Engine.memory = memory

    class ServerArgs:
        def __init__(
            self, model_path: str, context_length: int = 0, max_running_requests: int = 0,
            max_total_tokens: int = 0, disable_radix_cache: bool = False,
        ) -> None: ...  # fmt: skip

    modules: dict[str, dict[str, Any]] = {
        "sglang": {"Engine": Engine},
        "sglang__srt": {},
        "sglang__srt__server_args": {"ServerArgs": ServerArgs},
    }
    return Engine, modules
