"""The float model of a published checkpoint: from the Hub, or a local directory.

Downloading wants the environment's ``environ`` to say ``HF_HUB_OFFLINE = "0"`` (probes are offline
otherwise), and limits of ``build`` that fit: the answers are computed in float32, which takes four
bytes of memory a parameter.
"""

from __future__ import annotations

import os
import random
import re
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from .plain_texts import CALIBRATION
from .pretrained import keep_float_model, write_reference

Json = dict[str, Any]

TEXTS, PIECES = 128, 8
"""How many texts quantizers calibrate with, and of how many of ours each is made: about 128 x 370
tokens, since a wide layer needs more of them than it has inputs. (AutoAWQ takes 128 x 512.)"""


def import_package(_options: Json) -> None:
    """Nothing is left to do: the imports above are the package under test."""


def build(job: Json) -> Json:
    """Write ``model/`` and ``reference.json`` under the job's output; facts: the perplexity.

    Recipe: ``max_new_tokens`` and one of the two, ``repository`` with ``revision`` (a whole commit
    hash, since branches and tags move) or ``directory`` (an absolute path). Neither code nor a
    pickle is taken. Raises ``ValueError`` where the recipe is not so or the model cannot be kept,
    and what transformers raises where it finds no such model.
    """
    # Billions of parameters, in float32: on one core, as elsewhere, it would take hours.
    torch.set_num_threads(os.cpu_count() or 1)
    # Progress bars stay on: they are what tells a long download from one that hangs.
    recipe, output = job["recipe"], Path(job["output"])
    tokenizer = take(source(recipe), recipe["tie_word_embeddings"], output)
    return write_reference(
        output / "model", tokenizer, recipe["max_new_tokens"], longer_texts(CALIBRATION)
    )


def longer_texts(texts: list[str]) -> list[str]:
    """Join some of the texts, drawn anew for each: other contexts for the same words."""
    order = random.Random(0)
    return ["\n\n".join(order.sample(texts, PIECES)) for _ in range(TEXTS)]


def source(recipe: Json) -> Json:
    """Return what transformers is asked for; raises ``ValueError`` where the recipe is wrong."""
    others = ("max_new_tokens", "tie_word_embeddings")
    match {key: value for key, value in recipe.items() if key not in others}:
        case {"directory": str(directory), **rest} if not rest:
            if not Path(directory).is_absolute():
                raise ValueError(f"directory {directory!r}: give an absolute path")
            return {"pretrained_model_name_or_path": directory, "local_files_only": True}
        case {"repository": str(repository), "revision": str(revision), **rest} if not rest:
            if not re.fullmatch(r"[0-9a-f]{40}", revision):
                raise ValueError(
                    f"revision {revision!r}: give the 40 hexadecimal digits of a commit"
                )
            return {"pretrained_model_name_or_path": repository, "revision": revision}
        case given:
            raise ValueError(f"recipe {given}: give directory, or repository and revision")


def take(asked: Json, tied: bool, output: Path) -> Any:
    """Keep the model as float16 in ``output/model``; return its tokenizer.

    Raises ``ValueError`` where it is tied otherwise than the spec says, is quantized already, or
    has a weight that float16 cannot hold.
    """
    # What is downloaded goes beside the output, and away with it, however this ends.
    asked = {**asked, "trust_remote_code": False, "cache_dir": output.with_name("download")}
    name = asked["pretrained_model_name_or_path"]
    config = AutoConfig.from_pretrained(**asked)
    if getattr(config, "quantization_config", None) is not None:
        raise ValueError(f"{name} is quantized: give the float model that it was made of")
    if config.tie_word_embeddings is not tied:
        raise ValueError(f"{name} says tie_word_embeddings = {not tied}: say so in the spec, tied")
    tokenizer = AutoTokenizer.from_pretrained(**asked)
    model = AutoModelForCausalLM.from_pretrained(**asked, dtype=torch.float16, use_safetensors=True)
    for tensor, weight in model.named_parameters():
        if not weight.isfinite().all():
            raise ValueError(f"{name}: {tensor} has weights that are not finite in float16")
    keep_float_model(model, tokenizer, output / "model")
    return tokenizer
