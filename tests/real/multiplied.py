"""Run in an environment of vLLM: its multiplication by 4-bit weights in torch, beside the compiled
one. Where the build has none, beside plain arithmetic. Prints a line of JSON.
"""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import torch
from vllm import _custom_ops

FILE = Path(__file__).parents[2] / "matrix" / "probe" / "engines" / "wna16.py"
LAYERS = 32


def load_wna16() -> Any:
    spec = importlib.util.spec_from_file_location("wna16", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def packed(codes: Any) -> Any:
    """Return rows of 4-bit codes in words of eight, the lowest first."""
    shifts = torch.arange(0, 32, 4)
    words = (codes.view(*codes.shape[:-1], -1, 8) << shifts).sum(-1)
    return (words - ((words >> 31) << 32)).int()


def main() -> None:
    wna16, largest = load_wna16(), 0.0
    compiled = hasattr(torch.ops._C, wna16.OPERATOR)
    for seed in range(LAYERS):
        torch.manual_seed(seed)
        inputs, outputs, groups = 256, (64, 96)[seed % 2], (2, 4, 1)[seed % 3]
        codes = torch.randint(0, 16, (inputs, outputs))
        zeros = torch.randint(0, 16, (groups, outputs)) if seed % 4 else None
        scales = (torch.rand(groups, outputs) / 64).half()
        bias = torch.randn(outputs).half() if seed % 5 else None
        x = torch.randn(1 + seed % 7, inputs).half()
        weight = packed(codes).view(inputs, -1, 2).permute(1, 0, 2)
        weight = weight.reshape(-1, inputs * 2).contiguous()
        stored_zeros = None if zeros is None else packed(zeros)
        given = wna16.multiply(x, weight, scales, stored_zeros, None, bias).float()
        if compiled:
            wanted = _custom_ops.cpu_gemm_wna16(
                input=x, q_weight=weight, scales=scales, zeros=stored_zeros, bias=bias,
                pack_factor=8, isa_hint="vec",
            )  # fmt: skip
        else:
            zero = torch.full((groups, outputs), 8) if zeros is None else zeros
            size = inputs // groups
            steps = codes - zero.repeat_interleave(size, 0)
            wanted = x.double() @ (steps * scales.double().repeat_interleave(size, 0))
            wanted = wanted + (0 if bias is None else bias.double())
        error = (given - wanted.float()).abs() / wanted.float().abs().clamp(min=1)
        largest = max(largest, error.max().item())
    print(json.dumps({"layers": LAYERS, "compiled": compiled, "largest_error": largest}))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
