"""Each kind of planted damage is caught with the original, and those that can be, without it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from matrix.cli.inspect import examine
from matrix.spec.loading import load
from tests.unit import real_checkpoints as real
from tests.unit.planted_damages import CONFIG, WEIGHTS, NoEffectError
from tests.unit.planted_tokenizers import TOKENIZER

KINDS = WEIGHTS | CONFIG | TOKENIZER
ONLY_COMPARED = {
    "scales of a layer 5 % up", "scales of a layer 5 % down", "scales of a row 60 % up",
    "scales in another order", "codes turned around", "codes in another order",
    "two layers swapped", "q of two layers swapped", "k and v swapped", "a norm 5 % up",
    "the last norm 5 % down", "a bias negated", "rows of the embedding in another order",
    "the embedding doubled", "two rows of the embedding exchanged", "rms_norm_eps 1e-5",
    "twice the heads of both kinds", "rope_theta 10000", "rope_scaling linear",
    "rope_scaling dynamic", "max_position_embeddings a quarter",
    "max_position_embeddings eightfold", "another tokenizer", "two tokens exchanged",
    "added tokens lost", "zero points off by one", "an end that is shown",
    "an end behind each prompt",
}  # fmt: skip
"""What may be meant, by the files of an AWQ checkpoint alone."""
SPEC = load()


def is_caught(folder: Path, original: Path | None) -> bool:
    try:
        return not examine(folder, original, SPEC, {}).is_sound
    except SystemExit:
        return True


@pytest.mark.parametrize("kind", KINDS)
def test_a_planted_damage_is_caught(tmp_path: Path, kind: str) -> None:
    for name in (real.AWQ, real.GPTQ, real.DESC_ACT):
        folder = Path(shutil.copytree(real.FOLDER / name, tmp_path / name))
        try:
            KINDS[kind](folder)
        except NoEffectError:
            continue
        assert is_caught(folder, real.FLOAT)
        assert is_caught(folder, None) is (kind not in ONLY_COMPARED)
        return
    pytest.fail("it is planted nowhere")
