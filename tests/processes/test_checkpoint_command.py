"""The inspection as commands: ``python -m matrix inspect`` and ``python -m matrix.checkpoint``."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from safetensors.numpy import save_file

from matrix.checkpoint.inspecting import inspect
from matrix.checkpoint.inspection import Inspection
from tests import REPOSITORY
from tests.unit import awq_checkpoints as made
from tests.unit import gptq_checkpoints as gptq
from tests.unit import real_checkpoints as real
from tests.unit.test_checkpoint_scanning import change_config, change_tensors, complete_config

MEMORY = 600 * 2**20


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return complete_config(gptq.write_pair(tmp_path)[0])


def truncate(directory: Path) -> None:
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def lose_shard(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "model-1.safetensors")
    index = {"weight_map": {"model.norm.weight": "model-2.safetensors"}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


def pickle(directory: Path) -> None:
    (directory / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'true'\ntR.")


def pack_nothing(directory: Path) -> None:
    save_file(dict(made.float_model(tied=True)), directory / "model.safetensors")


BAD: list[tuple[Callable[[Path], object], str]] = [
    (truncate, "model.safetensors: its tensors need"),
    (lose_shard, "model-2.safetensors: is named, but is not there"),
    (pickle, "pytorch_model.bin: may hold pickled objects"),
    (
        lambda directory: change_config(directory, quantization_config=...),
        "config.json: has no quantization_config, but 7 modules are packed",
    ),
    (pack_nothing, "config.json: says gptq, but nothing is packed"),
    (lambda directory: (directory / "config.json").unlink(), "config.json: is missing"),
    (lambda directory: (directory / "tokenizer.json").write_text("{"), "tokenizer.json: "),
]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *map(str, arguments)]
    return subprocess.run(command, timeout=600, capture_output=True, text=True)


@pytest.mark.parametrize(("spoil", "message"), BAD)
def test_bad_input_is_one_clear_line_and_nothing_is_written(
    checkpoint: Path, tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(checkpoint)
    before = sorted(tmp_path.rglob("*"))
    ended = run("matrix", "inspect", checkpoint)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith(f"error: {message}")
    assert ended.stderr.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
    # To the matrix, a bad checkpoint is a result.
    output = tmp_path / "inspection.json"
    assert run("matrix.checkpoint", checkpoint, "--output", output).returncode == 0
    assert output.exists()


@pytest.mark.parametrize("name", ["gone", "checkpoint/config.json"])
def test_what_is_no_directory_is_one_clear_line(checkpoint: Path, name: str) -> None:
    before = sorted(checkpoint.parent.rglob("*"))
    ended = run("matrix", "inspect", checkpoint.parent / name)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert sorted(checkpoint.parent.rglob("*")) == before


def test_large_file_takes_little_memory(checkpoint: Path) -> None:
    """In an address space smaller than any one of the tensors that are read."""
    shape = [1_000_000, 512]
    size = 2 * shape[0] * shape[1]
    entry = {"dtype": "F16", "shape": shape, "data_offsets": [0, size]}
    header = json.dumps({"model.embed_tokens.weight": entry}).encode()
    with (checkpoint / "embedding.safetensors").open("wb") as handle:
        handle.write(len(header).to_bytes(8, "little") + header)
        for _ in range(shape[0] // 1000):
            handle.write(bytes(size // (shape[0] // 1000)))
    change_tensors(checkpoint, lambda tensors: tensors.pop("model.embed_tokens.weight"))
    output = str(checkpoint.parent / "inspection.json")
    ended = subprocess.run(
        [sys.executable, "-m", "matrix.checkpoint", str(checkpoint), "--output", output],
        timeout=600,
        capture_output=True,
        text=True,
        # Each thread of a BLAS reserves memory.
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)),
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_command_line(tmp_path: Path) -> None:
    checkpoint, original = made.write_pair(tmp_path)
    output = tmp_path / "inspection.json"
    command = [sys.executable, "-m", "matrix.checkpoint"]
    options = ["--output", str(output), "--original"]
    run = subprocess.run([*command, str(checkpoint), *options, str(original)], timeout=600)
    assert run.returncode == 0
    inspection = msgspec.json.decode(output.read_bytes(), type=Inspection)
    assert inspection == inspect(checkpoint, original)
    bad = subprocess.run(
        [*command, str(checkpoint), *options, str(tmp_path / "gone")],
        timeout=600,
        capture_output=True,
        text=True,
    )
    assert bad.returncode == 2
    assert bad.stderr.count("\n") == 1


SHADOWS = ("numpy", "msgspec", "typer", "json", "argparse", "safetensors", "pathlib", "click")


@pytest.mark.parametrize("module", ["matrix", "matrix.checkpoint"])
def test_nothing_of_the_working_directory_is_imported(tmp_path: Path, module: str) -> None:
    checkpoint = real.copied(real.AWQ, tmp_path)
    mark, output = tmp_path / "imported", tmp_path / "inspection.json"
    for name in SHADOWS:
        (checkpoint / f"{name}.py").write_text(f"open({str(mark)!r}, 'a').write({name!r})\n")
    options = ["inspect", "."] if module == "matrix" else [".", "--output", str(output)]
    ended = subprocess.run(
        [sys.executable, "-m", module, *options], cwd=checkpoint, timeout=600,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True,
    )  # fmt: skip
    assert not mark.exists(), mark.read_text()
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("arguments", [["matrix", "--help"], ["matrix.checkpoint", "--help"]])
def test_a_checkout_that_is_not_installed_runs_from_its_own_folder(arguments: list[str]) -> None:
    """Without site-packages of its own: what is imported from there is given by PYTHONPATH."""
    packages = os.pathsep.join(place for place in sys.path if "site-packages" in place)
    ended = subprocess.run(
        [sys.executable, "-S", "-m", *arguments], cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": packages}, timeout=600, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")
