"""A repaired copy of a checkpoint: all of it at once, or nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from matrix.checkpoint.files import INDEX
from matrix.checkpoint.inspection import CheckpointError
from matrix.repair.edits import (
    Change,
    DropTensor,
    LowerZeros,
    RenameFile,
    RenameTensor,
    SetField,
)
from matrix.repair.json_text import FieldPath, with_fields
from matrix.repair.shards import Edits, kept_tensors, size_of, write_shard
from matrix.repair.subject import Subject

COPY_BYTES = 2**20


def check_place(out: Path, source: Path) -> Path:
    """Return where a copy is to lie, spelled out.

    Raises:
        CheckpointError: It is there already, or lies in the source.
    """
    parent, root = Path(os.path.realpath(out.parent)), Path(os.path.realpath(source))
    target = parent / out.name
    if not out.name or os.path.lexists(target):
        raise CheckpointError("is there already", str(out), "Name a folder that is not there.")
    if parent.is_relative_to(root):
        problem = "lies in the checkpoint that is repaired"
        raise CheckpointError(problem, str(out), "Name a folder elsewhere.")
    return target


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Give an unfinished folder beside ``target`` that gets this name in the end, or is removed.

    Raises:
        CheckpointError: The system does not let us write it.
    """
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.unfinished")
    try:
        unfinished.mkdir()
        try:
            yield unfinished
            unfinished.rename(target)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        remedy = "Name a folder where there is room, in one that is there and can be written to."
        raise CheckpointError(error.strerror or str(error), str(target), remedy) from error


def write_copy(subject: Subject, changes: Sequence[Change], folder: Path) -> None:
    """Write the files of a checkpoint into an empty folder, changed as wanted.

    Raises:
        CheckpointError: A file cannot be read, or what is changed in it is not as it must be.
        OSError: The system does not let us write.
    """
    edits: Edits = {
        change.edit.name: change.edit
        for change in changes
        if isinstance(change.edit, RenameTensor | DropTensor | LowerZeros)
    }
    names = {c.edit.file: c.edit.new_name for c in changes if isinstance(c.edit, RenameFile)}
    fields = _fields(subject, changes, edits)
    shards = {edit.file for edit in edits.values()}
    for file in subject.files.sizes:
        target = folder / names.get(file, file)
        if file in shards:
            if kept_tensors(subject.tensors, file, edits):
                write_shard(subject.tensors, file, edits, target)
        elif file in fields:
            target.write_bytes(with_fields(subject.read(file), fields[file], file))
        else:
            with subject.files.open(file) as source, target.open("xb") as output:
                shutil.copyfileobj(source, output, COPY_BYTES)
                if output.tell() != subject.files.sizes[file]:
                    problem = "changed its size while it was copied"
                    raise CheckpointError(problem, file, "Try again when nothing writes there.")


def _fields(
    subject: Subject, changes: Sequence[Change], edits: Edits
) -> dict[str, dict[FieldPath, bytes | None]]:
    """Return JSON file -> its fields that change, those of the index among them."""
    fields: dict[str, dict[FieldPath, bytes | None]] = {}
    index = INDEX
    for change in changes:
        match change.edit:
            case SetField(file=file, path=path, new=new):
                fields.setdefault(file, {})[path] = new
            case RenameFile(file=file, new_name=new_name) if new_name == INDEX:
                index = file
    of_index = _index_fields(subject, index, edits)
    return fields | ({index: of_index} if of_index else {})


def _index_fields(subject: Subject, index: str, edits: Edits) -> dict[FieldPath, bytes | None]:
    """Return what changes in the index: names of tensors, and the bytes of all together."""
    if index not in subject.files.sizes:
        return {}
    fields: dict[FieldPath, bytes | None] = {}
    for name, edit in edits.items():
        match edit:
            case RenameTensor():
                fields["weight_map", name] = None
                fields["weight_map", edit.new_name] = msgspec.json.encode(edit.file)
            case DropTensor():
                fields["weight_map", name] = None
    dropped = sum(edit.size for edit in edits.values() if isinstance(edit, DropTensor))
    if dropped and subject.field(index, ("metadata", "total_size")) is not None:
        stored = sum(size_of(subject.tensors.info(name)) for name in subject.tensors)
        fields["metadata", "total_size"] = msgspec.json.encode(stored - dropped)
    return fields
