"""What inspecting a checkpoint leaves behind: facts only, no judgement, as JSON-ready data."""

from __future__ import annotations

import msgspec

SCHEMA_VERSION = 1


class Problem(msgspec.Struct, frozen=True):
    """Something that keeps a file from being read, or makes it unsafe to read."""

    problem: str
    where: str
    remedy: str

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


class Quantization(msgspec.Struct, frozen=True):
    """What ``quantization_config`` of config.json says, as far as a reader of weights needs it."""

    method: str
    bits: int | None = None
    group_size: int | None = None
    """-1 stands for one group per row."""
    zero_point: bool | None = None
    version: str = ""


class WeightComparison(msgspec.Struct, frozen=True, kw_only=True):
    """How one weight compares with the original after AWQ's folding is undone.

    All are ``None`` where it could not be compared; ``note`` then says why.
    """

    name: str
    """The module for a packed layer, the tensor otherwise."""
    packed: bool
    error: float | None = None
    """RMS of the difference over RMS of the original, both times the norm before them."""
    ratio: float | None = None
    """Median over the rows of the scale of what is stored against the original; 1 is right.

    For two Linears folded into each other, of the product of both scales: damage to either
    shows in both.
    """
    row: float | None = None
    """The row scale farthest from 1."""
    column: float | None = None
    """The column scale farthest from 1."""
    group: float | None = None
    """How far the scale of one group of one row is off at the least, as a share of it.

    Only what rounding to nearest cannot explain counts, so it is 0 for a good layer. ``None`` for
    what is not packed.
    """
    not_finite: int = 0
    """How many values are not finite."""
    note: str = ""


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """The observation of the ``inspect`` stage."""

    schema: int = SCHEMA_VERSION
    files: dict[str, int] = {}
    """File name -> bytes."""
    tensors: list[TensorInfo] = []
    tie_word_embeddings: bool | None = None
    """As config.json says; ``None`` where it does not."""
    quantization: Quantization | None = None
    packed: list[str] = []
    """Modules with a ``.qweight``."""
    linears: list[str] = []
    """The decoder's Linear modules, by the original checkpoint."""
    embedding: bool = False
    """``model.embed_tokens.weight`` is present."""
    head: bool = False
    """``lm_head.weight`` is present."""
    missing: list[str] = []
    """Tensors that a checkpoint of this model must have and this one has not, but for the two."""
    unexpected: list[str] = []
    """Tensors that no checkpoint of this model has."""
    zero_biases: list[str] = []
    """Unexpected biases that hold nothing but zeros: some quantizers write them, harmlessly."""
    not_finite_scales: dict[str, int] = {}
    """Scales tensor -> how many of its values are not finite, where there are any."""
    weights: list[WeightComparison] = []
    problems: list[Problem] = []
    """Why some or all of it could not be read. Empty for a readable checkpoint."""
