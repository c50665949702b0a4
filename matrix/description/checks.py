"""The checks of ``matrix inspect`` alone: what a checkpoint's files say of themselves.

They judge a user's file and no cell of the matrix, so that they are in no table of it and no
verdict stands on them. Each is a :class:`Finding` of the stage ``inspect``, like those of
:mod:`matrix.checks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from matrix.checkpoint.files import CheckpointFiles
from matrix.checkpoint.inspection import Inspection, WeightComparison
from matrix.checkpoint.shapes import EMBEDDING, HEAD
from matrix.checks.wording import some
from matrix.description import comparing, soundness, tokenizers
from matrix.description.families import is_tied
from matrix.description.reading import Description, read_description
from matrix.description.values import stray_faults, value_faults
from matrix.pipeline.outcomes import Finding, Judgement
from matrix.pipeline.steps import Stage

TRAINING_FILES = (
    "training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "scaler.pt",
)  # fmt: skip
"""What a trainer leaves beside the weights. No engine loads it: vLLM 0.32.0 leaves out these
(``model_executor/model_loader/weight_utils.py``), transformers loads only what the index names."""
UNLIKE = 0.5
"""Relative error of a weight beyond which it is no rounding of the original's: two weights that
have nothing to do with each other have 1.4."""
MOST = 0.9


class Account(msgspec.Struct, frozen=True):
    """A checkpoint's own account of itself, beside what its tensors hold."""

    own: Description
    original: Description | None
    values: list[str]
    """Which tensors hold values that make no model."""
    strayed: list[str]
    """Which tensors that no quantizer changes are not the original's in a few rows."""


def without_training_files(inspection: Inspection) -> Inspection:
    """Return what was inspected, but for what a trainer left beside the weights."""
    if not inspection.tensors:
        return inspection
    problems = [p for p in inspection.problems if p.where not in TRAINING_FILES]
    return msgspec.structs.replace(inspection, problems=problems)


def read_account(folder: Path, original: Path | None, inspection: Inspection) -> Account:
    """Return what the files say; both folders were inspected, so they can be read."""
    files = CheckpointFiles(folder)
    own, values = read_description(files), value_faults(files, inspection)
    if original is None:
        return Account(own, None, values, [])
    source = CheckpointFiles(original)
    return Account(own, read_description(source), values, stray_faults(files, source, inspection))


def is_tied_by(account: Account) -> bool | None:
    """Return whether a reader takes embedding and head for one; ``None`` where not known."""
    return is_tied(account.own.config)


def judge_account(account: Account, inspection: Inspection) -> list[Finding]:
    """Return what the checks say of a checkpoint's account of itself."""
    own, original = account.own, account.original
    config = [*soundness.config_faults(own.config), *tokenizers.token_faults(own)]
    findings = [
        _finding("own-files", own.problems, "Copy it from the float model"),
        _finding("own-config", config, "Correct that, or copy the file from the float model"),
        _finding("own-shapes", soundness.shape_faults(inspection),
                 "Correct config.json, or save the model again"),
        _finding("own-values", account.values, "Quantize it again"),
        _finding("own-tokenizer", tokenizers.tokenizer_faults(own),
                 "Copy the tokenizer's files from the float model"),
        _finding("own-quantization", soundness.quantization_faults(own, inspection),
                 "Correct the wrong one: engines differ in which they read"),
        _finding("own-format", _format_faults(own), 'Save it with the metadata {"format": "pt"}'),
    ]  # fmt: skip
    if original is None:
        return findings
    config = comparing.config_differences(own.config, original.config)
    config += [
        f"generation_config.json: {line}"
        for line in comparing.generation_differences(own, original)
    ]
    tokenizer = tokenizers.tokenizer_differences(own, original)
    return [
        _finding("original", origin_faults(inspection), "Give the model that was quantized"),
        *findings,
        _finding("original-config", config, "Copy these settings from the original"),
        _finding("original-rows", account.strayed, "Copy the tensor from the original"),
        _finding("original-tokenizer", tokenizer, "Copy its files from the original"),
    ]


def _finding(check: str, faults: Sequence[str], action: str) -> Finding:
    judgement = Judgement.FAILED if faults else Judgement.PASSED
    message = f"{some(faults)}. {action}" if faults else ""
    return Finding(check, Stage.INSPECT, judgement, len(faults), 0, message)


def _format_faults(own: Description) -> list[str]:
    files = soundness.format_faults(own)
    say = "does" if len(files) == 1 else "do"
    lacking = f"{some(files)} {say} not say its format: transformers 4 stops at that"
    return [lacking] if files else []


def origin_faults(inspection: Inspection) -> list[str]:
    """Return why the original is not the model that was quantized.

    Damage leaves something as it was, and most of all the embedding, which nobody quantizes.
    """
    packed = [weight for weight in inspection.weights if weight.packed]
    plain = [weight for weight in inspection.weights if weight.name in (EMBEDDING, HEAD)]
    unlike = [weight.name for weight in packed if _is_unlike(weight)]
    missing = inspection.compared and bool(inspection.modules) and not packed
    if not missing and (not packed or len(unlike) < MOST * len(packed)):
        return []
    if plain and not all(map(_is_unlike, plain)):
        return []
    where = f"{len(unlike)} of {len(packed)} packed layers" if packed else "all packed layers"
    return [f"this is not the model that it was made of: {where} have nothing of its weights"]


def _is_unlike(weight: WeightComparison) -> bool:
    return weight.error is None or weight.error > UNLIKE
