"""The files of a checkpoint directory, opened so that none leads elsewhere or runs anything.

A checkpoint comes from a package under test or from a stranger. Nothing outside its directory is
read, but for the blobs of a snapshot in the Hub's cache; pickles are refused unread, and what is
parsed is bounded first.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec

from matrix.checkpoint.inspection import (
    CheckpointError,
    ConfigFacts,
    MergeForm,
    Problem,
    Quantization,
    TokenizerFacts,
)
from matrix.checkpoint.quantizing import QuantizationConfig

CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
INDEX = "model.safetensors.index.json"
MAX_CONFIG_BYTES = 4 * 1024 * 1024
MAX_INDEX_BYTES = 64 * 1024 * 1024
MAX_TOKENIZER_BYTES = 128 * 1024 * 1024
MAX_FILES = 10_000
LARGE_BYTES = 16 * 1024 * 1024
"""A file of more bytes is read only where most of them were written."""
_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"}

_T = TypeVar("_T")


class Config(msgspec.Struct, frozen=True):
    """The keys of config.json that reading weights needs, by their own names."""

    model_type: str | None = None
    tie_word_embeddings: bool | None = None
    hidden_size: int | None = None
    intermediate_size: int | None = None
    num_hidden_layers: int | None = None
    num_attention_heads: int | None = None
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    vocab_size: int | None = None
    attention_bias: bool | None = None
    mlp_bias: bool | None = None
    dtype: str | None = None
    torch_dtype: str | None = None
    rope_theta: float | None = None
    rope_parameters: dict[str, Any] | None = None
    quantization_config: QuantizationConfig | None = None

    @property
    def quantization(self) -> Quantization | None:
        """What ``quantization_config`` says, in this project's words."""
        config = self.quantization_config
        return config.facts if config is not None else None

    @property
    def facts(self) -> ConfigFacts:
        """What it says of the model."""
        return ConfigFacts(
            model_type=self.model_type and self.model_type[:64],
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size,
            layers=self.num_hidden_layers,
            heads=self.num_attention_heads,
            key_value_heads=self.num_key_value_heads,
            head_dim=self.head_dim,
            vocabulary=self.vocab_size,
            attention_bias=bool(self.attention_bias),
            mlp_bias=bool(self.mlp_bias),
            dtype=self.dtype and self.dtype[:64],
            torch_dtype=self.torch_dtype and self.torch_dtype[:64],
            rope_theta=self.rope_theta is not None,
            rope_parameters="rope_theta" in (self.rope_parameters or {}),
        )


class _TokenizerConfig(msgspec.Struct, frozen=True):
    tokenizer_class: str | None = None


class _TokenizerModel(msgspec.Struct, frozen=True):
    type: str | None = None
    # Only how it begins is looked at: there can be a million.
    merges: msgspec.Raw = msgspec.Raw(b"")


class _Tokenizer(msgspec.Struct, frozen=True):
    model: _TokenizerModel | None = None


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
        # Where regular files may lie; a link is followed to nowhere else.
        self._folders = [self.root]
        if self.root.parent.name == "snapshots":
            # The Hub's cache: models--x--y/snapshots/<commit>/FILE -> ../../blobs/<hash>.
            self._folders.append(self.root.parent.parent / "blobs")
        self.sizes: dict[str, int] = {}
        self.problems: list[Problem] = []
        try:
            names = sorted(entry.name for entry in self.root.iterdir())
        except OSError as error:
            remedy = "Give the directory that holds config.json and the safetensors files."
            raise CheckpointError(error.strerror or str(error), str(directory), remedy) from error
        if len(names) > MAX_FILES:
            raise CheckpointError(f"{len(names)} files", str(directory), "Give a checkpoint.")
        safe = any(name.endswith(".safetensors") for name in names)
        remedy = "Remove it." if safe else "Save the model as safetensors and remove it."
        for name in names:
            try:
                self._admit(name, remedy)
            except CheckpointError as error:
                self.problems.append(error.problem)

    def _admit(self, name: str, pickle_remedy: str) -> None:
        if not name.isprintable():
            raise CheckpointError("is no file name of a model", ascii(name), "Remove it.")
        if (self.root / name).is_dir() and not (self.root / name).is_symlink():
            return
        if Path(name).suffix.lower() in _PICKLES:
            problem = "may hold pickled objects, which run code when loaded"
            raise CheckpointError(problem, name, pickle_remedy)
        with self.open(name) as handle:
            self.sizes[name] = os.fstat(handle.fileno()).st_size

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading.

        Raises:
            CheckpointError: ``name`` is not the plain name of a regular file that lies here or,
                of a snapshot in the Hub's cache, among that model's blobs.
        """
        if not name or name in (".", "..") or "/" in name or "\0" in name:
            remedy = "Name files without a folder; all must lie beside config.json."
            raise CheckpointError("is not a plain file name", repr(name[:200]), remedy)
        path = Path(os.path.realpath(self.root / name))
        if path.parent not in self._folders:
            remedy = "Copy the file it leads to into the directory."
            raise CheckpointError("is a symbolic link out of the directory", name, remedy)
        if not path.exists():
            remedy = "Copy the whole checkpoint, or make it again."
            raise CheckpointError("is named, but is not there", name, remedy)
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
        size = os.fstat(handle.fileno()).st_size
        if size > LARGE_BYTES and 2 * (written := _written(handle.fileno(), size)) < size:
            handle.close()
            problem = f"only {written} of its {size} bytes were ever written"
            raise CheckpointError(problem, name, "Its download was cut: fetch it again.")
        return handle

    def config(self) -> Config:
        """Return config.json.

        Raises:
            CheckpointError: It is missing, too large, not JSON, or has keys of other types.
        """
        if not os.path.lexists(self.root / CONFIG):
            remedy = "Give the directory of a model, which has one."
            raise CheckpointError("is missing", CONFIG, remedy)
        return self._json(CONFIG, MAX_CONFIG_BYTES, Config)

    def tokenizer(self) -> TokenizerFacts:
        """Return what the tokenizer's files say, as far as they are there.

        Raises:
            CheckpointError: One is too large, not JSON, or has keys of other types.
        """
        config, model = _TokenizerConfig(), None
        if TOKENIZER_CONFIG in self.sizes:
            config = self._json(TOKENIZER_CONFIG, MAX_TOKENIZER_BYTES, _TokenizerConfig)
        if TOKENIZER in self.sizes:
            model = self._json(TOKENIZER, MAX_TOKENIZER_BYTES, _Tokenizer).model
        model = model or _TokenizerModel()
        return TokenizerFacts(
            tokenizer_class=(config.tokenizer_class or "")[:64],
            merges=_merge_form(bytes(model.merges)),
            model_type=(model.type or "")[:64],
        )

    def weight_map(self) -> dict[str, str] | None:
        """Return the index's tensor name -> file name; ``None`` where there is no index.

        Raises:
            CheckpointError: The index is too large, not JSON, or names a file outside.
        """
        if INDEX not in self.sizes:
            return None
        index = self._json(INDEX, MAX_INDEX_BYTES, _Index).weight_map
        for name in sorted(set(index.values()) - set(self.sizes)):
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


def _merge_form(merges: bytes) -> MergeForm:
    """Return how the first of some merges is written: ``["a b"]`` or ``[["a", "b"]]``."""
    match merges[:64].replace(b" ", b"").replace(b"\n", b"")[:2]:
        case b'["':
            return "strings"
        case b"[[":
            return "pairs"
        case _:
            return ""


def _written(handle: int, size: int) -> int:
    """Return how many bytes of an open file were written; once these are half of it, no further.

    All, where its file system does not tell. The others take no room on the disk, so that a file of
    a few KB can have terabytes of them.
    """
    written = end = 0
    while 2 * written < size:
        try:
            begin = os.lseek(handle, end, os.SEEK_DATA)
            end = os.lseek(handle, begin, os.SEEK_HOLE)
        except OSError as error:
            if error.errno != errno.ENXIO:
                written = size
            break  # nothing is written behind that
        written += end - begin
    os.lseek(handle, 0, os.SEEK_SET)
    return written
