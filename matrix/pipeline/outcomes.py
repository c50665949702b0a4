"""The words of every record and verdict: stages, outcomes, reasons, conclusions, findings.

Each closed set is a ``StrEnum`` whose value is what stands in files, so a record reads the same in
a text editor, in a data frame and in code.
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


_FAILURES = frozenset(
    {
        Reason.EXCEPTION, Reason.CRASH, Reason.TIMEOUT, Reason.SILENCE, Reason.OOM,
        Reason.LOG_LIMIT, Reason.NO_RESULT, Reason.UNREADABLE, Reason.UNRESOLVABLE,
        Reason.BUILD_FAILED, Reason.NOT_BUILT, Reason.WRONG_OUTPUT, Reason.DEFECTIVE_FILE,
        Reason.WRONG_DEVICE,
    }
)  # fmt: skip
REASONS: dict[Outcome, frozenset[Reason]] = {
    Outcome.PASSED: frozenset({Reason.NONE}),
    Outcome.DEGRADED: frozenset({Reason.WRONG_OUTPUT, Reason.DEFECTIVE_FILE}),
    Outcome.FAILED: _FAILURES,
    Outcome.UNSUPPORTED: frozenset({Reason.DECLARED, Reason.REFUSED, Reason.GROUP_SIZE}),
    Outcome.NEEDS_HARDWARE: frozenset(
        {Reason.NO_GPU, Reason.NO_LIBRARY, Reason.NO_INSTRUCTION, Reason.NO_DRIVER, Reason.DECLARED}
    ),
    Outcome.BLOCKED: frozenset({Reason.EARLIER_STAGE}),
    # Any failure may turn out to be the machine's, such as one on a GPU that others came to use.
    Outcome.INFRA: _FAILURES | {Reason.NO_SPACE, Reason.NETWORK, Reason.NOT_RUN},
}
"""The reasons that each outcome can have."""


class Conclusion(msgspec.Struct, frozen=True):
    """How something ended, why, and a line for a person.

    Only a reason of the outcome's own can be given (``REASONS``); another one is a ``ValueError``,
    or a ``msgspec.ValidationError`` where a file has it.
    """

    outcome: Outcome
    reason: Reason = Reason.NONE
    message: str = ""

    def __post_init__(self) -> None:
        if self.reason not in REASONS[self.outcome]:
            possible = ", ".join(sorted(REASONS[self.outcome]))
            raise ValueError(
                f"{self.outcome.value} for the reason {self.reason.value}: want one of {possible}"
            )


PASSED = Conclusion(Outcome.PASSED)


class StageResult(Conclusion, frozen=True, kw_only=True):
    """How one stage of one cell ended."""

    stage: Stage


class Verdict(StrEnum):
    """What a cell is, folded from its ten stage outcomes. Derived, never stored."""

    WORKS = "works"
    DEGRADED = "degraded"
    GARBAGE = "garbage"
    BROKEN = "broken"
    UNSUPPORTED = "unsupported"
    UNTESTED = "untested here"
    INFRA = "infra"
    NOT_RUN = "not run"


NO_ANSWER = frozenset({Verdict.UNTESTED, Verdict.INFRA, Verdict.NOT_RUN})
"""Verdicts that say nothing about the packages."""


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
    """The consequences of what a finding says, and whose fault they are."""

    symptoms: list[Symptom]
    """The likeliest first."""
    errors: list[str] = []
    """Of the symptom ``error``: fragments of which an exception's text holds one, in any case."""
    blame: Blame = Blame.CHECKPOINT
    engines: list[str] = []
    """The engines in which it does so, for a person; empty where no engine is meant by name."""


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
    """Its consequences, where it saw something wrong that has some."""
