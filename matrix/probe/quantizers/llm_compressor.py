"""llm-compressor: quantize a float model by ``oneshot()`` into a format of compressed-tensors."""

from __future__ import annotations

import contextlib
import importlib.util
import json
from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]


def import_package(_options: Json) -> None:
    """Import what a user of llm-compressor imports, and the model code it would import later."""
    import llmcompressor  # noqa: F401
    from transformers import AutoTokenizer  # noqa: F401
    from transformers.models.qwen2 import modeling_qwen2  # noqa: F401


def quantize(job: Json) -> Json:
    """Quantize ``job["model"]`` and save model and tokenizer to ``job["output"]``.

    Options, exactly one: ``modifier`` ("round", "gptq", "awq" or "smoothquant+gptq"), by which the
    scheme is made, or ``recipe``, the text of a user's own recipe.yaml, in the scheme's place.
    Calibration: every text, whole, one a batch. Raises ``ValueError`` for other options.
    """
    from datasets import Dataset
    from llmcompressor import oneshot
    from transformers import AutoModelForCausalLM, AutoTokenizer

    match job["options"]:
        case {"recipe": str(recipe), **others} if not others:
            pass
        case {"modifier": str(modifier), **others} if not others:
            steps = {"quantization_modifiers": modifiers(modifier, job["scheme"])}
            recipe = json.dumps({"quantization_stage": steps})  # JSON is YAML too
        case options:
            raise ValueError(f"options {options}: give modifier, or recipe")
    model = AutoModelForCausalLM.from_pretrained(
        job["model"], torch_dtype="auto", trust_remote_code=False
    )
    tokenizer = AutoTokenizer.from_pretrained(job["model"], trust_remote_code=False)
    texts = [tokenizer(text)["input_ids"] for text in job["calibration"]]
    oneshot(
        model=model,
        tokenizer=tokenizer,
        recipe=recipe,
        # Given as token ids: a name is that of a data set to download.
        dataset=Dataset.from_dict({"input_ids": texts}),
        num_calibration_samples=len(texts),
        max_seq_length=max(map(len, texts)),
        log_dir=None,  # until 0.8 a folder in the working directory
    )
    model.save_pretrained(job["output"], save_compressed=True)
    tokenizer.save_pretrained(job["output"])
    return {}


def modifiers(name: str, scheme: Json) -> Json:
    """Return the modifiers of a recipe, in their order, by their names.

    Raises ``ValueError`` for an unknown name.
    """
    layers = {**layers_by(scheme), "ignore": ["lm_head"]}
    match name:
        case "round":
            return {"QuantizationModifier": layers}
        case "gptq":
            return {"GPTQModifier": layers}
        case "smoothquant+gptq":
            smoothing = {"smoothing_strength": 0.8}  # as in llm-compressor's own example of W8A8
            return {"SmoothQuantModifier": smoothing, "GPTQModifier": layers}
        case "awq" if importlib.util.find_spec("llmcompressor.modifiers.transform.awq"):
            return {"AWQModifier": {}, "QuantizationModifier": layers}  # it only scales
        case "awq":
            return {"AWQModifier": layers}
    raise ValueError(f"modifier {name!r}: must be round, gptq, awq or smoothquant+gptq")


def layers_by(scheme: Json) -> Json:
    """Return how a recipe says a scheme of all Linear layers.

    Floating point is left to llm-compressor's own schemes, which have no parameters.
    """
    match scheme.get("activations"):
        case "fp8":
            return {"scheme": "FP8_DYNAMIC", "targets": ["Linear"]}
        case "fp4":
            return {"scheme": "NVFP4", "targets": ["Linear"]}
    weights: Json = {"type": "int", "num_bits": scheme["bits"], "symmetric": scheme["sym"]}
    if scheme["group_size"] == -1:
        weights |= {"strategy": "channel"}
    else:
        weights |= {"strategy": "group", "group_size": scheme["group_size"]}
    if scheme["desc_act"]:  # left out, it is each release's own default
        weights |= {"actorder": "group"}
    group: Json = {"targets": ["Linear"], "weights": weights}
    if scheme.get("activations") == "int8":
        tokens = {"type": "int", "num_bits": 8, "symmetric": True}
        group["input_activations"] = {**tokens, "strategy": "token", "dynamic": True}
    return {"config_groups": {"group_0": group}}


@contextlib.contextmanager
def without_pinning() -> Iterator[None]:
    """Let ``Tensor.pin_memory()`` return the tensor itself.

    AWQ pins what it caches, to copy it to a GPU sooner, and torch refuses where there is none.
    """
    import torch

    pin_memory = torch.Tensor.pin_memory
    torch.Tensor.pin_memory = lambda tensor, *_values, **_named: tensor
    try:
        yield
    finally:
        torch.Tensor.pin_memory = pin_memory


DEPARTURES = {"llm-compressor-cpu-pinning": without_pinning}
