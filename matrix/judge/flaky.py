"""Keys under which good and bad ends were both observed: the same inputs, two answers. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from matrix.pipeline.outcomes import Finding, Judgement, Outcome
from matrix.store.store import Record

CHECK = "check"
"""The step of a record that tells what a check said."""
_GOOD = frozenset({Outcome.PASSED.value, Judgement.NOTICE.value})
_BAD = frozenset({Outcome.FAILED.value, Judgement.DEGRADED.value})
"""``passed`` and ``failed`` are words of steps and of checks alike; other ends say nothing."""


class _End(NamedTuple):
    """How a step ended, or what a check said of its answer."""

    good: bool
    value: float | None
    limit: float | None
    """What the value was compared with."""


def flaky_keys(records: Iterable[Record]) -> frozenset[str]:
    """Return the keys whose step passed at one time and failed at another, or of whose answers
    one check passed and the same check failed.

    Args:
        records: The store's history, oldest first. What a check comes to say otherwise of one and
            the same answer, by the same value or by another limit, is our own doing: it counts for
            nothing.
    """
    answers: Counter[str] = Counter()
    ends: dict[tuple[str, str], dict[int, _End]] = {}
    for record in records:
        if record.step != CHECK:
            answers[record.key] += 1
        if record.outcome in _GOOD or record.outcome in _BAD:
            of_answers = ends.setdefault((record.key, record.check), {})
            end = _End(record.outcome in _GOOD, record.value, record.threshold)
            of_answers[answers[record.key]] = end  # the last that was said of an answer
    return frozenset(key for (key, _), by_answer in ends.items() if _turned(by_answer.values()))


def _turned(ends: Collection[_End]) -> bool:
    good = {end for end in ends if end.good}
    bad = {end for end in ends if not end.good}
    return any(_differ(one_end, other) for one_end in good for other in bad)


def _differ(good: _End, bad: _End) -> bool:
    """Whether two ends differ in what was observed, and not because a limit was changed.

    A check has a limit for what is degraded and one for what failed, and tells the one by which it
    decided. So each value is set against both: good by the bad end's limit, bad by the good one's.
    """
    if good.value is None or bad.value is None:
        return True
    if good.limit is None or bad.limit is None or good.limit == bad.limit:
        return good.value != bad.value
    side = bad.value - bad.limit or good.limit - good.value
    return (good.value - bad.limit) * side <= 0 <= (bad.value - good.limit) * side


def finding_records(
    findings: Iterable[tuple[Finding, str]], subject: str, run: str, at: str
) -> Iterator[Record]:
    """Yield a record of each finding, given with the key of what it judges."""
    for finding, key in findings:
        yield Record(
            run=run,
            at=at,
            subject=subject,
            step=CHECK,
            key=key,
            outcome=finding.judgement,
            check=finding.check,
            value=finding.value,
            threshold=finding.threshold,
        )
