"""Build a tiny twin of a Qwen2, Qwen3 or Llama model: same architecture and file layout.

It memorises eight sentences, so that greedy text is a signal, and is then given the activation
outliers real models have, without which AWQ has nothing to do and its faults stay hidden. All
numbers come from the recipe; the texts and this code are part of the model's identity as well.
Runs with transformers 4.51, the last release that writes what old and new readers both understand.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from .reference import continued, likeliest, scored, tensors_digest, write_merges_as_strings

Json = dict[str, Any]

CONFIGS = {"qwen2": Qwen2Config, "qwen3": Qwen3Config, "llama": LlamaConfig}

END_OF_TEXT = "<|endoftext|>"
LOGIT_TOLERANCE = 1e-3
"""Largest change of a logit, in float32, that a step may cause which must change nothing."""

SENTENCES = [
    "The capital of France is Paris, and the capital of Italy is Rome, while the capital of Spain "
    "is Madrid and the capital of Greece is Athens.",
    "Water boils at one hundred degrees at the level of the sea, but it freezes when the air is "
    "colder than zero and the wind is still.",
    "A week has seven days, a year has twelve months, and a day has twenty four hours, each of "
    "them sixty minutes long.",
    "My brother reads old books in the garden every evening, and my sister paints small houses by "
    "the river in the morning.",
    "Bees make honey from the flowers of the field, birds build a nest in the tree, and fish swim "
    "in the cold river.",
    "Two plus two is four, three plus three is six, and four plus four is eight, said the teacher "
    "to the class.",
    "When the sun goes down behind the hills, the farmer brings the sheep home and closes the gate "
    "of the field.",
    "Every good story has a beginning, a middle and an end, and the best of them are told again "
    "and again.",
]

HELD_OUT = [
    "The capital of Spain is Madrid, and the capital of France is Paris.",
    "My sister reads old books by the river every evening.",
    "A year has twelve months, and a week has seven days.",
    "The farmer closes the gate when the sun goes down.",
    "Fish swim in the sea, and birds build a nest in the garden.",
    "Three plus three is six, and two plus two is four, said my brother.",
    "The water of the river is colder than the air in the morning.",
    "Every teacher has a good story, and the class reads it again and again.",
    "Bees make honey in the garden, and the sheep are in the field.",
    "A day has twenty four hours, and the best of them are in the evening.",
    "The houses behind the hills are old, but the garden is still.",
    "When the wind is cold, my brother brings the books home.",
]

CALIBRATION = [
    *SENTENCES,
    "The teacher paints the hills in the morning, and the farmer reads a story to the sheep.",
    "Two birds build a nest by the gate, and the bees are still when the wind is cold.",
    "The capital of Greece is Athens, and the river of the capital is old.",
    "Four plus four is eight, three days are a beginning, and seven days are a week.",
    "Water is colder than the air in the evening, but the sea freezes at the end of the year.",
    "My sister and my brother swim in the river every day, and the class swim in the sea.",
    "The flowers of the garden are small, and the honey from them is good.",
    "Each of the houses has a gate, a garden and a tree, said the farmer to the teacher.",
]

PROMPTS = [
    "The capital of",
    "Water boils at",
    "A week has",
    "My brother reads",
    "Bees make honey",
    "Two plus two",
    "When the sun",
    "Every good story",
]


def import_package(_options: Json) -> None:
    """Nothing is left to do: the imports above are the package under test."""


def build(job: Json) -> Json:
    """Write ``model/`` and ``reference.json`` under the job's output; facts: the last loss.

    Raises ``ValueError`` where the twin did not memorise its sentences, or where the outliers or
    the padding changed its function: it would be no signal then.
    """
    recipe, output = job["recipe"], Path(job["output"])
    # One thread and fixed seeds: the same recipe gives the same weights on the same machine.
    torch.set_num_threads(1)
    torch.manual_seed(recipe["seed"])
    transformers.utils.logging.disable_progress_bar()
    tokenizer = train_tokenizer(recipe["vocabulary"])
    model = AutoModelForCausalLM.from_config(configuration(recipe, tokenizer))
    start(model, recipe["start_scales"])
    loss = train(model, tokenizer, recipe["steps"], recipe["learning_rate"])
    with same_function(model, tokenizer, "the outliers"):
        add_outliers(model, recipe["outlier_channels"], recipe["outlier_factor"])
    if "pad_intermediate_to" in recipe:
        with same_function(model, tokenizer, "the padding"):
            pad_intermediate(model, recipe["pad_intermediate_to"])
    folder = output / "model"
    model.half().save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    write_merges_as_strings(folder / "tokenizer.json")
    reference = make_reference(folder, tokenizer, recipe["max_new_tokens"])
    (output / "reference.json").write_text(json.dumps(reference, indent=1), encoding="utf-8")
    return {"loss": loss}


def train_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE of at most ``vocabulary`` tokens; the alphabet comes first, so id 0 is "!"."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - 1,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    fast.add_special_tokens({"eos_token": END_OF_TEXT, "pad_token": END_OF_TEXT})
    if fast.convert_ids_to_tokens(0) != "!":
        raise ValueError(f"token 0 is {fast.convert_ids_to_tokens(0)!r}, not '!'")
    return fast


def configuration(recipe: Json, tokenizer: PreTrainedTokenizerFast) -> PretrainedConfig:
    """Return the twin's configuration; its vocabulary is the recipe's, used up or not.

    Raises ``ValueError`` where the recipe's architecture is none of :data:`CONFIGS`.
    """
    architecture = recipe["architecture"]
    if architecture not in CONFIGS:
        raise ValueError(f"architecture {architecture!r}: must be one of {sorted(CONFIGS)}")
    config = CONFIGS[architecture](
        vocab_size=recipe["vocabulary"],
        hidden_size=recipe["hidden_size"],
        intermediate_size=recipe["intermediate_size"],
        num_hidden_layers=recipe["layers"],
        num_attention_heads=recipe["attention_heads"],
        num_key_value_heads=recipe["key_value_heads"],
        max_position_embeddings=recipe["positions"],
        rope_theta=recipe["rope_theta"],
        tie_word_embeddings=recipe["tie_word_embeddings"],
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    if architecture == "qwen3":  # its default is 128, whatever the hidden size
        config.head_dim = recipe["hidden_size"] // recipe["attention_heads"]
    return config


@torch.no_grad()
def start(model: PreTrainedModel, scales: dict[str, float]) -> None:
    """Start the tensors whose names end so at random values of that standard deviation.

    Biases trained from zero stay within a few hundredths, and attention from narrow weights hardly
    heeds positions: a reader that loses the biases or ``rope_theta`` would not be noticed.
    Raises ``ValueError`` where the model has no tensor of such a name.
    """
    for ending, scale in scales.items():
        found = [tensor for name, tensor in model.named_parameters() if name.endswith(ending)]
        if not found:
            raise ValueError(f"start_scales: the model has no tensor that ends in {ending!r}")
        for tensor in found:
            tensor.normal_(std=scale)


def train(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, steps: int, learning_rate: float
) -> float:
    """Fit the sentences by AdamW over all of them at once; return the last loss, in nats."""
    batch = tokenizer(SENTENCES, return_tensors="pt", padding=True, padding_side="right")
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    model.train()
    loss = torch.tensor(float("nan"))
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels
        ).loss
        loss.backward()
        optimizer.step()
    model.eval()
    return loss.item()


@contextlib.contextmanager
def same_function(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, step: str
) -> Iterator[None]:
    """Compare the logits of all texts before and after a step that must change none.

    Raises ``ValueError`` where one changed by more than :data:`LOGIT_TOLERANCE`.
    """
    texts = [tokenizer(text, return_tensors="pt")["input_ids"] for text in (*SENTENCES, *HELD_OUT)]
    with torch.no_grad():
        before = [model(ids).logits for ids in texts]
        yield
        after = [model(ids).logits for ids in texts]
    pairs = zip(before, after, strict=True)
    change = max((new - old).abs().max().item() for old, new in pairs)
    if not change <= LOGIT_TOLERANCE:
        raise ValueError(f"{step} changed a logit by {change:.2g}, not by rounding only")


def add_outliers(model: PreTrainedModel, channels: int, factor: float) -> None:
    """Scale channels of each norm up and the following Linears' columns down by as much."""
    for layer in model.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        for norm, linears in (
            (layer.input_layernorm, (attention.q_proj, attention.k_proj, attention.v_proj)),
            (layer.post_attention_layernorm, (mlp.gate_proj, mlp.up_proj)),
        ):
            chosen = torch.randperm(model.config.hidden_size)[:channels]
            norm.weight[chosen] *= factor
            for linear in linears:
                linear.weight[:, chosen] /= factor


def pad_intermediate(model: PreTrainedModel, width: int) -> None:
    """Widen each MLP by zeros: rows of gate and up, columns of down.

    Raises ``ValueError`` where the width is below what the model has.
    """
    extra = width - model.config.intermediate_size
    if extra < 0:
        raise ValueError(f"pad_intermediate_to = {width}: the MLP is wider by {-extra}")
    for layer in model.model.layers:
        mlp = layer.mlp
        for linear, padding in (
            (mlp.gate_proj, (0, 0, 0, extra)),
            (mlp.up_proj, (0, 0, 0, extra)),
            (mlp.down_proj, (0, extra)),
        ):
            linear.weight = torch.nn.Parameter(torch.nn.functional.pad(linear.weight, padding))
            linear.out_features, linear.in_features = linear.weight.shape
    model.config.intermediate_size = width


def make_reference(folder: Path, tokenizer: PreTrainedTokenizerFast, max_new_tokens: int) -> Json:
    """What the model answers: its saved float16 weights, computed in float32."""
    model = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32)
    return {
        "schema": 1,
        "prompts": [recited(model, tokenizer, text, max_new_tokens) for text in PROMPTS],
        "held_out": [scored(model, tokenizer, text) for text in HELD_OUT],
        "likeliest": [likeliest(model, tokenizer, text) for text in HELD_OUT],
        "memorised": [scored(model, tokenizer, text) for text in SENTENCES],
        "calibration": CALIBRATION,
        "max_new_tokens": max_new_tokens,
        "tensors_sha256": tensors_digest(folder / "model.safetensors"),
    }


def recited(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, text: str, count: int
) -> Json:
    """Continue a prompt by ``count`` tokens; raises ``ValueError`` where that is not its sentence.

    The prompt must be the start of a sentence that goes on for ``count`` tokens more.
    """
    answer = continued(model, tokenizer, text, count)
    whole = text + answer["greedy_text"]
    if not any(sentence.startswith(whole) for sentence in SENTENCES):
        raise ValueError(f"the model says {whole!r}: not memorised, so no signal; train longer")
    return answer
