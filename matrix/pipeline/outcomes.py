"""The words every record and verdict is written in: stages, outcomes, reasons, results.

Each is a ``StrEnum`` whose value is what stands in files, so a record reads the same in a text
editor, in a data frame and in code.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from matrix.pipeline.steps import Blame, Stage


class Outcome(StrEnum):
    """How one stage ended."""

    PASSED = "passed"
    DEGRADED = "degraded"
    FAILED = "failed"
    UNSUPPORTED = "unsupported"
    NEEDS_HARDWARE = "needs-hardware"
    BLOCKED = "blocked"
    INFRA = "infra"


class Reason(StrEnum):
    """Why a stage did not simply pass. One word; the message beside it says the rest."""

    NONE = "none"
    EXCEPTION = "exception"
    CRASH = "crash"
    TIMEOUT = "timeout"
    SILENCE = "silence"
    OOM = "oom"
    LOG_LIMIT = "log-limit"
    NO_SPACE = "no-space"
    NETWORK = "network"
    NO_RESULT = "no-result"
    UNREADABLE = "unreadable"
    UNRESOLVABLE = "unresolvable"
    BUILD_FAILED = "build-failed"
    NOT_BUILT = "not-built"
    WRONG_OUTPUT = "wrong-output"
    DEFECTIVE_FILE = "defective-file"
    UNSUITED_FILE = "unsuited-file"
    NO_GPU = "no-gpu"
    WRONG_DEVICE = "wrong-device"
    NO_LIBRARY = "no-library"
    NO_INSTRUCTION = "no-instruction"
    NO_DRIVER = "no-driver"
    DECLARED = "declared"
    REFUSED = "refused"
    GROUP_SIZE = "group-size"
    EARLIER_STAGE = "earlier-stage"
    NOT_RUN = "not-run"


class Verdict(StrEnum):
    """What a cell is, folded from its ten stage outcomes. Derived, never stored."""

    WORKS = "works"
    DEGRADED = "degraded"
    GARBAGE = "garbage"
    BROKEN = "broken"
    UNSUPPORTED = "unsupported"
    UNTESTED = "untested here"
    INFRA = "infra"


class Judgement(StrEnum):
    """What a check says.

    ``notice`` is a true fact about a file that a reader must know and that breaks some engines
    and not others: it never changes a verdict, it decides where the blame goes for what it
    explains.
    """

    PASSED = "passed"
    NOTICE = "notice"
    DEGRADED = "degraded"
    FAILED = "failed"
    NOT_APPLICABLE = "not-applicable"


class Symptom(StrEnum):
    """How something wrong shows, the gravest last."""

    MORE_MEMORY = "more-memory"
    OTHER_TOKENS = "other-tokens"
    MADE_UP_WEIGHTS = "made-up-weights"
    WRONG_ANSWERS = "wrong-answers"
    NOT_FINITE = "not-finite"
    CRASH = "crash"
    ERROR = "error"


class Explanation(msgspec.Struct, frozen=True):
    """What a finding is the cause of, where that happens."""

    symptoms: list[Symptom]
    errors: list[str] = []
    """Of the symptom ``error``: fragments of which an exception's text holds one, in any case."""
    blame: Blame = Blame.CHECKPOINT
    engines: list[str] = []
    """The engines in which it does so, for a person; empty where no engine is meant by name."""


class StageResult(msgspec.Struct, frozen=True):
    """One stage of one cell: its outcome, why, and a line for a person."""

    stage: Stage
    outcome: Outcome
    reason: Reason = Reason.NONE
    message: str = ""


class Finding(msgspec.Struct, frozen=True):
    """What one check said of one subject.

    ``value`` and ``threshold`` are in the unit the check's docstring names; ``None`` where the
    check counts nothing.
    """

    check: str
    stage: Stage
    judgement: Judgement
    value: float | None = None
    threshold: float | None = None
    message: str = ""
    symptom: Symptom | None = None
    """What it saw, where it saw something wrong in what an engine did."""
    explains: Explanation | None = None
    """What it is the cause of, where it saw something wrong that has consequences."""
