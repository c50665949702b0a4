"""What the known issues say of a log that somebody has, in whatever form it is. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import msgspec

from matrix.diagnose.catalogue import Issue
from matrix.diagnose.matching import (
    Failure,
    Fit,
    Match,
    Side,
    explains,
    fit_of,
    literals,
    match_issues,
)
from matrix.diagnose.passages import Excerpt, excerpt_of_text
from matrix.diagnose.unwrapping import unwrapped

ANSWER = 4_000
"""Characters at the end of a text in which it is looked for what is repeated."""
PERIOD, TIMES = 6, 16
"""Words at most that are repeated, and how often at least."""
_RUN = re.compile(rf"(\S{{1,12}}?)\1{{{TIMES - 1},}}")
ALONE = 3
"""How often at least, where a text has nothing else."""
_QUOTED = re.compile(r"""["'`“‘]([^"'`“‘”’\n]+)["'`”’]""")
_SAYS = re.compile(r"[^\W\d_]|[!?]")
"""A letter or a mark that a model answers with; rules, bars and tables of numbers have none."""


class Explanation(msgspec.Struct, frozen=True):
    """What the known issues say of a log."""

    failure: Failure
    matches: Sequence[Match]
    """The one that explains it best first."""
    repeated: str = ""
    """What an engine answered again and again, where it is no log but such an answer; the matches
    are then what it may come of."""

    @property
    def is_explained(self) -> bool:
        """Whether the first match says why it failed."""
        return bool(self.matches) and self.is_cause(self.matches[0])

    def is_cause(self, match: Match) -> bool:
        """Return whether a match says why it failed; of garbage, that is not to be told."""
        return not self.repeated and explains(match, self.failure)


def explain_log(issues: Sequence[Issue], excerpt: Excerpt, side: Side) -> Explanation:
    """Return what issues say of a log from an environment: as it stands, else with the lines at
    its end joined that were cut to a width, else of an answer that it may be."""
    first: Explanation | None = None
    for reading in _readings(issues, excerpt):
        failure = Failure(reading, here=side, maker=side)
        explanation = Explanation(failure, match_issues(issues, failure))
        if explanation.is_explained:
            return explanation
        first = first or explanation
    assert first is not None  # the log as it stands
    repeated = "" if excerpt.ending.exception else repeated_in(excerpt.ending.text)
    if not repeated:
        return first
    of_garbage = [
        Match(issue, fit, quote=repeated, in_exception=False, length=0)
        for issue in issues
        if issue.garbage and (fit := fit_of(issue, first.failure)) is not Fit.LOOKS_LIKE
    ]
    of_garbage.sort(key=lambda match: (list(Fit).index(match.fit), match.issue.id))
    return msgspec.structs.replace(first, matches=of_garbage, repeated=repeated)


def _readings(issues: Sequence[Issue], excerpt: Excerpt) -> Iterator[Excerpt]:
    """Yield a log as it stands, and as it may have been before it was cut to a width: its last
    exception is then the same, or longer."""
    yield excerpt
    for text in unwrapped(excerpt.ending.text):
        joined = excerpt_of_text(text, literals(issues))
        if excerpt.ending.exception in joined.ending.exception:
            yield joined


def repeated_in(text: str) -> str:
    """Return what a line repeats again and again, or a text that has nothing else; empty where
    none does."""
    for answer in (text[-ANSWER:].strip(), *_QUOTED.findall(text[-ANSWER:])):
        if alone := _all_that_is_in(answer):
            return alone
    for line in text[-ANSWER:].splitlines():
        words = line.split()
        run = _RUN.search(line)
        candidates = [run[1]] if run else []
        for period in range(1, min(PERIOD, len(words) // TIMES) + 1):
            pairs = list(zip(words, words[period:], strict=False))
            if sum(a == b for a, b in pairs) >= 0.9 * len(pairs):
                candidates.append(" ".join(words[-period:]))
        for candidate in candidates:
            if _SAYS.search(candidate):
                return candidate
    return ""


def _all_that_is_in(answer: str) -> str:
    """Return the words that a line has over and over and nothing beside; empty where it has.

    It may have been cut, in the middle of a word too.
    """
    words = answer.rstrip("….").split()
    for period in range(1, min(PERIOD, len(words) // ALONE) + 1):
        pairs = list(zip(words, words[period:], strict=False))
        *others, (before, last) = pairs
        same = all(a == b for a, b in others) and before.startswith(last)
        if same and "\n" not in answer and _SAYS.search(phrase := " ".join(words[:period])):
            return phrase
    return ""
