"""Each kind of planted damage is caught with the original, and those that can be, without it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from matrix.cli.inspect import examine
from matrix.spec.loading import load
from tests.unit import real_checkpoints as real
from tests.unit.planted_configs import CONFIG
from tests.unit.planted_damages import WEIGHTS, NoEffectError
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
"""What may be meant, by the files of a checkpoint alone."""
NOT_FULL = {"another tokenizer", "added tokens lost"}
"""Of these, what is no tokenizer for llm-compressor's tokenizer_config.json."""
SPEC = load()


def is_caught(folder: Path, original: Path | None) -> bool:
    try:
        return not examine(folder, original, SPEC, {}).is_sound
    except SystemExit:
        return True


OF_OTHERS = {
    "g_idx upside down", "g_idx out of range", "desc_act lost", "another checkpoint_format",
    "zero_point false", "another version", "modules_to_not_convert that are packed",
    "quantize_config.json with other bits", "quantize_config.json with another group_size",
    "quantize_config.json with another desc_act", "quantize_config.json with another format",
}  # fmt: skip
"""What files of compressed-tensors have not."""
OF_COMPRESSED = {
    "sides exchanged in weight_shape", "weight_shape lost", "groups of layers of another format",
    "groups of layers that are not there", "symmetric flipped", "ignored layers that are packed",
    "actorder group",
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "names"),
    [(kind, (real.AWQ, real.GPTQ, real.DESC_ACT)) for kind in KINDS if kind not in OF_COMPRESSED]
    + [(kind, real.COMPRESSED) for kind in KINDS if kind not in OF_OTHERS],
)
def test_a_planted_damage_is_caught(tmp_path: Path, kind: str, names: tuple[str, ...]) -> None:
    for name in names:
        folder = Path(shutil.copytree(real.FOLDER / name, tmp_path / name))
        try:
            KINDS[kind](folder)
        except NoEffectError:
            continue
        assert is_caught(folder, real.FLOAT)
        may_be_meant = ONLY_COMPARED - NOT_FULL if name in real.COMPRESSED else ONLY_COMPARED
        assert is_caught(folder, None) is (kind not in may_be_meant)
        return
    pytest.fail("it is planted nowhere")
