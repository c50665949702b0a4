"""``quantization_config`` of config.json, of all quantizers whose files are read here.

Each writes keys of its own: AutoAWQ, AutoGPTQ and GPTQModel flat ones; compressed-tensors groups of
layers with arguments for weights and for activations (0.18.0, ``quantization/quant_config.py``,
``quant_scheme.py``, ``quant_args.py``); AutoRound flat ones with the layout in ``packing_format``.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec

from matrix.checkpoint.inspection import COMPRESSED_TENSORS, LayerGroup, Quantization

AUTO_ROUND = "auto-round"
_PACKING = {
    "auto_round:auto_gptq": ("gptq", "gptq"),
    "auto_round:gptqmodel": ("gptq", "gptq_v2"),
    "auto_round": ("gptq", "gptq_v2"),
    "auto_round:auto_awq": ("awq", ""),
}
"""AutoRound's ``packing_format`` where that is another's layout -> method and checkpoint format
(auto-round 0.16.1, ``inference/backend.py``: ``GPTQ_FORMAT``, of zero points less one,
``GPTQ_FORMAT_NO_ZP`` and ``AWQ_FORMAT``)."""
_WORD_CHARS = 64
_REORDERED = ("group", "dynamic")
"""Values of ``actorder`` with which a g_idx is stored; the second is another name of the first."""

_Names = Annotated[
    list[Annotated[str, msgspec.Meta(max_length=200)]], msgspec.Meta(max_length=1_000)
]
_Entries = Annotated[
    list[Annotated[str, msgspec.Meta(max_length=2_000)]], msgspec.Meta(max_length=100_000)
]
"""Of ``ignore``, which may name every layer of a model that sees or has experts."""
_T = TypeVar("_T")


class _Arguments(msgspec.Struct, frozen=True):
    """How weights or activations are rounded."""

    num_bits: int = 8
    type: str = "int"
    symmetric: bool = True
    group_size: int | None = None
    strategy: str | None = None
    block_structure: list[int] | str | None = None
    actorder: bool | str | None = None
    observer: Any = msgspec.UNSET
    scale_dtype: Any = msgspec.UNSET
    zp_dtype: Any = msgspec.UNSET

    @property
    def settings(self) -> set[str]:
        """Which settings stand there, null or not, that old releases refuse."""
        values = {"scale_dtype": self.scale_dtype, "zp_dtype": self.zp_dtype}
        names = {name for name, value in values.items() if value is not msgspec.UNSET}
        return names | ({"block_structure"} if isinstance(self.block_structure, list) else set())

    @property
    def kind(self) -> str:
        """The type of number, as ``int8`` or ``fp8``."""
        return f"{'fp' if self.type.lower() == 'float' else self.type[:8].lower()}{self.num_bits}"

    @property
    def block(self) -> tuple[int, int]:
        """Outputs and inputs that one scale is of; 1 and 0 where none are said."""
        sides = self.block_structure or []
        words = sides.split("x") if isinstance(sides, str) else [str(side) for side in sides]
        if len(words) != 2 or not all(word.isdecimal() and len(word) < 10 for word in words):
            return 1, 0
        return max(int(words[0]), 1), int(words[1])

    @property
    def order(self) -> str:
        """The order of quantizing; true stands for ``group``."""
        if isinstance(self.actorder, bool):
            return "group" if self.actorder else ""
        return (self.actorder or "")[:_WORD_CHARS].lower()

    def scheme(self, form: str, activations: str) -> Quantization:
        """Return how these weights are stored in a format."""
        strategy = (self.strategy or "")[:_WORD_CHARS].lower()
        size = self.group_size
        if strategy == "block":
            size = self.block[1] or None
        elif strategy in ("channel", "tensor") or (size is None and not strategy):
            size = -1
        return Quantization(
            COMPRESSED_TENSORS,
            self.num_bits,
            size,
            sym=self.symmetric,
            desc_act=self.order in _REORDERED,
            checkpoint_format=form[:_WORD_CHARS],
            strategy=strategy or {None: "tensor", -1: "channel"}.get(self.group_size, "group"),
            block_rows=self.block[0],
            activations=activations,
            actorder=self.order,
        )


class _Group(msgspec.Struct, frozen=True):
    targets: _Entries = []
    weights: _Arguments | None = None
    input_activations: _Arguments | None = None
    format: str | None = None


_Groups = Annotated[dict[str, _Group | _Entries], msgspec.Meta(max_length=32)]
"""As many as there are ways to round; every module is looked for in all of them."""


class QuantizationConfig(msgspec.Struct, frozen=True):
    """The keys of ``quantization_config`` that reading weights needs, by their own names."""

    quant_method: str = ""
    bits: int | None = None
    group_size: int | None = None
    zero_point: bool | None = None
    version: str | None = None
    sym: bool | None = None
    desc_act: bool | None = None
    checkpoint_format: str | None = None
    autoround_version: str | None = None
    provider: str | None = None
    lm_head: bool | None = None
    static_groups: bool | None = None
    modules_to_not_convert: _Names | None = None
    dynamic: dict[str, Any] | None = None
    # GPTQModel puts what only the quantizer needs to know in here.
    meta: Any = None
    packing_format: str | None = None
    extra_config: dict[str, Any] | None = None
    config_groups: _Groups | None = None
    format: str | None = None
    ignore: _Entries | None = None
    kv_cache_scheme: _Arguments | None = None
    quantization_status: str | None = None

    @property
    def facts(self) -> Quantization:
        """What it says, in this project's words."""
        # As vLLM reads it (0.32.0, ``config/model.py``).
        method = self.quant_method[:_WORD_CHARS].lower().replace("compressed_", "compressed-")
        if method == COMPRESSED_TENSORS:
            return self._compressed()
        form = (self.checkpoint_format or "")[:_WORD_CHARS]
        packing = (self.packing_format or "")[:_WORD_CHARS]
        is_of_autoround = method == AUTO_ROUND or self.autoround_version is not None
        if method == AUTO_ROUND:
            method, form = _PACKING.get(packing, (f"{method} {packing}".strip(), ""))
        return Quantization(
            method=method,
            bits=self.bits,
            group_size=self.group_size,
            zero_point=self.zero_point,
            version=(self.version or "")[:_WORD_CHARS],
            sym=self.sym,
            desc_act=self.desc_act,
            checkpoint_format=form,
            autoround=is_of_autoround,
            lm_head=self.lm_head,
            static_groups=self.static_groups or _static_groups(self.meta),
            modules_to_not_convert=tuple(self.modules_to_not_convert or ()),
            dynamic=bool(self.dynamic or self.extra_config),
        )

    @property
    def _is_of_autoround(self) -> bool:
        """Whether AutoRound wrote these groups. Of floats it says so; of integers it writes, as
        nobody else is known to, that nothing observed them, and no version (0.16.1)."""
        weights = [group.weights for group in (self.config_groups or {}).values()
                   if isinstance(group, _Group) and group.weights is not None]  # fmt: skip
        unobserved = bool(weights) and all(it.observer is None for it in weights)
        return self.provider == AUTO_ROUND or (unobserved and self.version is None)

    def _compressed(self) -> Quantization:
        form = (self.format or "")[:_WORD_CHARS]
        groups: list[LayerGroup] = []
        settings: set[str] = set()
        for group in (self.config_groups or {}).values():
            if isinstance(group, list):
                # A preset, named by the group's key: its weights say how they are stored.
                scheme = Quantization(COMPRESSED_TENSORS, checkpoint_format=form)
                groups.append(LayerGroup(tuple(group), scheme))
                continue
            weights, inputs = group.weights, group.input_activations
            settings |= {name for it in (weights, inputs) if it for name in it.settings}
            if weights is not None:
                scheme = weights.scheme(group.format or form, inputs.kind if inputs else "")
                groups.append(LayerGroup(tuple(group.targets), scheme))
        schemes = [group.scheme for group in groups]
        cache = self.kv_cache_scheme
        return Quantization(
            COMPRESSED_TENSORS,
            bits=_agreed([scheme.bits for scheme in schemes]),
            group_size=_agreed([scheme.group_size for scheme in schemes]),
            sym=_agreed([scheme.sym for scheme in schemes]),
            desc_act=any(scheme.desc_act for scheme in schemes),
            checkpoint_format=form,
            autoround=self._is_of_autoround,
            strategy=_agreed([scheme.strategy for scheme in schemes]) or "",
            block_rows=_agreed([scheme.block_rows for scheme in schemes]) or 1,
            activations=_agreed([scheme.activations for scheme in schemes]) or "",
            actorder=_agreed([scheme.actorder for scheme in schemes]) or "",
            groups=tuple(groups),
            ignore=tuple(self.ignore or ()),
            kv_cache=cache.kind if cache else "",
            status=(self.quantization_status or "")[:_WORD_CHARS],
            settings=tuple(sorted(settings)),
        )


def _agreed(values: list[_T]) -> _T | None:
    """Return the value that all have; ``None`` where they differ, or there are none."""
    return values[0] if values and all(value == values[0] for value in values) else None


def _static_groups(meta: object) -> bool | None:
    flag = meta.get("static_groups") if isinstance(meta, dict) else None
    return flag if isinstance(flag, bool) else None
