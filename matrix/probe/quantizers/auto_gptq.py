"""AutoGPTQ: quantize a float model by GPTQ. Its model types: Qwen2 and Llama, no Qwen3."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]


def import_package(_options: Json) -> None:
    """Import what a user of AutoGPTQ imports, and the model code it would import later."""
    import auto_gptq  # noqa: F401
    from transformers import AutoTokenizer  # noqa: F401
    from transformers.models.llama import modeling_llama  # noqa: F401
    from transformers.models.qwen2 import modeling_qwen2  # noqa: F401


def quantize(job: Json) -> Json:
    """Quantize ``job["model"]`` by the scheme and save model and tokenizer to ``job["output"]``.

    Raises ``OSError`` on a machine without CUDA (AutoGPTQ's own guard), unless under the departure
    ``auto-gptq-cpu``. Calibration: every text, whole, one a batch.
    """
    from auto_gptq import AutoGPTQForCausalLM, BaseQuantizeConfig
    from transformers import AutoTokenizer

    scheme = job["scheme"]
    config = BaseQuantizeConfig(
        bits=scheme["bits"],
        group_size=scheme["group_size"],
        sym=scheme["sym"],
        desc_act=scheme["desc_act"],
        # By default gptq_model-4bit-64g, a name that only AutoGPTQ itself looks for.
        model_file_base_name="model",
    )
    model = AutoGPTQForCausalLM.from_pretrained(job["model"], config, trust_remote_code=False)
    tokenizer = AutoTokenizer.from_pretrained(job["model"], trust_remote_code=False)
    model.quantize([tokenizer(text) for text in job["calibration"]])
    model.save_quantized(job["output"], use_safetensors=True)
    tokenizer.save_pretrained(job["output"])
    return {}


@contextlib.contextmanager
def on_cpu() -> Iterator[None]:
    """Let AutoGPTQ quantize without a GPU: no guard, and the CPU in the place of ``cuda:0``.

    No numeric code is touched. ``torch.cuda.is_available`` says yes to ``from_pretrained`` alone,
    which asks for its guard; what ``quantize`` moves to ``CUDA_0`` stays where it is.
    """
    import torch
    from auto_gptq.modeling import _base

    guarded, device = _base.BaseGPTQForCausalLM.from_pretrained, _base.CUDA_0
    available, synchronize = torch.cuda.is_available, torch.cuda.synchronize

    def unguarded(cls: Any, *values: Any, **named: Any) -> Any:
        torch.cuda.is_available = lambda: True
        try:
            return guarded.__func__(cls, *values, **named)
        finally:
            torch.cuda.is_available = available

    _base.BaseGPTQForCausalLM.from_pretrained = classmethod(unguarded)
    _base.CUDA_0 = _base.CPU
    torch.cuda.synchronize = lambda *_: None
    try:
        yield
    finally:
        _base.BaseGPTQForCausalLM.from_pretrained = guarded
        _base.CUDA_0 = device
        torch.cuda.synchronize = synchronize


DEPARTURES = {"auto-gptq-cpu": on_cpu}
