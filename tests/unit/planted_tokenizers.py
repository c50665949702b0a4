"""Kinds of damage to a tokenizer, planted in copies of real checkpoints, by name."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from tests.unit import real_checkpoints as real
from tests.unit.planted_damages import Damage, edit


def tokenizer(change: Callable[[real.Config], object]) -> Damage:
    """Return the damage that changes tokenizer.json."""
    return edit("tokenizer.json", change)


def unlink(*names: str) -> Damage:
    """Return the damage that removes files."""

    def damage(folder: Path) -> None:
        for name in names:
            (folder / name).unlink(missing_ok=True)

    return damage


def shuffle_ids(content: real.Config) -> None:
    """Give the tokens each other's ids."""
    vocabulary = content["model"]["vocab"]
    ids = list(vocabulary.values())
    random.Random(0).shuffle(ids)
    content["model"]["vocab"] = dict(zip(vocabulary, ids, strict=True))


def swap_tokens(content: real.Config) -> None:
    """Exchange the ids of two tokens."""
    vocabulary = content["model"]["vocab"]
    first, second = list(vocabulary)[100:102]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]


def take_another(content: real.Config) -> None:
    """Put the tokenizer of a smaller model in place: letters alone."""
    model = content["model"]
    model["vocab"] = {token: number for token, number in model["vocab"].items() if number < 256}
    model["merges"] = []
    content["added_tokens"] = []


def lose_merges(content: real.Config) -> None:
    """Lose all merges."""
    content["model"]["merges"] = []


def lose_half_the_merges(content: real.Config) -> None:
    """Lose the second half of the merges."""
    merges = content["model"]["merges"]
    content["model"]["merges"] = merges[: len(merges) // 2]


def turn_merges(content: real.Config) -> None:
    """Turn the order of merges around."""
    content["model"]["merges"].reverse()


def lose_added(content: real.Config) -> None:
    """Lose the added tokens."""
    content["added_tokens"] = []


def move_added(content: real.Config) -> None:
    """Give an added token another id."""
    content["added_tokens"][0]["id"] += 1


def show_end(content: real.Config) -> None:
    """Say that the end of a text is to be shown."""
    content["added_tokens"][0]["special"] = False


def end_texts(content: real.Config) -> None:
    """Put the end of a text behind each prompt."""
    end = content["added_tokens"][0]
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"Sequence": {"id": "A", "type_id": 0}},
                   {"SpecialToken": {"id": end["content"], "type_id": 0}}],
        "pair": [],
        "special_tokens": {
            end["content"]: {"id": end["content"], "ids": [end["id"]], "tokens": [end["content"]]}
        },
    }  # fmt: skip


def name_end(token: str) -> Damage:
    """Return the damage that names another token as the end of a text."""

    def damage(folder: Path) -> None:
        edit("tokenizer_config.json", lambda content: content.update(eos_token=token))(folder)
        (folder / "special_tokens_map.json").unlink(missing_ok=True)

    return damage


TOKENIZER: dict[str, Damage] = {
    "no tokenizer": unlink("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    "no tokenizer.json": unlink("tokenizer.json"),
    "another tokenizer": tokenizer(take_another),
    "ids shuffled": tokenizer(shuffle_ids),
    "two tokens exchanged": tokenizer(swap_tokens),
    "merges lost": tokenizer(lose_merges),
    "half the merges lost": tokenizer(lose_half_the_merges),
    "merges turned around": tokenizer(turn_merges),
    "added tokens lost": tokenizer(lose_added),
    "an added token moved": tokenizer(move_added),
    "an end that is shown": tokenizer(show_end),
    "the decoder lost": tokenizer(lambda content: content.update(decoder=None)),
    "the split into words lost": tokenizer(
        lambda content: content.update(pre_tokenizer=None, normalizer=None)
    ),
    "an end behind each prompt": tokenizer(end_texts),
    "eos_token another token": name_end("A"),
    "eos_token that is not there": name_end("<|end|>"),
}
