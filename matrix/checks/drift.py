"""Checks of the ``inspect`` stage: can a stack older than the one that wrote the file read it?"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

from packaging.version import InvalidVersion, Version

from matrix.checks.evidence import Evidence
from matrix.outcomes import Finding, Judgement, Stage

_finding = partial(Finding, stage=Stage.INSPECT)

NEW_CLASSES = ("TokenizersBackend", "TokenizersBackendFast")


class Drift(NamedTuple):
    """A way of writing that readers of a distribution before a version do not understand."""

    distribution: str
    version: str
    message: str

    def concerns(self, engine: Mapping[str, str]) -> bool:
        """Whether the engine is such an old reader; an unknown engine may be."""
        installed = engine.get(self.distribution, "" if engine else "0")
        try:
            return bool(installed) and Version(installed) < Version(self.version)
        except InvalidVersion:
            return True  # nothing is known of it


ROPE_PARAMETERS = Drift(
    "transformers", "5.0",
    "config.json has rope_parameters and no rope_theta: readers before transformers 5 take 10000",
)  # fmt: skip
DTYPE = Drift(
    "transformers", "4.56",
    "config.json has dtype and no torch_dtype: readers before transformers 4.56 take float32",
)  # fmt: skip
TOKENIZER_CLASS = Drift(
    "transformers", "5.0",
    "tokenizer_class is one of transformers 5: readers before it stop at it",
)  # fmt: skip
MERGES = Drift(
    "tokenizers", "0.20",
    "merges are written as pairs: tokenizers before 0.20 stop at them (untagged enum ModelWrapper)",
)  # fmt: skip


def config_drift(evidence: Evidence) -> Finding:
    """config.json is written in the keys that its reader knows.

    Protects from what older readers pass over without a word: transformers 5 writes the base of
    the rotary embedding into ``rope_parameters`` only, and a reader that looks for ``rope_theta``
    takes 10000 (Qwen2 has 1000000); and ``dtype`` for ``torch_dtype``, without which a model is
    taken for float32. Known issue tf5-rope-parameters,
    https://github.com/vllm-project/vllm/issues/42624. Value: keys of a newer form.
    """
    found = evidence.inspection
    drifts = []
    if found is not None:
        if found.config.rope_parameters and not found.config.rope_theta:
            drifts.append(ROPE_PARAMETERS)
        if found.config.dtype and not found.config.torch_dtype:
            drifts.append(DTYPE)
    return _say("config-drift", evidence, drifts)


def tokenizer_drift(evidence: Evidence) -> Finding:
    """The tokenizer's files are written in the form that their reader knows.

    Protects from a tokenizer that an older engine cannot load: transformers 5 writes its own class
    name, TokenizersBackend (tf5-tokenizers-backend,
    https://github.com/ModelCloud/GPTQModel/issues/2403), and tokenizers 0.20 the merges as pairs
    (tokenizer-untagged-enum, https://github.com/huggingface/tokenizers/issues/1529).
    Value: files of a newer form.
    """
    found = evidence.inspection
    drifts = []
    if found is not None:
        if found.tokenizer.tokenizer_class in NEW_CLASSES:
            drifts.append(TOKENIZER_CLASS)
        if found.tokenizer.merges == "pairs":
            drifts.append(MERGES)
    return _say("tokenizer-drift", evidence, drifts)


def _say(check: str, evidence: Evidence, drifts: list[Drift]) -> Finding:
    say = partial(_finding, check)
    if evidence.inspection is None:
        return say(judgement=Judgement.NOT_APPLICABLE, message="not inspected")
    message = "; ".join(drift.message for drift in drifts)
    if any(drift.concerns(evidence.engine) for drift in drifts):
        return say(judgement=Judgement.NOTICE, value=len(drifts), message=message)
    if drifts:
        message += "; not so this engine"
    return say(judgement=Judgement.PASSED, value=len(drifts), message=message)
