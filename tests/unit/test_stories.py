"""What the stages of a cell left behind: within bounds, and with our own frames folded."""

from __future__ import annotations

from typing import Any

import pytest

from matrix.judge.stories import (
    LOG_CHARS,
    TRACEBACK_CHARS,
    WARNING_CHARS,
    WARNINGS,
    StageStory,
    story_of,
)
from matrix.pipeline.outcomes import Outcome
from matrix.pipeline.steps import Stage, Step
from matrix.store.observations import Observation

TRACEBACK = """\
Traceback (most recent call last):
  File "<repository>/matrix/probe/child.py", line 180, in record_stage
    facts = action()
            ^^^^^^^^
  File "<repository>/matrix/probe/quantizers/autoawq.py", line 16, in import_package
    import awq  # noqa: F401
  File "<environment>/lib/python3.11/site-packages/awq/__init__.py", line 24, in <module>
    from awq.models.auto import AutoAWQForCausalLM
  File "<repository>/matrix/probe/engines/wna16.py", line 1, in multiply
ModuleNotFoundError: No module named 'transformers.models.qwen3'
"""


def observed(**more: Any) -> Observation:
    return Observation(
        Outcome.PASSED, key="k", inputs={}, step=Step.LOAD, subject="a/b/c/d", **more
    )


def stage_of(**more: Any) -> StageStory:
    (stage,) = story_of({Stage.LOAD: observed(**more)}).stages
    return stage


def test_stages_stand_in_their_order_and_say_when_and_where() -> None:
    facts: dict[str, Any] = {"at": "2026-11-30T01:02:03+00:00"}
    load = observed(peak_bytes=7, machine={"system": "Linux"}, **facts)
    story = story_of({Stage.LOAD: load, Stage.QUANTIZER_IMPORT: observed()})
    assert [stage.stage for stage in story.stages] == [Stage.QUANTIZER_IMPORT, Stage.LOAD]
    assert story.stages[1] == StageStory(
        stage=Stage.LOAD,
        peak_bytes=7,
        machine={"system": "Linux", "sandbox": "none"},
        **facts,
    )


def test_frames_of_the_probe_are_folded_and_those_of_packages_stay() -> None:
    assert stage_of(traceback=TRACEBACK).traceback.splitlines() == [
        "Traceback (most recent call last):",
        "  (2 frames of the probe)",
        '  File "<environment>/lib/python3.11/site-packages/awq/__init__.py", line 24, in <module>',
        "    from awq.models.auto import AutoAWQForCausalLM",
        "  (1 frame of the probe)",
        "ModuleNotFoundError: No module named 'transformers.models.qwen3'",
    ]


def test_texts_are_bounded_and_their_ends_are_kept() -> None:
    stage = stage_of(
        traceback="x" * TRACEBACK_CHARS + "last frame",
        log="y" * LOG_CHARS + "last line",
        warnings=["w" * 9999] * 99,
    )
    assert stage.traceback.startswith("(10 characters before this)\nxxx")
    assert stage.traceback.endswith("xlast frame")
    assert stage.log.startswith("(9 characters before this)\nyyy")
    assert stage.log.endswith("ylast line")
    assert stage.warnings == ["w" * WARNING_CHARS] * WARNINGS


@pytest.mark.parametrize(
    ("log", "shown"),
    [
        ("\x1b[1mQwen2\x1b[0m\n", "Qwen2\n"),
        ("0%\r50%\r100%\ndone\r\n", "100%\ndone\n"),
        ("0%\r100%\r\n", "100%\n"),
        ("\x1b]0;title\x07", "\x1b]0;title\x07"),  # shown as pictures, like whatever else is odd
    ],
)
def test_a_log_reads_as_it_did_on_a_terminal(log: str, shown: str) -> None:
    assert stage_of(log=log).log == shown


def test_lone_surrogates_become_question_marks_in_all_texts() -> None:
    bad = "a\ud800b"
    stage = stage_of(
        at=bad, machine={bad: bad}, exception=bad, traceback=bad, warnings=[bad], log=bad
    )
    assert stage == StageStory(
        stage=Stage.LOAD, at="a?b", machine={"a?b": "a?b", "sandbox": "none"}, exception="a?b",
        traceback="a?b", warnings=["a?b"], log="a?b",
    )  # fmt: skip
