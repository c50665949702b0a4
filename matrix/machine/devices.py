"""The device files of cards, by which a sandboxed command reaches those that it was leased."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from matrix.machine.hardware import Gpu

SHARED = (
    "nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset", "nvidia-caps",
    "nvidia-caps-imex-channels", "dxg",
)  # fmt: skip
"""What CUDA needs whatever the card; ``dxg`` is all of them on Windows' Linux."""
CARDS = Path("/proc/driver/nvidia/gpus")
"""A folder for each card, by its bus id, in which the driver says what it is."""
DEV = Path("/dev")


def devices_of(gpus: Sequence[Gpu], cards: Path = CARDS, dev: Path = DEV) -> Iterator[Path]:
    """Give the device files that processes with these cards need, and no other card's.

    A card of which the driver does not say which file is its own is reached through all files of
    cards: CUDA is still shown no more than was leased.
    """
    files = sorted(cards.glob("*/information"))  # as NVML counts: by the bus
    own = [_file(gpu, [file.read_text(errors="replace") for file in files]) for gpu in gpus]
    names = own if all(own) else [file.name for file in dev.glob("nvidia[0-9]*")]
    for name in dict.fromkeys((*names, *SHARED)):
        if (dev / name).exists():
            yield dev / name


def _file(gpu: Gpu, texts: list[str]) -> str:
    """Return the name of a card's file; of an instance made by MIG, its card's."""
    matching = [text for text in texts if f"{gpu.uuid}\n" in text]
    if gpu.divided:
        matching = texts[gpu.index : gpu.index + 1]
    minor = re.search(r"^Device Minor:\s*(\d+)$", "".join(matching), re.MULTILINE)
    return f"nvidia{minor[1]}" if minor else ""
