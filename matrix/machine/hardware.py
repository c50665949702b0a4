"""What the machine has that evidence is made on, and who is computing on its cards.

GPUs are asked for through NVML, the driver's own interface (``nvidia-ml-py``, which imports as
``pynvml``): it needs neither torch nor CUDA. Where there is no GPU or no driver that answers, there
are simply no GPUs, with a note why.
"""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Protocol, TypeVar, cast

import msgspec
import psutil

from matrix.machine import processor
from matrix.pipeline.steps import Device

T = TypeVar("T")
NAME_CHARS = 100


class Nvml(Protocol):
    """The part of ``pynvml`` that is used here, so that a made-up one can stand in for it."""

    NVMLError: type[Exception]

    def nvmlInit(self) -> object: ...  # noqa: D102, N802
    def nvmlShutdown(self) -> object: ...  # noqa: D102, N802
    def nvmlSystemGetDriverVersion(self) -> str: ...  # noqa: D102, N802
    def nvmlSystemGetCudaDriverVersion(self) -> int: ...  # noqa: D102, N802
    def nvmlDeviceGetCount(self) -> int: ...  # noqa: D102, N802
    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any: ...  # noqa: D102, N802
    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Any: ...  # noqa: D102, N802
    def nvmlDeviceGetUUID(self, handle: Any) -> str: ...  # noqa: D102, N802
    def nvmlDeviceGetName(self, handle: Any) -> str: ...  # noqa: D102, N802
    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any: ...  # noqa: D102, N802
    def nvmlDeviceGetCudaComputeCapability(self, handle: Any) -> Any: ...  # noqa: D102, N802
    def nvmlDeviceGetMigMode(self, handle: Any) -> Any: ...  # noqa: D102, N802
    def nvmlDeviceGetMaxMigDeviceCount(self, handle: Any) -> int: ...  # noqa: D102, N802
    def nvmlDeviceGetMigDeviceHandleByIndex(  # noqa: D102, N802
        self, device: Any, index: int
    ) -> Any: ...
    def nvmlDeviceGetComputeRunningProcesses(self, handle: Any) -> Any: ...  # noqa: D102, N802


class Gpu(msgspec.Struct, frozen=True):
    """A card, or the instance of a card that MIG divides, as NVML tells of it."""

    index: int
    """The card's, in the order of the PCI bus."""
    uuid: str
    name: str
    memory: int
    """Bytes in all."""
    capability: str
    """Compute capability, as in ``8.0``."""

    @property
    def divided(self) -> bool:
        """Whether it is an instance made by MIG. CUDA lets a process use one such alone."""
        return self.uuid.startswith("MIG-")


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine has."""

    processor: str
    cores: int
    memory: int
    """Bytes."""
    system: str
    features: list[str] = []
    """Of the CPU, in the kernel's words: ``avx2``, ``avx512f``, ``amx_tile``."""
    instruction_set: str = ""
    """The CPU's level and what it has beyond it, as in ``x86-64-v4, avx512_bf16``."""
    driver: str = ""
    cuda: str = ""
    """The newest CUDA that the driver offers, as in ``12.8``."""
    gpus: list[Gpu] = []
    note: str = ""
    """Why there is no GPU, or why one was left out."""

    def facts(self) -> dict[str, str]:
        """Return it in words, for records: no name of a host, no path, no UUID."""
        words = {
            "processor": self.processor,
            "cores": str(self.cores),
            "memory": f"{self.memory / 2**30:.0f} GiB",
            "system": self.system,
            "instruction set": self.instruction_set,
            "features": ", ".join(self.features),
            "gpus": gpus_in_words(self.gpus),
            "driver": self.driver,
            "cuda": self.cuda,
        }
        return {name: value for name, value in words.items() if value}


def gpus_in_words(gpus: list[Gpu]) -> str:
    """Return cards in words, like ones together: ``2 x NVIDIA L4, 24 GiB, capability 8.9``."""
    alike = Counter(
        f"{gpu.name}, {gpu.memory / 2**30:.0f} GiB, capability {gpu.capability}" for gpu in gpus
    )
    return "; ".join(f"{count} x {words}" for words, count in sorted(alike.items()))


def device_of(device: Device, machine: Machine) -> str:
    """Return the word for a device in keys: ``cpu`` with what it can do, or ``cuda`` with that.

    As in ``cpu x86-64-v4, avx512_bf16`` and ``cuda 8.0, 8.9``.
    """
    if device == "cpu":
        return f"cpu {machine.instruction_set}".strip()
    capabilities = sorted({gpu.capability for gpu in machine.gpus}, key=version)
    return f"cuda {', '.join(capabilities)}".strip()


def version(text: str) -> tuple[int, ...]:
    """Return ``12.8`` as (12, 8); what is no number counts as 0, and the empty text as ()."""
    parts = text.split(".") if text else []
    return tuple(int(part) if part.isdecimal() else 0 for part in parts)


def detect(nvml: Nvml | None = None, host: Mapping[str, str] = os.environ) -> Machine:
    """Return what this machine has. Raises nothing: what cannot be found out is left empty.

    Args:
        nvml: What to ask for GPUs; the driver's own where it is left out.
        host: The host's variables. Where ``CUDA_VISIBLE_DEVICES`` is among them, as a scheduler
            sets it, cards that it does not name are left out; all are where it cannot be told
            which it names.
    """
    driver, cuda, gpus, note = _gpus(nvml or _nvml())
    if (visible := host.get("CUDA_VISIBLE_DEVICES")) is not None:
        by_bus = host.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
        gpus, hidden = _shown(gpus, visible, by_bus)
        note = hidden or note
    cpu_features = processor.features()
    return Machine(
        processor=processor.name(),
        cores=psutil.cpu_count() or 0,
        memory=psutil.virtual_memory().total,
        system=f"{platform.system()} {platform.machine()}",
        features=cpu_features,
        instruction_set=processor.instruction_set(cpu_features),
        driver=driver,
        cuda=cuda,
        gpus=gpus,
        note=note,
    )


def processes_on(uuid: str, nvml: Nvml | None = None) -> list[int]:
    """Return the ids of the processes that compute on a card; empty where nobody can say."""
    nvml = nvml or _nvml()
    try:
        nvml.nvmlInit()
        try:
            handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
            running = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
            return sorted(process.pid for process in running)
        finally:
            nvml.nvmlShutdown()
    except nvml.NVMLError:
        return []


def machine() -> dict[str, str]:
    """Return this machine in words, as :meth:`Machine.facts` does."""
    return detect().facts()


def environments_at_once(memory_mb: int) -> int:
    """Return how many environments to work on side by side, each within ``memory_mb`` (10^6 bytes).

    One a core: a probe's work is mostly one thread's.
    """
    cores = len(os.sched_getaffinity(0))
    return max(1, min(cores, psutil.virtual_memory().total // (memory_mb * 10**6)))


def _nvml() -> Nvml:
    import pynvml  # type: ignore[import-untyped]  # only who looks for GPUs waits for it

    return cast(Nvml, pynvml)


def _gpus(nvml: Nvml) -> tuple[str, str, list[Gpu], str]:
    """Return the driver, its CUDA, the cards, and a note where something was left out."""
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return "", "", [], f"no NVIDIA driver answers: {_short(error)}"
    try:
        driver = _query(nvml, nvml.nvmlSystemGetDriverVersion, "")
        cuda = _query(nvml, nvml.nvmlSystemGetCudaDriverVersion, 0)
        gpus: list[Gpu] = []
        notes = []
        for index in range(_query(nvml, nvml.nvmlDeviceGetCount, 0)):
            try:
                gpus += _card(nvml, index)
            except nvml.NVMLError as error:  # fallen off the bus, or not ours to ask for
                notes.append(f"GPU {index} was left out: {_short(error)}")
        if not gpus and not notes:
            notes = ["the driver knows of no GPU"]
        offered = f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else ""
        return _short(driver), offered, gpus, "; ".join(notes)
    finally:
        _query(nvml, nvml.nvmlShutdown, None)


def _card(nvml: Nvml, index: int) -> Iterator[Gpu]:
    """Give a card, or instead of one that MIG divides each of its instances."""
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    # Cards that know no MIG answer that they do not support it.
    mode = _query(nvml, lambda: nvml.nvmlDeviceGetMigMode(handle)[0], 0)
    parts = _instances(nvml, handle) if mode else [handle]
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    name = _short(_query(nvml, lambda: nvml.nvmlDeviceGetName(handle), "GPU"))
    for part in parts:
        memory = _query(nvml, lambda: int(nvml.nvmlDeviceGetMemoryInfo(part).total), 0)  # noqa: B023
        yield Gpu(index, nvml.nvmlDeviceGetUUID(part), name, memory, f"{major}.{minor}")


def _instances(nvml: Nvml, handle: Any) -> list[Any]:
    handles = []
    for number in range(_query(nvml, lambda: nvml.nvmlDeviceGetMaxMigDeviceCount(handle), 0)):
        with suppress(nvml.NVMLError):  # there may be fewer than there could be
            handles.append(nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number))
    return handles


def _query(nvml: Nvml, question: Callable[[], T], otherwise: T) -> T:
    try:
        return question()
    except nvml.NVMLError:
        return otherwise


def _short(text: object) -> str:
    return "".join(c for c in str(text) if c.isprintable())[:NAME_CHARS]


def _shown(gpus: list[Gpu], visible: str, by_bus: bool) -> tuple[list[Gpu], str]:
    """Return the cards that CUDA would show, and a note where it is not all of them.

    Entries are numbers, or how a UUID begins. CUDA shows what stands before the first that is
    invalid, and nothing where one is repeated (CUDA C++ Programming Guide, "CUDA Environment
    Variables"; ``torch.cuda._parse_visible_devices``). It counts the fastest first, NVML by bus.
    """
    alike = len({(gpu.name, gpu.memory, gpu.capability) for gpu in gpus}) <= 1
    named: list[Gpu] = []
    for entry in (entry.strip() for entry in visible.split(",")):
        if _is_number(entry) and not (by_bus or alike):
            why = "CUDA_VISIBLE_DEVICES counts GPUs that are not alike, so no GPU is used"
            return [], f"{why}: set CUDA_DEVICE_ORDER=PCI_BUS_ID for both, or name them by UUID"
        matching = [gpu for gpu in gpus if _is_named(gpu, entry)]
        if not matching or (len(matching) > 1 and not _is_number(entry)):
            break
        if any(gpu in named for gpu in matching):
            named = []
            break
        named += matching
    if len(named) == len(gpus):
        return gpus, ""
    note = f"CUDA_VISIBLE_DEVICES shows {len(named)} of {len(gpus)} GPUs"
    return [gpu for gpu in gpus if gpu in named], note


def _is_named(gpu: Gpu, entry: str) -> bool:
    if _is_number(entry):
        return str(gpu.index) == entry
    return "-" in entry and gpu.uuid.startswith(entry)


def _is_number(entry: str) -> bool:
    return entry.isascii() and entry.isdecimal()
