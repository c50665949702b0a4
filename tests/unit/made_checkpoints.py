"""Makes small models, and sound checkpoints of them in every format, from the published algorithms.

It shares no code with the reader. All is computed in float64 and rounded, where a quantizer would
have it in 16 bits, to the type of the file.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Rounding = Literal["nearest", "up or down", "GPTQ"]
Fold = Literal["", "AWQ", "SmoothQuant"]
HIDDEN, MLP, HEADS, VOCABULARY, LAYERS, GROUP = 128, 192, 4, 32, 1, 32
AFTER_NORM = {
    "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
}
SHAPES = {
    "self_attn.q_proj": (HIDDEN, HIDDEN), "self_attn.k_proj": (HIDDEN, HIDDEN),
    "self_attn.v_proj": (HIDDEN, HIDDEN), "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (MLP, HIDDEN), "mlp.up_proj": (MLP, HIDDEN), "mlp.down_proj": (HIDDEN, MLP),
}  # fmt: skip
HESSIANS = 32
AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
E4M3 = np.array([(m / 8 + (e > 0)) * 2.0 ** (max(e, 1) - 7) for e in range(16) for m in range(8)])
E4M3[127] = np.inf  # stands for NaN, to which nothing is rounded


class Kind(NamedTuple):
    """What checkpoints of a kind have in common."""

    form: str
    rounding: Rounding
    bits: int = 4
    symmetric: bool = True
    fold: Fold = ""
    desc_act: bool = False

    @property
    def format(self) -> str:
        """Its format, and how many bits where it has several."""
        return f"{self.form}, {self.bits} bits" if self.form == "pack-quantized" else self.form

    @property
    def is_float(self) -> bool:
        """Whether a code stands for a float."""
        return self.form in ("float-quantized", "nvfp4-pack-quantized")

    @property
    def group(self) -> int:
        """Of how many inputs a scale is; 0 for a whole row."""
        if self.form == "nvfp4-pack-quantized":
            return 16
        return 0 if self.form in ("int-quantized", "float-quantized") else GROUP


@dataclass
class Linear:
    """A quantized Linear: ``(codes - zeros) * scales``, or the float of a code times a scale."""

    codes: Array
    """[out, in], from 0; of floats a sign bit and the rest."""
    zeros: Array
    """[out, groups]."""
    scales: Array
    """[out, groups]."""
    group_of: Array
    """[in]."""
    whole: float = 1.0
    """Of NVFP4: what the stored scales are divided by."""


@dataclass
class Model:
    """A checkpoint, or a float model where nothing is quantized."""

    kind: Kind
    dtype: str
    tensors: dict[str, Array] = field(default_factory=dict)
    linears: dict[str, Linear] = field(default_factory=dict)


def rounded(values: Array, dtype: str) -> Array:
    """Return values rounded to a type, to nearest and even."""
    if dtype == "F16":
        return values.astype(np.float16).astype(np.float64)
    words = values.astype(np.float32).view(np.uint32).astype(np.int64)
    halved = (words + 0x7FFF + (words >> 16 & 1)) >> 16 << 16
    return halved.astype(np.uint32).view(np.float32).astype(np.float64)


def float_model(random: np.random.Generator, kind: Kind, dtype: str) -> Model:
    """Return a float model with a few channels that are much larger than the others."""
    model = Model(kind, dtype)
    tensors = {"model.embed_tokens.weight": random.normal(0, 0.05, (VOCABULARY, HIDDEN))}
    freedom = random.uniform(4, 30)
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        for part, shape in SHAPES.items():
            size = random.uniform(0.02, 0.1)
            tensors[f"{prefix}.{part}.weight"] = size * random.standard_t(freedom, shape)
        for part in AFTER_NORM["input_layernorm"]:
            tensors[f"{prefix}.{part}.bias"] = random.normal(0, 0.1, HIDDEN)
        for norm, following in AFTER_NORM.items():
            large = random.choice(HIDDEN, 3, replace=False)
            tensors[f"{prefix}.{norm}.weight"] = random.uniform(0.6, 1.4, HIDDEN)
            tensors[f"{prefix}.{norm}.weight"][large] *= 8
            for part in following:
                tensors[f"{prefix}.{part}.weight"][:, large] /= 8
    tensors["model.norm.weight"] = random.uniform(0.8, 1.2, HIDDEN)
    model.tensors = {name: rounded(tensor, dtype) for name, tensor in tensors.items()}
    return model


def quantized(random: np.random.Generator, original: Model) -> Model:
    """Return a sound checkpoint of a float model."""
    kind, dtype = original.kind, original.dtype
    model = Model(kind, dtype, {name: tensor.copy() for name, tensor in original.tensors.items()})
    if kind.fold:
        _fold(random, model)
    moving = {
        size: _moving(size, int(random.integers(HESSIANS)), desc_act=kind.desc_act)
        for size in (HIDDEN, MLP)
    }
    for name in [name for name in model.tensors if name.endswith("_proj.weight")]:
        weight = model.tensors.pop(name)
        clip = random.uniform(0.85, 1) if kind.fold == "AWQ" or kind.rounding == "up or down" else 1
        module = name.removesuffix(".weight")
        model.linears[module] = _quantize(random, weight, kind, dtype, clip, moving[len(weight[0])])
    return model


def _fold(random: np.random.Generator, model: Model) -> None:
    """Fold factors into norms, of AWQ also into the Linears before others."""
    tensors, dtype = model.tensors, model.dtype
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        for norm, following in AFTER_NORM.items():
            factors = rounded(np.exp(random.uniform(-0.7, 0.7, HIDDEN)), dtype)
            name = f"{prefix}.{norm}.weight"
            tensors[name] = rounded(tensors[name] / factors, dtype)
            for part in following:
                name = f"{prefix}.{part}.weight"
                tensors[name] = rounded(tensors[name] * factors, dtype)
        pairs = (("self_attn.v", "self_attn.o"), ("mlp.up", "mlp.down"))
        for first, second in pairs if model.kind.fold == "AWQ" else ():
            writer, reader = f"{prefix}.{first}_proj", f"{prefix}.{second}_proj"
            rows = len(tensors[f"{writer}.weight"])
            factors = rounded(np.exp(random.uniform(-0.7, 0.7, rows)), dtype)
            divided = tensors[f"{writer}.weight"] / factors[:, None]
            tensors[f"{writer}.weight"] = rounded(divided, dtype)
            tensors[f"{reader}.weight"] = rounded(tensors[f"{reader}.weight"] * factors, dtype)
            if f"{writer}.bias" in tensors:
                tensors[f"{writer}.bias"] = rounded(tensors[f"{writer}.bias"] / factors, dtype)


class Moving(NamedTuple):
    """How GPTQ goes through columns, and moves the error of each into those after it."""

    order: Array
    upper: Array


@cache
def _moving(inputs: int, seed: int, *, desc_act: bool) -> Moving:
    random = np.random.default_rng([inputs, seed])
    samples = random.normal(0, 1, (2 * inputs, inputs // 2)) @ random.normal(
        0, 1 / np.sqrt(inputs), (inputs // 2, inputs)
    )
    samples += random.normal(0, random.uniform(0.2, 1), samples.shape)
    hessian = samples.T @ samples
    hessian += 0.01 * np.mean(np.diag(hessian)) * np.eye(inputs)
    order = np.argsort(-np.diag(hessian)) if desc_act else np.arange(inputs)
    upper: Array = np.linalg.cholesky(np.linalg.inv(hessian[np.ix_(order, order)])).T
    return Moving(order, upper)


def _quantize(
    random: np.random.Generator, weight: Array, kind: Kind, dtype: str, clip: float, moving: Moving
) -> Linear:
    inputs = weight.shape[1]
    size = kind.group or inputs
    whole = _whole(weight) if kind.form == "nvfp4-pack-quantized" else 1.0
    if kind.rounding != "GPTQ":
        group_of = np.arange(inputs) // size
        scales, zeros = _scales(weight, kind, dtype, clip, size, whole)
        steps = rounded(weight / (scales / whole)[:, group_of], dtype)
        if kind.rounding == "up or down":
            steps = steps + random.uniform(-0.5, 0.5, steps.shape)
        elif kind.form == "pack-quantized":
            # It adds the zero, as a signed number, before it rounds.
            signed = (zeros - 2 ** (kind.bits - 1))[:, group_of]
            steps = rounded(steps + signed, dtype) - signed
        codes = _codes(steps, zeros[:, group_of], kind)
        return Linear(codes, zeros, scales, group_of, whole)
    left, codes = weight[:, moving.order].copy(), np.zeros(weight.shape)
    columns: list[tuple[Array, Array]] = []
    for column in range(inputs):
        if column % size == 0:
            part = left[:, column : column + size]
            columns.append(_scales(part, kind, dtype, 1, part.shape[1], whole))
        scale, zero = (side[:, 0] for side in columns[-1])
        codes[:, column] = _codes(left[:, column] / scale, zero, kind)
        error = left[:, column] - (codes[:, column] - zero) * scale
        left[:, column:] -= np.outer(
            error / moving.upper[column, column], moving.upper[column, column:]
        )
    back = np.argsort(moving.order)
    scales, zeros = (np.concatenate([pair[i] for pair in columns], axis=1) for i in (0, 1))
    return Linear(codes[:, back], zeros, scales, (np.arange(inputs) // size)[back])


def _whole(weight: Array) -> float:
    return float(np.float32(448 * 6 / np.abs(weight).max()))


def _scales(
    weight: Array, kind: Kind, dtype: str, clip: float, size: int, whole: float
) -> tuple[Array, Array]:
    """Return scales and zeros, [out, groups] each."""
    grouped = weight.reshape(len(weight), -1, size)
    high, low = clip * grouped.max(axis=2), clip * grouped.min(axis=2)
    most = np.maximum(np.maximum(high, -low), 1e-4)
    half = 2 ** (kind.bits - 1)
    if kind.form == "nvfp4-pack-quantized":
        return nearest(most / 6 * whole, E4M3), np.zeros_like(most)
    if kind.form == "float-quantized":
        return rounded(most / 448, dtype), np.zeros_like(most)
    if kind.symmetric and kind.rounding == "up or down":
        # As AutoRound does: the largest becomes the lowest code.
        return rounded(np.where(high > -low, -high, -low) / half, dtype), np.full_like(most, half)
    if kind.symmetric:
        return rounded(most / (half - 0.5), dtype), np.full_like(most, half)
    scales = rounded(
        np.maximum(np.maximum(high, 0) - np.minimum(low, 0), 1e-4) / (2 * half - 1), dtype
    )
    return scales, np.clip(np.round(-np.minimum(low, 0) / scales), 0, 2 * half - 1)


def _codes(steps: Array, zeros: Array, kind: Kind) -> Array:
    if not kind.is_float:
        return np.clip(np.round(steps) + zeros, 0, 2**kind.bits - 1)
    table = E4M3 if kind.form == "float-quantized" else E2M1
    magnitudes = np.searchsorted(table, nearest(np.abs(steps), table))
    return magnitudes + np.where(np.signbit(steps), len(table), 0)


def nearest(values: Array, table: Array) -> Array:
    """Return the nearest number of a table, the largest for what is larger."""
    finite = table[np.isfinite(table)]
    chosen: Array = finite[np.searchsorted((finite[1:] + finite[:-1]) / 2, values)]
    return chosen


def _pack(codes: Array, bits: int, axis: int, order: list[int] | None = None) -> Array:
    """Pack codes along an axis into int32 words, the first in the lowest bits or as by an order."""
    moved = np.moveaxis(codes, axis, 0).astype(np.uint32)
    per_word = 32 // bits
    words = np.zeros((len(moved) // per_word, *moved.shape[1:]), np.uint32)
    for position, index in enumerate(order or range(per_word)):
        words |= moved[index::per_word] << np.uint32(bits * position)
    return np.ascontiguousarray(np.moveaxis(words, 0, axis)).view(np.int32)


def stored(linear: Linear, kind: Kind) -> dict[str, tuple[str, Array]]:
    """Return the tensors of a Linear: last word of a name -> type and values; "" for the file's."""
    codes, zeros, scales, bits = linear.codes, linear.zeros, linear.scales, kind.bits
    index = linear.group_of.astype(np.int32)
    match kind.form:
        case "awq":
            return {
                "qweight": ("I32", _pack(codes.T, 4, 1, AWQ_ORDER)),
                "qzeros": ("I32", _pack(zeros.T, 4, 1, AWQ_ORDER)), "scales": ("", scales.T),
            }  # fmt: skip
        case "gptq" | "gptq_v2":
            points = zeros.T if kind.form == "gptq_v2" else (zeros.T - 1) % 2**bits
            return {
                "qweight": ("I32", _pack(codes.T, bits, 0)), "scales": ("", scales.T),
                "qzeros": ("I32", _pack(points, bits, 1)), "g_idx": ("I32", index),
            }  # fmt: skip
        case "pack-quantized":
            points = {} if kind.symmetric else {"weight_zero_point": ("I32", _pack(zeros, bits, 0))}
            return {
                "weight_packed": ("I32", _pack(codes, bits, 1)), "weight_scale": ("", scales),
                "weight_shape": ("I64", np.array(codes.shape, np.int64)), **points,
            }  # fmt: skip
        case "int-quantized":
            half = 2 ** (bits - 1)
            return {"weight": ("I8", (codes - half).astype(np.int8)), "weight_scale": ("", scales)}
        case "float-quantized":
            return {"weight": ("F8_E4M3", codes.astype(np.uint8)), "weight_scale": ("", scales)}
    pairs = codes.astype(np.uint8)
    return {
        "weight_packed": ("U8", pairs[:, ::2] | pairs[:, 1::2] << 4),
        "weight_scale": ("F8_E4M3", np.searchsorted(E4M3, scales).astype(np.uint8)),
        "weight_global_scale": ("F32", np.array([linear.whole], np.float32)),
    }  # fmt: skip


def write(folder: Path, model: Model) -> Path:
    """Write a model's config.json and model.safetensors; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": HIDDEN,
        "intermediate_size": MLP, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS, "vocab_size": VOCABULARY, "tie_word_embeddings": True,
    }  # fmt: skip
    entries: dict[str, tuple[str, Array]] = {n: ("", tensor) for n, tensor in model.tensors.items()}
    for module, linear in model.linears.items():
        parts = stored(linear, model.kind)
        entries |= {f"{module}.{part}": entry for part, entry in parts.items()}
    if model.linears:
        config["quantization_config"] = _quantization(model.kind)
    (folder / "config.json").write_text(json.dumps(config))
    _write_tensors(folder / "model.safetensors", entries, model.dtype)
    return folder


def _quantization(kind: Kind) -> dict[str, Any]:
    sizes: dict[str, Any] = {"bits": kind.bits, "group_size": kind.group or -1}
    if kind.rounding == "up or down":
        sizes["autoround_version"] = "0.16.1"
    match kind.form:
        case "awq":
            return {"quant_method": "awq", "zero_point": True, "version": "gemm", **sizes}
        case "gptq" | "gptq_v2":
            said = {"sym": kind.symmetric, "desc_act": kind.desc_act, **sizes}
            return {"quant_method": "gptq", "checkpoint_format": kind.form, **said}
    weights = {
        "num_bits": kind.bits, "type": "float" if kind.is_float else "int",
        "symmetric": kind.symmetric, "group_size": kind.group or None,
        "strategy": "group" if kind.group else "channel",
    }  # fmt: skip
    return {
        "quant_method": "compressed-tensors", "format": kind.form, "ignore": ["lm_head"],
        "quantization_status": "compressed",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
    }  # fmt: skip


def _write_tensors(file: Path, entries: dict[str, tuple[str, Array]], dtype: str) -> None:
    header, contents, end = {}, [], 0
    cast: dict[str, Callable[[Array], Array]] = {
        "F16": lambda values: values.astype(np.float16),
        "BF16": lambda values: (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16),
    }
    for name, (own, values) in entries.items():
        content = (values if own else cast[dtype](np.ascontiguousarray(values))).tobytes()
        offsets = [end, end := end + len(content)]
        header[name] = {"dtype": own or dtype, "shape": list(values.shape), "data_offsets": offsets}
        contents.append(content)
    text = json.dumps(header).encode()
    file.write_bytes(b"".join([len(text).to_bytes(8, "little"), text, *contents]))
