"""Checks of the ``inspect`` stage: can a stack older than the one that wrote the file read it?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from packaging.version import InvalidVersion, Version

from matrix.checks.evidence import Evidence
from matrix.checks.wording import Opinion, inspected
from matrix.pipeline.outcomes import Explanation, Judgement, Symptom
from matrix.repair.names import NEW_CLASSES

TAKEN_FROM_CONFIG = ("", "unset", "auto")
"""Values of an engine's option ``dtype`` with which the config's own type is taken."""


class Drift(NamedTuple):
    """A way of writing that readers of a distribution before a version do not understand."""

    distribution: str
    version: str
    message: str
    remedy: str
    symptoms: tuple[Symptom, ...]
    errors: tuple[str, ...] = ()

    def concerns(self, engine: Mapping[str, str]) -> bool:
        """Return whether an engine is too old to understand it.

        Where no engine is meant, nothing is: all new files are written so.
        """
        installed = engine.get(self.distribution, "")
        try:
            return bool(installed) and Version(installed) < Version(self.version)
        except InvalidVersion:
            return True  # nothing is known of it


ROPE_PARAMETERS = Drift(
    "transformers", "5.0",
    "config.json has rope_parameters and no rope_theta: readers before transformers 5 take 10000 "
    "and may answer wrong",
    "Add rope_theta to config.json",
    (Symptom.WRONG_ANSWERS,),
)  # fmt: skip
DTYPE = Drift(
    "transformers", "4.56",
    "config.json has dtype and no torch_dtype: readers before transformers 4.56 take float32, "
    "where they are not told a type",
    "Add torch_dtype to config.json",
    (Symptom.MORE_MEMORY,),
)  # fmt: skip
TOKENIZER_CLASS = Drift(
    "transformers", "5.0",
    "tokenizer_class is one of transformers 5: readers before it stop at it",
    "Save the tokenizer with an older transformers",
    (Symptom.OTHER_TOKENS, Symptom.ERROR), ("tokenizer",),
)  # fmt: skip
MERGES = Drift(
    "tokenizers", "0.20",
    "merges are written as pairs: tokenizers before 0.20 stop at them (untagged enum ModelWrapper)",
    "Save the tokenizer with an older tokenizers",
    (Symptom.ERROR,), ("tokenizer", "ModelWrapper"),
)  # fmt: skip


def config_drift(evidence: Evidence) -> Opinion:
    """config.json is written in the keys that its reader knows.

    Protects from what older readers pass over without a word: transformers 5 writes the base of
    the rotary embedding into ``rope_parameters`` only, and a reader that looks for ``rope_theta``
    takes 10000 (Qwen2 has 1000000); and ``dtype`` for ``torch_dtype``, without which a model is
    taken for float32. Known issue tf5-rope-parameters,
    https://github.com/vllm-project/vllm/issues/42624. Value: keys of a newer form.
    """
    config = inspected(evidence).config
    drifts = [ROPE_PARAMETERS] if config.rope_parameters and not config.rope_theta else []
    matter = list(drifts)
    if config.dtype and not config.torch_dtype:
        drifts.append(DTYPE)
        matter += [DTYPE] if evidence.dtype in TAKEN_FROM_CONFIG else []
    return _opinion(evidence.engine, drifts, matter)


def tokenizer_drift(evidence: Evidence) -> Opinion:
    """The tokenizer's files are written in the form that their reader knows.

    Protects from a tokenizer that an older engine cannot load: transformers 5 writes its own class
    name, TokenizersBackend (tf5-tokenizers-backend,
    https://github.com/ModelCloud/GPTQModel/issues/2403), and tokenizers 0.20 the merges as pairs
    (tokenizer-untagged-enum, https://github.com/huggingface/tokenizers/issues/1529).
    Value: files of a newer form.
    """
    tokenizer = inspected(evidence).tokenizer
    drifts = [TOKENIZER_CLASS] if tokenizer.tokenizer_class in NEW_CLASSES else []
    drifts += [MERGES] if tokenizer.merges == "pairs" else []
    return _opinion(evidence.engine, drifts, drifts)


def _opinion(engine: Mapping[str, str], drifts: list[Drift], matter: list[Drift]) -> Opinion:
    """Return what drifts come to: a notice where the engine is too old for one that matters."""
    concern = [drift for drift in matter if drift.concerns(engine)]
    message = "; ".join(drift.message for drift in drifts)
    if concern:
        message = "; ".join(f"{drift.message}. {drift.remedy}" for drift in concern)
        explains = Explanation(
            list(dict.fromkeys(symptom for drift in concern for symptom in drift.symptoms)),
            errors=list(dict.fromkeys(text for drift in concern for text in drift.errors)),
            engines=sorted({f"{d.distribution} {engine[d.distribution]}" for d in concern}),
        )
        return Opinion(Judgement.NOTICE, len(drifts), message, explains=explains)
    if drifts and engine:
        lacking = {drift.distribution for drift in drifts} - engine.keys()
        message += f"; not known without the engine's {', '.join(sorted(lacking))}" * bool(lacking)
        message += "; this engine is new enough" * (not lacking)
    return Opinion(Judgement.PASSED, len(drifts), message)
