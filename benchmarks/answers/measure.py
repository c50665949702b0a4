"""Plant good and damaged quantizations of a Llama model and measure what it answers by each.

    python -m benchmarks.answers.measure MODEL RESULTS --cells 1000

Wants torch, transformers and msgspec beside the project; MODEL is a folder as the builders
``smollm2`` and ``twin`` leave it (``model/``, ``reference.json``), of a tied Llama model. RESULTS
gets a line for each cell; what is there is not done again. :mod:`benchmarks.answers.rates` makes
the tables of them.

A good cell is the model quantized whole by a scheme, each of its layers in a way that is drawn: to
the nearest, with sign rounding as AutoRound does, or with AWQ's scales. A damaged cell is a good
one with one damage, which is also given to the float model: the whole divergence of that from the
sound one is the damage's effect. All are asked some of the held-out texts, drawn for each.
"""

from __future__ import annotations

import argparse
import json
import random
from array import array
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch
from transformers import AutoTokenizer

from benchmarks.answers.damages import DAMAGES, Place, Reading
from benchmarks.answers.llama import LINEARS, Layer, Llama, logprobs, states
from benchmarks.answers.rounding import WAYS, quantized
from matrix.checks.divergence import with_divergence
from matrix.checks.evidence import Likeliest, Reference, ScoredText, read_reference

NO_EFFECT = 0.01
"""Nats below which a damage of the float model is none: nothing more is measured."""
OF_REFERENCE, OF_ENGINE = 64, 128
"""How many of the likeliest tokens builders and adapters tell."""
EVERY, DAMAGED = 5, 10
"""Each fifth good cell is damaged, ten times: these share the layers before their damage."""


class Scheme(NamedTuple):
    """How all weights of a cell are stored."""

    bits: int
    group: int
    symmetric: bool

    @property
    def name(self) -> str:
        """Such as ``4-bit g64 sym``."""
        return f"{self.bits}-bit g{self.group}{' sym' if self.symmetric else ''}"


SCHEMES = {
    Scheme(4, 32, False): 3,
    Scheme(4, 64, False): 4,
    Scheme(4, 64, True): 4,
    Scheme(8, 64, True): 2,
}
"""Scheme -> how often it is drawn."""


class Subject:
    """The float model, what it answers, and its layers in each way of quantizing."""

    def __init__(self, folder: Path) -> None:
        tokenizer = AutoTokenizer.from_pretrained(folder / "model")
        reference = read_reference((folder / "reference.json").read_bytes())
        self.model = Llama(folder / "model")
        self.head = self.model.embedding.bfloat16()
        texts = [tokenizer(text.text)["input_ids"] for text in reference.held_out]
        self.ids = torch.tensor([text[: min(map(len, texts))] for text in texts])
        self.memorised = bool(reference.memorised)
        self.layers = [stored(layer) for layer in self.model.layers]
        self.sound = states(self.model, self.layers, self.ids, [], 0)
        self.inputs = [value.flatten(0, 1).abs().mean(0) for value in self.sound]
        """How large each channel is in the mean, which AWQ's scales are made of."""
        answers = logprobs(self.model, self.sound[-1], self.head)
        self.answers = answers.view(*self.ids[:, 1:].shape, -1)

    @cache  # noqa: B019 - there is only one subject, and it lives as long as the process
    def layer(self, scheme: Scheme, way: str, index: int) -> Layer:
        """Return a layer quantized."""
        layer = self.model.layers[index]
        return stored(
            {
                name: quantized(
                    weight, scheme.bits, scheme.group, scheme.symmetric, way,
                    self.inputs[index] if "o_proj" not in name and "down" not in name else None,
                )
                if name in LINEARS
                else weight
                for name, weight in layer.items()
            }
        )  # fmt: skip


def stored(layer: Layer) -> Layer:
    """Return a layer with its linears in the type that is multiplied in."""
    return {
        name: weight.bfloat16() if name in LINEARS else weight for name, weight in layer.items()
    }


def cells(subject: Subject, numbers: range, texts: int, done: set[str]) -> Iterator[dict[str, Any]]:
    """Yield what was measured of each cell that is not done, good and damaged in turns."""
    for number in numbers:
        draw = random.Random(number)
        torch.manual_seed(number)
        scheme = draw.choices(list(SCHEMES), list(SCHEMES.values()))[0]
        ways = draw.choices(WAYS, k=len(subject.layers))
        chosen = draw.sample(range(len(subject.ids)), min(texts, len(subject.ids)))
        damaged = [f"damaged {number}-{index}" for index in range(DAMAGED)]
        good = f"good {number}"
        wanted = [] if number % EVERY else [name for name in damaged if name not in done]
        if good in done and not wanted:
            continue
        layers = [subject.layer(scheme, way, index) for index, way in enumerate(ways)]
        before = states(subject.model, layers, subject.ids[chosen], [], 0)
        if good not in done:
            yield {"cell": good, "scheme": scheme.name, **measured(subject, chosen, before[-1])}
        for name in wanted:
            cell = damaged_cell(subject, scheme, layers, before, chosen, random.Random(name))
            yield {"cell": name, "scheme": scheme.name, **cell}


def damaged_cell(
    subject: Subject,
    scheme: Scheme,
    layers: list[Layer],
    before: list[torch.Tensor],
    chosen: list[int],
    draw: random.Random,
) -> dict[str, Any]:
    """Return what was measured of a cell with one damage, with its kind, size and effect."""
    kind, seed = draw.choice(list(DAMAGES)), draw.randrange(2**31)
    sound = subject.answers[chosen].flatten(0, 1)
    before_of_float = [value[chosen] for value in subject.sound]
    alone, size = changed_answers(
        subject, scheme, kind, seed, chosen, subject.layers, before_of_float
    )
    effect = (sound.exp() * (sound - alone)).sum(-1).mean().item()
    planted = {"kind": kind, "size": size, "effect": effect}
    if effect < NO_EFFECT:
        return planted
    answers, _ = changed_answers(subject, scheme, kind, seed, chosen, layers, before)
    return {**planted, **compared(subject, chosen, sound, answers)}


def changed_answers(
    subject: Subject,
    scheme: Scheme,
    kind: str,
    seed: int,
    chosen: list[int],
    layers: list[Layer],
    before: list[torch.Tensor],
) -> tuple[torch.Tensor, str]:
    """Return what a model answers with a damage, and the damage's size, which the seed gives."""
    model = subject.model

    def of_3_bits(index: int) -> Layer:
        return subject.layer(Scheme(3, scheme.group, False), "nearest", index)

    torch.manual_seed(seed)
    place = Place(random.Random(seed), scheme.bits, scheme.group, of_3_bits)
    reading = Reading(model.embedding, model.base, model.eps)
    changed, start = DAMAGES[kind](place, layers, reading)
    with reading.of(model):
        last = states(model, changed, subject.ids[chosen], before, start)[-1]
        head = subject.head if reading.embedding is model.embedding else reading.embedding
        return logprobs(model, last, head), place.size


def measured(subject: Subject, chosen: list[int], last: torch.Tensor) -> dict[str, Any]:
    """Return what was measured of what leaves a good cell's last layer."""
    sound = subject.answers[chosen].flatten(0, 1)
    return compared(subject, chosen, sound, logprobs(subject.model, last, subject.head))


def compared(
    subject: Subject, chosen: list[int], sound: torch.Tensor, actual: torch.Tensor
) -> dict[str, Any]:
    """Return the measures as a run makes them, and the log-probabilities of the texts' tokens."""
    ids = subject.ids[chosen]
    given = ids[:, 1:].reshape(-1, 1)
    expected = sound.gather(1, given)[:, 0].view(len(chosen), -1).tolist()
    reference = Reference(
        schema=1, prompts=[], max_new_tokens=1, likeliest=best(sound, len(chosen), OF_REFERENCE),
        held_out=[
            ScoredText("", text, values)
            for text, values in zip(ids.tolist(), expected, strict=True)
        ],
    )  # fmt: skip
    likeliest = msgspec.to_builtins(best(actual, len(chosen), OF_ENGINE))
    facts = with_divergence({"likeliest": likeliest}, reference)
    held_out = actual.gather(1, given)[:, 0].view(len(chosen), -1)
    whole = (sound.exp() * (sound - actual)).sum(-1).mean().item()
    return {
        "whole": whole, **facts,
        "expected": [[round(value, 4) for value in text] for text in expected],
        "held_out": [[round(value, 4) for value in text] for text in held_out.tolist()],
    }  # fmt: skip


def best(values: torch.Tensor, texts: int, count: int) -> list[Likeliest]:
    """Return the likeliest tokens as builders and adapters pack them."""
    chosen = values.topk(min(count, values.shape[-1]))
    pairs = zip(chosen.indices.chunk(texts), chosen.values.chunk(texts), strict=True)
    return [
        Likeliest(
            array("i", ids.flatten().tolist()).tobytes(),
            array("f", logs.flatten().tolist()).tobytes(),
        )
        for ids, logs in pairs
    ]


@torch.no_grad()
def main() -> None:
    """Measure what is not measured yet, one line after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--texts", type=int, default=2, help="how many a cell is asked")
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = options.results.read_text().splitlines() if options.results.exists() else []
    done = {json.loads(line)["cell"] for line in lines}
    with options.results.open("a") as results:
        numbers = range(options.first, options.first + options.cells)
        subject = Subject(options.model)
        for cell in cells(subject, numbers, options.texts, done):
            results.write(json.dumps({**cell, "memorised": subject.memorised}) + "\n")
            results.flush()


if __name__ == "__main__":
    main()
