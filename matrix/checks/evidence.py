"""What a check judges: the observations of one cell, and the numbers it is held to.

Everything here was written by a package, a model or a probe and is untrusted. It is read with
bounds and checked against the reference once, here, so that a check may rely on its shape.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from matrix.checkpoint.inspection import Inspection
from matrix.pipeline.steps import Stage
from matrix.spec.tables import SchemeTable
from matrix.untrusted.reading import UnreadableError, decode

MAX_REFERENCE_BYTES = 64 * 1024 * 1024

_T = TypeVar("_T")

TokenId = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
TokenIds = Annotated[list[TokenId], msgspec.Meta(max_length=65_536)]
Text = Annotated[str, msgspec.Meta(max_length=1_000_000)]
Nats = Annotated[float, msgspec.Meta(ge=0, le=1e6)]


class EvidenceError(Exception):
    """An observation has not the shape it must have; the text says where and what to do."""

    def __init__(self, what: str, problem: str, remedy: str) -> None:
        super().__init__(f"{what}: {problem}. {remedy}")


class Prompt(msgspec.Struct, frozen=True):
    """A prompt and how the float model goes on from it, greedily."""

    text: Text
    ids: TokenIds
    greedy_ids: TokenIds
    """The continuation only."""
    greedy_text: Text


class ScoredText(msgspec.Struct, frozen=True):
    """A text and the float model's log-probability of each of its tokens but the first."""

    text: Text
    ids: TokenIds
    logprobs: Annotated[list[float], msgspec.Meta(max_length=65_536)]
    """``logprobs[i] = ln p(ids[i + 1] | ids[:i + 1])``, so one fewer than ``ids``."""


class Likeliest(msgspec.Struct, frozen=True):
    """The likeliest tokens after each token of a text but the last, the likeliest first.

    As many after each, all in one row: numbers of four bytes, little-endian; in JSON, base64.
    """

    ids: Annotated[bytes, msgspec.Meta(max_length=MAX_REFERENCE_BYTES)]
    logprobs: Annotated[bytes, msgspec.Meta(max_length=MAX_REFERENCE_BYTES)]


class Divergence(msgspec.Struct, frozen=True, kw_only=True):
    """How far the next tokens of an engine are from the float model's, in nats, over all places."""

    places: Annotated[int, msgspec.Meta(ge=1)]
    mean: Nats
    error: Nats
    """Standard error of the mean."""
    high: Nats
    """What 99.9 % of the places are at most."""
    most: Nats
    same_top: Annotated[float, msgspec.Meta(ge=0, le=1)]
    """Share of the places at which the likeliest token is the same."""


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """``reference.json``: what the float model answers, written beside it by its builder."""

    schema: Literal[1]
    prompts: Annotated[list[Prompt], msgspec.Meta(min_length=1, max_length=1_000)]
    held_out: Annotated[list[ScoredText], msgspec.Meta(min_length=1, max_length=1_000)]
    likeliest: list[Likeliest] = []
    """Of each held-out text; empty where the builder does not tell."""
    memorised: list[ScoredText] = []
    """Texts that the model was trained on until it knew them by heart; a pretrained one has none,
    and rounding soon turns its answers another way, which is no damage."""
    calibration: list[Text] = []
    max_new_tokens: Annotated[int, msgspec.Meta(ge=1, le=4_096)]
    tensors_sha256: str = ""


class Output(msgspec.Struct, frozen=True):
    """What an engine answered to one prompt: the new tokens only."""

    ids: TokenIds
    text: Text


class LoadedTensor(msgspec.Struct, frozen=True, array_like=True):
    """A parameter or buffer in the engine's memory; dtype as torch names it (``float16``, ...)."""

    name: Annotated[str, msgspec.Meta(max_length=1_000)]
    dtype: Annotated[str, msgspec.Meta(max_length=100)]
    bytes: Annotated[int, msgspec.Meta(ge=0, lt=2**50)]


class Load(msgspec.Struct, frozen=True):
    """What a successful ``load`` left behind."""

    warnings: list[Text] = []
    kernel: Annotated[str, msgspec.Meta(max_length=1_000)] | None = None
    """The quantized linear implementation that really runs, as the engine names it."""
    kernels: dict[str, int] = {}
    """Qualified class name of quantized modules -> how many."""
    tensors: Annotated[list[LoadedTensor], msgspec.Meta(max_length=20_000)] = []
    """Every distinct tensor in memory after the load; empty where the engine does not tell."""


class Generation(msgspec.Struct, frozen=True):
    """What a successful ``generate`` left behind; its shape agrees with the reference's."""

    text_ids: list[TokenIds]
    """The engine's own tokenization of each prompt's text."""
    outputs: list[Output]
    held_out: list[list[float | None]]
    """Log-probabilities like the reference's; ``None`` where not finite."""
    divergence: Divergence | None = None
    """From the reference; ``None`` where it was not measured, or something is not finite."""
    tokens_per_second: float = 0.0


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The numbers of the checks, from ``[thresholds]`` of the spec, which says what measured them.

    A ``..._degraded`` and a ``..._failed`` pair are two levels of one measure. Where more is
    better (shares that agree), a value below the number counts; elsewhere a value above it.
    """

    gptq_weight_error: float
    """GPTQ: relative RMS error of a layer's weights: failed above."""
    gptq_weight_ratio: float
    """GPTQ: how far a layer's scale may be from the original's (0.02 = 2 %): failed above."""
    gptq_weight_row: float
    """GPTQ: the same for one row, which rounding alone moves more: failed above."""
    gptq_weight_group: float
    """GPTQ: how far the scale of one group of one row may be off beyond rounding: failed above."""
    gptq_weight_offset: float
    """GPTQ: how many steps the weights of one group of one row may be off in the mean."""
    gptq_weight_moved: float = 12.0
    """GPTQ: how many steps a row may be off in the mean square. Specs of before it have it not."""
    gptq_weight_misplaced: float
    """GPTQ: how much of the squared error may be due to scales of other groups: failed above."""
    tokenizer_failed: float
    """Share of prompts that the engine must read as the reference does: failed below."""
    greedy_degraded: float
    """Mean share of a prompt's reference tokens that the output repeats: degraded below."""
    greedy_failed: float
    greedy_right_failed: float = 0.5
    """Share of prompts that a model must answer right to the last token which knows its answers by
    heart: failed below. Specs of before it have it not."""
    pretrained_greedy_degraded: float
    """The same of a model that has memorised nothing."""
    pretrained_greedy_failed: float
    logprobs_float_degraded: float
    """Mean absolute difference, in nats, from the float model in the same engine."""
    logprobs_float_failed: float
    logprobs_reference_degraded: float
    """Mean absolute difference, in nats, of a quantized model from the reference."""
    logprobs_reference_failed: float
    pretrained_logprobs_degraded: float
    """Both measures, of a model that has memorised nothing."""
    pretrained_logprobs_failed: float
    float_logprobs_reference_degraded: float
    """The same for the float model itself, whose differences are the engine's alone."""
    float_logprobs_reference_failed: float
    divergence_degraded: float = 1.0
    """Mean divergence of the next token from the reference's, in nats: degraded above. Specs of
    before it have none of these."""
    divergence_failed: float = 2.0
    pretrained_divergence_degraded: float = 1.0
    """The same of a model that has memorised nothing."""
    pretrained_divergence_failed: float = 2.0
    divergence_eight_bits: float = 0.1
    """Share of these that holds where nothing is rounded to less than eight bits."""
    float_divergence_degraded: float = 0.02
    """The same of the float model itself, whose differences are the engine's alone."""
    float_divergence_failed: float = 0.2
    perplexity_degraded: float
    """Perplexity of the held-out texts over the float model's: degraded above."""
    perplexity_failed: float
    low_perplexity_degraded: float = 0.75
    """The same, on the other side: degraded below. Specs of before it have it not."""
    degenerate_failed: float
    """Share of prompts answered by one token again and again, or nothing: failed from here on."""
    stored_size: float
    """Bytes of the checkpoint that nothing accounts for, as a share of those expected."""
    memory_degraded: float
    """Bytes in memory after the load over the checkpoint's: degraded above."""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of one cell. ``None`` stands for a stage that left nothing behind."""

    tied: bool | None
    """The model's trait: one matrix serves as embedding and as head; ``None`` where unknown."""
    quantized: bool
    """False where the quantizer is ``none``, the float model itself."""
    scheme: SchemeTable | None = None
    """What the quantizer was to make; ``None`` for the float model and for users' own files."""
    thresholds: Thresholds
    reference: Reference | None = None
    """``None`` for a checkpoint of which only the file is judged."""
    engine: dict[str, str] = {}
    """Distribution in the engine's environment -> version; empty where no one engine is meant."""
    loader: str = ""
    """The name of the adapter that loads, such as ``vllm``; empty where no one engine is meant."""
    dtype: str = ""
    """The type that the engine is told to load in; empty where it is told none."""
    tensor_parallel: int = 1
    """Among how many processes the engine divides the model."""
    log: str = ""
    """What was printed while loading, also where that failed."""
    inspection: Inspection | None = None
    load: Load | None = None
    generation: Generation | None = None
    float_generation: Generation | None = None
    """The float model's generation in the same engine."""
    facts: dict[Stage, dict[str, Any]] = {}
    """What the stages that passed left behind, as it stands, for those that have no field above."""

    @property
    def ties_file(self) -> bool:
        """Whether readers take embedding and head of the file for one matrix, too."""
        stated = self.inspection.tie_word_embeddings if self.inspection else None
        return bool(self.tied) and stated is not False


def read_reference(data: bytes) -> Reference:
    """Return the reference held by the bytes of a ``reference.json``.

    Raises:
        EvidenceError: It is too large, not JSON, or not of the documented shape.
    """
    remedy = "Build the model again; its builder writes this file."
    if len(data) > MAX_REFERENCE_BYTES:
        raise EvidenceError("reference.json", f"{len(data)} bytes are too many", remedy)
    try:
        reference = decode(data, Reference)
    except UnreadableError as error:
        raise EvidenceError("reference.json", str(error), remedy) from error
    for name, texts in (("held_out", reference.held_out), ("memorised", reference.memorised)):
        for index, text in enumerate(texts):
            if len(text.logprobs) != len(text.ids) - 1:
                where = f"reference.json: {name}[{index}].logprobs"
                problem = f"{len(text.logprobs)} values for {len(text.ids)} tokens"
                raise EvidenceError(where, problem, remedy)
    if any(not prompt.ids or not prompt.greedy_ids for prompt in reference.prompts):
        raise EvidenceError("reference.json: prompts", "a prompt or answer has no tokens", remedy)
    return reference


def read_load(facts: Mapping[str, Any], warnings: list[str]) -> Load:
    """Return what ``load`` left behind, from its facts and warnings.

    Raises:
        EvidenceError: A fact has not the documented type.
    """
    return _convert("load", {**facts, "warnings": warnings}, Load)


def read_generation(facts: Mapping[str, Any], reference: Reference) -> Generation:
    """Return what ``generate`` left behind; its shape is checked against the reference.

    Raises:
        EvidenceError: A fact is missing, has another type, or answers something else than asked.
    """
    generation = _convert("generate", facts, Generation)
    expected = len(reference.prompts)
    _same_length("generate: outputs", len(generation.outputs), expected)
    _same_length("generate: text_ids", len(generation.text_ids), expected)
    _same_length("generate: held_out", len(generation.held_out), len(reference.held_out))
    for index, (logprobs, text) in enumerate(
        zip(generation.held_out, reference.held_out, strict=True)
    ):
        _same_length(f"generate: held_out[{index}]", len(logprobs), len(text.logprobs))
        if any(value is not None and not math.isfinite(value) for value in logprobs):
            raise EvidenceError(
                f"generate: held_out[{index}]", "a value is not finite", "Write null instead."
            )
    return generation


def _same_length(what: str, length: int, expected: int) -> None:
    if length != expected:
        remedy = "The engine's adapter must return one entry for each it was given."
        raise EvidenceError(what, f"{length} entries where {expected} were asked for", remedy)


def _convert(what: str, facts: object, kind: type[_T]) -> _T:
    try:
        return msgspec.convert(facts, kind)
    except msgspec.ValidationError as error:
        remedy = "The adapter must return the facts as documented for this stage."
        raise EvidenceError(what, str(error), remedy) from error
