"""GPTQModel's own loader: ``GPTQModel.load``, and generate."""

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
    """Import what a user of GPTQModel imports."""
    import gptqmodel  # noqa: F401

    import_transformers()


def load(job: Json) -> tuple[Any, Json]:
    """Load ``job["checkpoint"]``; a float model by transformers. Options: ``dtype``, ``backend``.

    ``backend``: a name of ``gptqmodel.BACKEND``; where it is left out, the package chooses.
    """
    from gptqmodel import BACKEND, GPTQModel

    if quantization_config(job) is None:
        return loaded(job, load_pretrained(job))
    arguments = dtype_argument(job, "torch_dtype")
    if "backend" in job["options"]:
        arguments["backend"] = BACKEND[job["options"]["backend"]]
    model = GPTQModel.load(job["checkpoint"], device=device(), trust_remote_code=False, **arguments)
    return loaded(job, model)
