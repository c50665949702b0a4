"""What the machine is that evidence is made on."""

from __future__ import annotations

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
