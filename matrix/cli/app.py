"""The command ``matrix``: its subcommands put together, and how it ends."""

from __future__ import annotations

import errno
import inspect
import os
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from types import FrameType
from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

from matrix.cli.examples import examples_of
from matrix.cli.options import fail
from matrix.spec.tables import SpecError

COMMANDS: Final = {
    "doctor": "Say what this machine has for a run of a profile, and what each lack means and what "
    "helps.",
    "plan": "Show what a profile holds, needs and is predicted to cost; build and run nothing.",
    "run": "Do what has not been observed yet, the canaries first; stop and start it as you like.",
    "report": "Judge what was observed, write the report, print its summary.",
    "diff": "Say what became of every cell between two runs, grouped by what changed.",
    "advise": "Say which packages quantize a model, and load it and answer right, by what was run.",
    "blame": "Set a cell beside a good quantizer's and a good engine's, and say which side is to "
    "blame.",
    "culprit": "Name the first bad release of a package, or the smallest set of pins, between two "
    "cells.",
    "explain": "Say why something failed, and what to do, by the known issues that its log fits.",
    "inspect": "Say what is wrong with a checkpoint of yours by reading its files; load and write "
    "nothing.",
    "repair": "Make a copy of a checkpoint with its known defects repaired; change nothing in "
    "place.",
    "issues": "List the known issues, or show one, or add a real log to it.",
    "specifiers": "Show which versions worked together, and where packages declare otherwise.",
    "releases": "Show what is new on the package index; --take writes it to the snapshot beside "
    "the spec.",
    "formats": "Show which formats the releases of engines read, by the lists in their wheels.",
    "resolve": "Ask uv whether each environment resolves, as released and as of today.",
    "pairs": "Show which releases of two packages can share an environment, by resolving alone.",
    "lock": "Make the locks beside the spec that are missing or whose inputs have changed.",
    "verify": "Read all that a store keeps, and name what is damaged, of something else, or not "
    "its own.",
    "clean": "Say what of the store can be removed and what that frees; remove what the options "
    "name.",
}
"""Name of a command -> its line in the help, which its own help begins with.

Each is the function of that name in the module of that name here. It stands here because a module
that is not asked for is not imported: they all together take half a second.
"""


class Commands(TyperGroup):
    """The commands, of which only the one that is run, or completed, is imported."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, line in COMMANDS.items():
            self.add_command(TyperCommand(name, help=line))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the name of the command that arguments ask for, itself, and its arguments."""
        name, line, rest = super().resolve_command(ctx, args)
        return name, line and command(args[0]), rest


def command(name: str) -> Any:
    """Return a command with its options, and all of its help."""
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    module = import_module(f"matrix.cli.{name}")
    function = getattr(module, name)
    alone.command(name, help=_in_paragraphs(function), epilog=examples_of(name))(function)
    return typer.main.get_command(alone)


def _in_paragraphs(function: Callable[..., object]) -> str:
    """Return a function's docstring with a paragraph on each line, which a terminal breaks."""
    paragraphs = (inspect.getdoc(function) or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        from matrix.history.project import project

        version, commit = project()
        checkout = f"of a checkout that is not installed, at commit {commit or 'unknown'}"
        typer.echo(f"matrix {version or checkout}")
        raise typer.Exit


def matrix(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Find out which quantizer's checkpoints load and answer correctly in which engine.

    `matrix run` does it and `matrix report` shows it. `matrix inspect FOLDER` looks at a checkpoint
    of your own. `matrix plan` says what a run would take, before anything is built.
    """


app = typer.Typer(cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False)
app.callback(help=_in_paragraphs(matrix))(matrix)


class Interrupted(BaseException):
    """SIGINT or SIGTERM arrived. No ``except Exception`` on the way may hold it up."""


def main() -> None:
    """Run a command; a mistake of the user's is one line, never a traceback."""
    if parent := os.environ.pop("MATRIX_UNDER_NOX", None):
        from matrix.machine.processes import die_with_parent

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
        from matrix.run.context import unreachable

        fail(unreachable(error))


def _interrupted(_signal: int, _frame: FrameType | None) -> None:
    raise Interrupted
