"""llm-compressor and AutoRound run for real, and a recipe.yaml of a user's own, without code."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from matrix.judge.document import decode
from matrix.spec.loading import DEFAULT_SPEC
from tests.real.test_smoke import run

RECIPE = """
mine_stage:
  mine_modifiers:
    QuantizationModifier:
      ignore: [lm_head]
      config_groups:
        group_0:
          targets: [Linear]
          weights: {num_bits: 4, type: int, symmetric: true, strategy: group, group_size: 64}
"""
LLM_COMPRESSOR = "llmcompressor-0.14.0.1+transformers-5.17.0"
AUTO_ROUND = "auto-round-0.16.1+transformers-5.24.0"
SPEC = f"""
[[quantizers]]
base = "llm-compressor"
environments = "{LLM_COMPRESSOR}"
suffix = "mine"
formats = ["pack-quantized"]
options = {{ recipe = "./recipe.yaml" }}

[profiles.mine]
title = "Mine"
models = ["twin-tied"]
schemes = ["w4a16-g64"]
quantizers = ["none", "{LLM_COMPRESSOR}+gptq", "{LLM_COMPRESSOR}+mine", "{AUTO_ROUND}"]
engines = ["vllm-0.32.0"]
"""


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The cells of the user's profile, by the names of their quantizers."""
    folder = tmp_path_factory.mktemp("quantizers")
    spec, reports = folder / "spec", folder / "reports"
    shutil.copytree(DEFAULT_SPEC, spec)
    (spec / "mine.toml").write_text(SPEC)
    (spec / "recipe.yaml").write_text(RECIPE)
    options = ["--spec", str(spec), "--profile", "mine"]
    run(["matrix", "run", *options], folder / "store", reports)
    run(["matrix", "report", *options], folder / "store", reports)
    document = msgspec.to_builtins(decode((reports / "matrix.json").read_bytes()))
    yield {cell["quantizer"]["name"]: cell for cell in document["cells"]}
    shutil.rmtree(folder)  # gigabytes, should uv's cache lie on another file system


@pytest.mark.parametrize(
    "quantizer", [f"{LLM_COMPRESSOR}+gptq", f"{LLM_COMPRESSOR}+mine", AUTO_ROUND]
)
def test_a_checkpoint_in_compressed_tensors_is_made_and_answers_right(
    cells: dict[str, Any], quantizer: str
) -> None:
    cell = cells[quantizer]
    assert cell["verdict"] == "works", cell
    assert cell["output"] == cell["expected"] != ""


def test_a_users_recipe_is_another_quantizer_than_ours(cells: dict[str, Any]) -> None:
    """GPTQ moves errors on, a recipe that only rounds does not: the stored numbers differ."""
    ours, mine = cells[f"{LLM_COMPRESSOR}+gptq"], cells[f"{LLM_COMPRESSOR}+mine"]
    scores = [
        next(f["message"] for f in cell["findings"] if f["check"] == "logprobs-float")
        for cell in (ours, mine)
    ]
    assert scores[0] != scores[1]
