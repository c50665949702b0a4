"""Checks of the ``inspect`` stage: is everything there, and nothing besides?"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from matrix.checks.evidence import VLLM, Evidence
from matrix.checks.wording import SHOWN, count, some
from matrix.pipeline.outcomes import Explanation, Finding, Judgement, Symptom
from matrix.pipeline.steps import Stage

_finding = partial(Finding, stage=Stage.INSPECT)

META_TENSOR = "meta tensor"
"""torch's word for a parameter that nothing was loaded into."""
_LOST = [Symptom.WRONG_ANSWERS, Symptom.NOT_FINITE, Symptom.MADE_UP_WEIGHTS]
LACKING = Explanation(
    [*_LOST, Symptom.CRASH, Symptom.ERROR],
    errors=["missing key", "initialized from checkpoint", "loaded from checkpoint", META_TENSOR],
)
"""The consequences of a tensor that is not there."""


def checkpoint_readable(evidence: Evidence) -> Finding:
    """Every file is safetensors or JSON, whole, in its directory, and reads without executing it.

    Protects from truncated or malformed files, and from ones that would run code when loaded
    (pickles), reach outside the directory or exhaust memory; the format and its limits:
    https://github.com/huggingface/safetensors#format. Value: number of problems.
    """
    say = partial(_finding, "checkpoint-readable")
    if evidence.inspection is None:
        return say(judgement=Judgement.NOT_APPLICABLE, message="not inspected")
    problems = evidence.inspection.problems
    if problems:
        text = "; ".join(str(problem) for problem in problems[:SHOWN])
        return say(judgement=Judgement.FAILED, value=len(problems), threshold=0, message=text)
    return say(judgement=Judgement.PASSED, value=0, threshold=0)


def checkpoint_complete(evidence: Evidence) -> Finding:
    """Every tensor of the model is there, and none besides.

    Protects from engines that fill what is missing with random numbers. All-zero biases are
    harmless: auto-gptq writes them; known issue gptq-zero-bias-stored,
    https://github.com/AutoGPTQ/AutoGPTQ/pull/602. Value: tensors missing.
    """
    say = partial(_finding, "checkpoint-complete", threshold=0)
    inspection = evidence.inspection
    if inspection is None:
        return say(judgement=Judgement.NOT_APPLICABLE, message="not inspected")
    parts = []
    if inspection.missing:
        parts.append(f"missing: {some(inspection.missing)}")
    if inspection.unexpected:
        parts.append(f"unexpected: {some(inspection.unexpected)}")
    if inspection.zero_tensors:
        parts.append(
            f"{count(len(inspection.zero_tensors), 'unexpected tensor')} all zero (harmless)"
        )
    judgement, explains = Judgement.PASSED, None
    if inspection.unexpected:
        judgement, explains = Judgement.NOTICE, _surplus(inspection.unexpected)
    if inspection.missing:
        judgement, explains = Judgement.FAILED, LACKING
    message = "; ".join(parts)
    return say(
        judgement=judgement, value=len(inspection.missing), message=message, explains=explains
    )


def _surplus(names: list[str]) -> Explanation:
    """Return the consequence of tensors that no such model has: a loader stops at them."""
    telling = [name[:_NAME_CHARS] for name in names[:SHOWN] if len(name) >= _TELLING]
    texts = ["no module or parameter named", "unexpected key", *telling]
    return Explanation([Symptom.ERROR], errors=texts)


_NAME_CHARS = 200
_TELLING = 8
"""A shorter name may stand in any error."""


def tied_embedding(evidence: Evidence) -> Finding:
    """Embedding and head are stored as ``tie_word_embeddings`` says.

    Protects from the defect of autoawq 0.2.7 to 0.2.7.post2: of a tied model it keeps
    ``lm_head.weight`` and drops ``model.embed_tokens.weight``. vLLM skips ``lm_head.*`` for tied
    models and answers garbage with no error; transformers is fine, hence a notice and no failure.
    And from a head stored beside the embedding that is another matrix: engines differ in which of
    the two they take.
    Known issue awq-tied-embedding-dropped, https://github.com/casper-hansen/AutoAWQ/issues/665.
    Value: how many of the two are stored.
    """
    say = partial(_finding, "tied-embedding")
    inspection = evidence.inspection
    if inspection is None:
        return say(judgement=Judgement.NOT_APPLICABLE, message="not inspected")
    if evidence.tied is None:
        message = "config.json does not say whether embedding and head are one"
        return say(judgement=Judgement.NOT_APPLICABLE, message=message)
    if not (inspection.embedding or inspection.head or inspection.linears):
        message = "not known under which names this architecture stores them"
        return say(judgement=Judgement.NOT_APPLICABLE, message=message)
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
    if stored is not None and stored != evidence.tied:
        judgement, explains = Judgement.FAILED, LACKING
        message += f"; config.json says tie_word_embeddings={str(stored).lower()} of it, wrongly"
    value = inspection.embedding + inspection.head
    return say(judgement=judgement, value=value, message=message, explains=explains)


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
        case True, True, False:
            return Judgement.PASSED, "tied; the embedding is stored"
        case True, True, True:
            return Judgement.PASSED, "tied; stored under both names, one of them surplus"
        case True, False, True:
            return Judgement.NOTICE, (
                "tied, but only lm_head.weight is stored: engines that skip it for tied models "
                "(vLLM) answer garbage. Rename it to model.embed_tokens.weight"
            )
        case False, True, True:
            return Judgement.PASSED, "untied; both are stored"
        case False, True, False:
            return Judgement.FAILED, "untied, but lm_head.weight is missing"
        case False, False, True:
            return Judgement.FAILED, "untied, but model.embed_tokens.weight is missing"
        case _:
            return Judgement.FAILED, "neither the embedding nor lm_head.weight is stored"
