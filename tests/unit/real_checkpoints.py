"""The checkpoints of ``tests/checkpoints``, copies of them, and what is planted in a copy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from matrix.checkpoint.inspecting import inspect
from matrix.checks import run_checks
from matrix.checks.evidence import Evidence, Thresholds
from matrix.judge.cells import thresholds
from matrix.pipeline.outcomes import Judgement
from matrix.pipeline.steps import Stage
from matrix.spec.loading import load
from tests.unit.made_evidence import alarms

Array = npt.NDArray[Any]
Tensors = dict[str, Array]
Damage = Callable[[Tensors], object]
Alarms = dict[str, Judgement]
Config = dict[str, Any]

FOLDER = Path(__file__).parents[1] / "checkpoints"
FLOAT = FOLDER / "float" / "model"
AWQ = "autoawq-0.2.9-4bit-g64"
DROPPED = "autoawq-0.2.7-4bit-g64"
STOCK = "autoawq-0.2.9-4bit-g64-stock"
AUTO_GPTQ = "auto-gptq-0.7.1-4bit-g64"
DESC_ACT = "auto-gptq-0.7.1-4bit-g64-desc_act"
GPTQ = "gptqmodel-7.6.0-4bit-g64"
GPTQ_8 = "gptqmodel-7.6.0-8bit-g128"
LLM_GPTQ = "llmcompressor-0.14.0.1-gptq-4bit-g64"
LLM_AWQ = "llmcompressor-0.14.0.1-awq-4bit-g64"
W8A8 = "llmcompressor-0.14.0.1-w8a8"
FP8 = "llmcompressor-0.14.0.1-fp8"
ROUND_AWQ = "auto-round-0.16.1-awq-4bit-g64"
COMPRESSED = (LLM_GPTQ, LLM_AWQ, W8A8, FP8)
GOOD_GPTQ = (AUTO_GPTQ, DESC_ACT, GPTQ, GPTQ_8)
GOOD = (AWQ, *GOOD_GPTQ)

NEW_ENGINE = {"transformers": "5.23.0", "tokenizers": "0.22.1"}
"""Reads every form that the fixtures are written in."""

BF16 = np.dtype([("upper", "<u2")])
"""numpy has no such type: the upper half of a float32."""
E4M3 = np.dtype([("code", "u1")])
_NUMPY: dict[str, Any] = {
    "F16": "<f2", "BF16": BF16, "F32": "<f4", "I32": "<i4", "I8": "<i1", "I64": "<i8",
    "F8_E4M3": E4M3,
}  # fmt: skip
_NAMES = {np.dtype(kind): name for name, kind in _NUMPY.items()}
WEIGHTS = "model.safetensors"


def read_tensors(file: Path) -> tuple[Tensors, dict[str, str]]:
    """Return the arrays of a safetensors file and its metadata."""
    data = file.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    metadata = header.pop("__metadata__", {})
    return {
        name: np.frombuffer(data[start:][slice(*entry["data_offsets"])], _NUMPY[entry["dtype"]])
        .reshape(entry["shape"])
        .copy()
        for name, entry in header.items()
    }, metadata


def write_tensors(file: Path, tensors: Tensors, metadata: dict[str, str]) -> None:
    """Write arrays as safetensors, in the order given."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for name, array in tensors.items():
        start, end = end, end + array.nbytes
        header[name] = {
            "dtype": _NAMES[array.dtype], "shape": array.shape, "data_offsets": [start, end],
        }  # fmt: skip
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    bodies = [np.ascontiguousarray(array).tobytes() for array in tensors.values()]
    file.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(bodies))


def copied(name: str, folder: Path) -> Path:
    """Return a copy of a fixture, to spoil."""
    return Path(shutil.copytree(FOLDER / name, folder / name))


def damaged(name: str, folder: Path, damage: Damage) -> Path:
    """Return a copy of a fixture with its tensors damaged."""
    checkpoint = copied(name, folder)
    tensors, metadata = read_tensors(checkpoint / WEIGHTS)
    damage(tensors)
    write_tensors(checkpoint / WEIGHTS, tensors, metadata)
    return checkpoint


def edit_json(file: Path, change: Callable[[Config], object]) -> None:
    """Change a JSON file in place."""
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def configured(name: str, folder: Path, change: Callable[[Config], object]) -> Path:
    """Return a copy of a fixture with its config.json changed."""
    checkpoint = copied(name, folder)
    edit_json(checkpoint / "config.json", change)
    return checkpoint


@cache
def _thresholds() -> Thresholds:
    return thresholds(load())


def alarms_of(
    checkpoint: Path,
    original: Path | None = FLOAT,
    *,
    engine: dict[str, str] = NEW_ENGINE,
    tensor_parallel: int = 1,
    quantized: bool = True,
) -> Alarms:
    """Return the checks of the ``inspect`` stage that are not quiet, with the spec's thresholds."""
    evidence = Evidence(
        tied=True,
        quantized=quantized,
        thresholds=_thresholds(),
        engine=engine,
        tensor_parallel=tensor_parallel,
        inspection=inspect(checkpoint, original),
    )
    return alarms(run_checks(evidence, Stage.INSPECT))


def floats(array: Array) -> Array:
    """Return 16-bit numbers as float32."""
    if array.dtype == BF16:
        return (array["upper"].astype(np.uint32) << np.uint32(16)).view(np.float32)
    return array.astype(np.float32)


def like(values: Array, array: Array) -> Array:
    """Return numbers in the type of an array."""
    if array.dtype == BF16:
        upper = np.ascontiguousarray(values, np.float32).view(np.uint32) >> np.uint32(16)
        return upper.astype(np.uint16).view(BF16)
    return values.astype(array.dtype)


def put(name: str, value: float, where: Any = 0) -> Damage:
    """Set some numbers of a tensor."""

    def damage(tensors: Tensors) -> None:
        values = floats(tensors[name])
        values[where] = value
        tensors[name] = like(values, tensors[name])

    return damage


def times(name: str, factor: float, where: Any = ...) -> Damage:
    """Multiply some numbers of a tensor."""

    def damage(tensors: Tensors) -> None:
        values = floats(tensors[name])
        values[where] *= np.float32(factor)
        tensors[name] = like(values, tensors[name])

    return damage


def drop(*names: str) -> Damage:
    """Remove tensors."""

    def damage(tensors: Tensors) -> None:
        for name in names:
            del tensors[name]

    return damage


def unpack(module: str) -> Damage:
    """Remove all parts of a packed layer."""

    def damage(tensors: Tensors) -> None:
        for part in ("qweight", "qzeros", "scales", "g_idx"):
            tensors.pop(f"{module}.{part}", None)

    return damage


def add(name: str, array: Array) -> Damage:
    """Add a tensor, or put it in another's place."""

    def damage(tensors: Tensors) -> None:
        tensors[name] = array

    return damage


def rename(old: str, new: str) -> Damage:
    """Give a tensor another name."""

    def damage(tensors: Tensors) -> None:
        tensors[new] = tensors.pop(old)

    return damage


def swap(module: str, other: str) -> Damage:
    """Exchange all tensors of two modules."""

    def damage(tensors: Tensors) -> None:
        for name in [name for name in tensors if name.startswith(f"{module}.")]:
            twin = other + name.removeprefix(module)
            tensors[name], tensors[twin] = tensors[twin], tensors[name]

    return damage
