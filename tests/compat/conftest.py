"""The compatibility suite: one test per subject, stage and check, bound to what was observed.

It runs in the harness's own interpreter, after an environment's probes: what it judges are
observations, so an environment that cannot even be resolved is judged like any other.
"""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from matrix.judge.flaky import finding_records
from matrix.judge.results import CellResult
from matrix.judge.suite_subjects import Subject, subjects
from matrix.pipeline.outcomes import Finding, StageResult
from matrix.run import suites
from matrix.run.context import Context, Settings


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test for each stage and each finding of every subject."""
    context = Context(Settings.of())
    environment = metafunc.config.getoption("--environment")
    results: list[tuple[Subject, StageResult]] = []
    findings: list[tuple[Subject, Finding]] = []
    for subject in subjects(context.plan, environment):
        cell: CellResult = context.judge.cell(subject.cell.id)
        results += [(subject, r) for r in cell.stages if r.stage in subject.stages]
        findings += [(subject, f) for f in cell.findings if f.stage in subject.stages]
    if "result" in metafunc.fixturenames:
        names = [f"{subject.name}-{result.stage}" for subject, result in results]
        metafunc.parametrize("result", [result for _, result in results], ids=names)
    if "finding" in metafunc.fixturenames:
        names = [f"{subject.name}-{finding.check}" for subject, finding in findings]
        metafunc.parametrize("finding", [finding for _, finding in findings], ids=names)
        metafunc.config.stash.setdefault(FINDINGS, []).extend(findings)


FINDINGS = pytest.StashKey[list[tuple[Subject, Finding]]]()


NOT_WORKING = "found not to work (a result, no failure of this run)"
"""How what fails is counted: what does not work is what the suite is there to tell."""


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """Have a stage or check that failed counted as a result; errors of the suite stay errors."""
    if report.when == "call" and report.failed:
        return NOT_WORKING, "x", "NOT WORKING"
    return None


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Add what the checks said to the records, and note what was judged."""
    if session.config.option.collectonly:
        return
    context = Context(Settings.of())
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    for subject, finding in session.config.stash.get(FINDINGS, []):
        key = context.judge.keys_of(subject.cell)[finding.stage]
        judged = [(finding, key.value if key else "")]
        for record in finding_records(judged, subject.name, context.settings.run, at):
            context.store.append(record)
    environment = session.config.getoption("--environment")
    if environment is not None:
        suites.note_run(context, environment)
