"""Checks of the ``generate`` stage: how likely the engine finds texts that it did not write."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from matrix.checks.evidence import Evidence
from matrix.checks.generation import NOTHING
from matrix.pipeline.outcomes import Finding, Judgement, Symptom
from matrix.pipeline.steps import Stage

_finding = partial(Finding, stage=Stage.GENERATE)

Texts = Sequence[Sequence[float | None]]
"""Log-probabilities of each text's tokens, in nats; ``None`` where not finite."""


def logprobs_float(evidence: Evidence) -> Finding:
    """Held-out log-probabilities are close to the float model's in the same engine.

    Protects from damage that a memorised text does not show, with the engine's own drift left out
    (AutoAWQ's scale search on a CPU,
    https://github.com/casper-hansen/AutoAWQ/blob/v0.2.9/awq/quantize/quantizer.py).
    Value: mean absolute difference in nats over all held-out tokens.
    """
    limits = evidence.thresholds
    say = partial(_finding, "logprobs-float")
    if evidence.generation is None or evidence.reference is None:
        return say(judgement=Judgement.NOT_APPLICABLE, message=NOTHING)
    if not evidence.quantized:
        return say(judgement=Judgement.NOT_APPLICABLE, message="this is the float model")
    if evidence.float_generation is None:
        message = "the float model generated nothing in this engine"
        return say(judgement=Judgement.NOT_APPLICABLE, message=message)
    expected = evidence.float_generation.held_out
    if _perplexity(expected) is None:
        message = "the float model's log-probabilities in this engine are not finite"
        return say(judgement=Judgement.NOT_APPLICABLE, message=message)
    bounds = (limits.logprobs_float_degraded, limits.logprobs_float_failed)
    if not evidence.reference.memorised:
        bounds = (limits.pretrained_logprobs_degraded, limits.pretrained_logprobs_failed)
    return _difference("logprobs-float", evidence.generation.held_out, expected, bounds)


def logprobs_reference(evidence: Evidence) -> Finding:
    """Held-out log-probabilities are close to the reference's.

    Protects from an engine in which the float model itself is wrong (known issue
    tf5-rope-parameters, https://github.com/vllm-project/vllm/issues/42624), and is the companion
    of logprobs-float where the float model does not run. Value: mean absolute difference in nats.
    """
    limits = evidence.thresholds
    if evidence.generation is None or evidence.reference is None:
        return _finding("logprobs-reference", judgement=Judgement.NOT_APPLICABLE, message=NOTHING)
    expected = [text.logprobs for text in evidence.reference.held_out]
    if not evidence.quantized:
        bounds = (limits.float_logprobs_reference_degraded, limits.float_logprobs_reference_failed)
    elif evidence.reference.memorised:
        bounds = (limits.logprobs_reference_degraded, limits.logprobs_reference_failed)
    else:
        bounds = (limits.pretrained_logprobs_degraded, limits.pretrained_logprobs_failed)
    return _difference("logprobs-reference", evidence.generation.held_out, expected, bounds)


def _difference(
    check: str,
    texts: Texts,
    expected: Texts,
    bounds: tuple[float, float],
) -> Finding:
    """Return the finding on the mean absolute difference of log-probabilities.

    A single worst token is no measure, even of a good model.
    """
    degraded, failed = bounds
    say = partial(_finding, check)
    values = [value for text in texts for value in text]
    wanted = [value for text in expected for value in text]
    pairs = zip(values, wanted, strict=True)
    differences = [a - b for a, b in pairs if a is not None and b is not None]
    if len(differences) < len(values) or not values:
        lost = len(values) - len(differences)
        message = f"{lost} of {len(values)} log-probabilities are not finite"
        say = partial(say, symptom=Symptom.NOT_FINITE)
        return say(judgement=Judgement.FAILED, threshold=failed, message=message)
    mean = math.fsum(map(abs, differences)) / len(differences)
    signed = math.fsum(differences) / len(differences)
    digits = ".3f" if mean < _LONG else ".3g"
    message = f"{mean:{digits}} nats off in the mean of {len(differences)} tokens"
    message += f", signed {signed:+{digits}}"
    say = partial(say, value=mean, message=message)
    say_wrong = partial(say, symptom=Symptom.WRONG_ANSWERS)
    if mean > failed:
        return say_wrong(judgement=Judgement.FAILED, threshold=failed)
    if mean > degraded:
        return say_wrong(judgement=Judgement.DEGRADED, threshold=degraded)
    return say(judgement=Judgement.PASSED, threshold=degraded)


def perplexity(evidence: Evidence) -> Finding:
    """The held-out texts are about as likely as to the float model.

    Protects from damage that greedy text hides, in the measure that people know: a 4-bit model is
    a little more perplexed than its float model, a damaged one a hundred times as much (AutoAWQ's
    scale search on a CPU: from 28 to over 200000 on SmolLM2-135M;
    https://github.com/casper-hansen/AutoAWQ/blob/v0.2.9/awq/quantize/quantizer.py). Rounding makes
    no model much surer either: one that is, is sure of something else (a stock twin, at half).
    Value: perplexity over the float model's in the same engine, or else over the reference's.
    """
    limits = evidence.thresholds
    say = partial(_finding, "perplexity")
    if evidence.generation is None or evidence.reference is None:
        return say(judgement=Judgement.NOT_APPLICABLE, message=NOTHING)
    own = _perplexity(evidence.generation.held_out)
    if own is None:
        say = partial(say, message="a log-probability is not finite", symptom=Symptom.NOT_FINITE)
        return say(judgement=Judgement.FAILED, threshold=limits.perplexity_failed)
    whose, expected = "the float model in this engine", None
    if evidence.float_generation is not None:
        expected = _perplexity(evidence.float_generation.held_out)
    if expected is None:
        whose = "the reference"
        expected = _perplexity([text.logprobs for text in evidence.reference.held_out])
    if expected is None:
        return say(judgement=Judgement.NOT_APPLICABLE, message="no perplexity to compare with")
    ratio = own / expected
    say = partial(say, value=ratio, message=f"{own:.4g}; {whose} {expected:.4g}")
    say_wrong = partial(say, symptom=Symptom.WRONG_ANSWERS)
    if ratio > limits.perplexity_failed:
        return say_wrong(judgement=Judgement.FAILED, threshold=limits.perplexity_failed)
    if ratio > limits.perplexity_degraded:
        return say_wrong(judgement=Judgement.DEGRADED, threshold=limits.perplexity_degraded)
    if ratio < limits.low_perplexity_degraded:
        return say_wrong(judgement=Judgement.DEGRADED, threshold=limits.low_perplexity_degraded)
    return say(judgement=Judgement.PASSED, threshold=limits.perplexity_degraded)


_LONG = 1e4
"""Nats from which they are written with an exponent."""
_MOST_NATS = 300.0
"""Keeps exp() within what a float holds, twice over; no model is that sure or that lost."""


def _perplexity(texts: Texts) -> float | None:
    """Return exp of the mean negative log-probability; ``None`` where one is not finite."""
    values = [value for text in texts for value in text if value is not None]
    if not values or len(values) < sum(map(len, texts)):
        return None
    mean = -math.fsum(values) / len(values)
    return math.exp(max(-_MOST_NATS, min(mean, _MOST_NATS)))
