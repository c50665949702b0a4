"""transformers: load a checkpoint with ``AutoModelForCausalLM`` and generate.

With AutoAWQ, GPTQModel, or optimum and AutoGPTQ installed beside it, transformers loads AWQ and
GPTQ checkpoints through them.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from .causal_lm import generate, import_transformers, load_pretrained, loaded

__all__ = ["generate", "import_package", "load"]

Json = dict[str, Any]

BACKENDS = ("awq", "gptqmodel", "optimum", "auto_gptq")


def import_package(_options: Json) -> None:
    """Import transformers and the backends installed beside it."""
    import_transformers()
    for name in BACKENDS:
        if importlib.util.find_spec(name):
            importlib.import_module(name)


def load(job: Json) -> tuple[Any, Json]:
    """Load ``job["checkpoint"]`` and its tokenizer. Option: ``dtype``."""
    return loaded(job, load_pretrained(job))
