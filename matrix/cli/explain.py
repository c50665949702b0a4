"""``matrix explain``: the cause of a failure by its log alone, from whatever machine it is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from matrix.cli.issue_text import describe, proof, versions_in_words, wrapped
from matrix.cli.options import LINE_CHARS, Format, FormatOption, as_json, fail, releases_of
from matrix.diagnose.catalogue import Effect, load_issues
from matrix.diagnose.explanation import Explanation, explain_log
from matrix.diagnose.matching import (
    Fit,
    Match,
    Side,
    later_exception,
    literals,
)
from matrix.diagnose.passages import Excerpt, read_excerpt
from matrix.untrusted.text import visible

OTHERS = 5
"""How many further matches are shown."""


class Answer(msgspec.Struct, frozen=True):
    """One known issue as an answer, for ``--format json``."""

    id: str
    title: str
    fit: Fit
    explains: bool
    """Whether it says why this failed; it may also only stand in the log."""
    effect: Effect
    cause: str
    fix: str
    repair: str
    sources: list[str]
    line: str


def explain(
    log: Annotated[str, typer.Argument(help="A log, or - for standard input.")] = "-",
    versions: Annotated[
        list[str] | None,
        typer.Option("--with", help="What was installed, as in autoawq==0.2.7; may be repeated."),
    ] = None,
    show: FormatOption = Format.TABLE,
) -> None:
    """Say why something failed, and what to do, by the known issues that its log fits.

    Status 0 where the log is explained, or is an answer of garbage; 1 where it is not known; 2
    where it cannot be read.
    """
    side = Side(releases_of("--with", versions or []))
    issues = list(load_issues().values())
    explanation = explain_log(issues, _read(log, literals(issues)), side)
    if show is Format.JSON:
        answers = [_answer(match, explanation) for match in explanation.matches]
        typer.echo(as_json(answers))
    elif explanation.repeated:
        typer.echo(_of_garbage(explanation))
    else:
        typer.echo(_in_words(explanation))
    raise typer.Exit(not explanation.is_explained and not explanation.repeated)


def _read(log: str, texts: list[str]) -> Excerpt:
    """Return what matters of a log; end with status 2 where it cannot be read."""
    if log == "-":
        if sys.stdin.isatty():
            fail("name the file of a log, or give one: COMMAND 2>&1 | matrix explain")
        return read_excerpt(sys.stdin.buffer, texts)
    try:
        with Path(log).open("rb") as opened:
            return read_excerpt(opened, texts)
    except OSError as error:
        fail(f"{log}: {error.strerror}. Name the file of a log, or - for standard input")


def _answer(match: Match, explanation: Explanation) -> Answer:
    issue = match.issue
    return Answer(
        issue.id, issue.title, match.fit, explanation.is_cause(match), issue.effect, issue.cause,
        issue.fix, issue.repair, issue.sources, visible(match.quote, LINE_CHARS),
    )  # fmt: skip


def _in_words(explanation: Explanation) -> str:
    """Return the answer for a person: the issue that explains it, then what else is there."""
    lines: list[str] = []
    others = list(explanation.matches)
    excerpt = explanation.failure.excerpt
    if explanation.is_explained:
        match = others.pop(0)
        lines += _issue_lines(match)
        later = visible(later_exception(match, excerpt), LINE_CHARS)
        lines += wrapped("later", f"the log ends with {later}") if later else []
    elif not excerpt.ending.text.strip():
        lines.append("not known: the log is empty")
    else:
        last = visible(excerpt.ending.exception, LINE_CHARS)
        lines.append("not known: no known issue explains this log" + (":" if last else ""))
        lines += [f"  {last}"] if last else []
    for match in others[:OTHERS]:
        lines.append("")
        lines.append(f"{_relation(match)}: {match.issue.title} ({match.issue.id})")
        lines += [
            f"  {visible(match.quote.strip(), LINE_CHARS)}",
            *wrapped("fix", match.issue.fix),
        ]
    return "\n".join(lines)


def _of_garbage(explanation: Explanation) -> str:
    """Return the answer for a person who shows what an engine answered, and no log."""
    repeated = visible(explanation.repeated, LINE_CHARS)
    lines = [
        f"garbage: an engine answered {repeated!r} again and again, and no log says why",
        *wrapped("check", "`matrix inspect DIR --original MODEL` says what a checkpoint has"),
    ]
    for match in explanation.matches:
        lines += ["", f"it may be: {match.issue.title} ({match.issue.id})"]
        lines += wrapped("fix", match.issue.fix)
    return "\n".join(lines)


def _relation(match: Match) -> str:
    """Return how a match that is not the cause has to do with a log."""
    if match.raised_in:
        return f"looks like, where it was raised in {match.raised_in}"
    if match.fit is Fit.LOOKS_LIKE:
        return f"looks like an issue of other versions ({versions_in_words(match.issue)})"
    if match.issue.effect is Effect.HARMLESS:
        return "harmless"
    return "also in the log"


def _issue_lines(match: Match) -> list[str]:
    """Return an issue that explains a log: the line it was recognised by, and what to do."""
    issue = match.issue
    quote = f"  {visible(match.quote.strip(), LINE_CHARS)}"
    where = f"as {issue.id}, {proof(issue)}; {match.fit.value}: {versions_in_words(issue)}"
    return [issue.title, quote, "", *describe(issue), *wrapped("known", where)]
