"""Made-up references, answers and thresholds, for the tests of checks."""

from __future__ import annotations

from typing import Any

from matrix.checks.evidence import Output, Prompt, Reference, ScoredText, Thresholds

THRESHOLDS = Thresholds(
    weight_error=0.25,
    weight_ratio=0.02,
    weight_row=0.1,
    weight_group=0.002,
    unquantized_error=0.01,
    tokenizer_failed=0.5,
    greedy_degraded=0.9,
    greedy_failed=0.5,
    logprobs_float_degraded=0.5,
    logprobs_float_failed=1.0,
    logprobs_reference_degraded=0.6,
    logprobs_reference_failed=1.2,
    float_logprobs_reference_degraded=0.05,
    float_logprobs_reference_failed=0.2,
    degenerate_failed=0.5,
)

REFERENCE = Reference(
    schema=1,
    prompts=[
        Prompt("The capital of", [5, 6, 7], [1, 2, 3, 4, 5, 6, 7, 8], " France is Paris"),
        Prompt("Water boils", [8, 9], [9, 8, 7, 6, 5, 4, 3, 2], " at one hundred"),
    ],
    held_out=[
        ScoredText("a text", [1, 2, 3], [-1.0, -2.0]),
        ScoredText("another", [4, 5, 6, 7], [-0.5, -3.0, -1.5]),
    ],
    max_new_tokens=8,
)


def right_facts() -> dict[str, Any]:
    """Return what a good engine's ``generate`` leaves behind."""
    return {
        "text_ids": [list(prompt.ids) for prompt in REFERENCE.prompts],
        "outputs": [
            {"ids": list(prompt.greedy_ids), "text": prompt.greedy_text}
            for prompt in REFERENCE.prompts
        ],
        "held_out": [list(text.logprobs) for text in REFERENCE.held_out],
        "tokens_per_second": 12.5,
    }


def output(*ids: int) -> Output:
    """Return an answer of these tokens."""
    return Output(list(ids), " ".join(map(str, ids)))
