"""What repairs decide by: a checkpoint's files, what the inspection says of them, and its JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from matrix.checkpoint.files import CONFIG, MAX_CONFIG_BYTES, MAX_TOKENIZER_BYTES, CheckpointFiles
from matrix.checkpoint.inspecting import inspect
from matrix.checkpoint.inspection import CheckpointError, Inspection, Quantization
from matrix.checkpoint.tensors import Tensors
from matrix.repair.edits import SetField
from matrix.repair.json_text import FieldPath
from matrix.untrusted.reading import UnreadableError, decode

QUANTIZE_CONFIG = "quantize_config.json"
"""What AutoGPTQ and GPTQModel read in place of ``quantization_config``."""

LIMITS = {CONFIG: MAX_CONFIG_BYTES, QUANTIZE_CONFIG: MAX_CONFIG_BYTES}
"""JSON file -> the bytes it may have, where that is less than for a tokenizer's."""

Document = Mapping[str, Any]


class Subject:
    """A checkpoint that can be read; :class:`CheckpointError` where it cannot.

    Attributes:
        files: Its files.
        tensors: Their tensors, by name.
        inspection: What the inspection says of it.
    """

    def __init__(self, directory: Path) -> None:
        self.inspection: Inspection = inspect(directory)
        for problem in self.inspection.problems:
            raise CheckpointError(problem.problem, problem.where, problem.remedy)
        self.files = CheckpointFiles(directory)
        self.tensors = Tensors(self.files)
        self._documents: dict[str, Document] = {}

    @property
    def quantization(self) -> Quantization:
        """What config.json says of the quantization; of an unknown method where it does not."""
        return self.inspection.quantization or Quantization("")

    @property
    def has_usual_names(self) -> bool:
        """Whether the decoder's tensors have the names that transformers gives to most models."""
        return any(name.startswith("model.layers.") for name in self.tensors)

    def read(self, file: str) -> bytes:
        """Return the bytes of one of its JSON files; raise :class:`CheckpointError`."""
        limit = LIMITS.get(file, MAX_TOKENIZER_BYTES)
        with self.files.open(file) as handle:
            data = handle.read(limit + 1)
        if len(data) > limit:
            problem = f"is larger than {limit} bytes"
            raise CheckpointError(problem, file, "Save the model again.")
        return data

    def document(self, file: str) -> Document:
        """Return what a JSON file holds, nothing where it is not there; it is read once.

        Raises:
            CheckpointError: It is too large, or no JSON object.
        """
        if file not in self.files.sizes:
            return {}
        if file not in self._documents:
            try:
                self._documents[file] = decode(self.read(file), dict[str, Any])
            except UnreadableError as error:
                raise CheckpointError(str(error), file, "Save the model again.") from None
        return self._documents[file]

    def set_field(self, file: str, path: FieldPath, new: object) -> list[SetField]:
        """Return the edit that gives a field a value; none where it has it, or cannot have it."""
        value, is_there = self._field(file, path)
        if (is_there and value == new and type(value) is type(new)) or file not in self.files.sizes:
            return []
        old = msgspec.json.encode(value) if is_there else None
        return [SetField(file, path, old, msgspec.json.encode(new))]

    def change_field(self, file: str, path: FieldPath, new: object) -> list[SetField]:
        """Return the edit that gives a field another value; none where it says nothing."""
        return [] if self.field(file, path) is None else self.set_field(file, path, new)

    def take_out(self, file: str, path: FieldPath) -> list[SetField]:
        """Return the edit that takes a field out; none where it is not there."""
        value, is_there = self._field(file, path)
        return [SetField(file, path, msgspec.json.encode(value), None)] if is_there else []

    def field(self, file: str, path: FieldPath) -> Any:
        """Return the value of a field, ``None`` where it is not there."""
        return self._field(file, path)[0]

    def _field(self, file: str, path: FieldPath) -> tuple[Any, bool]:
        value: Any = self.document(file)
        for name in path:
            if not isinstance(value, dict) or name not in value:
                return None, False
            value = value[name]
        return value, True
