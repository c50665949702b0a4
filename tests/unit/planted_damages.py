"""Kinds of damage that are planted in copies of real checkpoints, by name.

They are written for the parts of GPTQ and AWQ. In a file of compressed-tensors the same is done to
the parts that hold the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.unit import real_checkpoints as real

Damage = Callable[[Path], object]
LAYER = "model.layers.1"
Q, K, V, UP, DOWN = (
    f"{LAYER}.{part}"
    for part in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.up_proj",
                 "mlp.down_proj")
)  # fmt: skip
NORM, LAST_NORM = f"{LAYER}.input_layernorm.weight", "model.norm.weight"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
BIAS = f"{Q}.bias"


SAME_PARTS = {
    "weight_packed": "qweight", "weight_scale": "scales", "weight_zero_point": "qzeros",
    "weight_g_idx": "g_idx",
}  # fmt: skip
"""Part of a packed layer of compressed-tensors -> what AWQ and GPTQ call it."""


class NoEffectError(Exception):
    """A damage cannot be planted in a checkpoint, or changes nothing of what it answers."""


def tensors(change: Callable[[real.Tensors], object]) -> Damage:
    """Return the damage that changes arrays of the weights."""

    def damage(folder: Path) -> None:
        arrays, metadata = real.read_tensors(folder / real.WEIGHTS)
        if BIAS in arrays and not arrays[BIAS].view(np.uint8).any():
            del arrays[BIAS]  # of a model that has none; auto-gptq writes zeros
        before = {name: array.tobytes() for name, array in arrays.items()}
        names = same_parts(arrays)
        given = {names.get(n, n): a.T.copy() if n in names else a for n, a in arrays.items()}
        try:
            change(given)
        except (KeyError, IndexError):
            raise NoEffectError from None
        own = {other: name for name, other in names.items()}
        arrays = {own.get(n, n): a.T.copy() if n in own else a for n, a in given.items()}
        if before == {name: array.tobytes() for name, array in arrays.items()}:
            raise NoEffectError
        real.write_tensors(folder / real.WEIGHTS, arrays, metadata)

    return damage


def same_parts(arrays: real.Tensors) -> dict[str, str]:
    """Return tensor of compressed-tensors -> the name of the same part in GPTQ, which has inputs
    and outputs the other way around."""
    names = {}
    for name in arrays:
        module, _, part = name.rpartition(".")
        if f"{module}.weight_scale" in arrays and part in (*SAME_PARTS, "weight"):
            names[name] = f"{module}.{SAME_PARTS.get(part, 'qweight')}"
    return names


def edit(file: str, change: Callable[[real.Config], object]) -> Damage:
    """Return the damage that changes a JSON file."""

    def damage(folder: Path) -> None:
        if not (folder / file).exists():
            raise NoEffectError
        before = (folder / file).read_text()
        try:
            real.edit_json(folder / file, change)
        except KeyError:
            raise NoEffectError from None
        real.edit_json(folder / file, lambda _: None)
        if json.loads(before) == json.loads((folder / file).read_text()):
            raise NoEffectError

    return damage


def relabel(metadata: dict[str, str]) -> Damage:
    """Return the damage that writes the weights with other metadata."""

    def damage(folder: Path) -> None:
        arrays, _ = real.read_tensors(folder / real.WEIGHTS)
        real.write_tensors(folder / real.WEIGHTS, arrays, metadata)

    return damage


def cut(name: str) -> Damage:
    """Return the damage that keeps the first half of a tensor's rows."""

    def change(arrays: real.Tensors) -> None:
        arrays[name] = arrays[name][: len(arrays[name]) // 2].copy()

    return tensors(change)


def fill(name: str, value: int) -> Damage:
    """Return the damage that sets all bytes of a tensor."""

    def change(arrays: real.Tensors) -> None:
        arrays[name] = arrays[name].copy()
        arrays[name].view(np.uint8)[...] = value

    return tensors(change)


def turn_rows(name: str) -> Damage:
    """Return the damage that turns the order of a tensor's rows around."""

    def change(arrays: real.Tensors) -> None:
        arrays[name] = arrays[name][::-1].copy()

    return tensors(change)


def exchange_rows(arrays: real.Tensors) -> None:
    """Exchange two rows of the embedding, and of the tied head beside it."""
    for name in {EMBEDDING, HEAD} & arrays.keys():
        arrays[name][[40, 90]] = arrays[name][[90, 40]]


def add_other_head(arrays: real.Tensors) -> None:
    """Put another head beside a tied embedding."""
    arrays[HEAD] = arrays[EMBEDDING][::-1].copy()


def drop_embedding(arrays: real.Tensors) -> None:
    """Lose the embedding, and the tied head beside it."""
    del arrays[EMBEDDING]
    arrays.pop(HEAD, None)


def add_layer(arrays: real.Tensors) -> None:
    """Store the last layer once more behind itself."""
    last = max(int(name.split(".")[2]) for name in arrays if name.startswith("model.layers."))
    for name in [name for name in arrays if name.startswith(f"model.layers.{last}.")]:
        arrays[name.replace(f".{last}.", f".{last + 1}.", 1)] = arrays[name].copy()


def drop_layer(arrays: real.Tensors) -> None:
    """Lose the last layer."""
    last = max(int(name.split(".")[2]) for name in arrays if name.startswith("model.layers."))
    for name in [name for name in arrays if name.startswith(f"model.layers.{last}.")]:
        del arrays[name]


def turn_words(arrays: real.Tensors) -> None:
    """Turn the bytes of a layer's codes around."""
    arrays[f"{UP}.qweight"] = arrays[f"{UP}.qweight"].byteswap()


def turn_shape(arrays: real.Tensors) -> None:
    """Say that a packed layer has its inputs for outputs."""
    arrays[f"{UP}.weight_shape"] = arrays[f"{UP}.weight_shape"][::-1].copy()


def shift_zeros(arrays: real.Tensors) -> None:
    """Flip the lowest bit of each zero point of a layer."""
    arrays[f"{DOWN}.qzeros"] ^= np.int32(0x11111111)


def turn_order(arrays: real.Tensors) -> None:
    """Turn the order of a layer's groups upside down."""
    index = arrays[f"{DOWN}.g_idx"]
    arrays[f"{DOWN}.g_idx"] = (index.max() - index).astype(index.dtype)


def leave_range(arrays: real.Tensors) -> None:
    """Name a group that is not there."""
    arrays[f"{DOWN}.g_idx"][5] = 99


def truncate(folder: Path) -> None:
    """Cut the weights off."""
    data = (folder / real.WEIGHTS).read_bytes()
    (folder / real.WEIGHTS).write_bytes(data[: len(data) * 2 // 3])


ROW, ENTRY = (slice(None), 3), (0, 3)
WEIGHTS: dict[str, Damage] = {
    "a NaN scale": tensors(real.put(f"{UP}.scales", np.nan, ENTRY)),
    "an infinite scale": tensors(real.put(f"{Q}.scales", np.inf, ENTRY)),
    "a scale of 0": tensors(real.put(f"{UP}.scales", 0, ENTRY)),
    "a group of scales 0": tensors(real.put(f"{DOWN}.scales", 0, 0)),
    "a scale of 60,000": tensors(real.put(f"{UP}.scales", 60_000, ENTRY)),
    "scales of a layer 5 % up": tensors(real.times(f"{DOWN}.scales", 1.05)),
    "scales of a layer 5 % down": tensors(real.times(f"{Q}.scales", 0.95)),
    "scales of a row 60 % up": tensors(real.times(f"{UP}.scales", 1.6, ROW)),
    "scales of a layer negative": tensors(real.times(f"{UP}.scales", -1.0)),
    "scales in another order": turn_rows(f"{UP}.scales"),
    "scales cut": cut(f"{UP}.scales"),
    "scales lost": tensors(real.drop(f"{UP}.scales")),
    "codes all equal": fill(f"{UP}.qweight", 0x77),
    "codes lost": tensors(real.drop(f"{UP}.qweight")),
    "codes turned around": tensors(turn_words),
    "codes in another order": turn_rows(f"{DOWN}.qweight"),
    "codes cut": cut(f"{DOWN}.qweight"),
    "zero points lost": tensors(real.drop(f"{UP}.qzeros")),
    "zero points off by one": tensors(shift_zeros),
    "g_idx upside down": tensors(turn_order),
    "g_idx out of range": tensors(leave_range),
    "a layer that is not packed": tensors(real.unpack(Q)),
    "two layers swapped": tensors(real.swap("model.layers.0", LAYER)),
    "q of two layers swapped": tensors(real.swap("model.layers.0.self_attn.q_proj", Q)),
    "k and v swapped": tensors(real.swap(V, K)),
    "the last layer lost": tensors(drop_layer),
    "a layer too many": tensors(add_layer),
    "a NaN in a norm": tensors(real.put(LAST_NORM, np.nan, 5)),
    "a norm 5 % up": tensors(real.times(NORM, 1.05)),
    "the last norm 5 % down": tensors(real.times(LAST_NORM, 0.95)),
    "a norm of zeros": fill(NORM, 0),
    "a norm of 60,000": tensors(real.put(NORM, 60_000, 3)),
    "a norm cut": cut(NORM),
    "a norm lost": tensors(real.drop(LAST_NORM)),
    "a bias negated": tensors(real.times(BIAS, -1.0)),
    "a bias lost": tensors(real.drop(BIAS)),
    "a bias cut": cut(BIAS),
    "a NaN in a bias": tensors(real.put(BIAS, np.nan, 0)),
    "the embedding cut by rows": cut(EMBEDDING),
    "rows of the embedding in another order": turn_rows(EMBEDDING),
    "the embedding doubled": tensors(real.times(EMBEDDING, 2.0)),
    "two rows of the embedding exchanged": tensors(exchange_rows),
    "the embedding of zeros": fill(EMBEDDING, 0),
    "the embedding lost": tensors(drop_embedding),
    "another head": tensors(add_other_head),
    "sides exchanged in weight_shape": tensors(turn_shape),
    "weight_shape lost": tensors(real.drop(f"{UP}.weight_shape")),
    "the file cut off": truncate,
    "metadata without a format": relabel({"made_by": "hand"}),
    "no metadata": relabel({}),
}
