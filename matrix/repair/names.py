"""The names of the repairs, for those that need not load what makes them."""

from __future__ import annotations

from enum import StrEnum


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
