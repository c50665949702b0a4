"""What inspecting a checkpoint leaves behind: facts only, no judgement, as JSON-ready data."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from typing import Literal

import msgspec

from matrix.checkpoint.rounding import Rounding
from matrix.checkpoint.targets import Targets

COMPRESSED_TENSORS = "compressed-tensors"
SCHEMA_VERSION = 2
_LONGEST = 500

GroupOrder = Literal["in order", "permuted", "wrong"]
MergeForm = Literal["strings", "pairs", ""]


class Problem(msgspec.Struct, frozen=True):
    """Something that keeps a file from being read, or makes it unsafe to read."""

    problem: str
    where: str
    remedy: str

    def __post_init__(self) -> None:
        # Names come from the files themselves: one line, and nothing that steers a terminal.
        for field in self.__struct_fields__:
            text = str(getattr(self, field))[:_LONGEST]
            if not text.isprintable():
                text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
            msgspec.structs.force_setattr(self, field, text)

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}. {self.remedy}"


class CheckpointError(Exception):
    """A checkpoint, or one of its files, cannot be read. ``problem`` says what, where, what now."""

    def __init__(self, problem: str, where: str, remedy: str) -> None:
        self.problem = Problem(problem, where, remedy)
        super().__init__(str(self.problem))


class TensorInfo(msgspec.Struct, frozen=True):
    """A tensor by its safetensors header: dtype as it is written there (``F16``, ``I32``, ...)."""

    name: str
    dtype: str
    shape: list[int]
    file: str


class Quantization(msgspec.Struct, frozen=True, dict=True):
    """What ``quantization_config`` of config.json says, as far as a reader of weights needs it.

    Of compressed-tensors, ``of`` says what is so of one module; the fields above ``groups`` hold
    what all groups agree on.
    """

    method: str
    bits: int | None = None
    group_size: int | None = None
    """-1 stands for one group per row, or one in all."""
    zero_point: bool | None = None
    version: str = ""
    sym: bool | None = None
    desc_act: bool | None = None
    """The groups are of inputs in another order: g_idx says which."""
    checkpoint_format: str = ""
    """Of GPTQ ``gptq`` (v1: a zero point less one is stored), ``gptq_v2`` (as it is), empty if
    absent. Of compressed-tensors its ``format``, such as ``pack-quantized``."""
    autoround: bool = False
    """AutoRound wrote it, in a form of others."""
    lm_head: bool | None = None
    static_groups: bool | None = None
    """Of GPTQ's desc_act: the groups are of neighbouring inputs all the same."""
    modules_to_not_convert: tuple[str, ...] = ()
    """Of AWQ: modules with one of these in their names are left out."""
    dynamic: bool = False
    """Of GPTQModel and AutoRound: there are modules that are left out or quantized otherwise."""
    strategy: str = ""
    """Of compressed-tensors: what one scale is of, such as ``group``, ``channel``, ``tensor``."""
    block_rows: int = 1
    """Of the strategy ``block``: of how many outputs one scale is."""
    activations: str = ""
    """To what inputs are rounded while running, such as ``int8``; empty where they are not."""
    actorder: str = ""
    """As compressed-tensors writes it: ``group`` is desc_act, ``weight`` an order of quantizing."""
    groups: tuple[LayerGroup, ...] = ()
    """Of compressed-tensors: ``config_groups``."""
    ignore: tuple[str, ...] = ()
    """Of compressed-tensors: entries that mean modules which are left out."""
    kv_cache: str = ""
    """Of compressed-tensors: to what keys and values in the cache are rounded."""
    status: str = ""
    """Of compressed-tensors: ``compressed`` where packed tensors are stored."""
    settings: tuple[str, ...] = ()
    """Of compressed-tensors: settings of its groups that old releases refuse, null or not."""

    def of(self, module: str) -> Quantization | None:
        """Return how a module is to be stored; ``None`` where it is left out."""
        if self.method != COMPRESSED_TENSORS or not self.groups:
            return self
        if self._ignored.fit(module):
            return None
        fits = [targets.fit(module) for targets in self._targets]
        if any(fits):
            return self.groups[fits.index(max(fits))].scheme
        unread = (group for group, it in zip(self.groups, self._targets, strict=True) if it.unread)
        return next((group.scheme for group in unread), None)

    def match(self, modules: Collection[str]) -> None:
        """Run all regular expressions on many modules at once, which takes far less time."""
        for targets in (self._ignored, *self._targets):
            targets.match(modules)

    def schemes(self, modules: Collection[str]) -> dict[str, Quantization | None]:
        """Return how each of many modules is to be stored, as :meth:`of` says."""
        self.match(modules)
        return {module: self.of(module) for module in modules}

    @property
    def unread(self) -> bool:
        """Whether regular expressions stand in it that are not run."""
        return self._ignored.unread or any(targets.unread for targets in self._targets)

    @cached_property
    def _ignored(self) -> Targets:
        return Targets(self.ignore)

    @cached_property
    def _targets(self) -> list[Targets]:
        return [Targets(group.targets) for group in self.groups]


class LayerGroup(msgspec.Struct, frozen=True):
    """Of compressed-tensors: some modules, and how these are stored."""

    targets: tuple[str, ...]
    scheme: Quantization


class ConfigFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What config.json says of the model; ``None`` where it does not say."""

    model_type: str | None = None
    hidden_size: int | None = None
    intermediate_size: int | None = None
    layers: int | None = None
    heads: int | None = None
    key_value_heads: int | None = None
    head_dim: int | None = None
    vocabulary: int | None = None
    attention_bias: bool = False
    mlp_bias: bool = False
    """Both are Llama's keys; Qwen3 has the first. Qwen2 has biases on q, k and v always."""
    dtype: str | None = None
    """The key ``dtype``, which transformers 4.56 and later write."""
    torch_dtype: str | None = None
    """The key ``torch_dtype``, which all versions before them read."""
    rope_theta: bool = False
    """There is a top-level ``rope_theta``."""
    rope_parameters: bool = False
    """There is a ``rope_parameters`` with a ``rope_theta`` in it, as transformers 5 writes it."""


class TokenizerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What tokenizer_config.json and tokenizer.json say, as far as readers differ over it."""

    tokenizer_class: str = ""
    merges: MergeForm = ""
    """How the merges of a BPE tokenizer are written; empty where there are none."""
    model_type: str = ""
    """The kind of tokenizer.json's model, such as ``BPE``; empty where there is no such file."""


class PackedLinearInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A packed module, by the file alone. All but the name and the layout are 0 or empty where
    the module cannot be read; ``note`` then says why."""

    name: str
    layout: str = ""
    """How its codes lie: a :class:`matrix.checkpoint.layouts.Layout`."""
    inputs: int = 0
    outputs: int = 0
    bits: int = 0
    """By the shapes, not by config.json."""
    group_size: int = 0
    """By the shapes; ``inputs`` where a row is one group."""
    bits_per_weight: float = 0.0
    """All bits of all its parts over its weights."""
    zero_points: dict[str, int] = {}
    """Zero point as it is stored, as text -> how many."""
    not_finite_scales: int = 0
    zero_scales: int = 0
    """Scales that are 0 although not all codes of the group are the zero point: weights lost."""
    group_order: GroupOrder = "in order"
    """By g_idx. Permuted: each group has its number of inputs, in another order. Wrong: it has not,
    or an index is out of range. In order, too, where there is no g_idx."""
    note: str = ""


class WeightComparison(msgspec.Struct, frozen=True, kw_only=True):
    """How one weight compares with the original, what AWQ folds undone.

    All are ``None`` where it could not be compared; ``note`` then says why.
    """

    name: str
    """The module for a packed layer, the tensor otherwise."""
    packed: bool
    error: float | None = None
    """RMS of the difference over RMS of the original, both times the norm before them."""
    rounding: Rounding | None = None
    """Which way the weights of the file were rounded; ``None`` for what is not packed."""
    strays: int | None = None
    """How many values are not what that rounding, or a cast, makes of the original. ``None`` with
    errors moved on, where no value is bounded."""
    ratio: float | None = None
    """Median over the rows of the scale of what is stored against the original; 1 is right.

    For two Linears folded into each other, of the product of both scales: damage to either
    shows in both.
    """
    row: float | None = None
    """With errors moved on: the row scale that is farthest from 1 at the least."""
    group: float | None = None
    """How far the scale of one group of one row is off at the least, as a share of it.

    Only what rounding cannot explain counts, so it is 0 for a good layer. ``None`` for what is not
    packed.
    """
    offset: float | None = None
    """With errors moved on: by how many steps a group of a row is off in the mean at the least, or
    half of the rows of a group. A zero point off by one makes it 1, less how its group scatters."""
    moved: float | None = None
    """With errors moved on: how far the weights of a row are off in the mean square, at the most,
    in steps. Codes that are garbage are far off at 8 bits."""
    misplaced: float | None = None
    """With errors moved on: how much of the squared difference would go if each input had the
    scales of the group that fits it best. 0 in a right order; a large part in another's g_idx."""
    not_finite: int = 0
    """How many values are not finite."""
    note: str = ""


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """The observation of the ``inspect`` stage."""

    schema: int = SCHEMA_VERSION
    compared: bool = False
    """An original was given. Without one, ``weights`` is empty, and ``linears``, ``missing`` and
    ``unexpected`` follow from config.json, of dense Qwen2, Qwen3 and Llama models only."""
    files: dict[str, int] = {}
    """File name -> bytes."""
    tensors: list[TensorInfo] = []
    tie_word_embeddings: bool | None = None
    """As config.json says; ``None`` where it does not."""
    config: ConfigFacts = ConfigFacts()
    tokenizer: TokenizerFacts = TokenizerFacts()
    quantization: Quantization | None = None
    modules: list[PackedLinearInfo] = []
    """All that is packed, by name."""
    linears: list[str] = []
    """The decoder's Linear modules."""
    left_out: list[str] = []
    """Those of ``linears`` that config.json leaves out of the quantization, so that they must not
    be packed. With ``dynamic``, all that are not: these cannot be told from lost ones.
    """
    unread: str = ""
    """Formats of packed layers that config.json names and that are not read here. Nothing is
    claimed of such layers."""
    embedding: bool = False
    """``model.embed_tokens.weight`` is present."""
    head: bool = False
    """``lm_head``, packed or not, is present."""
    head_differs: bool | None = None
    """``lm_head.weight`` holds other values than the embedding. Told where config.json ties the two
    and both are stored, ``None`` elsewhere."""
    missing: list[str] = []
    """Tensors that a checkpoint of this model must have and this one has not, but for the two."""
    unexpected: list[str] = []
    """Tensors that no checkpoint of this model has, but those in ``zero_tensors``."""
    zero_tensors: list[str] = []
    """Unexpected tensors that hold nothing but zeros: some quantizers write them, harmlessly."""
    not_finite: dict[str, int] = {}
    """Floating tensor, of no packed module -> how many of its values are not finite, if any."""
    expected_bytes: int | None = None
    """What the tensors should take: packed parts by the scheme, the rest at 16 bits, a tied
    embedding once. ``None`` where the model or the scheme is not known."""
    weights: list[WeightComparison] = []
    """But for AWQ's ``left_out`` and what may be folded into or with them: factors unknown."""
    problems: list[Problem] = []
    """Why some or all of it could not be read. Empty for a readable checkpoint."""
