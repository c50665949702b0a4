"""What a cell's own page tells beyond its result: what each stage left, as observed. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from matrix.pipeline.steps import Stage
from matrix.store.observations import Observation
from matrix.untrusted.text import counted

TRACEBACK_CHARS = 20_000
LOG_CHARS = 10_000
WARNINGS = 20
WARNING_CHARS = 500
FIELD_CHARS = 500

_COLOUR = re.compile(r"\x1b\[[0-9;]{0,20}m")
_OWN_FRAME = r'  File "<repository>/matrix/probe/[^\n]*\n(?:    [^\n]*\n)*'
"""A frame of the probe: where it is, and the lines under it."""
_OWN_FRAMES = re.compile(f"(?:{_OWN_FRAME})+")


class StageStory(msgspec.Struct, frozen=True, kw_only=True):
    """What one stage of a cell left behind; all texts are untrusted."""

    stage: Stage
    at: str = ""
    """ISO time of its end, UTC."""
    machine: dict[str, str] = {}
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


def story_of(observations: Mapping[Stage, Observation]) -> CellStory:
    """Return what the stages of a cell left behind, by what was observed of each."""
    return CellStory(
        stages=[
            _stage_story(stage, observations[stage]) for stage in Stage if stage in observations
        ]
    )


def _stage_story(stage: Stage, observation: Observation) -> StageStory:
    machine = observation.made_on.items()
    return StageStory(
        stage=stage,
        at=_storable(observation.at[:FIELD_CHARS]),
        machine={_storable(name): _storable(value) for name, value in machine},
        peak_bytes=observation.peak_bytes,
        exception=_storable(observation.exception[:FIELD_CHARS]),
        traceback=_storable(_traceback(observation.traceback)),
        warnings=[_storable(w[:WARNING_CHARS]) for w in observation.warnings[:WARNINGS]],
        log=_storable(_end(_as_on_a_terminal(observation.log), LOG_CHARS)),
    )


def _storable(text: str) -> str:
    """Return a text that UTF-8 can hold: a question mark stands for each lone surrogate."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _traceback(text: str) -> str:
    """Return the end of a traceback, in which the frames of our own probe are only counted."""
    return _end(_OWN_FRAMES.sub(_count, text), TRACEBACK_CHARS)


def _count(frames: re.Match[str]) -> str:
    number = len(re.findall(_OWN_FRAME, frames[0]))
    return f"  ({counted(number, 'frame')} of the probe)\n"


def _as_on_a_terminal(text: str) -> str:
    """Return a log without colours, and of a line that was written over only its last state."""
    lines = _COLOUR.sub("", text).replace("\r\n", "\n").split("\n")
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)


def _end(text: str, limit: int) -> str:
    """Return the last characters of a text, and before them how many are left out."""
    left = len(text) - limit
    return text if left <= 0 else f"({left} characters before this)\n{text[-limit:]}"
