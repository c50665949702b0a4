"""A made-up NVML: cards that are there only in the tests, and drivers that are broken."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from matrix.machine.hardware import Gpu, Machine

GIB = 2**30


class NvmlError(Exception):
    """As ``pynvml.NVMLError``."""


class Memory(NamedTuple):
    total: int


class Process(NamedTuple):
    pid: int


class Card(msgspec.Struct):
    """A card or an instance of one. What is ``None``, the driver does not support."""

    uuid: str
    name: str | None = "NVIDIA H100 80GB HBM3"
    memory: int | None = 80 * GIB
    capability: tuple[int, int] | None = (9, 0)
    instances: list[Card | None] | None = None
    """By MIG; ``None`` among them is a slot that is not used."""
    processes: list[int] | None = []


def _supported(value: Any) -> Any:
    if value is None:
        raise NvmlError("Not Supported")
    return value


class MadeUpNvml:
    """Answers for given cards; ``broken`` names the functions that fail."""

    NVMLError: type[Exception] = NvmlError

    def __init__(self, cards: list[Card], broken: tuple[str, ...] = ()) -> None:
        self._cards = cards
        self._broken = broken
        self.open = 0

    def __getattribute__(self, name: str) -> Any:
        attribute = object.__getattribute__(self, name)
        if name.startswith("nvml") and name in object.__getattribute__(self, "_broken"):
            return _fail
        return attribute

    def nvmlInit(self) -> None:  # noqa: N802
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "570.86.15"

    def nvmlSystemGetCudaDriverVersion(self) -> int:  # noqa: N802
        return 12080

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self._cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Card:  # noqa: N802
        return self._cards[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Card:  # noqa: N802
        parts = [part for card in self._cards for part in card.instances or [] if part]
        matching = next((card for card in [*self._cards, *parts] if card.uuid == uuid), None)
        card: Card = _supported(matching)
        return card

    def nvmlDeviceGetUUID(self, handle: Card) -> str:  # noqa: N802
        return handle.uuid

    def nvmlDeviceGetName(self, handle: Card) -> str:  # noqa: N802
        return str(_supported(handle.name))

    def nvmlDeviceGetMemoryInfo(self, handle: Card) -> Memory:  # noqa: N802
        return Memory(_supported(handle.memory))

    def nvmlDeviceGetCudaComputeCapability(self, handle: Card) -> tuple[int, int]:  # noqa: N802
        capability: tuple[int, int] = _supported(handle.capability)
        return capability

    def nvmlDeviceGetMigMode(self, handle: Card) -> list[int]:  # noqa: N802
        return [int(bool(_supported(handle.instances))), 0]

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: Card) -> int:  # noqa: N802
        return len(_supported(handle.instances))

    def nvmlDeviceGetMigDeviceHandleByIndex(self, device: Card, index: int) -> Card:  # noqa: N802
        card: Card = _supported((device.instances or [])[index])
        return card

    def nvmlDeviceGetComputeRunningProcesses(self, handle: Card) -> list[Process]:  # noqa: N802
        return [Process(pid) for pid in _supported(handle.processes)]


def _fail(*_: object) -> Any:
    raise NvmlError("Unknown Error")


def machine(*gpus: Gpu, cuda: str = "12.8", memory: int = 64 * GIB) -> Machine:
    """Return a machine with made-up cards."""
    driver = "570.86.15" if gpus else ""
    return Machine(
        processor="made up", cores=8, memory=memory, system="Linux x86_64", driver=driver,
        cuda=cuda if gpus else "", gpus=list(gpus),
    )  # fmt: skip


def gpu(index: int = 0, memory: int = 80 * GIB, capability: str = "9.0", uuid: str = "") -> Gpu:
    """Return a made-up card."""
    return Gpu(index, uuid or f"GPU-made-up-{index}", "made up", memory, capability)
