from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from matrix.checkpoint import tensors as reading
from matrix.checkpoint.files import INDEX, LARGE_BYTES, MAX_CONFIG_BYTES, CheckpointFiles
from matrix.checkpoint.inspection import CheckpointError
from matrix.checkpoint.scanning import scan
from matrix.checkpoint.tensors import MAX_ABSENT, Tensors
from tests.unit import awq_checkpoints as made

GOOD: dict[str, made.Array] = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.ones(4, np.float16),
}


def raw(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def problems(directory: Path) -> str:
    files = CheckpointFiles(directory)
    return " | ".join(str(p) for p in files.problems + Tensors(files).problems)


def test_reads_what_safetensors_wrote(tmp_path: Path) -> None:
    save_file(GOOD, tmp_path / "model.safetensors", metadata={"format": "pt"})
    tensors = Tensors(CheckpointFiles(tmp_path))
    assert not tensors.problems
    assert sorted(tensors) == ["a", "b"]
    for name, array in GOOD.items():
        assert np.array_equal(tensors.read(name), array)
        assert tensors.floats(name).dtype == np.float32


def test_bfloat16_is_the_upper_half_of_a_float32(tmp_path: Path) -> None:
    values = np.array([1.0, -2.5, 3.0e38, np.inf], np.float32)
    halves = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    (tmp_path / "m.safetensors").write_bytes(raw({"x": entry("BF16", [2, 2], 0, 8)}, halves))
    array = Tensors(CheckpointFiles(tmp_path)).read("x")
    assert array.shape == (2, 2)
    assert np.allclose(array.ravel()[:3], values[:3], rtol=2**-8)
    assert np.isinf(array[1, 1])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "its header should have 0 bytes"),
        (b"\x01", "its header should have"),
        (raw({}, length=2**63), "its header should have"),
        (raw({}, length=3), "its header should have 3 bytes"),
        (raw(b"{" * 100_000), "its header is not as it must be"),
        (raw(b"\xff\xfe"), "its header is not as it must be"),
        (raw([1, 2]), "its header is not as it must be"),
        (raw({"x": {"dtype": "F32"}}), "its header is not as it must be"),
        (raw({"x": entry("F32", [2], 0, 4)}, bytes(4)), "x lies at bytes 0 to 4"),
        (raw({"x": entry("F32", [2**62, 8], 0, 4)}, bytes(4)), "x lies at bytes"),
        (raw({"x": entry("F32", [1], 4, 8)}, bytes(8)), "x lies at bytes 4 to 8"),
        (raw({"x": entry("F32", [1], -4, 0)}, bytes(4)), "x lies at bytes -4"),
        (
            raw({"x": entry("F32", [1], 0, 4), "y": entry("F32", [1], 2, 6)}, bytes(6)),
            "y lies at bytes 2 to 6",
        ),
        (raw({"x": entry("F32", [2], 0, 8)}, bytes(4)), "its tensors need"),
        (raw({"x": entry("F32", [1], 0, 4)}, bytes(9)), "its tensors need"),
        (raw({"x": entry("PICKLE", [1], 0, 4)}, bytes(4)), "unknown type PICKLE"),
        (raw({"x": entry("F32", [-1, -1], 0, 4)}, bytes(4)), "an impossible shape"),
        (raw({"x": entry("F32", [1] * 99, 0, 4)}, bytes(4)), "an impossible shape"),
    ],
)
def test_malformed_file_is_one_clear_line(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "model.safetensors").write_bytes(data)
    problem = problems(tmp_path)
    assert message in problem
    assert problem.startswith("model.safetensors: ")
    assert "\n" not in problem


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_damaged_file_never_does_more_than_report(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("damaged")
    file = directory / "model.safetensors"
    save_file(GOOD, file)
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    tensors = Tensors(CheckpointFiles(directory))
    for name in tensors:
        assert tensors.read(name).nbytes <= len(content)


def test_a_file_truncated_after_it_was_listed(tmp_path: Path) -> None:
    save_file(GOOD, tmp_path / "model.safetensors")
    tensors = Tensors(CheckpointFiles(tmp_path))
    file = tmp_path / "model.safetensors"
    os.truncate(file, file.stat().st_size - 1)
    with pytest.raises(CheckpointError, match="became shorter"):
        tensors.read("a"), tensors.read("b")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "x.pt", "model.PTH", "w.ckpt", "w.pkl"])
def test_pickles_are_refused(tmp_path: Path, name: str) -> None:
    save_file(GOOD, tmp_path / "model.safetensors")
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    refused = f"{name}: may hold pickled objects, which run code when loaded. "
    assert problems(tmp_path) == refused + "Remove it."
    (tmp_path / "model.safetensors").unlink()
    assert problems(tmp_path).startswith(refused + "Save the model as safetensors and remove it.")


def test_links_out_are_refused_and_links_within_are_not(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    save_file(GOOD, inside / "real.weights")
    save_file(GOOD, outside / "secret.safetensors")
    (inside / "model.safetensors").symlink_to("real.weights")
    assert problems(inside) == ""
    (inside / "other.safetensors").symlink_to(outside / "secret.safetensors")
    assert "other.safetensors: is a symbolic link out of the directory" in problems(inside)


def cached(root: Path) -> tuple[Path, Path]:
    """Make the Hub's cache of a model; return its snapshot and its blobs."""
    model = root / "models--x--y"
    snapshot, blobs = model / "snapshots" / ("0" * 40), model / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    save_file(GOOD, blobs / "1234")
    (snapshot / "model.safetensors").symlink_to("../../blobs/1234")
    return snapshot, blobs


def test_a_snapshot_of_the_hubs_cache_is_read(tmp_path: Path) -> None:
    snapshot, blobs = cached(tmp_path)
    assert problems(snapshot) == ""
    files = CheckpointFiles(snapshot)
    assert files.sizes == {"model.safetensors": (blobs / "1234").stat().st_size}
    assert np.array_equal(Tensors(files).read("a"), GOOD["a"])
    (tmp_path / "by").symlink_to(snapshot)
    assert problems(tmp_path / "by") == ""


@pytest.mark.parametrize(
    "target",
    [
        "../../blobs/deep/1234",
        "../../blobs/out",
        "../../blobs/../config",
        "../../config",
        "../other/1234",
        "../../../models--other/blobs/1234",
    ],
)
def test_a_snapshot_leads_to_its_own_blobs_alone(tmp_path: Path, target: str) -> None:
    snapshot, blobs = cached(tmp_path)
    for folder in ("blobs/deep", "snapshots/other", "../models--other/blobs"):
        (blobs.parent / folder).mkdir(parents=True)
        save_file(GOOD, blobs.parent / folder / "1234")
    save_file(GOOD, blobs.parent / "config")
    (blobs / "out").symlink_to("../config")
    (snapshot / "b.safetensors").symlink_to(target)
    assert problems(snapshot).startswith("b.safetensors: is a symbolic link out of the directory")


def test_blobs_that_are_a_link_or_of_no_snapshot_are_refused(tmp_path: Path) -> None:
    snapshot, blobs = cached(tmp_path)
    elsewhere = blobs.rename(tmp_path / "elsewhere")
    blobs.symlink_to(elsewhere)
    assert "is a symbolic link out of the directory" in problems(snapshot)
    snapshot, blobs = cached(tmp_path / "again")
    renamed = snapshot.parent.rename(snapshot.parent.parent / "checkpoints") / snapshot.name
    assert "is a symbolic link out of the directory" in problems(renamed)


def test_a_blob_that_is_no_file_is_refused(tmp_path: Path) -> None:
    snapshot, blobs = cached(tmp_path)
    os.mkfifo(blobs / "pipe")
    (snapshot / "b.safetensors").symlink_to("../../blobs/pipe")
    assert "b.safetensors: is not a regular file" in problems(snapshot)


def test_pipe_does_not_hold_the_reader_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.safetensors")
    assert "model.safetensors: is not a regular file" in problems(tmp_path)


def test_file_name_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a\n\x1b[2Jb.json").write_text("{}")
    assert "is no file name of a model" in problems(tmp_path)
    assert "\x1b" not in problems(tmp_path)


def test_shards_by_their_index(tmp_path: Path) -> None:
    save_file({"a": GOOD["a"]}, tmp_path / "m-1.safetensors")
    save_file({"b": GOOD["b"]}, tmp_path / "m-2.safetensors")
    index = {"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert problems(tmp_path) == ""
    index["weight_map"]["c"] = "m-2.safetensors"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "c: the index says it is in m-2.safetensors, but it is not" in problems(tmp_path)


@pytest.mark.parametrize(
    ("shard", "message"),
    [
        ("../secret.safetensors", "is not a plain file name"),
        ("/etc/passwd", "is not a plain file name"),
        ("sub/m.safetensors", "is not a plain file name"),
        ("..", "is not a plain file name"),
        ("", "is not a plain file name"),
        ("a\0b", "is not a plain file name"),
        ("gone.safetensors", "gone.safetensors: is named, but is not there"),
    ],
)
def test_index_that_leads_elsewhere(tmp_path: Path, shard: str, message: str) -> None:
    (tmp_path / "d").mkdir()
    save_file(GOOD, tmp_path / "secret.safetensors")
    index = {"weight_map": {"a": shard}}
    (tmp_path / "d" / "model.safetensors.index.json").write_text(json.dumps(index))
    assert message in problems(tmp_path / "d")


@pytest.mark.parametrize(
    ("limit", "value", "message"),
    [
        ("MAX_TENSORS", 5, "m-2.safetensors: all files up to this one hold more than 5 tensors"),
        ("MAX_ALL_HEADERS_BYTES", 400, "m-2.safetensors: all headers up to this one have"),
    ],
)
def test_all_headers_together_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int, message: str
) -> None:
    for shard in range(5):
        named = {
            f"{name}{shard}{part}": GOOD["a"] for name in "xy" for part in range(1 + shard // 2)
        }
        save_file(named, tmp_path / f"m-{shard}.safetensors")
    index = {f"x{shard}0": f"m-{shard}.safetensors" for shard in range(5)}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    assert problems(tmp_path) == ""
    monkeypatch.setattr(reading, limit, value)
    assert problems(tmp_path).startswith(message)
    assert " | " not in problems(tmp_path)
    assert not list(Tensors(CheckpointFiles(tmp_path)))


def test_tensor_stored_twice(tmp_path: Path) -> None:
    save_file({"a": GOOD["a"]}, tmp_path / "m-1.safetensors")
    save_file({"a": GOOD["a"]}, tmp_path / "m-2.safetensors")
    assert "is stored both in m-1.safetensors and in m-2" in problems(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "config.json: "),
        ("[" * 100_000, "config.json: "),
        ('{"tie_word_embeddings": "yes"}', "Expected `bool"),
        (" " * (MAX_CONFIG_BYTES + 1), "is larger than"),
    ],
)
def test_bad_config(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        CheckpointFiles(tmp_path).config()


def test_config_as_autoawq_writes_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(made.config(tied=True, quantized=True)))
    config = CheckpointFiles(tmp_path).config()
    assert config.tie_word_embeddings is True
    assert config.quantization is not None
    assert (config.quantization.method, config.quantization.group_size) == ("awq", made.GROUP)


def test_no_directory_and_no_weights(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="No such file"):
        CheckpointFiles(tmp_path / "gone")
    assert "holds no safetensors file" in problems(tmp_path)


def test_a_file_of_which_little_was_written_is_not_read(tmp_path: Path) -> None:
    size = 4 * LARGE_BYTES
    (tmp_path / "m.safetensors").write_bytes(raw({"x": entry("U8", [size], 0, size)}, b"1"))
    os.truncate(tmp_path / "m.safetensors", (tmp_path / "m.safetensors").stat().st_size - 1 + size)
    files = CheckpointFiles(tmp_path)
    assert not files.sizes
    assert "bytes were ever written. Its download was cut" in str(files.problems[0])
    assert not list(Tensors(files))


def test_a_file_is_read_whose_holes_are_less_than_half(tmp_path: Path) -> None:
    size = 2 * LARGE_BYTES
    with (tmp_path / "m.safetensors").open("wb") as file:
        file.write(raw({"x": entry("U8", [size], 0, size)}, b"1" * (size - LARGE_BYTES // 2)))
        file.truncate(file.tell() + LARGE_BYTES // 2)
    tensors = Tensors(CheckpointFiles(tmp_path))
    assert not tensors.problems
    assert tensors.raw("x")[[0, -1]].tolist() == [ord("1"), 0]


def test_a_file_of_many_tensors_is_opened_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for shard in "ab":
        save_file(
            {f"{shard}{n}": np.full(3, n, np.int8) for n in range(99)},
            tmp_path / f"{shard}.safetensors",
        )
    tensors = Tensors(CheckpointFiles(tmp_path))
    opened: list[str] = []
    really_open = CheckpointFiles.open

    def count(files: CheckpointFiles, name: str) -> BinaryIO:
        opened.append(name)
        return really_open(files, name)

    monkeypatch.setattr(CheckpointFiles, "open", count)
    scan(tensors, None)
    assert opened == ["a.safetensors", "b.safetensors"]
    assert tensors.read("a98").tolist() == [98] * 3
    assert tensors.read("b7").tolist() == [7] * 3


def test_blocks_are_right_whatever_is_read_between_them(tmp_path: Path) -> None:
    save_file(
        {"a": np.arange(64, dtype=np.int8), "b": np.zeros(3, np.int8)}, tmp_path / "m.safetensors"
    )
    tensors = Tensors(CheckpointFiles(tmp_path))
    values = []
    for block in tensors.raw_blocks("a", memoryview(bytearray(8))):
        values += list(block)
        tensors.read("b")
    assert values == list(range(64))


def test_of_many_names_without_a_tensor_a_few_are_told(tmp_path: Path) -> None:
    save_file(GOOD, tmp_path / "model.safetensors")
    weight_map = dict.fromkeys(["a", "b", *map(str, range(MAX_ABSENT + 7))], "model.safetensors")
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    problems_of = Tensors(CheckpointFiles(tmp_path)).problems
    assert len(problems_of) == MAX_ABSENT + 1
    assert "names 7 more tensors that are not where it says" in str(problems_of[-1])
