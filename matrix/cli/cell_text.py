"""What a cell is, in lines for a person: its verdict and cause, then its stages and checks."""

from __future__ import annotations

from collections.abc import Iterator

from matrix.cli.options import LINE_CHARS
from matrix.cli.showing import Row
from matrix.judge.cells import CellJudge, command_of
from matrix.judge.results import CellResult
from matrix.pipeline.outcomes import Finding, Verdict
from matrix.untrusted.text import visible


def cell_lines(judge: CellJudge, result: CellResult) -> Iterator[str]:
    """Yield the lines of one cell."""
    yield f"{result.id}: {result.verdict} (blame: {result.blame})"
    if result.message:
        yield f"  cause: {visible(result.message, LINE_CHARS)}"
    if result.issue:
        issue = judge.diagnoser.issues[result.issue]
        yield f"  known issue: {issue.title} ({issue.id})"
        yield f"  fix: {issue.fix}"
        yield f"  source: {issue.sources[0]}"
    elif result.group:
        yield f"  known issue: none ({visible(result.group, LINE_CHARS)})"
    if not result.issue and result.verdict in (Verdict.BROKEN, Verdict.GARBAGE, Verdict.DEGRADED):
        command = command_of(judge.loaded, judge.plan, "specifiers")
        yield f"  what to do: use versions that worked together; `{command}` lists them"
    for stage in result.stages:
        message = visible(stage.message.strip(), LINE_CHARS)
        line = f"  {stage.stage:18} {stage.outcome:14} {message}"
        yield Row(line, stage.stage, stage.outcome, message)
    yield from map(finding_line, result.findings)


def short_line(result: CellResult) -> Row:
    """Return a cell in one line, as one of several."""
    message = visible(result.message, LINE_CHARS)
    line = f"{result.id}  {message}".rstrip()
    return Row(f"  {result.verdict:13}  {line}", result.verdict, line)


def finding_line(finding: Finding) -> Row:
    """Return what a check says, in one line."""
    message = visible(finding.message.strip(), LINE_CHARS)
    line = f"  {finding.check:19} {finding.judgement:14} {message}"
    return Row(line, finding.check, finding.judgement, message)
