"""Checks of the ``inspect`` stage: can a stack of another age read what was written?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from packaging.version import InvalidVersion, Version

from matrix.checkpoint.inspection import COMPRESSED_TENSORS, Quantization
from matrix.checks.evidence import Evidence
from matrix.checks.wording import Opinion, inspected
from matrix.pipeline.outcomes import Explanation, Judgement, Symptom
from matrix.repair.names import NEW_CLASSES

TAKEN_FROM_CONFIG = ("", "unset", "auto")
"""Values of an engine's option ``dtype`` with which the config's own type is taken."""


class Drift(NamedTuple):
    """A way of writing that readers of a distribution before a version do not understand, or those
    from another on."""

    distribution: str
    version: str
    """Empty where no later one understands it."""
    message: str
    remedy: str
    symptoms: tuple[Symptom, ...]
    errors: tuple[str, ...] = ()
    since: str = ""
    """Readers before this one understand it, or pass over it; empty where none does."""

    def concerns(self, engine: Mapping[str, str]) -> bool:
        """Return whether an engine is too old to understand it, or too new.

        Where no engine is meant, nothing is: all new files are written so.
        """
        installed = engine.get(self.distribution, "")
        try:
            if not installed or (self.version and Version(installed) >= Version(self.version)):
                return False
            return not self.since or Version(installed) >= Version(self.since)
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


_REFUSED = (Symptom.ERROR,)
# Which release of compressed-tensors first reads what was found in the sources of all of them,
# 0.4.0 to 0.20.0: the classes QuantizationArgs, QuantizationScheme and CompressionFormat. vLLM
# requires one release exactly: 0.10.2 that of 0.11.0, 0.19.1 of 0.15.0.1, 0.32.0 of 0.17.0.
TYPES_SAID = Drift(
    "compressed-tensors", "0.13.0",
    "config.json has scale_dtype or zp_dtype, which compressed-tensors 0.11 and 0.12 refuse",
    "Remove both, which say nothing that the tensors do not",
    _REFUSED, ("Extra inputs are not permitted", "scale_dtype", "zp_dtype"), since="0.11.0",
)  # fmt: skip
ORDER_WITHOUT_GROUPS = Drift(
    "compressed-tensors", "0.16.0",
    "config.json has an actorder of weights without groups, which compressed-tensors before 0.16 "
    "refuses",
    "Set actorder to null, which changes no weight",
    _REFUSED, ("Must use group", "activation ordering", "actorder"), since="0.6.0",
)  # fmt: skip
ORDER_OF_TENSOR_GROUPS = ORDER_WITHOUT_GROUPS._replace(
    version="0.14.0",
    message="config.json has an actorder of the strategy tensor_group, which compressed-tensors "
    "before 0.14 refuses",
)
ORDER_ALIAS = Drift(
    "compressed-tensors", "0.8.1",
    "config.json has an actorder that compressed-tensors before 0.8.1 does not know",
    "Write weight for static, and group for dynamic",
    _REFUSED, ("actorder",), since="0.6.0",
)  # fmt: skip
REORDERED = Drift(
    "compressed-tensors", "",
    "config.json has actorder group, which compressed-tensors from 0.19 on refuses",
    "Quantize it with actorder weight",
    _REFUSED, ("actorder", "has been removed"), since="0.19.0",
)  # fmt: skip
BLOCKS_AS_LIST = Drift(
    "compressed-tensors", "0.11.0",
    "config.json has block_structure as a list, which compressed-tensors before 0.11 refuses",
    "Write it as a text, as in 128x128",
    _REFUSED, ("block_structure",),
)  # fmt: skip
FORMATS = {
    "naive-quantized": "0.5.0",
    "float-quantized": "0.5.0",
    "nvfp4-pack-quantized": "0.10.0",
    "mixed-precision": "0.11.0",
    "mxfp4-pack-quantized": "0.13.0",
    "mxfp8-quantized": "0.15.0",
    "mxfp6-pack-quantized": "0.20.0",
}
"""Format of compressed-tensors -> the release that first reads it; all others are older."""


def config_drift(evidence: Evidence) -> Opinion:
    """config.json is written in the keys that its reader knows.

    Protects from what older readers pass over without a word: transformers 5 writes the base of
    the rotary embedding into ``rope_parameters`` only, and a reader that looks for ``rope_theta``
    takes 10000 (Qwen2 has 1000000); and ``dtype`` for ``torch_dtype``, without which a model is
    taken for float32. Known issue tf5-rope-parameters,
    https://github.com/vllm-project/vllm/issues/42624. And from settings that a release of
    compressed-tensors refuses, https://github.com/vllm-project/llm-compressor/issues/2057 and
    https://github.com/vllm-project/llm-compressor/issues/2805. Value: keys of another form.
    """
    inspection = inspected(evidence)
    config = inspection.config
    drifts = [ROPE_PARAMETERS] if config.rope_parameters and not config.rope_theta else []
    drifts += compressed_drifts(inspection.quantization)
    matter = list(drifts)
    if config.dtype and not config.torch_dtype:
        drifts.append(DTYPE)
        matter += [DTYPE] if evidence.dtype in TAKEN_FROM_CONFIG else []
    return _opinion(evidence.engine, drifts, matter)


def compressed_drifts(quantization: Quantization | None) -> list[Drift]:
    """Return what is written of compressed-tensors that not all of its releases read."""
    if quantization is None or quantization.method != COMPRESSED_TENSORS:
        return []
    schemes = [group.scheme for group in quantization.groups]
    drifts: list[Drift] = []
    if {"scale_dtype", "zp_dtype"} & {*quantization.settings}:
        drifts.append(TYPES_SAID)
    if "block_structure" in quantization.settings:
        drifts.append(BLOCKS_AS_LIST)
    for scheme in schemes:
        if scheme.actorder and scheme.strategy == "tensor_group":
            drifts.append(ORDER_OF_TENSOR_GROUPS)
        elif scheme.actorder and scheme.strategy != "group":
            drifts.append(ORDER_WITHOUT_GROUPS)
        if scheme.actorder in ("static", "dynamic"):
            drifts.append(ORDER_ALIAS)
        if scheme.desc_act:
            drifts.append(REORDERED)
    forms = {quantization.checkpoint_format, *(scheme.checkpoint_format for scheme in schemes)}
    drifts += [_format_drift(form) for form in sorted(forms & FORMATS.keys())]
    return list(dict.fromkeys(drifts))


def _format_drift(form: str) -> Drift:
    version = FORMATS[form]
    message = f"its format is {form}, which compressed-tensors before {version} does not know"
    remedy = "Quantize it in another format"
    return Drift("compressed-tensors", version, message, remedy, _REFUSED, (form, "format"))


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
    """Return what drifts come to: a notice where the engine reads otherwise and that matters."""
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
        message += "; this engine reads it" * (not lacking)
    return Opinion(Judgement.PASSED, len(drifts), message)
