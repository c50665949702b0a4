"""Checks of the ``generate`` stage: what the engine answers, against the float model's answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from matrix.checks.evidence import Evidence
from matrix.outcomes import Finding, Judgement, Stage

_finding = partial(Finding, stage=Stage.GENERATE)
_MIN_REPEAT = 4
"""Fewer equal tokens than this can be an honest answer."""


def tokenizer_ids(evidence: Evidence) -> Finding:
    """The engine turns the reference's texts into the reference's token ids.

    Protects from a tokenizer that changed between versions, which spoils every text prompt and
    would otherwise look like damaged weights: transformers 5 reads some tokenizers saved by 4.57
    differently. Value: share of prompts read alike; degraded below 1.
    """
    limit = evidence.thresholds.tokenizer_failed
    say = partial(_finding, "tokenizer-ids", threshold=limit)
    if evidence.generation is None:
        return say(judgement=Judgement.NOT_APPLICABLE, message="nothing was generated")
    prompts = evidence.reference.prompts
    same = [
        found == prompt.ids
        for found, prompt in zip(evidence.generation.text_ids, prompts, strict=True)
    ]
    share = sum(same) / len(same)
    if share == 1:
        return say(judgement=Judgement.PASSED, value=share)
    wrong = same.index(False)
    message = (
        f"{same.count(False)} of {len(same)} prompts are read differently; the first is "
        f"{evidence.generation.text_ids[wrong][:8]} instead of {prompts[wrong].ids[:8]}"
    )
    judgement = Judgement.FAILED if share < limit else Judgement.DEGRADED
    return say(judgement=judgement, value=share, message=message)


def greedy_text(evidence: Evidence) -> Finding:
    """Given token ids, the greedy continuation is the reference's.

    Protects from a model that loads and answers something else. Value: mean over the prompts of
    the share of reference tokens that the answer repeats from its start, 1 for the same text.
    """
    limits = evidence.thresholds
    say = partial(_finding, "greedy-text")
    if evidence.generation is None:
        return say(judgement=Judgement.NOT_APPLICABLE, message="nothing was generated")
    answers = zip(evidence.generation.outputs, evidence.reference.prompts, strict=True)
    shares = [_agreement(output.ids, prompt.greedy_ids) for output, prompt in answers]
    share = sum(shares) / len(shares)
    message = ""
    if share < 1:
        worst = shares.index(min(shares))
        message = (
            f"{sum(s < 1 for s in shares)} of {len(shares)} answers differ; worst: "
            f"{evidence.generation.outputs[worst].text[:80]!r} instead of "
            f"{evidence.reference.prompts[worst].greedy_text[:80]!r}"
        )
    if share < limits.greedy_failed:
        threshold, judgement = limits.greedy_failed, Judgement.FAILED
    else:
        threshold = limits.greedy_degraded
        judgement = Judgement.DEGRADED if share < threshold else Judgement.PASSED
    return say(judgement=judgement, value=share, threshold=threshold, message=message)


def _agreement(found: Sequence[int], expected: Sequence[int]) -> float:
    """Return which share of ``expected`` is repeated from its start; 1 only for the same length."""
    if list(found) == list(expected):
        return 1.0
    pairs = enumerate(zip(found, expected, strict=False))
    common = next((i for i, (a, b) in pairs if a != b), min(len(found), len(expected)))
    return min(common / len(expected), 1 - 1 / (len(expected) + 1))


def logprobs_float(evidence: Evidence) -> Finding:
    """Held-out log-probabilities are close to the float model's in the same engine.

    Protects from damage that a memorised text does not show, with the engine's own drift left
    out. Value: mean absolute difference in nats over all held-out tokens.
    """
    limits = evidence.thresholds
    say = partial(_finding, "logprobs-float")
    if evidence.generation is None:
        return say(judgement=Judgement.NOT_APPLICABLE, message="nothing was generated")
    if not evidence.quantized:
        return say(judgement=Judgement.NOT_APPLICABLE, message="this is the float model")
    if evidence.float_generation is None:
        message = "the float model generated nothing in this engine"
        return say(judgement=Judgement.NOT_APPLICABLE, message=message)
    expected = evidence.float_generation.held_out
    if any(value is None for text in expected for value in text):
        message = "the float model's log-probabilities in this engine are not finite"
        return say(judgement=Judgement.NOT_APPLICABLE, message=message)
    bounds = (limits.logprobs_float_degraded, limits.logprobs_float_failed)
    return _difference("logprobs-float", evidence.generation.held_out, expected, bounds)


def logprobs_reference(evidence: Evidence) -> Finding:
    """Held-out log-probabilities are close to the reference's.

    Protects from an engine in which the float model itself is wrong, and is the companion of
    logprobs-float where the float model does not run. Value: mean absolute difference in nats.
    """
    limits = evidence.thresholds
    if evidence.generation is None:
        message = "nothing was generated"
        return _finding("logprobs-reference", judgement=Judgement.NOT_APPLICABLE, message=message)
    expected = [text.logprobs for text in evidence.reference.held_out]
    if evidence.quantized:
        bounds = (limits.logprobs_reference_degraded, limits.logprobs_reference_failed)
    else:
        bounds = (limits.float_logprobs_reference_degraded, limits.float_logprobs_reference_failed)
    return _difference("logprobs-reference", evidence.generation.held_out, expected, bounds)


def _difference(
    check: str,
    found: Sequence[Sequence[float | None]],
    expected: Sequence[Sequence[float | None]],
    bounds: tuple[float, float],
) -> Finding:
    """Judge the mean absolute difference: one worst token is no measure, even of a good model."""
    degraded, failed = bounds
    say = partial(_finding, check)
    values = [value for text in found for value in text]
    wanted = [value for text in expected for value in text]
    pairs = zip(values, wanted, strict=True)
    differences = [a - b for a, b in pairs if a is not None and b is not None]
    if len(differences) < len(values) or not values:
        lost = len(values) - len(differences)
        message = f"{lost} of {len(values)} log-probabilities are not finite"
        return say(judgement=Judgement.FAILED, threshold=failed, message=message)
    mean = math.fsum(map(abs, differences)) / len(differences)
    signed = math.fsum(differences) / len(differences)
    message = f"mean of {len(differences)} tokens; mean signed {signed:+.3f}"
    if mean > failed:
        return say(judgement=Judgement.FAILED, value=mean, threshold=failed, message=message)
    judgement = Judgement.DEGRADED if mean > degraded else Judgement.PASSED
    return say(judgement=judgement, value=mean, threshold=degraded, message=message)


def degenerate_output(evidence: Evidence) -> Finding:
    """No answer is empty, or one token again and again, unless the float model answers so too.

    Protects from what users report as "!!!!!!!!": NaN in the weights makes token id 0 the best of
    all, and a lost embedding or scale repeats one word. Value: share of prompts answered so.
    """
    limit = evidence.thresholds.degenerate_failed
    say = partial(_finding, "degenerate-output", threshold=limit)
    if evidence.generation is None:
        return say(judgement=Judgement.NOT_APPLICABLE, message="nothing was generated")
    answers = list(zip(evidence.generation.outputs, evidence.reference.prompts, strict=True))
    faults = [
        fault
        for output, prompt in answers
        if (fault := _degeneration(output.ids)) and not _degeneration(prompt.greedy_ids)
    ]
    share = len(faults) / len(answers)
    if not faults:
        return say(judgement=Judgement.PASSED, value=share)
    judgement = Judgement.FAILED if share >= limit else Judgement.DEGRADED
    return say(judgement=judgement, value=share, message=faults[0])


def _degeneration(ids: Sequence[int]) -> str:
    """Return what is degenerate about an answer; empty where nothing is."""
    if not ids:
        return "an answer is empty"
    if len(ids) < _MIN_REPEAT or len(set(ids)) > 1:
        return ""
    if ids[0] == 0:
        return f"an answer is token id 0, {len(ids)} times: the mark of NaN"
    return f"an answer is token id {ids[0]}, {len(ids)} times"
