"""An engine and a quantizer on made-up GPUs: what torch would say of them, a made-up torch says.

What they do otherwise is as in ``behaviours.py``, by the options ``behaviour`` and ``at``.
"""

import os
import signal
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from . import behaviours, builder

Json = dict[str, Any]

_held: list[int] = []
"""Bytes that this process has put on its first card, once it has."""


def import_package(_options: Json) -> None:
    """Put a torch in place whose GPUs are those that the process is shown."""
    shown = [uuid for uuid in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if uuid]
    if os.environ.get("MADE_UP_TORCH") == "cpu":
        shown = []
    if os.environ.get("MADE_UP_TORCH") == "cuda":
        shown = ["GPU-of-somebody-else"]
    if Path.home().joinpath("driver-is-gone").exists():
        shown = []
    torch: Any = ModuleType("torch")
    torch.cuda = ModuleType("torch.cuda")
    torch.cuda.is_available = lambda: bool(shown)
    torch.cuda.is_initialized = lambda: bool(shown)
    torch.cuda.device_count = lambda: len(shown)
    torch.cuda.max_memory_allocated = lambda card: _held[0] + card if _held else 0
    sys.modules["torch"] = torch


def build(job: Json) -> Json:
    """Build the model, on the CPU."""
    return builder.build(job)


def load(job: Json) -> tuple[Json, Json]:
    """Load nothing; say on which GPUs, and in which process."""
    _die("load", job)
    handle, facts = behaviours.load(job)
    return handle, {**facts, **_place(job)}


def process() -> str:
    """Return what tells this process from all others: each sandbox counts ids anew."""
    began = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    return f"{os.getpid()} {began}"


def generate(handle: Json, job: Json) -> Json:
    """Give the right answers, and in which process."""
    _die("generate", job)
    return {**behaviours.generate(handle, job), **_place(job)}


def quantize(job: Json) -> Json:
    """Copy the model."""
    _die("quantize", job)
    return {**behaviours.quantize(job), **_place(job)}


def _place(job: Json) -> Json:
    """Put something on the card; ``elsewhere`` on none, ``workers`` in other processes."""
    behaviour = job["options"]["behaviour"]
    if behaviour not in ("elsewhere", "workers"):
        _held[:] = [1000]
    theirs = {"device": "cuda", "gpu_peak_bytes": 2000} if behaviour == "workers" else {}
    shown = os.environ["CUDA_VISIBLE_DEVICES"]
    return {"shown": shown, "forked": behaviours.forked(), "process": process(), **theirs}


def _die(step: str, job: Json) -> None:
    options = job["options"]
    behaviour = options.get("behaviour") if options.get("at") == step else ""
    if behaviour == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour == "no-memory":
        raise MemoryError
