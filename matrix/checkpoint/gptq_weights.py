"""x"""

from __future__ import annotations

import numpy as np

from matrix.checkpoint.inspection import WeightComparison
from matrix.checkpoint.weights import FAR, Pair, farthest, relative


def compare(pair: Pair) -> WeightComparison:
    """x"""
    raise NotImplementedError
