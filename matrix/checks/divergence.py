"""How far an engine's next tokens are from the float model's, over the held-out texts.

Measured as llama.cpp prints it: mean, 99.9 % and maximal Kullback-Leibler divergence of the
distributions of the next token, and the share of places with the same top token
(https://github.com/ggml-org/llama.cpp/blob/master/tools/perplexity/perplexity.cpp). Engines tell
the likeliest tokens only, so what is measured is a lower bound: :func:`least_divergence`.
"""

from __future__ import annotations

import math
import statistics
import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from matrix.checks.evidence import Divergence, Evidence, EvidenceError, Likeliest, Reference
from matrix.checks.wording import NotApplicableError, Opinion, answered, within

_LEAST = 1e-6
"""Probability below which a rest is no more than the rounding of numbers of four bytes."""
_MOST = 1.001
"""Probability up to which all tokens together are a distribution, rounded."""
_HIGH = 0.999

Choices = Sequence[tuple[int, float]]
"""Tokens with their log-probabilities, the likeliest first."""


def kl_divergence(evidence: Evidence) -> Opinion:
    """The distributions of the next token are close to the float model's.

    Protects from damage that neither the texts' own tokens nor greedy text show: every token of the
    vocabulary counts, at every place of the held-out texts. Rounding to one bit more leaves a
    quarter of it, so that weights of eight bits are held to a share of what those of four may have.
    The measure is that of llama.cpp
    (https://github.com/ggml-org/llama.cpp/blob/master/tools/perplexity/README.md).
    Value: the mean, in nats.
    """
    generation, reference = answered(evidence)
    measured, limits = generation.divergence, evidence.thresholds
    if measured is None:
        raise NotApplicableError("not measured: the likeliest tokens are not there to compare")
    top = measured.same_top
    message = (
        f"mean {measured.mean:.3g} ± {measured.error:.2g}, 99.9 % {measured.high:.3g}, "
        f"max {measured.most:.3g} nats; same top token {100 * top:.1f} ± "
        f"{100 * math.sqrt(top * (1 - top) / measured.places):.1f} %"
    )
    if not evidence.quantized:
        bounds = (limits.float_divergence_degraded, limits.float_divergence_failed)
    elif reference.memorised:
        bounds = (limits.divergence_degraded, limits.divergence_failed)
    else:
        bounds = (limits.pretrained_divergence_degraded, limits.pretrained_divergence_failed)
    if evidence.quantized and _has_eight_bits(evidence):
        bounds = (
            bounds[0] * limits.divergence_eight_bits, bounds[1] * limits.divergence_eight_bits
        )  # fmt: skip
    return within(measured.mean, bounds, message)


def _has_eight_bits(evidence: Evidence) -> bool:
    """Whether nothing is rounded to less than eight bits; of floats, three are the mantissa's."""
    scheme = evidence.inspection.quantization if evidence.inspection else None
    if scheme is None or scheme.bits != 8 or scheme.activations:
        return False
    return "float" not in scheme.checkpoint_format


def with_divergence(facts: Mapping[str, Any], reference: Reference) -> dict[str, Any]:
    """Return what ``generate`` left behind, with the divergence in place of the likeliest tokens.

    These are a hundred times as large, and not kept. Raises :class:`EvidenceError` where they have
    not the documented shape.
    """
    rest = {name: value for name, value in facts.items() if name not in _REPLACED}
    if "likeliest" not in facts:
        return rest
    try:
        likeliest = msgspec.convert(facts["likeliest"], list[Likeliest])
    except msgspec.ValidationError as error:
        raise EvidenceError("generate: likeliest", str(error), _REMEDY) from error
    divergence = divergence_of(reference, likeliest)
    return rest if divergence is None else {**rest, "divergence": msgspec.to_builtins(divergence)}


_REPLACED = ("likeliest", "divergence")
_REMEDY = "An adapter packs the likeliest tokens of each text as causal_lm.py does."


def divergence_of(reference: Reference, likeliest: Sequence[Likeliest]) -> Divergence | None:
    """Return how far an engine's answers are from the reference's.

    ``None`` where the reference does not tell, or a log-probability is not finite. Raises
    :class:`EvidenceError` where the engine tells of other places than the held-out texts have.
    """
    if not reference.likeliest:
        return None
    if len(likeliest) != len(reference.held_out):
        problem = f"{len(likeliest)} entries for {len(reference.held_out)} held-out texts"
        raise EvidenceError("generate: likeliest", problem, _REMEDY)
    values: list[float] = []
    same = 0
    for index, (text, expected, actual) in enumerate(
        zip(reference.held_out, reference.likeliest, likeliest, strict=True)
    ):
        where, places = f"likeliest[{index}]", len(text.logprobs)
        wanted = places_of(expected, places, f"reference.json: {where}")
        for p, q in zip(wanted, places_of(actual, places, f"generate: {where}"), strict=True):
            if not (_is_distribution(p) and _is_distribution(q)):
                return None
            values.append(least_divergence(p, q))
            same += p[0][0] == q[0][0]
    return summed_up(values, same) if values else None


def places_of(likeliest: Likeliest, places: int, where: str) -> Iterator[Choices]:
    """Yield the likeliest tokens of each place of a text.

    Raises :class:`EvidenceError` where there are not as many at each.
    """
    size = len(likeliest.ids)
    if size != len(likeliest.logprobs) or (size % (4 * places) if places else size):
        problem = f"{size} and {len(likeliest.logprobs)} bytes for {places} places"
        raise EvidenceError(where, problem, _REMEDY)
    if not size and places:
        raise EvidenceError(where, "no tokens are told", _REMEDY)
    ids, logprobs = array("i", likeliest.ids), array("f", likeliest.logprobs)
    if sys.byteorder == "big":
        ids.byteswap()
        logprobs.byteswap()
    pairs = list(zip(ids, logprobs, strict=True))
    count = len(pairs) // places if places else 1
    for start in range(0, len(pairs), count):
        yield pairs[start : start + count]


def _is_distribution(choices: Choices) -> bool:
    if len({token for token, _ in choices}) < len(choices):
        return False
    finite = all(math.isfinite(value) and value < 1 for _, value in choices)
    return finite and _mass(choices) <= _MOST


def _mass(choices: Choices) -> float:
    return math.fsum(math.exp(value) for _, value in choices)


def least_divergence(p: Choices, q: Choices) -> float:
    """Return a lower bound, in nats, of the divergence of ``q`` from ``p`` by their best tokens.

    Of all tokens beside the best ones of ``p`` one bin is made, in both, which cannot raise the
    divergence (data processing inequality). A token that is not among the best of ``q`` is given
    the most that it can have there: as much as the last of them, and no more than what they leave;
    the bin the most that it can have as well. On SmolLM2-135M, with 64 and 128 tokens of 49,152, it
    is 0.85 of the whole divergence of 4-bit rounding, and 0.46 of that of 2 bits, 9.8 nats.
    """
    logprobs = dict(q)
    absent = min(q[-1][1], math.log(max(1 - _mass(q), _LEAST)))
    terms, rest_p, rest_q = [], 1.0, 1.0
    for token, value in p:
        chance = math.exp(value)
        terms.append(chance * (value - logprobs.get(token, absent)))
        rest_p -= chance
        rest_q -= math.exp(logprobs[token]) if token in logprobs else 0.0
    if rest_p > _LEAST:
        terms.append(rest_p * math.log(rest_p / max(rest_q, _LEAST)))
    return max(0.0, math.fsum(terms))


def summed_up(values: Sequence[float], same: int) -> Divergence:
    """Return the measures over all places: at least one; the errors take places as independent."""
    count = len(values)
    ordered = sorted(values)
    place = _HIGH * (count - 1)
    low, part = int(place), place - int(place)
    high = ordered[low] + part * (ordered[min(low + 1, count - 1)] - ordered[low])
    error = statistics.stdev(values) / math.sqrt(count) if count > 1 else 0.0
    mean = math.fsum(values) / count
    return Divergence(
        places=count, mean=mean, error=error, high=high, most=ordered[-1], same_top=same / count
    )
