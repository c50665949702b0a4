"""Real logs as fixtures of an issue: cut to what matters, marked where a signature fits. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

import msgspec

from matrix.diagnose.catalogue import CLOSING, OPENING, Issue, Log, unmarked
from matrix.diagnose.matching import Failure, Match, literals, match_issue
from matrix.diagnose.passages import excerpt_of_text, plain_text
from matrix.pipeline.outcomes import Finding, Judgement
from matrix.pipeline.steps import Stage

LINES_BEFORE, LINES_AFTER = 24, 2
_OURS = re.compile(r'  File "<repository>/.*\n(?:    .*\n)*')
"""A frame of the harness in a traceback, with the source that is shown of it."""


def failure_of_log(issue: Issue, log: Log) -> Failure:
    """Return what an issue is matched with, of a fixture of its own."""
    text, _ = unmarked(log.text)
    if log.check:
        finding = Finding(log.check, Stage.INSPECT, Judgement.FAILED, message=text)
        return Failure(findings=[finding])
    return Failure(excerpt_of_text(text, literals([issue])))


def match_log(issue: Issue, log: Log) -> Match | None:
    """Return how an issue fits a log; ``None`` where it does not, or not by what is shown."""
    match = match_issue(issue, failure_of_log(issue, log))
    return None if match is None or match.raised_in else match


def fits_where_marked(issue: Issue, log: Log) -> bool:
    """Return whether an issue fits a log in the very line that holds the marks."""
    match = match_log(issue, log)
    _, parts = unmarked(log.text)
    return match is not None and len(parts) == 1 and parts[0] in match.quote


def fixture(issue: Issue, log: Log, *, is_near_miss: bool = False) -> str:
    """Return the TOML by which a log is added to the end of an issue's file.

    Raises ``ValueError`` where the issue does not fit the log, or fits a near miss.
    """
    # A check's message is one text, and stands in one line.
    text = " ".join(log.text.split()) if log.check else plain_text(_OURS.sub("", log.text))
    match = match_log(issue, msgspec.structs.replace(log, text=text))
    if is_near_miss and match is not None:
        raise ValueError(f"it is no near miss: {issue.id} fits {match.quote!r}")
    if not is_near_miss and match is None:
        raise ValueError(f"no signature of {issue.id} fits it")
    lines = text.splitlines()
    at = len(lines) - 1
    if match is not None:
        quote = match.quote.strip()
        at = max(number for number, line in enumerate(lines) if quote in line)
        lines[at] = _marked(issue, lines[at])
    kept = lines[max(at - LINES_BEFORE, 0) : at + LINES_AFTER + 1]
    return _toml(msgspec.structs.replace(log, text="\n".join(kept)), is_near_miss=is_near_miss)


def _marked(issue: Issue, line: str) -> str:
    """Return a line with marks around the longest text of a signature that fits in it."""
    texts = [signature.patterns[-1] for signature in issue.signatures if signature.texts]
    spans = [match.span() for text in texts if (match := text.expression.search(line))]
    begin, end = max(spans, key=lambda span: span[1] - span[0], default=(0, len(line)))
    return f"{line[:begin]}{OPENING}{line[begin:end]}{CLOSING}{line[end:]}"


def _toml(log: Log, *, is_near_miss: bool) -> str:
    """Return a fixture as a table of an array, its text as it stands."""
    head: Mapping[str, str] = {
        "source": log.source,
        **({"observed": log.observed} if log.observed else {}),
        **({"check": log.check} if log.check else {}),
    }
    lines = ["", "[[near_misses]]" if is_near_miss else "[[logs]]"]
    lines += [f"{key} = {_quoted(value)}" for key, value in head.items()]
    if log.installed:
        pairs = ", ".join(
            f"{_quoted(key)} = {_quoted(log.installed[key])}" for key in sorted(log.installed)
        )
        lines.append(f"installed = {{ {pairs} }}")
    printed = "".join(c for c in log.text if c.isprintable() or c in "\n\t")
    text = printed.replace("''", "' '")  # three of them would end the text
    return "\n".join([*lines, f"text = '''\n{text.rstrip()}\n'''", ""])


def _quoted(text: str) -> str:
    """Return a text as a string of TOML, which those of JSON are where they are ASCII."""
    return json.dumps("".join(c for c in text if c.isprintable()), ensure_ascii=False)
