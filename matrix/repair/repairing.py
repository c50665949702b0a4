"""A checkpoint repaired: what is to be changed, the copy in which it is, and a look at that."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import msgspec

from matrix.checkpoint.inspection import CheckpointError, Inspection
from matrix.repair.copying import check_place, new_folder, write_copy
from matrix.repair.edits import Change
from matrix.repair.names import RepairName
from matrix.repair.subject import Subject
from matrix.repair.table import changes_of, left_to


class Repaired(msgspec.Struct, frozen=True):
    """What came of repairing a checkpoint."""

    changes: list[Change]
    """What was changed; where there is nothing, no copy was made."""
    left: dict[RepairName, list[str]]
    """Repairs that were not made -> the readers that need them, as requirements."""
    folders: list[str]
    """Folders of the checkpoint, which are not in the copy."""
    inspection: Inspection
    """Of the copy; of the checkpoint itself where there is none."""


def repair(
    directory: Path, out: Path, names: Collection[RepairName], readers: Mapping[str, str]
) -> Repaired:
    """Copy a checkpoint with its repairs made; return what was changed.

    Args:
        directory: The checkpoint, which is not changed.
        out: The folder of the copy. It appears whole, and only where there is something to repair.
        names: The repairs that are meant, as for :func:`.table.changes_of`.
        readers: Distribution -> version of what is to read it.

    Raises:
        CheckpointError: The checkpoint cannot be read, a repair is not sure, or the copy cannot be
            written or would not be as it must be. Then there is none.
    """
    target = check_place(out, directory)
    subject = Subject(directory)
    changes = changes_of(subject, names, readers)
    if not changes:
        left = {} if names else left_to(subject, readers)
        return Repaired([], left, [], subject.inspection)
    with new_folder(target) as folder:
        write_copy(subject, changes, folder)
        copy = Subject(folder)
        for change in changes_of(copy, names, readers):
            problem = f"would not be repaired: {change} is left"
            raise CheckpointError(problem, str(out), "Report it, with the checkpoint's config.")
        left = {} if names else left_to(copy, readers)
    folders = sorted(entry.name for entry in directory.iterdir() if entry.is_dir())
    return Repaired(changes, left, folders, copy.inspection)
