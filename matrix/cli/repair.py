"""``matrix repair``: a copy of a checkpoint in which its known defects are mended."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from matrix.checkpoint.inspection import CheckpointError
from matrix.cli.inspect import examine
from matrix.cli.options import LINE_CHARS, fail, releases_of
from matrix.repair.names import NOTHING_TO_REPAIR, NOTHING_WRITTEN, RepairName
from matrix.repair.proofs import Proof, describe_proof, load_proofs
from matrix.spec.loading import load
from matrix.untrusted.text import visible

if TYPE_CHECKING:
    from matrix.repair.repairing import Repaired

SYSTEM_REFUSED = "The system refused it, and nothing was written."
"""In place of NOTHING_WRITTEN, where the checkpoint is not to blame."""


def repair(
    checkpoint: Annotated[Path, typer.Argument(help="Directory with config.json and weights.")],
    out: Annotated[Path, typer.Option(help="The repaired copy: a folder that is not there yet.")],
    names: Annotated[
        list[RepairName] | None,
        typer.Option("--repair", help="Only this repair; may be repeated."),
    ] = None,
    readers: Annotated[
        list[str] | None,
        typer.Option("--for", help="What is to read it, as in transformers==4.51.3; repeatable."),
    ] = None,
) -> None:
    """Make a copy of a checkpoint with its known defects repaired; change nothing in place.

    Without --repair it makes the repairs that every reader needs, and those that a reader named by
    --for needs. Status 0 where it is repaired, 1 where there is nothing to repair, 2 where it is
    not sure or the system refuses, and then there is no copy.
    """
    from matrix.repair.repairing import repair as make  # numpy takes a while to import
    from matrix.repair.table import READERS

    releases = releases_of("--for", readers or [])
    for name in releases.keys() - READERS:
        fail(f"--for: no repair depends on {name}. Name one of {', '.join(sorted(READERS))}")
    try:
        repaired = make(checkpoint, out, names or [], releases)
    except CheckpointError as error:
        if isinstance(error.__cause__, OSError):
            fail(f"{error} {SYSTEM_REFUSED}")
        fail(f"{error} {NOTHING_WRITTEN}")
    except OSError as error:
        fail(f"{checkpoint}: {error.strerror or error}. Try again. {SYSTEM_REFUSED}")
    for line in _lines(repaired, releases, out if repaired.changes else checkpoint):
        typer.echo(visible(line, LINE_CHARS))
    raise typer.Exit(not repaired.changes)


def _lines(repaired: Repaired, readers: dict[str, str], folder: Path) -> list[str]:
    """Return what was done, which proof there is that it helps, and whether the copy is sound."""
    lines = [str(change) for change in repaired.changes]
    lines += [f"{name}/: not copied, it is a folder" for name in repaired.folders]
    proofs = load_proofs()
    for name in dict.fromkeys(change.repair for change in repaired.changes):
        lines.append(describe_proof(RepairName(name), proofs.get(RepairName(name), Proof())))
    for name, needed_by in repaired.left.items():
        readers_text = " or ".join(needed_by)
        lines.append(f"{name}: not made; only {readers_text} needs it. Name your readers by --for")
    wrong = examine(folder, None, load(), readers).wrong
    if not repaired.changes:
        return [*lines, NOTHING_TO_REPAIR + (", but not sound:" if wrong else ""), *wrong]
    return [*lines, f"{folder}: " + ("not sound yet:" if wrong else "sound by its files"), *wrong]
