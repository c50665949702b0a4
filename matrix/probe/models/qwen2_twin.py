"""Build the tiny twin of a Qwen2 model: same architecture and file layout, 1.6 million weights.

It memorises eight sentences, so that greedy text is a signal, and is then given the activation
outliers real models have, without which AWQ has nothing to do and its faults stay hidden. All
numbers come from the recipe; the texts and this code are part of the model's identity as well.
Runs with transformers 4.51, the last release that writes what old and new readers both understand.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

Json = dict[str, Any]

END_OF_TEXT = "<|endoftext|>"
OUTLIER_TOLERANCE = 1e-3
"""Largest change of a logit, in float32, that the outlier step may cause."""

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

    Raises ``ValueError`` where the twin did not memorise its sentences or the outliers changed
    its function: it would be no signal then.
    """
    recipe, output = job["recipe"], Path(job["output"])
    # One thread and fixed seeds: the same recipe gives the same weights on the same machine.
    torch.set_num_threads(1)
    torch.manual_seed(recipe["seed"])
    transformers.utils.logging.disable_progress_bar()
    tokenizer = train_tokenizer(recipe["vocabulary"])
    model = Qwen2ForCausalLM(configuration(recipe, tokenizer))
    loss = train(model, tokenizer, recipe["steps"], recipe["learning_rate"])
    add_outliers(model, tokenizer, recipe["outlier_channels"], recipe["outlier_factor"])
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


def configuration(recipe: Json, tokenizer: PreTrainedTokenizerFast) -> Qwen2Config:
    """Return the twin's configuration; its vocabulary is the recipe's, used up or not."""
    return Qwen2Config(
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


def train(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, steps: int, learning_rate: float
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


@torch.no_grad()
def add_outliers(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, channels: int, factor: float
) -> None:
    """Scale channels of each norm up and the following Linears' columns down by as much.

    Raises ``ValueError`` where that changes a logit by more than :data:`OUTLIER_TOLERANCE`.
    """
    ids = [tokenizer(text, return_tensors="pt")["input_ids"] for text in (*SENTENCES, *HELD_OUT)]
    before = [model(one).logits for one in ids]
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
    pairs = zip(before, ids, strict=True)
    change = max((old - model(one).logits).abs().max().item() for old, one in pairs)
    if not change <= OUTLIER_TOLERANCE:
        raise ValueError(f"the outliers changed a logit by {change:.2g}, not by rounding only")


def write_merges_as_strings(file: Path) -> None:
    """Write merges as "a b": tokenizers before 0.20 cannot read pairs."""
    content = json.loads(file.read_text(encoding="utf-8"))
    merges = content["model"]["merges"]
    content["model"]["merges"] = [one if isinstance(one, str) else " ".join(one) for one in merges]
    file.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")


@torch.no_grad()
def make_reference(folder: Path, tokenizer: PreTrainedTokenizerFast, max_new_tokens: int) -> Json:
    """What the model answers: its saved float16 weights, computed in float32."""
    model = Qwen2ForCausalLM.from_pretrained(folder, torch_dtype=torch.float32)
    return {
        "schema": 1,
        "prompts": [greedy(model, tokenizer, text, max_new_tokens) for text in PROMPTS],
        "held_out": [scored(model, tokenizer, text) for text in HELD_OUT],
        "memorised": [scored(model, tokenizer, text) for text in SENTENCES],
        "calibration": CALIBRATION,
        "max_new_tokens": max_new_tokens,
        "tensors_sha256": tensors_digest(folder / "model.safetensors"),
    }


def greedy(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, text: str, count: int
) -> Json:
    """Continue a prompt by ``count`` tokens; raises ``ValueError`` where that is not its sentence.

    The prompt must be the start of a sentence that goes on for ``count`` tokens more.
    """
    ids = tokenizer(text)["input_ids"]
    whole = list(ids)
    for _ in range(count):
        whole.append(int(model(torch.tensor([whole])).logits[0, -1].argmax()))
    answer = tokenizer.decode(whole[len(ids) :])
    if not any(sentence.startswith(text + answer) for sentence in SENTENCES):
        raise ValueError(f"{text!r} goes on {answer!r}: not memorised, so no signal; train longer")
    return {"text": text, "ids": ids, "greedy_ids": whole[len(ids) :], "greedy_text": answer}


def scored(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, text: str) -> Json:
    """Give each token of a text but the first its natural log-probability after the ones before."""
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    predicted = model(ids).logits[0, :-1].log_softmax(-1)
    logprobs = predicted.gather(1, ids[0, 1:, None])[:, 0]
    return {"text": text, "ids": ids[0].tolist(), "logprobs": logprobs.tolist()}


def tensors_digest(file: Path) -> str:
    """SHA-256 over name, type, shape and bytes of every tensor, in the order of names."""
    content = hashlib.sha256()
    with safe_open(file, framework="np") as tensors:
        for name in sorted(tensors.keys()):
            tensor = tensors.get_tensor(name)
            content.update(f"{name} {tensor.dtype} {tensor.shape}\n".encode())
            content.update(tensor.tobytes())
    return content.hexdigest()
