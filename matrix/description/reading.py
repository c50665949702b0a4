"""What stands in the JSON files and file headers of a model's folder, read within bounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from matrix.checkpoint.files import (
    CONFIG,
    MAX_CONFIG_BYTES,
    MAX_TOKENIZER_BYTES,
    TOKENIZER,
    TOKENIZER_CONFIG,
    CheckpointFiles,
)
from matrix.checkpoint.inspection import CheckpointError
from matrix.checkpoint.tensors import MAX_HEADER_BYTES
from matrix.description.families import Settings
from matrix.untrusted.reading import UnreadableError, decode, is_deep

GENERATION = "generation_config.json"
QUANTIZE = ("quantize_config.json", "quant_config.json")
"""Where AutoGPTQ and GPTQModel, and AutoAWQ before 0.1.8, write how they quantized."""
SPECIAL = "special_tokens_map.json"
TEMPLATE = "chat_template.jinja"
TOKENIZERS = (
    TOKENIZER,
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "tekken.json",
)
"""Files of which one at least holds the vocabulary."""
ROLES = ("eos_token", "bos_token", "pad_token", "unk_token")

_T = TypeVar("_T")


class AddedToken(msgspec.Struct, frozen=True):
    """A token beside those of the tokenizer's model."""

    id: int
    content: str
    special: bool = False


class TokenizerModel(msgspec.Struct, frozen=True):
    """The vocabulary of a tokenizer.json, and how its texts are put together."""

    type: str | None = None
    vocab: dict[str, int] | list[tuple[str, float]] = {}
    merges: list[str | list[str]] = []

    @property
    def ids(self) -> dict[str, int]:
        """Token -> id."""
        if isinstance(self.vocab, dict):
            return self.vocab
        return {token: place for place, (token, _) in enumerate(self.vocab)}

    @property
    def pairs(self) -> list[str]:
        """The merges in their order, as ``a b``, however they are written."""
        return [merge if isinstance(merge, str) else " ".join(merge) for merge in self.merges]

    @property
    def made(self) -> list[str]:
        """The tokens that the merges make, in their order."""
        return [
            merge.replace(" ", "", 1) if isinstance(merge, str) else "".join(merge)
            for merge in self.merges
        ]


class TokenizerFile(msgspec.Struct, frozen=True):
    """What a tokenizer.json holds."""

    model: TokenizerModel = TokenizerModel()
    added_tokens: list[AddedToken] = []
    normalizer: dict[str, Any] | None = None
    pre_tokenizer: dict[str, Any] | None = None
    post_processor: dict[str, Any] | None = None
    decoder: dict[str, Any] | None = None

    @property
    def parts(self) -> list[object]:
        """What is done to a text beside its tokens."""
        return [self.normalizer, self.pre_tokenizer, self.post_processor, self.decoder]

    @property
    def added(self) -> dict[str, int]:
        """Added token -> id."""
        return {token.content: token.id for token in self.added_tokens}


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """What the files of a model say of it; ``None`` for a file that is not there."""

    files: frozenset[str] = frozenset()
    config: Settings = {}
    generation: Settings | None = None
    quantize: Settings | None = None
    tokenizer: TokenizerFile | None = None
    tokenizer_config: Settings = {}
    special: Settings = {}
    """special_tokens_map.json."""
    template: str = ""
    """The chat template."""
    formats: Mapping[str, str | None] = {}
    """Safetensors file -> ``format`` of its metadata, empty where that does not say; ``None`` where
    there is no metadata."""
    problems: list[str] = []
    """Why a file could not be read."""

    @property
    def roles(self) -> dict[str, str]:
        """Role, such as ``eos_token`` -> the token that the tokenizer's files give it."""
        texts = {role: self.tokenizer_config.get(role) or self.special.get(role) for role in ROLES}
        return {role: name for role, value in texts.items() if (name := _content(value))}


def read_description(files: CheckpointFiles) -> Description:
    """Return what the files of a folder say; why one cannot be read is in ``problems``."""
    reader = _Reader(files)
    config = reader.read(TOKENIZER_CONFIG, MAX_TOKENIZER_BYTES, dict[str, Any]) or {}
    quantize = next((name for name in QUANTIZE if name in files.sizes), QUANTIZE[0])
    return Description(
        files=frozenset(files.sizes),
        config=reader.read(CONFIG, MAX_CONFIG_BYTES, dict[str, Any]) or {},
        generation=reader.read(GENERATION, MAX_CONFIG_BYTES, dict[str, Any]),
        quantize=reader.read(quantize, MAX_CONFIG_BYTES, dict[str, Any]),
        tokenizer=reader.read(TOKENIZER, MAX_TOKENIZER_BYTES, TokenizerFile),
        tokenizer_config=config,
        special=reader.read(SPECIAL, MAX_CONFIG_BYTES, dict[str, Any]) or {},
        template=reader.text(TEMPLATE) or _template(config.get("chat_template")),
        formats={
            name: reader.format_of(name) for name in files.sizes if name.endswith(".safetensors")
        },
        problems=reader.problems,
    )


class _Header(msgspec.Struct, frozen=True):
    """What is wanted of a safetensors file's header."""

    metadata: dict[str, Any] | None = msgspec.field(name="__metadata__", default=None)


class _Reader:
    """Reads files of a folder, and keeps why one cannot be read."""

    def __init__(self, files: CheckpointFiles) -> None:
        self.files = files
        self.problems: list[str] = []

    def read(self, name: str, limit: int, kind: type[_T]) -> _T | None:
        """Return what a file's JSON holds; nothing where it is not there or cannot be read."""
        data = self._bytes(name, limit)
        if data is None:
            return None
        try:
            value = decode(data, kind)
        except UnreadableError as error:
            self.problems.append(f"{name}: {error}")
            return None
        parts = value.parts if isinstance(value, TokenizerFile) else value
        if is_deep(parts):
            self.problems.append(f"{name} is nested deeper than any model's")
            return None
        return value

    def text(self, name: str) -> str:
        """Return a file's text; empty where it is not there or cannot be read."""
        return (self._bytes(name, MAX_CONFIG_BYTES) or b"").decode(errors="replace")

    def format_of(self, name: str) -> str | None:
        """Return the ``format`` that a safetensors file's metadata names; ``None`` without any."""
        try:
            with self.files.open(name) as handle:
                length = int.from_bytes(handle.read(8), "little")
                header = decode(handle.read(min(length, MAX_HEADER_BYTES)), _Header)
        except (CheckpointError, UnreadableError, OSError):
            return None  # who reads the tensors says why
        return None if header.metadata is None else str(header.metadata.get("format", ""))[:64]

    def _bytes(self, name: str, limit: int) -> bytes | None:
        if name not in self.files.sizes:
            return None
        try:
            with self.files.open(name) as handle:
                data = handle.read(limit + 1)
        except (CheckpointError, OSError) as error:
            self.problems.append(f"{name}: {error}")
            return None
        if len(data) > limit:
            self.problems.append(f"{name} has more than {limit} bytes")
            return None
        return data


def _content(value: object) -> str:
    """Return the text of a token, written plainly or with its properties; empty for none."""
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else ""


def _template(value: object) -> str:
    """Return the default of the chat templates that stand in tokenizer_config.json."""
    if isinstance(value, list):
        named = [entry for entry in value if isinstance(entry, dict)]
        texts = [entry.get("template") for entry in named if entry.get("name") == "default"]
        value = texts[0] if texts else None
    return value if isinstance(value, str) else ""
