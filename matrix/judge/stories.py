"""What a cell's own page tells beyond its result: what each stage left, as observed."""

from __future__ import annotations

import msgspec

from matrix.pipeline.steps import Stage


class StageStory(msgspec.Struct, frozen=True, kw_only=True):
    """What one stage of a cell left behind; all texts are untrusted."""

    stage: Stage
    at: str = ""
    """ISO time of its end, UTC."""
    run: str = ""
    attempt: int = 1
    device: str = ""
    machine: dict[str, str] = {}
    seconds: float = 0.0
    peak_bytes: int = 0
    exception: str = ""
    traceback: str = ""
    warnings: list[str] = []
    log: str = ""
    """The last part of what it printed."""


class CellStory(msgspec.Struct, frozen=True, kw_only=True):
    """What all stages of a cell left behind."""

    stages: list[StageStory] = []
    """Those that were observed, in order."""
