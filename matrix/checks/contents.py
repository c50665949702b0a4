"""Checks of the ``inspect`` stage: is everything there, and nothing besides?"""

from __future__ import annotations

from collections.abc import Mapping

from matrix.checks.evidence import Evidence
from matrix.checks.wording import SHOWN, NotApplicableError, Opinion, inspected, some
from matrix.pipeline.outcomes import Explanation, Judgement, Symptom
from matrix.repair.names import VLLM
from matrix.untrusted.text import counted

META_TENSOR = "meta tensor"
"""torch's word for a parameter that nothing was loaded into."""
_LOST = [Symptom.WRONG_ANSWERS, Symptom.NOT_FINITE, Symptom.MADE_UP_WEIGHTS]
LACKING = Explanation(
    [*_LOST, Symptom.CRASH, Symptom.ERROR],
    errors=["missing key", "initialized from checkpoint", "loaded from checkpoint", META_TENSOR],
)
"""The consequences of a tensor that is not there."""


def checkpoint_readable(evidence: Evidence) -> Opinion:
    """Every file is safetensors or JSON, whole, in its directory, and reads without executing it.

    Protects from truncated or malformed files, and from ones that would run code when loaded
    (pickles), reach outside the directory or exhaust memory; the format and its limits:
    https://github.com/huggingface/safetensors#format. Value: number of problems.
    """
    problems = inspected(evidence).problems
    judgement = Judgement.FAILED if problems else Judgement.PASSED
    return Opinion(judgement, len(problems), "; ".join(map(str, problems[:SHOWN])), threshold=0)


def checkpoint_complete(evidence: Evidence) -> Opinion:
    """Every tensor of the model is there, and none besides.

    Protects from engines that fill what is missing with random numbers. All-zero biases are
    harmless: auto-gptq writes them; known issue gptq-zero-bias-stored,
    https://github.com/AutoGPTQ/AutoGPTQ/pull/602. Value: tensors missing.
    """
    inspection = inspected(evidence)
    missing, unexpected = inspection.missing, inspection.unexpected
    parts = [f"missing: {some(missing)}. Save or download the checkpoint again"] if missing else []
    judgement, explains = Judgement.PASSED, None
    if unexpected:
        parts.append(f"unexpected: {some(unexpected)}. Remove what no engine reads")
        judgement, explains = Judgement.NOTICE, _surplus(unexpected)
    if zeros := len(inspection.zero_tensors):
        parts.append(f"{counted(zeros, 'unexpected tensor')} all zero (harmless)")
    if missing:
        judgement, explains = Judgement.FAILED, LACKING
    return Opinion(judgement, len(missing), "; ".join(parts), explains=explains)


def _surplus(names: list[str]) -> Explanation:
    """Return the consequence of tensors that no such model has: a loader stops at them."""
    # A shorter name may stand in any error.
    telling = [name[:200] for name in names[:SHOWN] if len(name) >= 8]
    texts = ["no module or parameter named", "unexpected key", *telling]
    return Explanation([Symptom.ERROR], errors=texts)


def tied_embedding(evidence: Evidence) -> Opinion:
    """Embedding and head are stored as ``tie_word_embeddings`` says.

    Protects from the defect of autoawq 0.2.7 to 0.2.7.post2: of a tied model it keeps
    ``lm_head.weight`` and drops ``model.embed_tokens.weight``. vLLM skips ``lm_head.*`` for tied
    models and answers garbage with no error; transformers is fine, hence a notice and no failure.
    And from a head stored beside the embedding that is another matrix: engines differ in which of
    the two they take.
    Known issue awq-tied-embedding-dropped, https://github.com/casper-hansen/AutoAWQ/issues/665.
    Value: how many of the two are stored.
    """
    inspection = inspected(evidence)
    if evidence.tied is None:
        raise NotApplicableError("config.json does not say whether embedding and head are one")
    if not (inspection.embedding or inspection.head or inspection.linears):
        raise NotApplicableError(
            "the names under which this architecture stores them are not known"
        )
    judgement, message = _embedding(evidence.tied, inspection.embedding, inspection.head)
    explains = LACKING if judgement is Judgement.FAILED else None
    if judgement is Judgement.NOTICE:
        explains = _dropped(evidence.engine)
    if evidence.tied and inspection.head_differs:
        judgement, explains = Judgement.NOTICE, Explanation([Symptom.WRONG_ANSWERS])
        message = (
            "tied, but lm_head.weight is another matrix than model.embed_tokens.weight: engines "
            "differ in which they take. Remove lm_head.weight, or set tie_word_embeddings=false"
        )
    stored = inspection.tie_word_embeddings
    if evidence.tied and stored is False and inspection.embedding and inspection.head:
        judgement, explains = Judgement.NOTICE, None
        message = (
            "tied in the float model; config.json says tie_word_embeddings=false, and both are "
            "stored. It answers the same, and takes the room of one more"
        )
    elif stored is not None and stored != evidence.tied:
        judgement, explains = Judgement.FAILED, LACKING
        message += (
            f"; config.json says tie_word_embeddings={str(stored).lower()} of it, wrongly. "
            "Correct that"
        )
    return Opinion(judgement, inspection.embedding + inspection.head, message, explains=explains)


def _dropped(engine: Mapping[str, str]) -> Explanation:
    """Return the consequences of a dropped embedding in an engine, or in any if none is meant.

    vLLM fills nothing into the embedding and holds the head beside it. transformers ties the two
    again; under accelerate it stops at the embedding that is nowhere.
    """
    errors = [META_TENSOR, "embed_tokens"]
    if engine and not engine.keys() & VLLM:
        return Explanation([Symptom.MADE_UP_WEIGHTS, Symptom.ERROR], errors=errors)
    symptoms = [*_LOST, Symptom.MORE_MEMORY, Symptom.ERROR]
    return Explanation(symptoms, errors=errors, engines=["vLLM"])


def _embedding(tied: bool, embedding: bool, head: bool) -> tuple[Judgement, str]:
    match tied, embedding, head:
        case True, True, _:
            both = "stored under both names, of which one is enough"
            return Judgement.PASSED, f"tied; {both if head else 'the embedding is stored'}"
        case True, False, True:
            return Judgement.NOTICE, (
                "tied, but only lm_head.weight is stored: engines that do not take it for the "
                "embedding too (vLLM) answer garbage. Rename it to model.embed_tokens.weight"
            )
        case False, True, True:
            return Judgement.PASSED, "untied; both are stored"
        case _, False, False:
            return Judgement.FAILED, (
                "neither the embedding nor lm_head.weight is stored. Copy it from the float model"
            )
        case _:
            missing = "lm_head.weight" if embedding else "model.embed_tokens.weight"
            message = f"untied, but {missing} is missing. Copy it from the float model"
            return Judgement.FAILED, message
