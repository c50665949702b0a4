"""Checks of the ``generate`` stage: how likely the engine finds texts that it did not write."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matrix.checks.evidence import Evidence
from matrix.checks.wording import NotApplicableError, Opinion, answered, within
from matrix.pipeline.outcomes import Judgement, Symptom

Texts = Sequence[Sequence[float | None]]
"""Log-probabilities of each text's tokens, in nats; ``None`` where not finite."""


def logprobs_float(evidence: Evidence) -> Opinion:
    """Held-out log-probabilities are close to the float model's in the same engine.

    Protects from damage that a memorised text does not show, with the engine's own drift left out
    (AutoAWQ's scale search on a CPU,
    https://github.com/casper-hansen/AutoAWQ/blob/v0.2.9/awq/quantize/quantizer.py).
    Value: mean absolute difference in nats over all held-out tokens.
    """
    limits, (generation, reference) = evidence.thresholds, answered(evidence)
    if not evidence.quantized:
        raise NotApplicableError("this is the float model")
    if evidence.float_generation is None:
        raise NotApplicableError("the float model generated nothing in this engine")
    expected = evidence.float_generation.held_out
    if perplexity_of(expected) is None:
        raise NotApplicableError(
            "the float model's log-probabilities in this engine are not finite"
        )
    bounds = (limits.logprobs_float_degraded, limits.logprobs_float_failed)
    if not reference.memorised:
        bounds = (limits.pretrained_logprobs_degraded, limits.pretrained_logprobs_failed)
    return _difference(generation.held_out, expected, bounds)


def logprobs_reference(evidence: Evidence) -> Opinion:
    """Held-out log-probabilities are close to the reference's.

    Protects from an engine in which the float model itself is wrong (known issue
    tf5-rope-parameters, https://github.com/vllm-project/vllm/issues/42624), and is the companion
    of logprobs-float where the float model does not run. Value: mean absolute difference in nats.
    """
    limits, (generation, reference) = evidence.thresholds, answered(evidence)
    expected = [text.logprobs for text in reference.held_out]
    if not evidence.quantized:
        bounds = (limits.float_logprobs_reference_degraded, limits.float_logprobs_reference_failed)
    elif reference.memorised:
        bounds = (limits.logprobs_reference_degraded, limits.logprobs_reference_failed)
    else:
        bounds = (limits.pretrained_logprobs_degraded, limits.pretrained_logprobs_failed)
    return _difference(generation.held_out, expected, bounds)


def _difference(texts: Texts, expected: Texts, bounds: tuple[float, float]) -> Opinion:
    """Return what the mean absolute difference of log-probabilities comes to.

    A single worst token is no measure, even of a good model.
    """
    values = [value for text in texts for value in text]
    wanted = [value for text in expected for value in text]
    pairs = zip(values, wanted, strict=True)
    differences = [a - b for a, b in pairs if a is not None and b is not None]
    if len(differences) < len(values) or not values:
        lost = len(values) - len(differences)
        message = f"{lost} of {len(values)} log-probabilities are not finite"
        return _not_finite(message, bounds[1])
    mean = math.fsum(map(abs, differences)) / len(differences)
    signed = math.fsum(differences) / len(differences)
    digits = ".3f" if mean < _LONG else ".3g"
    message = f"{mean:{digits}} nats off in the mean of {len(differences)} tokens"
    return within(mean, bounds, f"{message}, signed {signed:+{digits}}")


def _not_finite(message: str, threshold: float) -> Opinion:
    symptom = Symptom.NOT_FINITE
    return Opinion(Judgement.FAILED, message=message, symptom=symptom, threshold=threshold)


def perplexity(evidence: Evidence) -> Opinion:
    """The held-out texts are about as likely as to the float model.

    Protects from damage that greedy text hides, in the measure that people know: a 4-bit model is
    a little more perplexed than its float model, a damaged one a hundred times as much (AutoAWQ's
    scale search on a CPU: from 28 to over 200000 on SmolLM2-135M;
    https://github.com/casper-hansen/AutoAWQ/blob/v0.2.9/awq/quantize/quantizer.py). Rounding makes
    no model much surer either: one that is, is sure of something else (a stock twin, at half).
    Value: perplexity over the float model's in the same engine, or else over the reference's.
    """
    limits, (generation, reference) = evidence.thresholds, answered(evidence)
    own = perplexity_of(generation.held_out)
    if own is None:
        return _not_finite("a log-probability is not finite", limits.perplexity_failed)
    whose, expected = "the float model in this engine", None
    if evidence.float_generation is not None:
        expected = perplexity_of(evidence.float_generation.held_out)
    if expected is None:
        whose = "the reference"
        expected = perplexity_of([text.logprobs for text in reference.held_out])
    if expected is None:
        raise NotApplicableError("no perplexity to compare with")
    ratio, low = own / expected, limits.low_perplexity_degraded
    message = f"{own:.4g}; {whose} {expected:.4g}"
    opinion = within(ratio, (limits.perplexity_degraded, limits.perplexity_failed), message)
    if ratio < low and opinion.judgement is Judgement.PASSED:
        symptom = Symptom.WRONG_ANSWERS
        return Opinion(Judgement.DEGRADED, ratio, message, symptom, threshold=low)
    return opinion


_LONG = 1e4
"""Nats from which they are written with an exponent."""
_MOST_NATS = 300.0
"""Keeps exp() within what a float holds, twice over; no model is that sure or that lost."""


def perplexity_of(texts: Texts) -> float | None:
    """Return exp of the mean negative log-probability; ``None`` where one is not finite."""
    values = [value for text in texts for value in text if value is not None]
    if not values or len(values) < sum(map(len, texts)):
        return None
    mean = -math.fsum(values) / len(values)
    return math.exp(max(-_MOST_NATS, min(mean, _MOST_NATS)))
