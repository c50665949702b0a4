from __future__ import annotations

import base64
import math
from array import array
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix.checks import run_checks
from matrix.checks.divergence import (
    divergence_of,
    least_divergence,
    summed_up,
    with_divergence,
)
from matrix.checks.evidence import Divergence, Evidence, EvidenceError, Likeliest, read_generation
from matrix.pipeline.outcomes import Finding, Judgement, Symptom
from matrix.pipeline.steps import Stage
from tests.unit.made_evidence import (
    AWQ,
    REFERENCE,
    THRESHOLDS,
    made_evidence,
    made_inspection,
    right_facts,
)

Rows = list[list[tuple[int, float]]]
PLAIN = [(1, math.log(0.6)), (2, math.log(0.3))]
"""Of which a tenth is left for all other tokens."""


def packed(*places: list[tuple[int, float]]) -> Likeliest:
    pairs = [pair for place in places for pair in place]
    return Likeliest(
        array("i", [token for token, _ in pairs]).tobytes(),
        array("f", [value for _, value in pairs]).tobytes(),
    )


WITH_LIKELIEST = msgspec.structs.replace(
    REFERENCE, likeliest=[packed(*[PLAIN] * 2), packed(*[PLAIN] * 3)]
)


def facts_with(*texts: Likeliest) -> dict[str, Any]:
    return {**right_facts(), "likeliest": msgspec.to_builtins(list(texts))}


def as_probabilities(weights: list[float]) -> list[float]:
    total = sum(weights)
    return [weight / total for weight in weights]


@given(
    st.lists(st.floats(0.001, 1), min_size=6, max_size=6),
    st.lists(st.floats(0.001, 1), min_size=6, max_size=6),
    st.integers(1, 6),
    st.integers(1, 6),
)
def test_what_the_likeliest_tokens_say_is_never_more_than_the_whole_divergence(
    first: list[float], second: list[float], of_first: int, of_second: int
) -> None:
    p, q = as_probabilities(first), as_probabilities(second)
    whole = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    best = least_divergence(likeliest(p, of_first), likeliest(q, of_second))
    assert 0 <= best <= whole + 1e-5
    exact = least_divergence(likeliest(p, 6), likeliest(q, 6))
    assert exact == pytest.approx(whole, abs=1e-5)


def likeliest(chances: list[float], count: int) -> list[tuple[int, float]]:
    ordered = sorted(enumerate(chances), key=lambda pair: -pair[1])
    return [(token, math.log(chance)) for token, chance in ordered[:count]]


def test_a_token_that_is_not_told_is_given_the_most_that_it_can_have() -> None:
    other = [(3, math.log(0.5)), (4, math.log(0.2))]
    bounded = 0.6 * math.log(0.6 / 0.2) + 0.3 * math.log(0.3 / 0.2) + 0.1 * math.log(0.1 / 1)
    assert least_divergence(PLAIN, other) == pytest.approx(bounded)
    sure = [(3, math.log(0.95)), (4, math.log(0.04))]  # they leave less than the last of them has
    bounded = 0.6 * math.log(0.6 / 0.01) + 0.3 * math.log(0.3 / 0.01) + 0.1 * math.log(0.1 / 1)
    assert least_divergence(PLAIN, sure) == pytest.approx(bounded)


def test_the_measures_are_those_that_llama_cpp_prints() -> None:
    values = [0.01 * number for number in range(1001)]
    measured = summed_up(values, 900)
    assert measured.mean == pytest.approx(5)
    assert measured.error == pytest.approx(0.01 * math.sqrt(1001 * 1002 / 12) / math.sqrt(1001))
    assert measured.high == pytest.approx(9.99)
    assert measured.most == pytest.approx(10)
    assert measured.places == 1001
    assert measured.same_top == pytest.approx(900 / 1001)
    assert summed_up([0.5], 1) == Divergence(
        places=1, mean=0.5, error=0, high=0.5, most=0.5, same_top=1
    )


def test_an_answer_is_kept_with_its_divergence_instead_of_the_tokens() -> None:
    near = [(2, math.log(0.5)), (1, math.log(0.4))]
    answers = facts_with(packed(PLAIN, PLAIN), packed(PLAIN, PLAIN, near))
    kept = with_divergence({**answers, "divergence": "the adapter's own word"}, WITH_LIKELIEST)
    assert "likeliest" not in kept
    generation = read_generation(kept, WITH_LIKELIEST)
    assert generation.divergence is not None
    off = 0.6 * math.log(0.6 / 0.4) + 0.3 * math.log(0.3 / 0.5)
    assert generation.divergence.mean == pytest.approx(off / 5, abs=1e-6)
    assert generation.divergence.most == pytest.approx(off, abs=1e-6)
    assert generation.divergence.same_top == 0.8


@pytest.mark.parametrize("missing", ["answer", "reference", "finite"])
def test_what_cannot_be_compared_is_not_measured(missing: str) -> None:
    answers = facts_with(packed(PLAIN, PLAIN), packed(PLAIN, PLAIN, PLAIN))
    reference = WITH_LIKELIEST
    match missing:
        case "answer":
            del answers["likeliest"]
        case "reference":
            reference = REFERENCE
        case _:
            lost = [(1, math.nan), (2, math.nan)]
            answers = facts_with(packed(PLAIN, PLAIN), packed(PLAIN, PLAIN, lost))
    kept = with_divergence(answers, reference)
    assert not {"likeliest", "divergence"} & set(kept)
    assert read_generation(kept, reference).divergence is None
    assert checked(None).judgement is Judgement.NOT_APPLICABLE


@pytest.mark.parametrize(
    ("likeliest", "where"),
    [
        ("none", "generate: likeliest"),
        ([], "0 entries for 2 held-out texts"),
        ([{"ids": "!", "logprobs": ""}] * 2, "generate: likeliest"),
        ([{"ids": "", "logprobs": ""}] * 2, r"likeliest\[0\]: no tokens"),
        ([{"ids": base64.b64encode(bytes(8)).decode(), "logprobs": ""}] * 2, "8 and 0 bytes"),
        ([msgspec.to_builtins(packed(PLAIN, PLAIN[:1]))] * 2, "12 and 12 bytes for 2 places"),
    ],
)
def test_an_answer_of_another_shape_is_refused(likeliest: object, where: str) -> None:
    with pytest.raises(EvidenceError, match=where):
        with_divergence({**right_facts(), "likeliest": likeliest}, WITH_LIKELIEST)


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_any_bytes_end_in_a_measure_or_in_words(ids: bytes, logprobs: bytes) -> None:
    texts = [Likeliest(ids, logprobs)] * 2
    try:
        measured = divergence_of(WITH_LIKELIEST, texts)
    except EvidenceError:
        return
    if measured is not None:
        msgspec.convert(msgspec.to_builtins(measured), Divergence)


def checked(
    mean: float | None, *, pretrained: bool = False, quantized: bool = True, bits: int = 4
) -> Finding:
    generation = read_generation(right_facts(), REFERENCE)
    if mean is not None:
        measured = Divergence(
            places=400, mean=mean, error=0.001, high=2 * mean, most=3 * mean, same_top=0.9
        )
        generation = msgspec.structs.replace(generation, divergence=measured)
    inspection = made_inspection(msgspec.structs.replace(AWQ, bits=bits)) if quantized else None
    reference = msgspec.structs.replace(REFERENCE, memorised=[]) if pretrained else REFERENCE
    evidence = msgspec.structs.replace(
        made_evidence(), quantized=quantized, inspection=inspection,
        reference=reference, generation=generation,
    )  # fmt: skip
    (finding,) = [
        finding
        for finding in run_checks(evidence, Stage.GENERATE)
        if finding.check == "kl-divergence"
    ]
    return finding


LIMITS = {
    "memorised": (THRESHOLDS.divergence_degraded, THRESHOLDS.divergence_failed),
    "pretrained": (
        THRESHOLDS.pretrained_divergence_degraded, THRESHOLDS.pretrained_divergence_failed
    ),
    "float": (THRESHOLDS.float_divergence_degraded, THRESHOLDS.float_divergence_failed),
}  # fmt: skip


@pytest.mark.parametrize("model", LIMITS)
def test_each_model_is_held_to_its_limits(model: str) -> None:
    pretrained, quantized = model == "pretrained", model != "float"
    for limit, below, above in zip(
        LIMITS[model],
        (Judgement.PASSED, Judgement.DEGRADED),
        (Judgement.DEGRADED, Judgement.FAILED),
        strict=True,
    ):
        near = checked(0.99 * limit, pretrained=pretrained, quantized=quantized)
        over = checked(1.01 * limit, pretrained=pretrained, quantized=quantized)
        assert (near.judgement, over.judgement) == (below, above)
        assert (over.symptom, over.threshold) == (Symptom.WRONG_ANSWERS, limit)


def test_eight_bits_are_held_to_less() -> None:
    mean = 1.01 * THRESHOLDS.pretrained_divergence_failed * THRESHOLDS.divergence_eight_bits
    assert checked(mean, pretrained=True).judgement is Judgement.PASSED
    assert checked(mean, pretrained=True, bits=8).judgement is Judgement.FAILED


def test_the_message_gives_measures_with_their_errors() -> None:
    assert checked(0.0123).message == (
        "mean 0.0123 ± 0.001, 99.9 % 0.0246, max 0.0369 nats; same top token 90.0 ± 1.5 %"
    )


def test_a_model_of_which_only_this_is_off_is_seen() -> None:
    evidence: Evidence = made_evidence()
    assert evidence.generation is not None
    measured = Divergence(places=5, mean=3, error=1, high=4, most=4, same_top=0.1)
    off = msgspec.structs.replace(evidence.generation, divergence=measured)
    findings = run_checks(msgspec.structs.replace(evidence, generation=off), Stage.GENERATE)
    failed = [finding.check for finding in findings if finding.judgement is Judgement.FAILED]
    assert failed == ["kl-divergence"]
