"""Repairs of configs and tokenizers: when each applies, what it changes, when it is not sure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from matrix.checkpoint.inspection import CheckpointError
from matrix.repair.names import RepairName
from matrix.repair.repairing import repair
from tests.unit import real_checkpoints as real
from tests.unit.mended_checkpoints import OLD, json_in, mended, refusal, set_in_both


def test_new_configs_and_tokenizers_are_given_back_to_old_readers(tmp_path: Path) -> None:
    checkpoint = real.copied(real.GPTQ, tmp_path)
    real.edit_json(
        checkpoint / "tokenizer_config.json",
        lambda config: config.update(tokenizer_class="TokenizersBackend"),
    )
    repaired, out = mended(checkpoint, readers=OLD)
    config, new = json_in(out), json_in(checkpoint)
    assert config == {**new, "rope_theta": 1000000.0, "torch_dtype": "bfloat16"}
    tokenizer = json_in(out, "tokenizer_config.json")
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"
    merges = json_in(checkpoint, "tokenizer.json")["model"]["merges"]
    assert json_in(out, "tokenizer.json")["model"]["merges"] == [" ".join(m) for m in merges]
    names = [change.repair for change in repaired.changes]
    assert names == ["rope-theta", "dtype", "tokenizer", "tokenizer"]
    assert real.alarms_of(out, engine=OLD) == {}
    assert set(real.alarms_of(checkpoint, engine=OLD)) == {"config-drift", "tokenizer-drift"}


def test_what_only_old_readers_need_is_named_and_not_made(tmp_path: Path) -> None:
    repaired, out = mended(real.copied(real.GPTQ, tmp_path), readers={"transformers": "5.1"})
    assert not repaired.changes
    assert repaired.left == {
        "rope-theta": ["transformers<5"],
        "dtype": ["transformers<4.56"],
        "tokenizer": ["tokenizers<0.20"],
    }
    assert not out.exists()


def _scaled(config: real.Config) -> None:
    config["rope_parameters"].update(rope_type="yarn", factor=4.0)


def _textual(config: real.Config) -> None:
    config["rope_parameters"].update(rope_theta="1e6")


@pytest.mark.parametrize("change", [_scaled, _textual])
def test_a_rotary_base_that_is_no_plain_one_is_not_given_back(
    change: Callable[[real.Config], None], tmp_path: Path
) -> None:
    checkpoint = real.configured(real.GPTQ, tmp_path, change)
    text = refusal(checkpoint, RepairName.ROPE_THETA)
    assert "so the repair rope-theta is not sure" in text


def test_a_tokenizer_without_its_file_keeps_its_class(tmp_path: Path) -> None:
    checkpoint = real.copied(real.GPTQ, tmp_path)
    (checkpoint / "tokenizer.json").unlink()
    real.edit_json(
        checkpoint / "tokenizer_config.json",
        lambda config: config.update(tokenizer_class="TokenizersBackend"),
    )
    assert "and there is no tokenizer.json" in refusal(checkpoint, readers=OLD)


@pytest.mark.parametrize("merge", [["a b", "c"], ["a"], ["a", 1]])
def test_merges_that_no_text_stands_for_stay(merge: list[object], tmp_path: Path) -> None:
    checkpoint = real.copied(real.GPTQ, tmp_path)
    real.edit_json(
        checkpoint / "tokenizer.json",
        lambda tokenizer: tokenizer["model"]["merges"].append(merge),
    )
    assert "which no text stands for" in refusal(checkpoint, RepairName.TOKENIZER)


def test_fields_that_older_compressed_tensors_refuse_go(tmp_path: Path) -> None:
    group = {"weights": {"num_bits": 4, "scale_dtype": None, "zp_dtype": "torch.int8"}}

    def compress(config: real.Config) -> None:
        config["quantization_config"] = {
            "quant_method": "compressed-tensors",
            "config_groups": {"group_0": group},
        }

    checkpoint = real.copied("float/model", tmp_path)
    real.edit_json(checkpoint / "config.json", compress)
    repaired, out = mended(checkpoint, readers={"compressed-tensors": "0.12.2"})
    assert len(repaired.changes) == 2
    groups = json_in(out)["quantization_config"]["config_groups"]
    assert groups == {"group_0": {"weights": {"num_bits": 4}}}
    group["weights"]["scale_dtype"] = "torch.float8_e4m3fn"
    real.edit_json(checkpoint / "config.json", compress)
    with pytest.raises(CheckpointError, match="which readers without the field"):
        repair(checkpoint, tmp_path / "again", [RepairName.CONFIG_FIELDS], {})


@pytest.mark.parametrize("value", [False, None])
def test_a_marlin_flag_that_says_nothing_goes(value: object, tmp_path: Path) -> None:
    checkpoint = real.copied(real.AUTO_GPTQ, tmp_path)
    set_in_both(checkpoint, is_marlin_format=value)
    _, out = mended(checkpoint, readers={"gptqmodel": "7.6.0"})
    assert "is_marlin_format" not in json_in(out)["quantization_config"]
    assert "is_marlin_format" not in json_in(out, "quantize_config.json")


def test_a_marlin_flag_that_is_meant_stays(tmp_path: Path) -> None:
    checkpoint = real.configured(
        real.AUTO_GPTQ,
        tmp_path,
        lambda config: config["quantization_config"].update(is_marlin_format=True),
    )
    assert "says is_marlin_format" in refusal(checkpoint, RepairName.CONFIG_FIELDS)
