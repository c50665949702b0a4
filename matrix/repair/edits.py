"""What a repair changes in a checkpoint: edits of tensors, of fields and of file names, as data."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from matrix.checkpoint.inspection import CheckpointError
from matrix.repair.json_text import FieldPath

LONGEST = 80
"""Characters of a value that are shown."""


class RenameTensor(msgspec.Struct, frozen=True):
    """A tensor gets another name; its bytes stay."""

    file: str
    name: str
    new_name: str

    @property
    def target(self) -> str:
        """What it changes."""
        return f"tensor {self.name}"

    @property
    def words(self) -> str:
        """What it changes from what to what."""
        return f"{self.name} -> {self.new_name}"


class DropTensor(msgspec.Struct, frozen=True):
    """A tensor is left out."""

    file: str
    name: str
    size: int
    """Bytes."""
    why: str

    @property
    def target(self) -> str:
        """What it changes."""
        return f"tensor {self.name}"

    @property
    def words(self) -> str:
        """What it changes from what to what."""
        return f"{self.name} ({self.size} bytes, {self.why}) -> left out"


class LowerZeros(msgspec.Struct, frozen=True):
    """Each zero point of a packed tensor is stored as one less; none of them is 0."""

    file: str
    name: str
    bits: int
    stored: int | None
    """The one zero point that is stored, where there is only one."""

    @property
    def target(self) -> str:
        """What it changes."""
        return f"tensor {self.name}"

    @property
    def words(self) -> str:
        """What it changes from what to what."""
        if self.stored is None:
            return f"{self.name}: each zero point z -> z - 1"
        return f"{self.name}: each zero point {self.stored} -> {self.stored - 1}"


class SetField(msgspec.Struct, frozen=True):
    """A field of a JSON file gets a value."""

    file: str
    path: FieldPath
    old: bytes | None
    """As JSON; ``None`` where the field is not there."""
    new: bytes | None
    """As JSON; ``None`` where the field is taken out."""

    @property
    def target(self) -> str:
        """What it changes."""
        return f"{self.file} {self.path}"

    @property
    def words(self) -> str:
        """What it changes from what to what."""
        return f"{'.'.join(self.path)}: {_shown(self.old)} -> {_shown(self.new)}"


class RenameFile(msgspec.Struct, frozen=True):
    """A file gets another name; its bytes stay, but for what other edits say."""

    file: str
    new_name: str

    @property
    def target(self) -> str:
        """What it changes."""
        return f"file {self.file}"

    @property
    def words(self) -> str:
        """What it changes from what to what."""
        return f"{self.file} -> {self.new_name}"


TensorEdit = RenameTensor | DropTensor | LowerZeros
Edit = TensorEdit | SetField | RenameFile


class Change(msgspec.Struct, frozen=True):
    """An edit with the repair that wants it."""

    repair: str
    edit: Edit

    def __str__(self) -> str:
        return f"{self.repair}: {self.edit.file}: {self.edit.words}"


def check_changes(changes: Iterable[Change]) -> None:
    """Raise :class:`CheckpointError` where two repairs want different things of the same place."""
    wanted: dict[str, Change] = {}
    for change in changes:
        before = wanted.setdefault(change.edit.target, change)
        if before.edit != change.edit:
            raise CheckpointError(
                f"{before.repair} wants {before.edit.words}, and {change.repair} wants "
                f"{change.edit.words}",
                change.edit.file,
                "Name the one that is meant by --repair.",
            )


def _shown(value: bytes | None) -> str:
    if value is None:
        return "not there"
    text = value.decode(errors="replace")
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
