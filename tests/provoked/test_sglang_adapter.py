"""What the adapter of SGLang asks of its engine, and makes of the answers.

The package is made up, after the wheels of 0.5.3 and 0.5.23. Nothing here has run on a card.
"""

from __future__ import annotations

import base64
from array import array
from typing import Any

import pytest

from tests.provoked.made_packages import made_sglang
from tests.provoked.test_gpu_adapters import JOB, Packages, adapter, packages

__all__ = ["packages"]


def started(
    packages: Packages, options: dict[str, Any] | None = None, **memory: float
) -> tuple[Any, Any, Any, dict[str, Any]]:
    """Return the adapter, the class of the engine, the engine that was started, and its facts."""
    kind, modules = made_sglang(**(memory or {"weight": 0.5, "kvcache": 0.25}))
    packages(**modules)
    module = adapter("engines", "sglang")
    module.import_package({})
    engine, facts = module.load({**JOB, "options": options or {"dtype": "float16"}})
    return module, kind, engine, facts


def test_the_engine_is_given_the_limits_that_the_release_has(packages: Packages) -> None:
    _, kind, _, _ = started(packages, {"dtype": "float16", "tensor_parallel_size": 2})
    assert kind.made == [
        {
            "model_path": "/checkpoint",
            "trust_remote_code": False,
            "load_format": "safetensors",
            "random_seed": 0,
            "tp_size": 2,
            "context_length": 128,
            "max_running_requests": 4,
            "max_total_tokens": 1024,
            "disable_radix_cache": True,
            "dtype": "float16",
        }
    ]


def test_an_unset_type_is_not_given(packages: Packages) -> None:
    _, kind, _, _ = started(packages, {"dtype": "unset"})
    assert "dtype" not in kind.made[0]


def test_it_is_given_token_ids_and_understood(packages: Packages) -> None:
    module, kind, engine, _ = started(packages)
    answered = module.generate(engine, JOB)
    assert answered["outputs"] == [{"ids": [7, 8], "text": "c d"}]
    assert answered["held_out"] == [[-4.0, -5.0]]
    assert answered["text_ids"] == [[3]]
    greedy = {"temperature": 0.0, "max_new_tokens": 2, "ignore_eos": True}
    assert kind.given[1] == {"input_ids": [[1, 2]], "sampling_params": greedy}
    assert kind.given[2] == {
        "input_ids": [[3, 4, 5]],
        "sampling_params": {**greedy, "max_new_tokens": 1},
        "return_logprob": True,
        "logprob_start_len": 0,
        "top_logprobs_num": 128,
    }
    (likeliest,) = answered["likeliest"]
    assert numbers("i", likeliest["ids"]) == [9, 4, 9, 5]
    assert numbers("f", likeliest["logprobs"]) == [-1.0, -2.0, -1.0, -2.0]


def numbers(kind: str, text: str) -> list[Any]:
    return array(kind, base64.b64decode(text)).tolist()


def test_memory_is_told_where_the_engine_says_that_the_model_takes_any(packages: Packages) -> None:
    module, _, engine, facts = started(packages)
    assert (facts["device"], facts["gpu_peak_bytes"]) == ("cuda", 3 * 2**28)
    assert module.generate(engine, JOB)["gpu_peak_bytes"] == 3 * 2**28
    assert "device" not in started(packages, weight=0.0)[3]


def test_log_probabilities_of_too_few_tokens_are_refused(packages: Packages) -> None:
    module, _, _, _ = started(packages)
    assert module.given_logprobs([3, 4], [(None, 3, ""), (float("-inf"), 4, "")]) == [None]
    with pytest.raises(ValueError, match=r"zip\(\)"):
        module.given_logprobs([3, 4, 5], [(None, 3, ""), (-1.0, 4, "")])
