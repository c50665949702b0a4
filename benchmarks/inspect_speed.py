"""Measure how fast a checkpoint is inspected, and in how much memory; print a Markdown table.

    .venv/bin/python benchmarks/inspect_speed.py FOLDER [--gigabytes 4] [--sparse] [--layer]

``FOLDER`` takes a made-up checkpoint, removed at the end. By default it is of Qwen2.5-7B's shapes,
with as many layers as fill the size, and is inspected by itself; the time is compared with that of
merely reading its files in the same blocks, each in a process of its own, in turn. ``--sparse``
leaves holes for what is only read, so that a large one needs no disk. ``--layer`` makes one layer
of Qwen2.5-72B padded (29696 x 8192) beside its original instead, and compares them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec
import numpy as np

from matrix.checkpoint.inspection import ConfigFacts
from matrix.checkpoint.scanning import BUFFER_BYTES
from matrix.checkpoint.shapes import float_shapes, linear_shapes
from matrix.machine.hardware import machine

GROUP = 128
ROUNDS = 3
SMALL = ConfigFacts(
    model_type="qwen2", hidden_size=3584, intermediate_size=18944, heads=28, key_value_heads=4,
    vocabulary=152_064,
)  # fmt: skip
LARGE = ConfigFacts(
    model_type="qwen2", hidden_size=8192, intermediate_size=29696, heads=64, key_value_heads=8,
    vocabulary=1024, layers=1,
)  # fmt: skip
INSPECT = "import sys, pathlib; from matrix.checkpoint.inspecting import inspect; "
INSPECT += "inspection = inspect(*map(pathlib.Path, sys.argv[1:])); "
INSPECT += "assert inspection.modules and not inspection.problems, inspection.problems"
READ = f"""
import pathlib, sys
buffer = memoryview(bytearray({BUFFER_BYTES}))
for file in sorted(pathlib.Path(sys.argv[1]).glob("*.safetensors")):
    with file.open("rb") as handle:
        while handle.readinto(buffer): pass
"""

Write = Callable[[BinaryIO, int], None]


class Tensor(NamedTuple):
    """A tensor to write."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    write: Write

    @property
    def size(self) -> int:
        """Its bytes."""
        return int(np.prod(self.shape)) * (4 if self.dtype == "I32" else 2)


def repeated(block: bytes) -> Write:
    """Return a writer of one block again and again."""

    def write(handle: BinaryIO, size: int) -> None:
        for start in range(0, size, len(block)):
            handle.write(block[: size - start])

    return write


def hole(handle: BinaryIO, size: int) -> None:
    """Leave bytes unwritten."""
    handle.seek(size, os.SEEK_CUR)


def halves(size: float) -> Write:
    """Return a writer of random float16 of about this size, none of them zero."""
    values = np.random.default_rng(0).normal(1, 0.1, BUFFER_BYTES // 2) * size
    return repeated(values.astype(np.float16).tobytes())


def tensors(config: ConfigFacts, large: Write, codes: Write) -> Iterator[Tensor]:
    """Yield the tensors of a GPTQ checkpoint."""
    linears = linear_shapes(config)
    for name, shape in float_shapes(config, tied=False).items():
        if name.removesuffix(".weight") not in linears:
            yield Tensor(name, "F16", shape, large if len(shape) == 2 else halves(1))
    for module, (outputs, inputs) in linears.items():
        groups = inputs // GROUP
        index = np.repeat(np.arange(groups, dtype="<i4"), GROUP).tobytes()
        zeros = repeated(b"\x77" * BUFFER_BYTES)
        yield Tensor(f"{module}.g_idx", "I32", (inputs,), repeated(index))
        yield Tensor(f"{module}.qweight", "I32", (inputs // 8, outputs), codes)
        yield Tensor(f"{module}.qzeros", "I32", (groups, outputs // 8), zeros)
        yield Tensor(f"{module}.scales", "F16", (groups, outputs), halves(0.01))


def write(directory: Path, config: ConfigFacts, parts: list[Tensor], quantized: bool) -> None:
    """Write a model of one file."""
    directory.mkdir(parents=True)
    written: dict[str, object] = {
        "model_type": config.model_type,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.key_value_heads,
        "vocab_size": config.vocabulary,
        "tie_word_embeddings": False,
    }
    if quantized:
        scheme = {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "sym": True}
        written["quantization_config"] = scheme
    (directory / "config.json").write_text(json.dumps(written))
    header, offset = {}, 0
    for part in parts:
        offsets = [offset, offset + part.size]
        header[part.name] = {"dtype": part.dtype, "shape": part.shape, "data_offsets": offsets}
        offset += part.size
    text = json.dumps(header).encode()
    with (directory / "model.safetensors").open("wb") as handle:
        handle.write(len(text).to_bytes(8, "little") + text)
        for part in parts:
            part.write(handle, part.size)
        handle.truncate(handle.tell())


def child(code: str, *arguments: Path) -> tuple[float, int]:
    """Return the seconds and the peak of resident bytes of a Python process.

    It says its peak itself: what the parent is told includes the parent's own before the exec.
    """
    code += (
        "\nimport re; print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
    )
    start = time.perf_counter()
    command = [sys.executable, "-c", code, *map(str, arguments)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return time.perf_counter() - start, int(output) * 1024


def measure_file(folder: Path, gigabytes: float, sparse: bool) -> None:
    """Print how inspecting a checkpoint by itself compares with reading it."""
    large = hole if sparse else halves(0.02)
    codes = hole if sparse else repeated(np.random.default_rng(1).bytes(BUFFER_BYTES))
    with_one_layer = [part.size for part in tensors(_layers(SMALL, 1), large, codes)]
    with_two_layers = [part.size for part in tensors(_layers(SMALL, 2), large, codes)]
    layer = sum(with_two_layers) - sum(with_one_layer)
    config = _layers(SMALL, max(round((gigabytes * 1e9 - sum(with_one_layer)) / layer) + 1, 1))
    write(folder, config, list(tensors(config, large, codes)), quantized=True)
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    idle = "import matrix.checkpoint.inspecting"
    runs = [[child(code, folder) for code in (idle, READ, INSPECT)] for _ in range(ROUNDS)]
    start, read, inspect = (statistics.median(run[i][0] for run in runs) for i in range(3))
    speeds = size / read / 1e9, size / (inspect - start) / 1e9
    print("| what | value |\n|---|---|")
    print(f"| checkpoint | {size / 1e9:.1f} GB{', with holes' if sparse else ''} |")
    print(f"| reading in blocks of {BUFFER_BYTES} bytes | {speeds[0]:.2f} GB/s |")
    print(f"| inspecting, after {start:.2f} s of imports | {speeds[1]:.2f} GB/s |")
    print(f"| share of the speed of reading | {speeds[1] / speeds[0]:.2f} |")
    print(f"| peak resident memory | {max(run[2][1] for run in runs) / 1e6:.0f} MB |")


def _layers(config: ConfigFacts, layers: int) -> ConfigFacts:
    return msgspec.structs.replace(config, layers=layers)


def measure_layer(folder: Path) -> None:
    """Print what comparing one large layer with its original takes."""
    checkpoint, original = folder / "checkpoint", folder / "original"
    codes = repeated(np.random.default_rng(1).bytes(BUFFER_BYTES))
    write(checkpoint, LARGE, list(tensors(LARGE, halves(0.02), codes)), quantized=True)
    shapes = float_shapes(LARGE, tied=False)
    plain = [Tensor(name, "F16", shape, halves(0.02)) for name, shape in shapes.items()]
    write(original, LARGE, plain, quantized=False)
    weights = sum(outputs * inputs for outputs, inputs in linear_shapes(LARGE).values())
    seconds, peak = child(INSPECT, checkpoint, original)
    print("| what | value |\n|---|---|")
    print(
        f"| one layer of {weights / 1e6:.0f} million weights, with its original | {seconds:.1f} s |"
    )
    print(f"| speed | {weights / seconds / 1e6:.0f} million weights/s |")
    print(f"| peak resident memory | {peak / 1e6:.0f} MB |")


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gigabytes", type=float, default=4)
    parser.add_argument("--sparse", action="store_true")
    parser.add_argument("--layer", action="store_true")
    options = parser.parse_args()
    try:
        if options.layer:
            measure_layer(options.folder)
        else:
            measure_file(options.folder, options.gigabytes, options.sparse)
    finally:
        shutil.rmtree(options.folder, ignore_errors=True)
    print(f"\n{machine()}")


if __name__ == "__main__":
    main()
