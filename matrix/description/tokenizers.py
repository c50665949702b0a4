"""What a tokenizer's files say, by themselves and beside the original's. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import msgspec

from matrix.description.comparing import ENDS, difference, ids_of
from matrix.description.families import Settings
from matrix.description.reading import (
    TOKENIZERS,
    Description,
    TokenizerFile,
    TokenizerModel,
)

LEAST_TENTHS = 7
"""Of the rows of an embedding, for how many tenths a tokenizer must have tokens; others pad it."""
LEAST_RISING = 0.75
"""Share of merges that make a token of a higher id than the merge before. Of trained tokenizers
that is nearly 1, of one with shuffled ids a half."""
MOST_UNMADE = 0.2
"""Share of tokens of several characters that no merge makes."""
MERGES_THAT_TELL = 40
_SHOWN = 60


def token_faults(own: Description) -> list[str]:
    """Return which ids of the end or the beginning of a text no token can have."""
    vocabulary = own.config.get("vocab_size")
    added = set(own.tokenizer.added.values()) if own.tokenizer else set()
    faults = []
    for file, settings in (("config.json", own.config), ("generation_config.json", own.generation)):
        for name in ENDS:
            for number in sorted(ids_of(settings or {}, name)):
                if isinstance(vocabulary, int) and not 0 <= number < vocabulary:
                    faults.append(f"{file}: {name} {number} is no token of {vocabulary}")
                elif added and name in (settings or {}) and number not in added:
                    faults.append(f"{file}: {name} {number} is no special token of the tokenizer")
    ends = ids_of(own.config, ENDS[0]) | ids_of(own.generation or {}, ENDS[0])
    if "eos_token" in own.roles and "text_config" not in own.config and not ends:
        faults.append("eos_token_id is nowhere, so that transformers does not end a text")
    return faults


def tokenizer_faults(own: Description) -> list[str]:
    """Return why the tokenizer cannot be the model's."""
    if not own.files.intersection(TOKENIZERS) and not any(map(_is_code_or_ranks, own.files)):
        return ["there is no tokenizer"]
    if own.tokenizer is None:
        return []
    faults = list(_id_faults(own, own.tokenizer))
    added, ids = own.tokenizer.added, own.tokenizer.model.ids
    for role, token in own.roles.items():
        if token in added or _is_declared(own, token):
            continue
        if token not in ids:
            faults.append(f"it has no token {token[:_SHOWN]!r}, which is its {role}")
        elif role == "eos_token" and added:
            faults.append(f"its eos_token {token[:_SHOWN]!r} is no special token")
    if own.tokenizer.model.type == "BPE":
        faults += [*_merge_faults(own.tokenizer.model), *_part_faults(own.tokenizer)]
    return faults


def _is_code_or_ranks(file: str) -> bool:
    """Whether a file is a tokenizer of another kind: ranks of tiktoken, or Python code."""
    return file.endswith((".tiktoken", ".bpe")) or ("tokeniz" in file and file.endswith(".py"))


def _id_faults(own: Description, file: TokenizerFile) -> Iterator[str]:
    ids = file.model.ids
    numbers = [*ids.values(), *(number for token, number in file.added.items() if token not in ids)]
    if len(set(numbers)) != len(numbers):
        yield "two tokens have the same id"
    # Many a base model has a token for padding that no row stands for, and never needs it.
    padding = file.added.get(own.roles.get("pad_token", ""))
    highest = max((number for number in numbers if number != padding), default=-1)
    size = max(numbers, default=-1) + 1
    vocabulary = own.config.get("vocab_size")
    if isinstance(vocabulary, int) and highest >= vocabulary:
        yield f"it has the id {highest} where the model has {vocabulary} tokens"
    if isinstance(vocabulary, int) and 10 * size < LEAST_TENTHS * vocabulary:
        yield f"it has {size} tokens where the model has {vocabulary}"


def _is_declared(own: Description, token: str) -> bool:
    """Whether tokenizer_config.json adds a token that tokenizer.json has not."""
    added = own.tokenizer_config.get("added_tokens_decoder")
    entries = added.values() if isinstance(added, dict) else ()
    return any(isinstance(entry, dict) and entry.get("content") == token for entry in entries)


def _merge_faults(model: TokenizerModel) -> Iterator[str]:
    """Yield where the merges and the vocabulary of BPE are not of one tokenizer."""
    ids, texts = model.ids, model.made
    made = [ids[text] for text in texts if text in ids]
    if len(made) < len(texts):
        yield f"{len(texts) - len(made)} of its merges make no token that it has"
    rising = sum(first <= second for first, second in pairwise(made))
    if len(made) >= MERGES_THAT_TELL and rising < LEAST_RISING * (len(made) - 1):
        yield "its ids are not in the order of its merges, as if they were shuffled"
    longer = {token for token in ids if len(token) > 1 and not token.startswith("<")}
    unmade = len(longer.difference(texts))
    if unmade > MOST_UNMADE * len(longer):
        yield f"no merge makes {unmade} of its {len(longer)} longer tokens, so they are never read"


def _part_faults(file: TokenizerFile) -> Iterator[str]:
    """Yield which part of a BPE tokenizer is missing that another one needs."""
    if file.decoder is None:
        yield "its decoder is missing, so that answers come without spaces"
    elif b"ByteLevel" in msgspec.json.encode(file.decoder):
        before = msgspec.json.encode([file.pre_tokenizer, file.normalizer])
        if b"ByteLevel" not in before:
            yield "its pre_tokenizer is missing, so that it reads no spaces"


def tokenizer_differences(ours: Description, theirs: Description) -> list[str]:
    """Return where the tokenizer is another one than the original's, in whatever form it is."""
    lines = []
    for role, token in theirs.roles.items():
        if role != "unk_token" and ours.roles.get(role) != token:
            lines.append(difference(role, ours.roles.get(role), token))
    for name in ("add_bos_token", "add_eos_token"):
        have, want = ours.tokenizer_config.get(name), theirs.tokenizer_config.get(name)
        if None not in (have, want) and have != want:
            lines.append(difference(name, have, want))
    if theirs.template.strip() and ours.template.strip() != theirs.template.strip():
        lines.append("the chat template is " + ("another one" if ours.template else "missing"))
    if ours.tokenizer is not None and theirs.tokenizer is not None:
        lines += _file_differences(ours.tokenizer, theirs.tokenizer)
    return lines


def _file_differences(have: TokenizerFile, want: TokenizerFile) -> Iterator[str]:
    ids, wanted = have.model.ids, want.model.ids
    if other := sum(ids.get(token) != number for token, number in wanted.items()):
        yield f"{other} of {len(wanted)} tokens have another id or none"
    elif len(ids) > len(wanted):
        yield f"{len(ids) - len(wanted)} tokens are not the original's"
    if have.model.pairs != want.model.pairs:
        yield f"its {len(have.model.pairs)} merges are not the original's"
    added = have.added
    for token, number in want.added.items():
        if added.get(token, ids.get(token)) != number:
            yield difference(f"the id of {token[:_SHOWN]!r}", added.get(token), number)
    special, wanted_special = (
        {added.content for added in file.added_tokens if added.special} for file in (have, want)
    )
    for token in sorted((wanted_special & added.keys()) - special):
        yield f"{token[:_SHOWN]!r} is not special, so that answers show it"
    frame, wanted_frame = added_around(have.post_processor), added_around(want.post_processor)
    if frame != wanted_frame:
        yield difference("what is put around a text", frame, wanted_frame)
    if want.decoder and not have.decoder:
        yield "the decoder is missing"
    if (want.pre_tokenizer or want.normalizer) and not (have.pre_tokenizer or have.normalizer):
        yield "pre_tokenizer and normalizer are missing"


def added_around(processor: Settings | None) -> list[str]:
    """Return the special tokens that a post-processor puts around a text, which is ``...``."""
    if not isinstance(processor, dict):
        return []
    inner = processor.get("processors")
    if isinstance(inner, list):
        return [token for part in inner for token in added_around(part)]
    pieces = processor.get("single")
    tokens: list[str] = []
    for piece in pieces if isinstance(pieces, list) else []:
        special = piece.get("SpecialToken") if isinstance(piece, dict) else None
        tokens.append(str(special.get("id")) if isinstance(special, dict) else "...")
    return [] if tokens == ["..."] else tokens
