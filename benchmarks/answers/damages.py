"""Damages that are planted in a quantized model to see whether its answers give them away.

Each changes the layers that it is given, or how the model is read, and returns the changed layers
and the first one that computes something else. Its size is drawn, and left in the place.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from benchmarks.answers.llama import LINEARS, NORMS, Layer, Llama
from benchmarks.answers.rounding import quantized, steps

SHARES = (0.03, 0.1, 0.3, 1.0)


@dataclass
class Place:
    """Where a damage strikes, and how large it is."""

    draw: random.Random
    bits: int
    group: int
    of_3_bits: Callable[[int], Layer]
    """Gives a layer of the float model in three bits."""
    size: str = field(default="")

    def share(self) -> float:
        """Draw how much is hit."""
        share = self.draw.choice(SHARES)
        self.size += f"{share:.0%} "
        return share

    def linear(self, layers: list[Layer]) -> tuple[int, str]:
        """Draw a layer and a linear in it."""
        index, name = self.draw.randrange(len(layers)), self.draw.choice(LINEARS)
        self.size += f"layer {index} {name}"
        return index, name


@dataclass
class Reading:
    """What is read beside the layers."""

    embedding: torch.Tensor
    base: float
    eps: float

    @contextmanager
    def of(self, model: Llama) -> Iterator[None]:
        """Have the model read so for a while."""
        before = model.embedding, model.base, model.eps
        model.embedding, model.base, model.eps = self.embedding, self.base, self.eps
        yield
        model.embedding, model.base, model.eps = before


Damage = Callable[[Place, list[Layer], Reading], tuple[list[Layer], int]]
DAMAGES: dict[str, Damage] = {}


def damage(function: Damage) -> Damage:
    """Take a damage in under the words of its name."""
    DAMAGES[function.__name__.replace("_", " ")] = function
    return function


def changed(layers: list[Layer], index: int, name: str, weight: torch.Tensor) -> list[Layer]:
    """Return layers of which one has another weight."""
    own = {**layers[index], name: weight.to(layers[index][name].dtype)}
    return [*layers[:index], own, *layers[index + 1 :]]


@damage
def scale_of_a_layer(place: Place, layers: list[Layer], _: Reading) -> tuple[list[Layer], int]:
    """One linear is larger or smaller."""
    factor = 1 + place.share() * place.draw.choice((-0.9, 1))
    index, name = place.linear(layers)
    return changed(layers, index, name, layers[index][name].float() * factor), index


@damage
def scale_of_some_rows(place: Place, layers: list[Layer], _: Reading) -> tuple[list[Layer], int]:
    """Some rows of a linear are twice as large."""
    share = place.share()
    index, name = place.linear(layers)
    weight = layers[index][name].float()
    rows = torch.rand(len(weight)) < share
    return changed(layers, index, name, torch.where(rows[:, None], 2 * weight, weight)), index


@damage
def rows_permuted(place: Place, layers: list[Layer], _: Reading) -> tuple[list[Layer], int]:
    """Some rows of a linear change places."""
    share = place.share()
    index, name = place.linear(layers)
    weight = layers[index][name].clone()
    rows = torch.nonzero(torch.rand(len(weight)) < share)[:, 0]
    weight[rows] = weight[rows[torch.randperm(len(rows))]]
    return changed(layers, index, name, weight), index


@damage
def zero_points_off_by_1(place: Place, layers: list[Layer], _: Reading) -> tuple[list[Layer], int]:
    """The weights of some groups of a linear are a step too large."""
    share = place.share()
    index, name = place.linear(layers)
    weight = layers[index][name].float()
    groups = weight.view(len(weight), -1, place.group)
    scale, _zero = steps(groups, place.bits, False)
    hit = torch.rand(scale.shape) < share
    return changed(layers, index, name, (groups + hit * scale).view_as(weight)), index


@damage
def all_zero_points_off_by_1(
    place: Place, layers: list[Layer], _: Reading
) -> tuple[list[Layer], int]:
    """The same in all linears of a layer."""
    index = place.draw.randrange(len(layers))
    place.size = f"layer {index}"
    for name in LINEARS:
        weight = layers[index][name].float()
        groups = weight.view(len(weight), -1, place.group)
        scale, _zero = steps(groups, place.bits, False)
        layers = changed(layers, index, name, (groups + scale).view_as(weight))
    return layers, index


@damage
def groups_scales_swapped(place: Place, layers: list[Layer], _: Reading) -> tuple[list[Layer], int]:
    """Some groups of a linear have the scale of a neighbour."""
    share = place.share()
    index, name = place.linear(layers)
    weight = layers[index][name].float()
    groups = weight.view(len(weight), -1, place.group)
    scale, _zero = steps(groups, place.bits, False)
    factor = torch.where(torch.rand(scale.shape) < share, scale.roll(1, 1) / scale, 1.0)
    return changed(layers, index, name, (groups * factor).view_as(weight)), index


@damage
def codes_at_random(place: Place, layers: list[Layer], _: Reading) -> tuple[list[Layer], int]:
    """Some weights of a linear are any that their group can hold."""
    share = place.share()
    index, name = place.linear(layers)
    weight = layers[index][name].float()
    groups = weight.view(len(weight), -1, place.group)
    low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    anything = low + torch.rand_like(groups) * (high - low)
    mixed = torch.where(torch.rand_like(groups) < share, anything, groups)
    return changed(layers, index, name, mixed.view_as(weight)), index


@damage
def a_linear_of_another_layer(
    place: Place, layers: list[Layer], _: Reading
) -> tuple[list[Layer], int]:
    """Some neighbouring rows of a linear, such as a head's, are another layer's."""
    share = place.share()
    index, name = place.linear(layers)
    other = (index + place.draw.randrange(1, len(layers))) % len(layers)
    weight = layers[index][name].clone()
    count = max(1, round(share * len(weight)))
    weight[:count] = layers[other][name][:count]
    return changed(layers, index, name, weight), index


@damage
def fewer_bits_in_a_layer(place: Place, layers: list[Layer], _: Reading) -> tuple[list[Layer], int]:
    """All linears of a layer have two bits or three."""
    bits, index = place.draw.choice((2, 3)), place.draw.randrange(len(layers))
    place.size = f"{bits} bits, layer {index}"
    for name in LINEARS:
        weight = layers[index][name].float()
        layers = changed(layers, index, name, quantized(weight, bits, place.group, False))
    return layers, index


@damage
def fewer_bits_from_a_layer_on(
    place: Place, layers: list[Layer], _: Reading
) -> tuple[list[Layer], int]:
    """All linears from one layer on have three bits."""
    start = place.draw.randrange(len(layers) - 1)
    place.size = f"from layer {start}"
    return [
        *layers[:start],
        *(place.of_3_bits(index) for index in range(start, len(layers))),
    ], start


@damage
def embedding_rows_lost(
    place: Place, layers: list[Layer], reading: Reading
) -> tuple[list[Layer], int]:
    """Some rows of the embedding, which is the head as well, are zero."""
    kept = torch.rand(len(reading.embedding)) >= place.share()
    reading.embedding = reading.embedding * kept[:, None]
    return layers, 0


@damage
def norm_lost(place: Place, layers: list[Layer], _: Reading) -> tuple[list[Layer], int]:
    """Some channels of a norm are 1, as a loader leaves them that does not find them."""
    share, index, name = place.share(), place.draw.randrange(len(layers)), place.draw.choice(NORMS)
    place.size += f"layer {index} {name}"
    weight = layers[index][name]
    lost = torch.rand(len(weight)) < share
    return changed(layers, index, name, torch.where(lost, 1.0, weight)), index


@damage
def rotary_base_wrong(
    place: Place, layers: list[Layer], reading: Reading
) -> tuple[list[Layer], int]:
    """The base of the rotary embedding is another."""
    factor = place.draw.choice((0.1, 0.5, 0.9, 1.1, 2, 10))
    place.size, reading.base = f"x {factor}", reading.base * factor
    return layers, 0


@damage
def epsilon_wrong(place: Place, layers: list[Layer], reading: Reading) -> tuple[list[Layer], int]:
    """The norms add another epsilon."""
    reading.eps = place.draw.choice((1e-3, 1e-2, 0.1, 1.0))
    place.size = f"{reading.eps}"
    return layers, 0
