"""``matrix.ctrf.json``: the cells as tests in the Common Test Report Format (https://ctrf.io)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec

from matrix.judge.results import CanaryState
from matrix.pipeline.outcomes import Verdict
from matrix.report.exports.cases import Case
from matrix.report.material import Material
from matrix.untrusted.text import visible

VERSION = "1.0.0"
"""Of the format."""
STATUSES = ("passed", "failed", "skipped", "pending", "other")
NAME_CHARS = 300


def files(material: Material, listed: list[Case]) -> Iterator[tuple[str, bytes]]:
    """Yield ``matrix.ctrf.json``."""
    result = material.result
    tests = [_test(case) for case in listed]
    number = Counter(test["status"] for test in tests)
    stop = milliseconds(result.finished)
    starts = [at for cell in result.cells if (at := milliseconds(cell.at))]
    document = {
        "reportFormat": "CTRF",
        "specVersion": VERSION,
        "results": {
            "tool": {"name": "quantization compatibility matrix"},
            "summary": {
                "tests": len(tests),
                **{status: number[status] for status in STATUSES},
                "flaky": sum(bool(test.get("flaky")) for test in tests),
                "start": min([*starts, stop]),
                "stop": stop,
            },
            "tests": tests,
            "environment": {
                "reportName": visible(result.profile, NAME_CHARS),
                "healthy": result.canaries is not CanaryState.VOID,
                "extra": {
                    visible(name, NAME_CHARS): visible(value, NAME_CHARS)
                    for name, value in sorted(result.machine.items())
                },
            },
        },
    }
    yield "matrix.ctrf.json", msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"


def _test(case: Case) -> dict[str, object]:
    waits = case.verdict == Verdict.NOT_RUN
    test: dict[str, object] = {
        "name": case.name or "no name",
        "status": "pending" if waits else case.state,
        "rawStatus": case.verdict,
        "duration": round(case.seconds * 1000),
        "suite": [case.suite],
    }
    if case.message:
        test["message"] = case.message
    if case.details:
        test["stdout"] = case.details
    if case.flaky:
        test["flaky"] = True
    return test


def milliseconds(time: str) -> int:
    """Return an ISO time in milliseconds since 1970; 0 where it is none."""
    try:
        parsed = datetime.fromisoformat(time)
        return round(parsed.replace(tzinfo=parsed.tzinfo or UTC).timestamp() * 1000)
    except (ValueError, OverflowError):
        return 0
