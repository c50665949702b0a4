"""What the machine is that evidence is made on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import psutil


def machine() -> dict[str, str]:
    """Return processor, cores, memory and system, in words. No host name, no path."""
    return {
        "processor": _processor(),
        "cores": str(psutil.cpu_count() or 0),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.machine()}",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def environments_at_once(memory_mb: int) -> int:
    """Return how many environments to work on side by side, each within ``memory_mb`` (10^6 bytes).

    One a core: a probe's work is mostly one thread's.
    """
    cores = len(os.sched_getaffinity(0))
    return max(1, min(cores, psutil.virtual_memory().total // (memory_mb * 10**6)))
