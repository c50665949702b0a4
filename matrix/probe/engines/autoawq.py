"""AutoAWQ's own loader: ``AutoAWQForCausalLM.from_quantized``, and generate.

On a CPU it needs intel-extension-for-pytorch.
"""

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


def import_package(_options: Json) -> None:
    """Import what a user of AutoAWQ imports."""
    import awq  # noqa: F401

    import_transformers()


def load(job: Json) -> tuple[Any, Json]:
    """Load ``job["checkpoint"]``; a float model by transformers. Option: ``dtype``."""
    from awq import AutoAWQForCausalLM

    if quantization_config(job) is None:
        return loaded(job, load_pretrained(job))
    model = AutoAWQForCausalLM.from_quantized(
        job["checkpoint"],
        fuse_layers=False,
        safetensors=True,
        device_map={"": device()},  # a name would have to be "auto" and the like
        trust_remote_code=False,
        **dtype_argument(job, "torch_dtype"),
    )
    return loaded(job, model)
