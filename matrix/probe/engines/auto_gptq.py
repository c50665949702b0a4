"""AutoGPTQ's own loader: ``AutoGPTQForCausalLM.from_quantized``, and generate."""

from __future__ import annotations

from typing import Any

from .causal_lm import (
    device,
    dtype_argument,
    generate,
    import_transformers,
    load_pretrained,
    loaded,
    quantization_config,
)

__all__ = ["generate", "import_package", "load"]

Json = dict[str, Any]

WITHOUT_GPU = {"use_triton": False, "disable_exllama": True, "disable_exllamav2": True}
"""Its kernels are for GPUs; there, it chooses."""


def import_package(_options: Json) -> None:
    """Import what a user of AutoGPTQ imports."""
    import auto_gptq  # noqa: F401

    import_transformers()


def load(job: Json) -> tuple[Any, Json]:
    """Load ``job["checkpoint"]``; a float model by transformers. Option: ``dtype``."""
    from auto_gptq import AutoGPTQForCausalLM

    if quantization_config(job) is None:
        return loaded(job, load_pretrained(job))
    place = device()
    model = AutoGPTQForCausalLM.from_quantized(
        job["checkpoint"],
        device=place,
        **(WITHOUT_GPU if place == "cpu" else {}),
        use_safetensors=True,
        trust_remote_code=False,
        **dtype_argument(job, "torch_dtype"),
    )
    return loaded(job, model)
