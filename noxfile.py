"""Sessions made from the plan: canaries, environments, ``matrix``; and ``tests``, ``lint``.

Nox orders them; building and running is the harness's own work, done by the interpreter nox runs
in (``venv_backend="none"``), so that nothing of ours is installed into what is tested, and an
environment that cannot be built is a result and not an error.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import sys
from pathlib import Path

import nox
from nox.command import CommandFailed

from matrix.machine.hardware import environments_at_once
from matrix.machine.processes import die_with_parent
from matrix.plan.budget import canaries_alone
from matrix.plan.cells import requirements_of
from matrix.run.beforehand import beforehand, is_asked_for
from matrix.run.choosing import choose_for_nox, estimate, longest_first
from matrix.run.context import Context, Settings, unreachable
from matrix.run.unchanged import unchanged_summary
from matrix.spec.tables import SpecError

nox.needs_version = ">=2026.4"
nox.options.sessions = ["matrix"]
nox.options.default_venv_backend = "none"

is_worker = "--parallel-worker" in sys.argv  # nox -j starts each session in a process of its own

try:
    context = Context(Settings.of())
    if not is_worker and (chosen := choose_for_nox(context)):
        os.environ["MATRIX_CELLS"] = str(chosen)
        atexit.register(chosen.unlink, missing_ok=True)
        context = Context(Settings.of())
    if not is_worker:
        summary = context.store.path("work", f"summary-{os.getpid()}.txt")
except SpecError as error:
    sys.exit(f"error: {error}")
except OSError as error:
    sys.exit(f"error: {unreachable(error)}")


def begin(at_once: int) -> None:
    """Say what the run takes, end where the disk is too small, keep ``clean`` off the store."""
    try:
        lines = beforehand(context, context.plan.cells, at_once=at_once)
    except SpecError as error:
        sys.exit(f"error: {error}")
    print(*(f"{line}\n" for line in lines), sep="", flush=True)
    atexit.register(context.store.use().close)


def print_summary(file: Path) -> None:
    """Print what the report session left, after all that nox has to say."""
    if file.exists():
        sys.stdout.write("\n" + file.read_text(encoding="utf-8"))
        file.unlink()


if is_worker:
    die_with_parent(int(os.environ["MATRIX_UNDER_NOX"]))
else:
    atexit.register(print_summary, summary)
    os.environ["MATRIX_RUN"] = context.settings.run
    os.environ["MATRIX_SUMMARY"] = str(summary)
    if not sys.stdout.isatty():
        # Nox holds back what parallel sessions print, so progress goes straight to the log; a log
        # file must be appended to then, or one writer overwrites the other.
        fcntl.fcntl(1, fcntl.F_SETFL, fcntl.fcntl(1, fcntl.F_GETFL) | os.O_APPEND)
        os.environ["MATRIX_PROGRESS"] = f"/proc/{os.getpid()}/fd/1"
os.environ["MATRIX_UNDER_NOX"] = str(os.getpid())  # whose end is the end of all it starts


def run(
    session: nox.Session, *arguments: str, success: tuple[int, ...] = (0,), **variables: str
) -> None:
    """Run a module with the harness's own interpreter."""
    session.run(
        sys.executable, "-m", *arguments, external=True, success_codes=success, env=variables
    )


canary_plan = canaries_alone(context.plan)


def canaries_are_due() -> bool:
    """Whether anything of the cells with known verdicts is still to be done."""
    return any(context.keys.unfinished(cell) for cell in canary_plan.cells)


def work(session: nox.Session, *which: str) -> None:
    """Do a part of the profile, with a report written now and then."""
    run(session, "matrix", "run", *which, "--reports", str(context.settings.reports))


def environment_session(name: str, requires: list[str]) -> None:
    """Make the session of one environment."""

    @nox.session(name=name, requires=requires, default=False, allow_parallel=True)
    def environment(session: nox.Session) -> None:
        if not context.runs(name):
            session.log(f"{name}: nothing of it runs on this machine")
            return
        if name in canary_plan.environments and canaries_are_due():
            work(session, "--canaries", "--environment", name)  # they wait for it
        if context.unfinished(name):
            work(session, "--environment", name)
        if context.suite_is_current(name):
            session.log(f"{name}: nothing has changed")
            return
        # A broken combination is a result: failing tests (1) and none collected (5) are answers.
        run(session, "pytest", "-q", "--no-header", "--tb=no", "-r", "N", "tests/compat",
            "--environment", name, success=(0, 1, 5),
            PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")  # fmt: skip

    environment.__doc__ = f"Build {name}, run its probes, judge what they left."


for environment_name, needed in requirements_of(context.plan).items():
    environment_session(environment_name, needed)


@nox.session(default=False, allow_parallel=True)
def canaries(session: nox.Session) -> None:
    """Do the cells whose verdicts are known, and what they need, before all others; report them."""
    work(session, "--canaries")


@nox.session(default=False, allow_parallel=True)
def installs(session: nox.Session) -> None:
    """Install environments while nothing else can begin: cores idle until the models are built."""
    run(session, "matrix", "run", "--install-only")


# A worker does one session, whatever that waits for.
pending = [] if is_worker else context.pending()
first = ["canaries"] if pending and canaries_are_due() else []
if any(not context.keys.settled(context.keys.install(name)) for name in pending):
    first.append("installs")
if pending:
    nox.options.parallel = environments_at_once(context.loaded.spec.limits.load.memory_mb)
    if any(context.plan.environments[name].device == "cuda" for name in pending):
        at_once = min(nox.options.parallel, len(context.machine.gpus))
        nox.options.parallel = max(1, at_once)
    if is_asked_for("matrix", sys.argv[1:]):
        begin(nox.options.parallel)
        pending = longest_first(context, pending, estimate(context))


@nox.session(requires=[*first, *pending], default=True)
def matrix(session: nox.Session) -> None:
    """Run the profile (MATRIX_PROFILE, default cpu), write reports/. Goes on where it was."""
    nothing_new = not pending and not session.posargs and not context.settings.cells
    if nothing_new and (kept := unchanged_summary(context)):
        session.log("nothing has changed since the report was written")
        summary.write_text(kept, encoding="utf-8")
        return
    run(session, "matrix", "report", *session.posargs)


@nox.session(default=False)
def report(session: nox.Session) -> None:
    """Write reports/ from what has been observed, without running anything."""
    run(session, "matrix", "report", *session.posargs)


@nox.session(default=False)
def tests(session: nox.Session) -> None:
    """Run the project's own tests: quick ones side by side, then all others, real packages last.

    Arguments are pytest's, and choose: ``nox -s tests -- tests/unit -n auto``.
    """
    if session.posargs:
        run(session, "pytest", *session.posargs)
        return
    quick, others = ["tests/unit", "tests/data"], ["tests/processes", "tests/recorded",
                                                   "tests/provoked", "tests/real"]  # fmt: skip
    failed = False
    try:
        run(session, "pytest", "-n", "auto", *quick)
    except CommandFailed:  # the others still say what they have to say
        failed = True
    run(session, "pytest", *others)
    if failed:
        session.error("quick tests failed: their summary stands above that of the others")


@nox.session(default=False)
def lint(session: nox.Session) -> None:
    """Check style, types, workflows."""
    run(session, "ruff", "check", ".")
    run(session, "ruff", "format", "--check", ".")
    run(session, "mypy")
    workflows = [".github/workflows/ci.yml", ".github/workflows/nightly.yml"]
    run(session, "check_jsonschema", "--builtin-schema", "vendor.github-workflows", *workflows)
    zizmor = os.path.join(os.path.dirname(sys.executable), "zizmor")  # noqa: PTH118, PTH120
    session.run(zizmor, "--offline", "--no-progress", "--quiet", *workflows, external=True)
