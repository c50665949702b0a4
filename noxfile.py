"""The sessions: those that people call first, then one for each environment of the plan.

Nox orders them; the harness does the work, in the interpreter that nox runs in
(``venv_backend="none"``): an environment that cannot be built is a result and not an error.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import nox
from nox.command import CommandFailed

from matrix.plan.cells import requirements_of
from matrix.run import suites
from matrix.run.reporting import keep_night
from matrix.run.sessions import Sessions

nox.needs_version = ">=2026.4"
nox.options.sessions = ["matrix"]
nox.options.default_venv_backend = "none"

QUICK = ["tests/unit", "tests/data", "tests/fuzz"]
BROKE = Path(".hypothesis") / "fuzz"
"""Where tests/fuzz keeps the smallest input that broke a test, by its kind."""
OTHERS = ["tests/processes", "tests/recorded", "tests/provoked", "tests/browser", "tests/real"]

sessions = Sessions(sys.argv[1:])
context = sessions.context
if sessions.pending:
    nox.options.parallel = sessions.begin()


def run(session: nox.Session, *arguments: str, **options: Any) -> None:
    """Run a module with the harness's own interpreter; ``options`` are those of ``session.run``."""
    session.run(sys.executable, "-m", *arguments, external=True, **options)


def work(session: nox.Session, *which: str) -> None:
    """Do a part of the profile, with a report written now and then."""
    run(session, "matrix", "run", *which, "--reports", str(context.settings.reports))


@nox.session(requires=[*sessions.first, *sessions.pending])
def matrix(session: nox.Session) -> None:
    """Run the profile (MATRIX_PROFILE, default cpu), write reports/. Goes on where it was."""
    if not session.posargs and (kept := sessions.kept_summary()):
        session.log("nothing has changed since the report was written")
        Path(os.environ["MATRIX_SUMMARY"]).write_text(kept, encoding="utf-8")
        keep_night(context)
        return
    try:
        run(session, "matrix", "run", "--regressions")
    except CommandFailed:  # the report is what the night was for
        session.warn("what came out worse could not be run again: it is reported as it came out")
    run(session, "matrix", "report", *session.posargs)
    keep_night(context)


@nox.session
def report(session: nox.Session) -> None:
    """Write reports/ from what has been observed, without running anything."""
    run(session, "matrix", "report", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the project's own tests, real packages last. Arguments are pytest's, and choose."""
    if session.posargs:
        run(session, "pytest", *session.posargs)
        return
    try:
        run(session, "pytest", "-n", "auto", *QUICK)
    except CommandFailed:  # the others still say what they have to say
        run(session, "pytest", *OTHERS)
        session.error("quick tests failed: their summary stands above that of the others")
    run(session, "pytest", *OTHERS)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, types, the spec's files, workflows and what else GitHub reads."""
    run(session, "ruff", "check", ".")
    run(session, "ruff", "format", "--check", ".")
    run(session, "mypy")
    for kind, names in {"github-workflows": "workflows/*.yml", "dependabot": "dependabot.yml",
                        "github-issue-forms": "ISSUE_TEMPLATE/*.yml"}.items():  # fmt: skip
        files = map(str, Path(".github").glob(names))
        run(session, "check_jsonschema", "--builtin-schema", f"vendor.{kind}", *files)
    run(session, "pre_commit", "validate-config")
    schema, specs = "matrix/spec/spec.schema.json", ("matrix/spec/project", "examples")
    tables = (str(file) for folder in specs for file in Path(folder).rglob("*.toml"))
    run(session, "check_jsonschema", "--schemafile", schema, *tables)
    zizmor = str(Path(sys.executable).with_name("zizmor"))
    session.run(zizmor, "--offline", "--quiet", ".github", external=True)


@nox.session
def coverage(session: nox.Session) -> None:
    """Measure which lines of matrix/ the pure tests run. Arguments are pytest's."""
    options = ["--cov=matrix", "--cov-branch", "--cov-report=term:skip-covered"]
    run(session, "pytest", "-q", "-n", "auto", *options, *(session.posargs or ["tests/unit"]))


@nox.session
def fuzz(session: nox.Session) -> None:
    """Read damaged inputs: the same for a minute, or with ``-- --minutes 60`` new ones as long."""
    parser = argparse.ArgumentParser(prog="nox -s fuzz --")
    parser.add_argument("--minutes", type=float)
    minutes = parser.parse_args(session.posargs).minutes
    effort = {"MATRIX_FUZZ": "minute" if minutes is None else "long"}
    until = time.monotonic() + 60 * (minutes or 0)
    shutil.rmtree(BROKE, ignore_errors=True)
    passed = True
    while True:
        try:
            run(session, "pytest", "-q", "-n", "auto", "--tb=short", "tests/fuzz", env=effort)
        except CommandFailed:  # the others still have their turn
            passed = False
        if time.monotonic() >= until:
            break
    for file in sorted(BROKE.glob("*")):
        session.warn(f"this broke it: cp {file} tests/fuzz/corpus/{file.name}/NAME")
    if not passed:
        session.error("an input was read otherwise than into a value or a clear error")


@nox.session(allow_parallel=True)
def canaries(session: nox.Session) -> None:
    """Do the cells whose verdicts are known, and what they need; report them."""
    work(session, "--canaries")


@nox.session(allow_parallel=True)
def installs(session: nox.Session) -> None:
    """Install environments while nothing else can begin: until the models are built."""
    run(session, "matrix", "run", "--install-only")


def environment_session(name: str, requires: list[str]) -> None:
    """Make the session of one environment."""

    @nox.session(name=name, requires=requires, tags=["environment"], allow_parallel=True)
    def environment(session: nox.Session) -> None:
        for options in sessions.work_of(name):
            work(session, *options)
        if not context.runs(name) or suites.is_current(context, name):
            session.log(f"{name}: nothing is left to be judged on this machine")
            return
        # A broken combination is a result: failing tests (1) and none collected (5) are answers.
        run(session, "pytest", "-q", "--no-header", "--tb=no", "-r", "N", "tests/compat",
            "--environment", name, success_codes=(0, 1, 5),
            env={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"})  # fmt: skip

    environment.__doc__ = f"Build {name}, run its probes, judge what they left."


for environment_name, needed in requirements_of(context.plan).items():
    environment_session(environment_name, needed)
