"""Checks of the ``generate`` stage: what the engine answers, against the float model's answers."""

from __future__ import annotations

from collections.abc import Sequence

from matrix.checks.evidence import Evidence
from matrix.checks.wording import NotApplicableError, Opinion, answered
from matrix.pipeline.outcomes import Judgement, Symptom

_MIN_REPEAT = 4
"""Fewer equal tokens than this can be an honest answer."""


def tokenizer_ids(evidence: Evidence) -> Opinion:
    """The engine turns the reference's texts into the reference's token ids.

    Protects from a tokenizer that changed between versions, which spoils every text prompt and
    would otherwise look like damaged weights: transformers 5 reads some tokenizers saved by 4.57
    differently (known issue tf5-tokenizers-backend,
    https://github.com/hiyouga/LlamaFactory/issues/10310).
    Value: share of prompts read alike; degraded below 1.
    """
    generation, reference = answered(evidence)
    readings = list(zip(generation.text_ids, reference.prompts, strict=True))
    wrong = [(ids, prompt.ids) for ids, prompt in readings if ids != prompt.ids]
    share = (len(readings) - len(wrong)) / len(readings)
    if not wrong:
        return Opinion(Judgement.PASSED, share)
    message = (
        f"{len(wrong)} of {len(readings)} prompts are read differently; the first is "
        f"{wrong[0][0][:8]} instead of {wrong[0][1][:8]}"
    )
    below = share < evidence.thresholds.tokenizer_failed
    judgement = Judgement.FAILED if below else Judgement.DEGRADED
    return Opinion(judgement, share, message, Symptom.OTHER_TOKENS)


def greedy_text(evidence: Evidence) -> Opinion:
    """Given token ids, the greedy continuation is the reference's.

    Protects from a model that loads and answers something else, as awq-tied-embedding-dropped does
    (https://github.com/casper-hansen/AutoAWQ/issues/665). And from answers that begin right and end
    wrong: a model that knows its answers by heart gives most of them to the last token, whereas a
    wrong base of the rotary embedding (tf5-rope-parameters) leaves half of each. Value: mean over
    the prompts of the share of reference tokens that the answer repeats from its start, 1 for the
    same text.
    """
    limits, (generation, reference) = evidence.thresholds, answered(evidence)
    answers = zip(generation.outputs, reference.prompts, strict=True)
    shares = [_agreement(output.ids, prompt.greedy_ids) for output, prompt in answers]
    share = sum(shares) / len(shares)
    message = ""
    if share < 1:
        worst = shares.index(min(shares))
        message = (
            f"{sum(s < 1 for s in shares)} of {len(shares)} answers differ; worst: "
            f"{generation.outputs[worst].text[:80]!r} instead of "
            f"{reference.prompts[worst].greedy_text[:80]!r}"
        )
    right = sum(s == 1 for s in shares) / len(shares)
    if reference.memorised:
        degraded, failed = limits.greedy_degraded, limits.greedy_failed
        if share >= failed and right < limits.greedy_right_failed:
            failed = 1.0  # too many differ at all, however late
    else:
        degraded, failed = limits.pretrained_greedy_degraded, limits.pretrained_greedy_failed
    for bound, judgement in ((failed, Judgement.FAILED), (degraded, Judgement.DEGRADED)):
        if share < bound:
            return Opinion(judgement, share, message, Symptom.WRONG_ANSWERS, threshold=bound)
    return Opinion(Judgement.PASSED, share, message, threshold=degraded)


def _agreement(ids: Sequence[int], expected: Sequence[int]) -> float:
    """Return which share of ``expected`` is repeated from its start; 1 only for the same length."""
    if list(ids) == list(expected):
        return 1.0
    pairs = enumerate(zip(ids, expected, strict=False))
    common = next((i for i, (a, b) in pairs if a != b), min(len(ids), len(expected)))
    return min(common / len(expected), 1 - 1 / (len(expected) + 1))


def degenerate_output(evidence: Evidence) -> Opinion:
    """No answer is empty, or one token again and again, unless the float model answers so too.

    Protects from what users report as "!!!!!!!!": NaN in the weights makes token id 0 the best of
    all, and a lost embedding or scale repeats one word (known issue vllm-gptq-exllama-exclaim,
    https://github.com/vllm-project/vllm/issues/10656). Value: share of prompts answered so.
    """
    generation, reference = answered(evidence)
    answers = list(zip(generation.outputs, reference.prompts, strict=True))
    faults = [
        fault
        for output, prompt in answers
        if (fault := _degeneration(output.ids)) and not _degeneration(prompt.greedy_ids)
    ]
    share = len(faults) / len(answers)
    if not faults:
        return Opinion(Judgement.PASSED, share)
    above = share >= evidence.thresholds.degenerate_failed
    judgement = Judgement.FAILED if above else Judgement.DEGRADED
    return Opinion(judgement, share, faults[0], Symptom.WRONG_ANSWERS)


def _degeneration(ids: Sequence[int]) -> str:
    """Return what is degenerate about an answer; empty where nothing is."""
    if not ids:
        return "an answer is empty"
    if len(ids) < _MIN_REPEAT or len(set(ids)) > 1:
        return ""
    if ids[0] == 0:
        return f"an answer is token id 0, {len(ids)} times: the mark of NaN"
    return f"an answer is token id {ids[0]}, {len(ids)} times"


def speed(evidence: Evidence) -> Opinion:
    """Tokens per second are known, beside the float model's in the same engine.

    Answers "silently slow" (known issue gptq-kernel-abi,
    https://github.com/AutoGPTQ/AutoGPTQ/issues/402) together with the kernel that ran. Never an
    alarm: a busy machine is no verdict. Value: this model's tokens per second over the float
    model's, each in a process of the same kind.
    """
    if evidence.generation is None:
        raise NotApplicableError("nothing was generated")
    own = evidence.generation.tokens_per_second
    if own <= 0:
        raise NotApplicableError("the engine does not tell")
    kernel = evidence.load.kernel if evidence.load else None
    message = f"{own:.3g} tokens/s" + (f" in {kernel}" if kernel else "")
    if not evidence.quantized:
        return Opinion(Judgement.PASSED, message=message)
    of_float = evidence.float_generation.tokens_per_second if evidence.float_generation else 0.0
    if of_float <= 0:
        return Opinion(Judgement.PASSED, message=f"{message}; the float model's speed is not known")
    return Opinion(Judgement.PASSED, own / of_float, f"{message}; the float model {of_float:.3g}")
