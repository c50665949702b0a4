"""What in the files of a model cannot be meant, by these files alone. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from matrix.checkpoint.inspection import ConfigFacts, Inspection
from matrix.checkpoint.shapes import EMBEDDING, HEAD, float_shapes
from matrix.description.families import (
    DEFAULTS,
    Settings,
    defaults_of,
    rope_of,
    value_of,
    window_of,
)
from matrix.description.reading import QUANTIZE, Description

LAYER = re.compile(r"model\.layers\.(\d{1,6})\.")
EPSILONS = (1e-9, 1e-3)
"""Between which ``rms_norm_eps`` lies; models have 1.6e-7 to 1e-5."""
LEAST_ROPE_BASE = 1000.0
"""The least ``rope_theta`` of a model is 10000."""
LEAST_WINDOW = 64
"""Of tokens that attention looks back: the least of a model is 128."""
WRITTEN_TWICE = ("bits", "group_size", "desc_act", "sym", "quant_method", "checkpoint_format",
                 "lm_head", "zero_point", "version")  # fmt: skip
"""Settings that stand in config.json and in quantize_config.json."""
OLD_NAMES = {"w_bit": "bits", "q_group_size": "group_size"}
"""AutoAWQ's own words in quant_config.json -> those of config.json."""


def shape_faults(inspection: Inspection) -> list[str]:
    """Return where tensors that are not packed, or layers, are not those of config.json."""
    facts = _dense(inspection.config)
    tied = bool(inspection.tie_word_embeddings)
    shapes = float_shapes(facts, tied) if facts else {}
    if HEAD not in shapes and EMBEDDING in shapes:
        shapes[HEAD] = shapes[EMBEDDING]
    faults = []
    for tensor in inspection.tensors:
        wanted = shapes.get(tensor.name)
        if wanted is not None and tensor.shape != list(wanted):
            faults.append(f"{tensor.name} is {tensor.shape} where config.json means {list(wanted)}")
        elif shapes and tensor.name.endswith(".bias") and wanted is None:
            if tensor.name not in inspection.zero_tensors and _is_inside(tensor.name, facts):
                faults.append(f"{tensor.name} is stored, but config.json means no such bias")
        elif wanted is None and tensor.name in (EMBEDDING, HEAD):
            faults += _rows_fault(tensor.name, tensor.shape, inspection.config)
    return [*faults, *_layer_faults(inspection)]


def _dense(config: ConfigFacts) -> ConfigFacts | None:
    """Return a config whose tensors are known; Mistral's are Llama's without biases."""
    if config.model_type == "mistral":
        return msgspec.structs.replace(
            config, model_type="llama", attention_bias=False, mlp_bias=False
        )
    return config if config.model_type in DEFAULTS else None


def _is_inside(name: str, facts: ConfigFacts | None) -> bool:
    match = LAYER.match(name)
    return bool(match and facts and int(match[1]) < (facts.layers or 0))


def _rows_fault(name: str, shape: list[int], config: ConfigFacts) -> list[str]:
    """Return how a matrix of a model that is not known has another number of rows than tokens."""
    rows, vocabulary = shape[0] if shape else 0, config.vocabulary
    if vocabulary is None or rows == vocabulary:
        return []
    return [f"{name} has {rows} rows where config.json has vocab_size {vocabulary}"]


def _layer_faults(inspection: Inspection) -> Iterator[str]:
    numbers = {int(m[1]) for tensor in inspection.tensors if (m := LAYER.match(tensor.name))}
    layers = inspection.config.layers
    # What others store behind their layers, such as for drafting, is not theirs.
    is_dense = inspection.config.model_type in DEFAULTS
    if numbers and layers is not None and is_dense and max(numbers) + 1 != layers:
        stored = max(numbers) + 1
        yield f"{stored} layers are stored where config.json has num_hidden_layers {layers}"


def config_faults(config: Settings) -> list[str]:
    """Return what a config.json says that no such model has."""
    faults = []
    if not config.get("architectures"):
        faults.append("architectures is missing, by which vLLM chooses how to read it")
    if not defaults_of(config):
        return faults
    kind = str(config["model_type"])
    faults += _family_faults(config, kind)
    heads, shared = (value_of(config, f"num_{part}_heads") for part in ("attention", "key_value"))
    hidden = value_of(config, "hidden_size")
    if _is_uneven(heads, shared):
        faults.append(f"{heads} heads cannot share {shared} key-value heads")
    if config.get("head_dim") is None and _is_uneven(hidden, heads):
        faults.append(f"hidden_size {hidden} is not divisible by {heads} heads")
    window, layers = window_of(config), config.get("layer_types")
    if isinstance(window, int) and window < LEAST_WINDOW:
        faults.append(f"attention looks back only {window} tokens by sliding_window")
    if isinstance(layers, list) and len(layers) != value_of(config, "num_hidden_layers"):
        faults.append(f"layer_types has {len(layers)} layers, num_hidden_layers not")
    return [*faults, *_base_faults(config, kind)]


def _base_faults(config: Settings, kind: str) -> Iterator[str]:
    """Yield what is wrong with the base of the rotary embedding."""
    base, _ = rope_of(config)
    outer, inner = config.get("rope_theta"), config.get("rope_parameters")
    if isinstance(base, int | float) and base < LEAST_ROPE_BASE:
        yield f"rope_theta is {base}, less than any model's"
    nested = inner.get("rope_theta") if isinstance(inner, dict) else None
    if None not in (outer, nested) and outer != nested:
        yield f"rope_theta is {outer}, and {nested} in rope_parameters"
    if outer is None and nested is None and kind.startswith("qwen"):
        yield "rope_theta is missing: readers take 10000"


def _family_faults(config: Settings, kind: str) -> Iterator[str]:
    """Yield what a model of a family always has, and this one not."""
    if (activation := value_of(config, "hidden_act")) not in ("silu", "swish"):
        yield f"hidden_act is {activation} where every {kind} has silu"
    epsilon = value_of(config, "rms_norm_eps")
    if not isinstance(epsilon, int | float) or not EPSILONS[0] <= epsilon <= EPSILONS[1]:
        yield f"rms_norm_eps is {epsilon}, which no model has"
    names = config.get("architectures")
    for name in names if isinstance(names, list) else []:
        family = next((word for word in DEFAULTS if str(name).lower().startswith(word)), kind)
        if family != kind:
            yield f"architectures has {name} where model_type is {kind}"


def _is_uneven(whole: Any, parts: Any) -> bool:
    return isinstance(whole, int) and isinstance(parts, int) and (parts <= 0 or whole % parts > 0)


def quantization_faults(own: Description, inspection: Inspection) -> list[str]:
    """Return where config.json says otherwise of the quantization than a file beside it."""
    inner = own.config.get("quantization_config")
    if not isinstance(inner, dict):
        return []
    beside = {OLD_NAMES.get(name, name): value for name, value in (own.quantize or {}).items()}
    file = next((name for name in QUANTIZE if name in own.files), "")
    faults = []
    for name in WRITTEN_TWICE:
        value, second = inner.get(name), beside.get(name)
        if None not in (value, second) and str(value).lower() != str(second).lower():
            faults.append(f"{file} has {name} {second} where config.json has {value}")
    if inner.get("lm_head") is True and not any(m.name == "lm_head" for m in inspection.modules):
        faults.append("lm_head is said to be packed, and is not")
    zeros = {zero for module in inspection.modules for zero in module.zero_points}
    if inner.get("quant_method") == "awq" and inner.get("zero_point") is False and len(zeros) > 1:
        faults.append(f"zero_point is false, but {len(zeros)} different zero points are stored")
    return faults
