"""The files of a checkpoint directory, opened so that none leads elsewhere or runs anything.

A checkpoint comes from a package under test or from a stranger. Nothing outside its directory is
read, pickles are refused unread, and what is parsed is bounded first.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec

from matrix.checkpoint.inspection import CheckpointError, Problem, Quantization

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
MAX_CONFIG_BYTES = 4 * 1024 * 1024
MAX_INDEX_BYTES = 64 * 1024 * 1024
MAX_FILES = 10_000
_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"}

_T = TypeVar("_T")


class _QuantizationConfig(msgspec.Struct, frozen=True):
    quant_method: str = ""
    bits: int | None = None
    group_size: int | None = None
    zero_point: bool | None = None
    version: str = ""


class Config(msgspec.Struct, frozen=True):
    """The keys of config.json that reading weights needs."""

    tie_word_embeddings: bool | None = None
    hidden_size: int | None = None
    num_attention_heads: int | None = None
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    quantization_config: _QuantizationConfig | None = None

    @property
    def quantization(self) -> Quantization | None:
        """What ``quantization_config`` says, in this project's words."""
        found = self.quantization_config
        if found is None:
            return None
        return Quantization(
            found.quant_method[:64],
            found.bits,
            found.group_size,
            found.zero_point,
            found.version[:64],
        )


class _Index(msgspec.Struct, frozen=True):
    weight_map: dict[str, str]


class CheckpointFiles:
    """The regular files directly in a directory, by name, with what is wrong with the others.

    Attributes:
        sizes: File name -> bytes, of every file that may be read.
        problems: Pickles, symbolic links that lead out, pipes and the like.

    Raises:
        CheckpointError: There is no such directory, or it holds too many files.
    """

    def __init__(self, directory: Path) -> None:
        self.root = Path(os.path.realpath(directory))
        self.sizes: dict[str, int] = {}
        self.problems: list[Problem] = []
        try:
            names = sorted(entry.name for entry in self.root.iterdir())
        except OSError as error:
            remedy = "Give the directory that holds config.json and the safetensors files."
            raise CheckpointError(error.strerror or str(error), str(directory), remedy) from error
        if len(names) > MAX_FILES:
            raise CheckpointError(f"{len(names)} files", str(directory), "Give a checkpoint.")
        for name in names:
            try:
                self._admit(name)
            except CheckpointError as error:
                self.problems.append(error.problem)

    def _admit(self, name: str) -> None:
        if not name.isprintable():
            raise CheckpointError("is no file name of a model", ascii(name), "Remove it.")
        if (self.root / name).is_dir() and not (self.root / name).is_symlink():
            return
        if Path(name).suffix.lower() in _PICKLES:
            problem = "may hold pickled objects, which run code when loaded"
            raise CheckpointError(problem, name, "Save the model as safetensors and remove it.")
        with self.open(name) as handle:
            self.sizes[name] = os.fstat(handle.fileno()).st_size

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading.

        Raises:
            CheckpointError: ``name`` is not the plain name of a regular file that lies here.
        """
        if not name or name in (".", "..") or "/" in name or "\0" in name:
            remedy = "Name files without a folder; all must lie beside config.json."
            raise CheckpointError("is not a plain file name", repr(name[:200]), remedy)
        path = Path(os.path.realpath(self.root / name))
        if path.parent != self.root:
            remedy = "Copy the file it leads to into the directory."
            raise CheckpointError("is a symbolic link out of the directory", name, remedy)
        try:
            # Non-blocking, so that a pipe put in place of a file cannot hold the reader up.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            handle = os.fdopen(os.open(path, flags), "rb")
        except OSError as error:
            remedy = "Make the checkpoint again."
            raise CheckpointError(error.strerror or str(error), name, remedy) from error
        if not stat.S_ISREG(os.fstat(handle.fileno()).st_mode):
            handle.close()
            raise CheckpointError("is not a regular file", name, "Remove it.")
        return handle

    def config(self) -> Config:
        """Return config.json.

        Raises:
            CheckpointError: It is missing, too large, not JSON, or has keys of other types.
        """
        return self._json(CONFIG, MAX_CONFIG_BYTES, Config)

    def weight_map(self) -> dict[str, str] | None:
        """Return the index's tensor name -> file name; ``None`` where there is no index.

        Raises:
            CheckpointError: The index is too large, not JSON, or names a file outside.
        """
        if INDEX not in self.sizes:
            return None
        index = self._json(INDEX, MAX_INDEX_BYTES, _Index).weight_map
        for name in set(index.values()):
            if name not in self.sizes:
                self.open(name).close()
        return index

    def _json(self, name: str, limit: int, kind: type[_T]) -> _T:
        with self.open(name) as handle:
            data = handle.read(limit + 1)
        if len(data) > limit:
            raise CheckpointError(f"is larger than {limit} bytes", name, "Make it again.")
        try:
            return msgspec.json.decode(data, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise CheckpointError(str(error), name, "Save the model again.") from error
