"""The checks of ``matrix inspect`` alone: what a checkpoint's files say of themselves.

They judge a user's file and no cell of the matrix, so that they are in no table of it and no
verdict stands on them. Each is a :class:`Finding` of the stage ``inspect``, like those of
:mod:`matrix.checks`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from matrix.checkpoint.files import CheckpointFiles
from matrix.checkpoint.inspection import Inspection, WeightComparison
from matrix.checkpoint.shapes import EMBEDDING, HEAD
from matrix.checks.drift import Drift
from matrix.checks.wording import some
from matrix.description import comparing, soundness, tokenizers
from matrix.description.families import is_tied
from matrix.description.reading import Description, read_description
from matrix.description.values import stray_faults, value_faults
from matrix.pipeline.outcomes import Explanation, Finding, Judgement, Symptom
from matrix.pipeline.steps import Stage

TRAINING_FILES = (
    "training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "scaler.pt",
)  # fmt: skip
"""What a trainer leaves beside the weights. No engine loads it: vLLM 0.32.0 leaves out these
(``model_executor/model_loader/weight_utils.py``), transformers loads only what the index names."""
NO_FORMAT = Drift(
    "transformers", "5.0",
    "the metadata has no format, at which transformers 4 stops",
    'Save it with the metadata {"format": "pt"}',
    (Symptom.ERROR,), ("valid metadata", "Incompatible safetensors"),
)  # fmt: skip
NO_METADATA = Drift(
    "transformers", "4.48",
    "there is no metadata, at which transformers up to 4.47.1 stops",
    'Save it with the metadata {"format": "pt"}',
    (Symptom.ERROR,), ("has no attribute 'get'",),
)  # fmt: skip
UNLIKE_PACKED = 0.3
UNLIKE_STORED = 0.05
"""Relative errors of weights beyond which they are not the original's. Two that have nothing to do
with each other have 1.4; two twins trained from one start had 0.37 to 0.75, and 0.7 stored."""
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


def judge_account(
    account: Account, inspection: Inspection, readers: Mapping[str, str]
) -> list[Finding]:
    """Return what the checks say of a checkpoint's account of itself.

    Args:
        account: What its files say.
        inspection: What its tensors hold.
        readers: Distribution -> version of what is to read it; empty where nothing is meant.
    """
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
        _format_finding(own, inspection, readers),
    ]  # fmt: skip
    if original is None:
        return findings
    config = comparing.config_differences(own.config, original.config, has_head=inspection.head)
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


def _format_finding(
    own: Description, inspection: Inspection, readers: Mapping[str, str]
) -> Finding:
    """Return what older transformers make of files that do not say that they are torch's."""
    for drift, form in ((NO_FORMAT, ""), (NO_METADATA, None)):
        files = [name for name, stated in sorted(own.formats.items()) if stated == form]
        if files and (not readers or drift.concerns(readers)):
            message = f"{some(files)}: {drift.message}. {drift.remedy}"
            reader = f"{drift.distribution} before {drift.version}"
            explains = Explanation([*drift.symptoms], [*drift.errors], engines=[reader])
            # AutoRound writes none, which only readers of before 2025 stop at.
            usual = inspection.quantization is not None and inspection.quantization.autoround
            harmless = drift is NO_METADATA and usual and not readers
            return Finding(
                "own-format", Stage.INSPECT, Judgement.NOTICE, len(files), 0, message,
                explains=None if harmless else explains,
            )  # fmt: skip
    return _finding("own-format", [], "")


def origin_faults(inspection: Inspection) -> list[str]:
    """Return why the original is not the model that was quantized.

    Damage leaves something as it was, and most of all the embedding, which nobody quantizes.
    """
    packed = [weight for weight in inspection.weights if weight.packed]
    stored = [weight for weight in inspection.weights if weight.name in (EMBEDDING, HEAD)]
    if not inspection.compared or not inspection.modules:
        return []
    if not stored:
        return [] if packed else ["this is not its model: no weight has a name in both"]
    unlike = sum(_is_beyond(weight, UNLIKE_PACKED) for weight in packed)
    if unlike < MOST * len(packed) or not all(_is_beyond(w, UNLIKE_STORED) for w in stored):
        return []
    return [
        f"this is not the model that it was made of: {unlike} of {len(packed)} packed layers, and "
        "what is not packed, have other weights"
    ]


def _is_beyond(weight: WeightComparison, error: float) -> bool:
    return weight.error is None or weight.error > error
