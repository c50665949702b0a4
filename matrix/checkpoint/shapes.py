"""What a dense Qwen2, Qwen3 or Llama model is made of, by its config.json alone. Pure functions.

Names and shapes are those of transformers (``modeling_qwen2.py``, ``modeling_qwen3.py``,
``modeling_llama.py``). Of any other model, nothing is claimed. A shape is
[out, in], as it is stored.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from matrix.checkpoint.inspection import COMPRESSED_TENSORS, ConfigFacts, Quantization
from matrix.checkpoint.layouts import BITS, BYTES, PACKED, WORDS, Layout

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
MAX_LAYERS = 1_000
MAX_SIZE = 2**24
_KNOWN = ("qwen2", "qwen3", "llama")
_WORD_BITS = 32
_SHAPE_BYTES = 16
"""Of ``weight_shape``: two integers of 64 bits."""

Shape = tuple[int, ...]
LinearShape = tuple[int, int]


class _Sizes:
    """The sizes of a model, complete and possible."""

    def __init__(self, config: ConfigFacts) -> None:
        self.hidden = config.hidden_size or 0
        self.intermediate = config.intermediate_size or 0
        self.layers = config.layers or 0
        self.heads = config.heads or 0
        self.key_value_heads = config.key_value_heads or self.heads
        self.vocabulary = config.vocabulary or 0
        own = self.hidden // self.heads if self.heads > 0 else 0
        # Qwen3Config has a default of its own.
        self.head = config.head_dim or (128 if config.model_type == "qwen3" else own)
        sizes = (self.hidden, self.intermediate, self.heads, self.key_value_heads, self.head)
        self.known = (
            config.model_type in _KNOWN
            and all(0 < size <= MAX_SIZE for size in (*sizes, self.vocabulary))
            and 0 < self.layers <= MAX_LAYERS
        )


def linear_shapes(config: ConfigFacts) -> dict[str, LinearShape]:
    """Return module -> (out, in) of the decoder's Linears; empty for a model not known."""
    sizes = _Sizes(config)
    if not sizes.known:
        return {}
    hidden, intermediate = sizes.hidden, sizes.intermediate
    queries, keys = sizes.heads * sizes.head, sizes.key_value_heads * sizes.head
    parts = {
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "mlp.gate_proj": (intermediate, hidden),
        "mlp.up_proj": (intermediate, hidden),
        "mlp.down_proj": (hidden, intermediate),
    }
    return {
        f"model.layers.{layer}.{part}": shape
        for layer in range(sizes.layers)
        for part, shape in parts.items()
    }


def float_shapes(config: ConfigFacts, tied: bool) -> dict[str, Shape]:
    """Return tensor -> shape of the whole float model; empty for a model not known.

    Args:
        config: What config.json says.
        tied: One matrix serves as embedding and as head. It is listed once, as the embedding.
    """
    linears = linear_shapes(config)
    if not linears:
        return {}
    sizes = _Sizes(config)
    hidden: Shape = (sizes.hidden,)
    found: dict[str, Shape] = {EMBEDDING: (sizes.vocabulary, sizes.hidden)}
    found["model.norm.weight"] = hidden
    if not tied:
        found[HEAD] = (sizes.vocabulary, sizes.hidden)
    for module, shape in linears.items():
        found[f"{module}.weight"] = shape
        if _has_bias(config, module.rpartition(".")[2]):
            found[f"{module}.bias"] = shape[:1]
    for layer in range(sizes.layers):
        prefix = f"model.layers.{layer}"
        found[f"{prefix}.input_layernorm.weight"] = hidden
        found[f"{prefix}.post_attention_layernorm.weight"] = hidden
        if config.model_type == "qwen3":
            found[f"{prefix}.self_attn.q_norm.weight"] = (sizes.head,)
            found[f"{prefix}.self_attn.k_norm.weight"] = (sizes.head,)
    return found


def _has_bias(config: ConfigFacts, part: str) -> bool:
    if part in ("gate_proj", "up_proj", "down_proj"):
        return config.model_type == "llama" and config.mlp_bias
    if config.model_type == "qwen2":
        return part != "o_proj"
    return config.attention_bias


def packed_parts(scheme: Quantization) -> tuple[str, ...]:
    """Return the tensors that a packed module must have; none where its format is not read here.

    GPTQ writes ``g_idx`` always, but only desc_act's says what readers do not know without it.
    """
    ordered = bool(scheme.desc_act)
    if scheme.method != COMPRESSED_TENSORS:
        return (*WORDS[:3], *([WORDS.order] if ordered and scheme.method == "gptq" else []))
    optional = [BYTES.zeros] * (scheme.sym is False) + [BYTES.order] * ordered
    match scheme.checkpoint_format:
        case Layout.PACKED:
            return (PACKED.codes, PACKED.scales, PACKED.others[0], *optional)
        case Layout.FP4:
            return (PACKED.codes, PACKED.scales, PACKED.others[1])
        case Layout.INTEGERS | Layout.FLOATS | "naive-quantized":
            return (BYTES.codes, BYTES.scales, *optional)
        case _:
            return ()


def unread_formats(quantization: Quantization | None, packed: Collection[str]) -> str:
    """Return which formats that config.json names are not read here; empty where all are.

    A method that is not known counts only where nothing of a known layout is packed.
    """
    if quantization is None or quantization.method in ("awq", "gptq"):
        return ""
    if quantization.method != COMPRESSED_TENSORS:
        return "" if packed else quantization.method
    schemes = [group.scheme for group in quantization.groups]
    formats = {s.checkpoint_format or "no format" for s in schemes if not packed_parts(s)}
    return ", ".join(sorted(formats))


def unread_width(scheme: Quantization) -> str:
    """Return a format that is read here, and its bits where it is not read at so many; else ""."""
    form = scheme.method if scheme.method != COMPRESSED_TENSORS else scheme.checkpoint_format
    layout = next((layout for layout in BITS if layout == form), None)
    if layout is None or scheme.bits is None or scheme.bits in BITS[layout]:
        return ""
    return f"{layout} of {scheme.bits} bits"


def left_out(
    linears: Collection[str], packed: Collection[str], quantization: Quantization | None
) -> list[str]:
    """Return the Linears that config.json leaves out, or stores in a format that is not read here.

    By AWQ's ``modules_to_not_convert``, those with one of its entries in their names (transformers
    4.51.3, ``integrations/awq.py``; autoawq 0.2.9, ``utils/module.py``). GPTQModel's ``dynamic``
    has regular expressions of strangers, which are not run: all that are not packed count. So they
    do where one of compressed-tensors is not run (:mod:`matrix.checkpoint.targets`).
    """
    if quantization is None:
        return []
    unpacked = [name for name in linears if name not in packed]
    method = quantization.method
    if quantization.dynamic or (method and method == unread_formats(quantization, packed)):
        return unpacked
    if method == "awq":
        entries = quantization.modules_to_not_convert
        return [name for name in linears if any(entry in name for entry in entries)]
    if method != COMPRESSED_TENSORS:
        return []
    schemes = {name: quantization.of(name) for name in linears}
    left = {name for name, scheme in schemes.items() if scheme is None or not packed_parts(scheme)}
    left.update(unpacked if quantization.unread else ())
    return [name for name in linears if name in left]


def expected_bytes(
    config: ConfigFacts,
    tied: bool,
    quantization: Quantization | None,
    skipped: Collection[str] = (),
) -> int | None:
    """Return what a checkpoint's tensors should take: packed Linears, and the rest at 16 bits.

    ``None`` where the model is not known, or how any of its layers is stored is not. Without a
    quantization, of the float model at 16 bits.

    Args:
        config: What config.json says of the model.
        tied: One matrix serves as embedding and as head.
        quantization: What config.json says of it, if anything.
        skipped: The Linears that are not packed, on purpose.
    """
    shapes = float_shapes(config, tied)
    if not shapes:
        return None
    plain = sum(2 * math.prod(shape) for shape in shapes.values())
    if quantization is None:
        return plain
    linears = linear_shapes(config)
    if quantization.lm_head and HEAD in shapes:
        outputs, inputs = shapes[HEAD]
        linears["lm_head"] = (outputs, inputs)
    for name in linears.keys() - set(skipped):
        scheme = quantization.of(name)
        stored = packed_bytes(linears[name], scheme) if scheme is not None else None
        if stored is None:
            return None
        plain += stored - 2 * math.prod(linears[name])
    return plain


def packed_bytes(shape: LinearShape, scheme: Quantization) -> int | None:
    """Return what a packed Linear takes, scales of 16 bits; ``None`` where that is not known."""
    outputs, inputs = shape
    bits, size = scheme.bits, scheme.group_size
    groups = -(-inputs // size) if size is not None and size > 0 else 1
    index = 4 * inputs
    if scheme.method in ("awq", "gptq"):
        if bits not in (2, 3, 4, 8) or not size:
            return None
        index *= scheme.method == "gptq"
        return (outputs * inputs + groups * outputs) * bits // 8 + 2 * groups * outputs + index
    if not packed_parts(scheme) or bits not in (4, 8):
        return None
    rows = 1 if scheme.strategy == "tensor" else -(-outputs // scheme.block_rows)
    scales, zeros, index = 2 * rows * groups, 0, index * bool(scheme.desc_act)
    if scheme.checkpoint_format == Layout.FP4:
        return outputs * inputs // 2 + scales // 2 + 4
    if scheme.checkpoint_format == Layout.PACKED:
        if scheme.sym is False:
            zeros = 4 * -(-outputs * bits // _WORD_BITS) * groups
        words = -(-inputs * bits // _WORD_BITS)
        return 4 * outputs * words + _SHAPE_BYTES + scales + zeros + index
    return outputs * inputs + scales + rows * groups * (scheme.sym is False) + index


def indivisible(shapes: Mapping[str, LinearShape], group_size: int) -> list[str]:
    """Return the modules whose inputs are no whole number of groups (-1: a row is one group).

    AutoAWQ stops at them (known issue awq-group-size-multiple); others make a last group that is
    shorter, which engines read in their own ways or not at all.
    """
    return [name for name, (_, inputs) in shapes.items() if group_size > 0 and inputs % group_size]


def tensor_parallel_problem(
    config: ConfigFacts, quantization: Quantization | None, tensor_parallel: int
) -> str:
    """Return why vLLM cannot split a model over so many devices; empty where it can, or unknown.

    q, k, v, gate and up are split along their outputs, o and down along their inputs, where each
    device must hold whole groups: known issues vllm-tp-alignment and vllm-heads-tp. Key-value heads
    fewer than devices are copied (vLLM 0.32.0, ``config/model.py``, ``models/qwen2.py``).
    """
    sizes = _Sizes(config)
    if tensor_parallel <= 1 or not sizes.known:
        return ""
    if sizes.heads % tensor_parallel:
        return f"{sizes.heads} attention heads are not divisible by {tensor_parallel}"
    most, least = sorted((sizes.key_value_heads, tensor_parallel), reverse=True)
    if most % least:
        return f"{sizes.key_value_heads} key-value heads do not fit {tensor_parallel} devices"
    if sizes.intermediate % tensor_parallel:
        return f"intermediate_size {sizes.intermediate} is not divisible by {tensor_parallel}"
    if quantization is None or not quantization.bits:
        return ""
    copies = max(tensor_parallel // sizes.key_value_heads, 1)
    rows = {
        "q_proj": sizes.heads * sizes.head // tensor_parallel,
        "k_proj and v_proj": sizes.key_value_heads * sizes.head * copies // tensor_parallel,
        "gate_proj and up_proj": sizes.intermediate // tensor_parallel,
    }
    inputs = {
        "o_proj": sizes.heads * sizes.head // tensor_parallel,
        "down_proj": sizes.intermediate // tensor_parallel,
    }
    word, form = _WORD_BITS // quantization.bits, quantization.checkpoint_format
    by_rows, by_inputs = word, 1
    if quantization.method == COMPRESSED_TENSORS:
        # Its codes are packed along the inputs, and only zero points along the outputs.
        by_rows = word if form == Layout.PACKED and quantization.sym is False else 1
        by_inputs = word if form == Layout.PACKED else 1
    return (
        _unaligned(rows, by_rows, "outputs", "codes of a word")
        or _unaligned(rows, quantization.block_rows, "outputs", "a block")
        or _unaligned(inputs, by_inputs, "inputs", "codes of a word")
        or _unaligned(inputs, quantization.group_size or -1, "inputs", "a group")
    )


def _unaligned(sizes: Mapping[str, int], unit: int, side: str, what: str) -> str:
    for name, size in sizes.items():
        if unit > 0 and size % unit:
            return f"{size} {side} of {name} on each device are no multiple of the {unit} of {what}"
    return ""
