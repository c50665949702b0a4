"""Weights as quantizers store them, dequantized: rounded in groups, in one of several ways."""

from __future__ import annotations

import torch

WAYS = ("nearest", "sign rounding", "scales")
_ROUNDED = 0.25
"""How far sign rounding moves what is rounded, in steps, at most; AutoRound's limit is 0.5."""
_EXPONENT = 0.3
"""Of AWQ's scales; its search tries 0 to 1."""


def quantized(
    weight: torch.Tensor,
    bits: int,
    group: int,
    symmetric: bool,
    way: str = "nearest",
    inputs: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return a weight (outputs x inputs) quantized and dequantized again.

    ``inputs`` says how large each input is in the mean: without it, AWQ has nothing to go by.
    """
    if way == "scales" and inputs is not None:
        factors = inputs.clamp(min=1e-4) ** _EXPONENT
        factors = factors / factors.mean()
        return quantized(weight * factors, bits, group, symmetric) / factors
    values = weight.view(weight.shape[0], -1, group)
    scale, zero = steps(values, bits, symmetric)
    codes = values / scale
    if way == "sign rounding":
        codes += torch.empty_like(codes).uniform_(-_ROUNDED, _ROUNDED)
    codes = codes.round_().add_(zero).clamp_(0, 2**bits - 1)
    return ((codes - zero) * scale).view_as(weight)


def steps(values: torch.Tensor, bits: int, symmetric: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the step and the zero point of each group: the last dimension is the group's."""
    if symmetric:
        scale = values.abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 0.5)
        return scale.clamp(min=1e-8), torch.full_like(scale, 2 ** (bits - 1))
    low = values.amin(-1, keepdim=True).clamp(max=0)
    high = values.amax(-1, keepdim=True).clamp(min=0)
    scale = ((high - low) / (2**bits - 1)).clamp(min=1e-8)
    return scale, (-low / scale).round()
