"""What the adapters do where torch sees a GPU, and with vLLM's old and new ways of being called.

torch and the packages are made up: what is asked of them is what is looked at. Nothing here has run
on a card.
"""

from __future__ import annotations

import base64
import importlib.machinery
import json
import sys
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from matrix.probe.child import gpu_facts, load_adapter
from tests.provoked.made_packages import GPTQLinearMethod, Model, new_vllm, old_vllm, torch_with

PROBE = Path(__file__).parents[2] / "matrix" / "probe"
JOB = {
    "checkpoint": "/checkpoint",
    "options": {"dtype": "float16"},
    "prompts": [{"text": "a b", "ids": [1, 2]}],
    "held_out": [{"ids": [3, 4, 5]}],
    "max_new_tokens": 2,
}

Packages = Callable[..., None]
KERNEL = f"{GPTQLinearMethod.__module__}.GPTQLinearMethod"


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> Iterator[Packages]:
    """Give what puts made-up packages in the place of real ones."""

    def install(**modules: Any) -> None:
        for name, content in modules.items():
            module = ModuleType(name.replace("__", "."))
            vars(module).update(content)
            module.__spec__ = importlib.machinery.ModuleSpec(module.__name__, None)
            monkeypatch.setitem(sys.modules, module.__name__, module)

    before = set(sys.modules)
    yield install
    for name in set(sys.modules) - before:
        if name.startswith("probe_adapters"):
            del sys.modules[name]


def adapter(kind: str, name: str) -> Any:
    return load_adapter(PROBE / kind / f"{name}.py")


def vllm_adapter(packages: Packages, vllm: dict[str, Any], gpu: bool = True) -> Any:
    packages(
        torch=torch_with(gpu),
        vllm=vllm,
        cloudpickle={"register_pickle_by_value": lambda _: None},
    )
    return adapter("engines", "vllm")


@pytest.mark.parametrize(("vllm", "limited"), [(old_vllm, False), (new_vllm, True)])
def test_vllm_is_given_the_limits_that_the_release_knows(
    packages: Packages, vllm: Callable[[], dict[str, Any]], limited: bool
) -> None:
    package = vllm()
    vllm_adapter(packages, package).load(JOB)
    (made,) = package["LLM"].made
    assert made["max_model_len"] == 128
    assert ("num_gpu_blocks_override" in made) is limited
    assert ("max_logprobs" in made) is limited
    assert (made["model"], made["dtype"], made["enforce_eager"]) == ("/checkpoint", "float16", True)


@pytest.mark.parametrize("vllm", [old_vllm, new_vllm])
def test_vllm_of_either_shape_tells_the_same_of_the_same_model(
    packages: Packages, vllm: Callable[[], dict[str, Any]]
) -> None:
    engine, facts = vllm_adapter(packages, vllm()).load(JOB)
    assert facts == {
        "kernel": "GPTQLinearMethod",
        "kernels": {KERNEL: 2},
        "tensors": [("weight", "float16", 100)],
        "device": "cuda",
        "gpu_peak_bytes": 700,
    }
    assert engine


@pytest.mark.parametrize("vllm", [old_vllm, new_vllm])
def test_vllm_of_either_shape_is_given_token_ids_and_understood(
    packages: Packages, vllm: Callable[[], dict[str, Any]]
) -> None:
    package = vllm()
    module = vllm_adapter(packages, package)
    engine, _ = module.load(JOB)
    answered = module.generate(engine, JOB)
    assert answered["outputs"] == [{"ids": [7, 8], "text": "c d"}]
    assert answered["held_out"] == [[-4.0, -5.0]]
    assert answered["text_ids"] == [[3]]
    prompts = [prompts for prompts, _ in package["LLM"].given]
    assert prompts == [[[1, 2]], [[1, 2]], [[3, 4, 5]]]
    assert package["LLM"].given[-1][1]["prompt_logprobs"] == 128
    (likeliest,) = answered["likeliest"]
    assert array("i", base64.b64decode(likeliest["ids"])).tolist() == [4, 5]
    assert array("f", base64.b64decode(likeliest["logprobs"])).tolist() == [-4.0, -5.0]


def test_of_a_divided_engine_all_ranks_count_or_no_tensor_is_told(packages: Packages) -> None:
    divided = {**JOB, "options": {"dtype": "float16", "tensor_parallel_size": 2}}
    package = new_vllm()
    package["LLM"].ranks = 2
    _, facts = vllm_adapter(packages, package).load(divided)
    assert facts["tensors"] == [("weight", "float16", 200)]
    assert facts["gpu_peak_bytes"] == 700
    _, facts = vllm_adapter(packages, old_vllm()).load(divided)
    assert facts["tensors"] == [], "the driver's part must not pass for the whole"
    assert facts["kernels"] == {KERNEL: 2}


def test_rays_wrapper_of_a_worker_is_looked_into(packages: Packages) -> None:
    module = vllm_adapter(packages, old_vllm())
    runner = SimpleNamespace(model=Model(old=True))
    wrapped = SimpleNamespace(worker=SimpleNamespace(model_runner=runner))
    engine = SimpleNamespace(
        llm_engine=SimpleNamespace(model_executor=SimpleNamespace(driver_worker=wrapped))
    )
    ((kernels, _),) = module.ask_ranks(engine, module.facts_of_worker)
    assert kernels == {KERNEL: 2}


def test_on_a_cpu_no_memory_of_a_gpu_is_told(packages: Packages) -> None:
    module = vllm_adapter(packages, new_vllm(), gpu=False)
    engine, facts = module.load(JOB)
    assert not {"device", "gpu_peak_bytes"} & {*facts, *module.generate(engine, JOB)}


def test_vllm_says_where_its_workers_are_and_so_for_what_they_answer(packages: Packages) -> None:
    module = vllm_adapter(packages, new_vllm())
    engine, _ = module.load(JOB)
    answered = module.generate(engine, JOB)
    assert (answered["device"], answered["gpu_peak_bytes"]) == ("cuda", 700)


def test_a_rank_that_put_nothing_on_a_gpu_is_not_said_to_be_there(packages: Packages) -> None:
    package = new_vllm()
    package["LLM"].ranks = 2
    module = vllm_adapter(packages, package)
    packages(torch={**torch_with(True), "cuda": cuda_of(700, 0)})
    assert "device" not in module.load(JOB)[1]
    packages(torch={**torch_with(True), "cuda": cuda_of(700, 800)})
    assert module.load(JOB)[1]["gpu_peak_bytes"] == 800


def cuda_of(*peaks: int) -> Any:
    """Return ``torch.cuda`` as each rank in turn would see it."""
    left = list(peaks)
    return SimpleNamespace(is_available=lambda: True, max_memory_allocated=lambda: left.pop(0))


@pytest.mark.parametrize(
    ("available", "initialized", "peaks", "facts"),
    [
        (False, False, [], {}),
        (True, False, [7, 7], {"device": "cpu"}),
        (True, True, [0, 0], {"device": "cpu"}),
        (True, True, [0, 9], {"device": "cuda", "gpu_peak_bytes": 9}),
        (True, True, [], {"device": "cpu"}),
    ],
)
def test_a_process_that_is_shown_gpus_ran_where_it_put_something(
    packages: Packages, available: bool, initialized: bool, peaks: list[int], facts: dict[str, Any]
) -> None:
    cuda = SimpleNamespace(
        is_available=lambda: available,
        is_initialized=lambda: initialized,
        device_count=lambda: len(peaks),
        max_memory_allocated=peaks.__getitem__,
    )
    packages(torch={"cuda": cuda})
    assert gpu_facts() == facts


def test_compiled_code_that_does_not_load_is_told_with_its_own_error(
    packages: Packages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "_C_stable_libtorch.py").write_text("raise ImportError('undefined symbol: abi')")
    module = vllm_adapter(packages, {**new_vllm(), "__path__": [str(tmp_path)]})
    monkeypatch.setattr(sys.modules["torch"], "ops", SimpleNamespace(_C=SimpleNamespace()))
    with pytest.raises(ImportError, match="undefined symbol"):
        module.import_package({"departures": []})
    (tmp_path / "_C_stable_libtorch.py").unlink()
    with pytest.raises(ImportError, match=r"vllm\._C"):
        module.import_package({"departures": []})


class Loader:
    """A class of a package under test, and what it was asked for."""

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}
        self.model = SimpleNamespace(
            eval=lambda: None,
            modules=list,
            named_parameters=list,
            named_buffers=list,
            quantize=lambda *_, **__: None,
            save_quantized=lambda *_, **__: None,
        )

    def load(self, *_: Any, **named: Any) -> Any:
        self.asked = named
        return self.model


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    config = {"quantization_config": {"quant_method": "awq"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return str(tmp_path)


def asked_of(packages: Packages, name: str, checkpoint: str, gpu: bool) -> dict[str, Any]:
    """Return what an engine's adapter asks of its package."""
    loader = Loader()
    tokenizer = SimpleNamespace(save_pretrained=lambda _: None)
    packages(
        torch=torch_with(gpu),
        transformers={
            "__version__": "5.0.0",
            "AutoTokenizer": SimpleNamespace(from_pretrained=lambda *_, **__: tokenizer),
            "AutoModelForCausalLM": SimpleNamespace(from_pretrained=loader.load),
        },
        awq={"AutoAWQForCausalLM": SimpleNamespace(from_quantized=loader.load)},
        auto_gptq={"AutoGPTQForCausalLM": SimpleNamespace(from_quantized=loader.load)},
        gptqmodel={"GPTQModel": SimpleNamespace(load=loader.load), "BACKEND": {}},
    )
    adapter("engines", name).load({**JOB, "checkpoint": checkpoint})
    return loader.asked


@pytest.mark.parametrize(
    ("name", "argument", "on_gpu", "on_cpu"),
    [
        ("transformers", "device_map", "cuda:0", "cpu"),
        ("autoawq", "device_map", {"": "cuda:0"}, {"": "cpu"}),
        ("auto_gptq", "device", "cuda:0", "cpu"),
        ("gptqmodel", "device", "cuda:0", "cpu"),
    ],
)
def test_a_model_goes_to_the_gpu_that_is_shown(
    packages: Packages, checkpoint: str, name: str, argument: str, on_gpu: Any, on_cpu: Any
) -> None:
    assert asked_of(packages, name, checkpoint, gpu=True)[argument] == on_gpu
    assert asked_of(packages, name, checkpoint, gpu=False)[argument] == on_cpu


def test_autogptq_chooses_its_kernels_on_a_gpu_itself(packages: Packages, checkpoint: str) -> None:
    kernels = {"use_triton", "disable_exllama", "disable_exllamav2"}
    assert not kernels & asked_of(packages, "auto_gptq", checkpoint, gpu=True).keys()
    assert kernels < asked_of(packages, "auto_gptq", checkpoint, gpu=False).keys()


@pytest.mark.parametrize("gpu", [True, False])
def test_token_ids_go_where_the_model_is(packages: Packages, gpu: bool) -> None:
    where: list[str] = []

    class StoppedError(Exception):
        pass

    def tensor(_: Any, device: str) -> Any:
        where.append(device)
        raise StoppedError

    packages(torch={**torch_with(gpu), "tensor": tensor})
    shared = adapter("engines", "causal_lm")
    asks: list[Callable[[], Any]] = [
        lambda: shared.continuation(None, [1], 1),
        lambda: shared.score(None, [1]),
    ]
    for ask in asks:
        with pytest.raises(StoppedError):
            ask()
    assert where == ["cuda:0" if gpu else "cpu"] * 2


def quantized_by_autoawq(packages: Packages, gpu: bool, quantize: Callable[..., None]) -> Loader:
    """Have AutoAWQ's adapter quantize; what it asked of the package to load the model."""
    loader = Loader()
    loader.model.quantize = quantize
    tokenizer = SimpleNamespace(save_pretrained=lambda _: None)
    packages(
        torch=torch_with(gpu),
        awq={"AutoAWQForCausalLM": SimpleNamespace(from_pretrained=loader.load)},
        transformers={"AutoTokenizer": SimpleNamespace(from_pretrained=lambda *_, **__: tokenizer)},
    )
    scheme = {"bits": 4, "group_size": 128, "zero_point": True, "version": "GEMM"}
    options = {"max_calib_samples": 128, "max_calib_seq_len": 512}
    adapter("quantizers", "autoawq").quantize(
        {
            "model": "/model",
            "scheme": scheme,
            "options": options,
            "calibration": ["a text"],
            "output": "/output",
        }
    )
    return loader


@pytest.mark.parametrize(("gpu", "place"), [(True, None), (False, "cpu")])
def test_autoawq_places_the_model_itself_on_a_gpu(
    packages: Packages, gpu: bool, place: str | None
) -> None:
    loader = quantized_by_autoawq(packages, gpu, lambda *_, **__: None)
    assert loader.asked.get("device_map") == place


def test_autoawq_is_given_the_limits_of_calibration_that_the_release_knows(
    packages: Packages,
) -> None:
    given: list[tuple[Any, ...]] = []

    def of_0_2_5(_: Any, quant_config: Any, calib_data: Any) -> None:
        given.append((quant_config["w_bit"], calib_data))

    def of_0_2_6(
        _: Any, quant_config: Any, calib_data: Any, max_calib_samples: int, max_calib_seq_len: int
    ) -> None:
        given.append((quant_config["w_bit"], calib_data, max_calib_samples, max_calib_seq_len))

    for release in (of_0_2_5, of_0_2_6):
        quantized_by_autoawq(packages, True, release)
    assert given == [(4, ["a text"]), (4, ["a text"], 128, 512)]


def test_a_real_model_is_calibrated_with_many_long_texts_the_same_each_time(
    packages: Packages,
) -> None:
    packages(
        torch={**torch_with(False), "no_grad": lambda: lambda function: function},
        safetensors={"safe_open": None},
        transformers=dict.fromkeys(("AutoConfig", "AutoTokenizer", "AutoModelForCausalLM")),
    )
    hub = adapter("models", "hub")
    texts = hub.longer_texts(hub.CALIBRATION)
    assert texts == hub.longer_texts(hub.CALIBRATION)
    assert len(set(texts)) == 128
    assert all(1_000 < len(text) < 2_048 for text in texts), "of 512 tokens at most, for AutoAWQ"
