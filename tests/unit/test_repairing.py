"""Repaired copies as a whole: what is not touched, what is refused, what is left behind."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from matrix.checkpoint.inspection import CheckpointError
from matrix.repair import repairing
from matrix.repair.copying import write_copy
from matrix.repair.edits import Change, SetField, check_changes
from matrix.repair.names import RepairName
from matrix.repair.repairing import repair
from matrix.repair.subject import Subject
from tests.unit import real_checkpoints as real

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
INDEX = "model.safetensors.index.json"
METADATA = {"format": "pt", "made by": "somebody"}


def shard(checkpoint: Path, places: list[int], *, pretty: bool = True) -> real.Tensors:
    """Divide the weights of a checkpoint among files as ``places`` says; return the tensors."""
    tensors, _ = real.read_tensors(checkpoint / real.WEIGHTS)
    (checkpoint / real.WEIGHTS).unlink()
    weight_map = {
        name: f"model-{places[position % len(places)]}.safetensors"
        for position, name in enumerate(tensors)
    }
    for file in set(weight_map.values()):
        part = {name: array for name, array in tensors.items() if weight_map[name] == file}
        real.write_tensors(checkpoint / file, part, METADATA)
    size = sum(array.nbytes for array in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    text = json.dumps(index, indent=2 if pretty else None) + "\n"
    (checkpoint / INDEX).write_text(text)
    return tensors


def all_tensors(folder: Path) -> dict[str, bytes]:
    return {
        name: array.tobytes()
        for file in sorted(folder.glob("*.safetensors"))
        for name, array in real.read_tensors(file)[0].items()
    }


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def beside(checkpoint: Path) -> list[str]:
    """Return what lies beside a checkpoint: nothing, where nothing was left behind."""
    return sorted(path.name for path in checkpoint.parent.iterdir() if path != checkpoint)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate,),  # each example copies files: a smaller one is not worth the wait
)
@given(
    name=st.sampled_from([real.DROPPED, real.AUTO_GPTQ, real.DESC_ACT]),
    places=st.lists(st.integers(1, 4), min_size=1, max_size=40),
    pretty=st.booleans(),
)
def test_sharded_files_are_repaired_as_one_file_is_and_all_else_stays(
    name: str, places: list[int], pretty: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("sharded")
    repaired = repair(real.FOLDER / name, folder / "one", [], {})
    checkpoint = real.copied(name, folder)
    (checkpoint / "notes.txt").write_bytes(b"\xff\x00 kept")
    tensors = shard(checkpoint, places, pretty=pretty)
    done = repair(checkpoint, folder / "many", [], {})
    assert [c.edit.words for c in done.changes] == [c.edit.words for c in repaired.changes]
    after = all_tensors(folder / "many")
    assert after == all_tensors(folder / "one")
    touched = {HEAD, EMBEDDING}
    for tensor in after.keys() - touched:
        assert after[tensor] == tensors[tensor].tobytes()
    changed = {change.edit.file for change in done.changes} | {INDEX}
    before, now = contents(checkpoint), contents(folder / "many")
    assert {file: now[file] for file in before.keys() - changed} == {
        file: data for file, data in before.items() if file not in changed
    }
    for file in (folder / "many").glob("*.safetensors"):
        assert real.read_tensors(file)[1] == METADATA
    index = json.loads(now[INDEX])
    assert index["weight_map"].keys() == after.keys()
    assert set(index["weight_map"].values()) == {f for f in now if f.endswith(".safetensors")}
    assert index["metadata"]["total_size"] == sum(map(len, after.values()))
    assert not repair(folder / "many", folder / "again", [], {}).changes
    assert beside(checkpoint) == ["many", "one"]


@pytest.mark.parametrize("name", [*real.GOOD, real.DROPPED])
def test_repairing_twice_changes_nothing_the_second_time(name: str, tmp_path: Path) -> None:
    readers = {"transformers": "4.42.4", "tokenizers": "0.19.1", "vllm": "0.10.0"}
    assert repair(real.FOLDER / name, tmp_path / "once", [], readers).changes
    assert not repair(tmp_path / "once", tmp_path / "twice", [], readers).changes
    assert beside(tmp_path / "once") == []


def test_an_index_of_another_name_is_renamed_and_holds_the_new_names(tmp_path: Path) -> None:
    checkpoint = real.copied(real.DROPPED, tmp_path)
    shard(checkpoint, [1, 2])
    (checkpoint / INDEX).rename(checkpoint / "gptq_model-4bit-128g.safetensors.index.json")
    repair(checkpoint, tmp_path / "out", [], {})
    index = json.loads((tmp_path / "out" / INDEX).read_text())
    assert index["weight_map"].keys() == all_tensors(tmp_path / "out").keys()
    assert EMBEDDING in index["weight_map"]


def test_a_file_of_which_nothing_is_left_is_left_out(tmp_path: Path) -> None:
    checkpoint = real.copied(real.AUTO_GPTQ, tmp_path)
    names = list(real.read_tensors(checkpoint / real.WEIGHTS)[0])
    shard(checkpoint, [2 if name == HEAD else 1 for name in names])
    repair(checkpoint, tmp_path / "out", [RepairName.DUPLICATE_HEAD], {})
    files = contents(tmp_path / "out")
    assert [name for name in files if name.endswith(".safetensors")] == ["model-1.safetensors"]
    index = json.loads(files[INDEX])
    assert set(index["weight_map"].values()) == {"model-1.safetensors"}


def test_the_tensors_keep_their_order_and_lie_at_multiples_of_eight(tmp_path: Path) -> None:
    repair(real.FOLDER / real.AUTO_GPTQ, tmp_path / "out", [], {})
    data = (tmp_path / "out" / real.WEIGHTS).read_bytes()
    assert (8 + int.from_bytes(data[:8], "little")) % 8 == 0
    before = list(real.read_tensors(real.FOLDER / real.AUTO_GPTQ / real.WEIGHTS)[0])
    after = list(real.read_tensors(tmp_path / "out" / real.WEIGHTS)[0])
    assert after == [name for name in before if name in after]


# Refusals.


def refusal(checkpoint: Path, out: Path, *names: RepairName) -> str:
    before = contents(checkpoint) if checkpoint.is_dir() else {}
    around = beside(checkpoint)
    with pytest.raises(CheckpointError) as refused:
        repair(checkpoint, out, names, {})
    assert beside(checkpoint) == around
    assert not checkpoint.is_dir() or contents(checkpoint) == before
    return str(refused.value)


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_a_copy_takes_no_place_that_is_taken(kind: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    match kind:
        case "folder":
            out.mkdir()
        case "file":
            out.write_text("mine")
        case _:
            out.symlink_to(tmp_path / "nowhere")
    assert "is there already" in refusal(real.copied(real.DROPPED, tmp_path), out)


def test_a_copy_does_not_lie_in_the_checkpoint(tmp_path: Path) -> None:
    checkpoint = real.copied(real.DROPPED, tmp_path)
    (checkpoint / "deep").mkdir()
    (tmp_path / "way in").symlink_to(checkpoint / "deep")
    for out in (checkpoint / "out", checkpoint / "deep" / "out", tmp_path / "way in" / "out"):
        with pytest.raises(CheckpointError, match="lies in the checkpoint that is repaired"):
            repair(checkpoint, out, [], {})
    with pytest.raises(CheckpointError, match="is there already"):
        repair(checkpoint, checkpoint, [], {})


def test_a_folder_that_is_not_there_is_not_made_on_the_way(tmp_path: Path) -> None:
    checkpoint = real.copied(real.DROPPED, tmp_path)
    assert "No such file or directory" in refusal(checkpoint, tmp_path / "a" / "b")


def _pickle(checkpoint: Path) -> None:
    (checkpoint / "pytorch_model.bin").write_bytes(b"x")


def _link_out(checkpoint: Path) -> None:
    (checkpoint.parent / "secret").write_text("secret")
    (checkpoint / "generation_config.json").symlink_to(checkpoint.parent / "secret")


def _cut(checkpoint: Path) -> None:
    with (checkpoint / real.WEIGHTS).open("r+b") as file:
        file.truncate((checkpoint / real.WEIGHTS).stat().st_size - 1)


def _no_json(checkpoint: Path) -> None:
    (checkpoint / "config.json").write_text("{")


def _no_config(checkpoint: Path) -> None:
    (checkpoint / "config.json").unlink()


def _lost_shard(checkpoint: Path) -> None:
    shard(checkpoint, [1, 2])
    (checkpoint / "model-2.safetensors").unlink()


def _shard_elsewhere(checkpoint: Path) -> None:
    shard(checkpoint, [1, 2])
    (checkpoint / "model-2.safetensors").rename(checkpoint.parent / "model-2.safetensors")
    real.edit_json(
        checkpoint / INDEX,
        lambda index: index["weight_map"].update({HEAD: "../model-2.safetensors"}),
    )


def _wrong_index(checkpoint: Path) -> None:
    shard(checkpoint, [1, 2])
    real.edit_json(
        checkpoint / INDEX, lambda index: index["weight_map"].update({HEAD: "model-3.safetensors"})
    )


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_pickle, "pytorch_model.bin: may hold pickled objects"),
        (_link_out, "generation_config.json: is a symbolic link out of the directory"),
        (_cut, "model.safetensors: its tensors need"),
        (_no_json, "config.json: "),
        (_no_config, "config.json: is missing"),
        (_lost_shard, "model-2.safetensors: is named, but is not there"),
        (_shard_elsewhere, "is not a plain file name"),
        (_wrong_index, "model-3.safetensors: is named, but is not there"),
    ],
)
def test_what_cannot_be_read_is_not_repaired(spoil: Any, reason: str, tmp_path: Path) -> None:
    checkpoint = real.copied(real.DROPPED, tmp_path)
    spoil(checkpoint)
    assert reason in refusal(checkpoint, tmp_path / "out")


def test_what_is_no_checkpoint_is_not_repaired(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "nothing", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    assert "holds no safetensors file" in refusal(tmp_path / "empty", tmp_path / "out")


def test_a_config_that_names_a_field_twice_is_not_edited(tmp_path: Path) -> None:
    checkpoint = real.copied(real.GPTQ, tmp_path)
    text = (checkpoint / "config.json").read_text()
    (checkpoint / "config.json").write_text('{"bos_token_id": 1,' + text[1:])
    text = refusal(checkpoint, tmp_path / "out", RepairName.ROPE_THETA)
    assert "names 'bos_token_id' twice" in text


def test_two_repairs_that_want_different_things_of_a_field_are_refused() -> None:
    changes = [
        Change(name, SetField("config.json", ("a", "b"), b"1", new))
        for name, new in (("one", b"2"), ("other", b"3"))
    ]
    with pytest.raises(CheckpointError, match=r"one wants a\.b: 1 -> 2, and other wants a\.b: 1"):
        check_changes(changes)
    check_changes([changes[0], Change("other", changes[0].edit)])


# Trouble on the way.


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = real.copied(real.DROPPED, tmp_path)

    def fill_the_disk(_subject: object, _changes: object, folder: Path) -> None:
        (folder / "half").write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(repairing, "write_copy", fill_the_disk)
    assert "No space left on device. Name a folder where there is room" in refusal(
        checkpoint, tmp_path / "out"
    )


def test_an_interrupt_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = real.copied(real.DROPPED, tmp_path)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(repairing, "write_copy", interrupt)
    with pytest.raises(KeyboardInterrupt):
        repair(checkpoint, tmp_path / "out", [], {})
    assert beside(checkpoint) == []


def test_a_file_that_grows_meanwhile_is_not_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = real.copied(real.DROPPED, tmp_path)

    def write_to_the_tokenizer(subject: Subject, changes: list[Change], folder: Path) -> None:
        with (checkpoint / "tokenizer.json").open("a") as file:
            file.write(" ")
        write_copy(subject, changes, folder)

    monkeypatch.setattr(repairing, "write_copy", write_to_the_tokenizer)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: changed its size while it was"):
        repair(checkpoint, tmp_path / "out", [], {})
    assert beside(checkpoint) == []


def test_a_copy_that_is_not_repaired_is_not_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = real.copied(real.DROPPED, tmp_path)
    monkeypatch.setattr(
        repairing, "write_copy", lambda subject, _, folder: write_copy(subject, [], folder)
    )
    assert "would not be repaired: tied-embedding" in refusal(checkpoint, tmp_path / "out")


def test_folders_in_a_checkpoint_are_no_part_of_it(tmp_path: Path) -> None:
    checkpoint = real.copied(real.DROPPED, tmp_path)
    (checkpoint / "original").mkdir()
    repair(checkpoint, tmp_path / "out", [], {})
    assert "original" not in contents(tmp_path / "out")
