"""The command ``matrix``: its subcommands put together, and how it ends."""

from __future__ import annotations

import errno
import os
import signal
import sys
from types import FrameType

import typer

from matrix.cli.advise import advise
from matrix.cli.blame import blame
from matrix.cli.clean import clean
from matrix.cli.culprit import culprit
from matrix.cli.diff import diff
from matrix.cli.explain import explain
from matrix.cli.inspect import inspect
from matrix.cli.issues import issues
from matrix.cli.lock import lock
from matrix.cli.options import fail
from matrix.cli.plan import plan
from matrix.cli.releases import releases
from matrix.cli.repair import repair
from matrix.cli.report import report
from matrix.cli.resolve import resolve
from matrix.cli.run import run
from matrix.cli.specifiers import specifiers
from matrix.machine.processes import die_with_parent
from matrix.run.context import unreachable
from matrix.spec.tables import SpecError

app = typer.Typer(
    help="Find out which quantizer's checkpoints load and answer correctly in which engine.\n\n"
    "`matrix run` does it and `matrix report` shows it. `matrix inspect FOLDER` looks at a "
    "checkpoint of your own. `matrix plan` says what a run would take, before anything is built.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (
    plan,
    run,
    report,
    diff,
    advise,
    blame,
    culprit,
    explain,
    inspect,
    repair,
    issues,
    specifiers,
    releases,
    resolve,
    lock,
    clean,
):
    app.command()(command)


class Interrupted(BaseException):
    """SIGINT or SIGTERM arrived. No ``except Exception`` on the way may hold it up."""


def main() -> None:
    """Run a command; a mistake of the user's is one line, never a traceback."""
    if parent := os.environ.pop("MATRIX_UNDER_NOX", None):
        die_with_parent(int(parent))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupted)
    try:
        app()
    except SpecError as error:
        fail(str(error))
    except Interrupted:
        sys.stderr.write("interrupted; what is finished is kept, the same command goes on\n")
        raise SystemExit(130) from None
    except OSError as error:
        if error.errno == errno.ENOSPC:
            fail("the disk of the store is full. Free some space; the same command goes on")
        # Where a file is named, the system did not let us at it, and the name tells more than a
        # traceback. It is not looked for below the store and the like: it may be a parent of them.
        if error.filename is None:
            raise
        fail(unreachable(error))


def _interrupted(_signal: int, _frame: FrameType | None) -> None:
    raise Interrupted
