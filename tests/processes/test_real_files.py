"""Files and configs of real checkpoints, one defect planted in each, and ``matrix inspect``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from matrix.pipeline.outcomes import Judgement
from tests import REPOSITORY
from tests.unit import real_checkpoints as real
from tests.unit.real_checkpoints import AWQ, DESC_ACT, GOOD_GPTQ, GPTQ, WEIGHTS, Alarms

FAILED, NOTICE = Judgement.FAILED, Judgement.NOTICE
MATCH: Alarms = {"weights-match": FAILED}
Spoil = Callable[[Path], object]


def change_config(**changes: object) -> Spoil:
    """Change what config.json says of the quantization."""
    return lambda folder: real.edit_json(
        folder / "config.json", lambda config: config["quantization_config"].update(changes)
    )


def config(**changes: object) -> Spoil:
    return lambda folder: real.edit_json(folder / "config.json", lambda c: c.update(changes))


@pytest.mark.parametrize("name", GOOD_GPTQ)
def test_zero_points_of_the_other_format(tmp_path: Path, name: str) -> None:
    checkpoint = real.copied(name, tmp_path)
    change_config(checkpoint_format="gptq_v2")(checkpoint)
    expected: Alarms = {"zero-points": FAILED}
    assert real.alarms_of(checkpoint) == expected | MATCH
    assert real.alarms_of(checkpoint, None) == expected


@pytest.mark.parametrize("name", [AWQ, GPTQ])
@pytest.mark.parametrize("size", [32, 128])
def test_another_group_size_in_the_config(tmp_path: Path, name: str, size: int) -> None:
    checkpoint = real.copied(name, tmp_path)
    change_config(group_size=size)(checkpoint)
    expected: Alarms = {"group-size": FAILED, "stored-size": FAILED}
    if size == 128:
        expected["stored-size"] = Judgement.DEGRADED
    assert real.alarms_of(checkpoint) == expected | MATCH
    assert real.alarms_of(checkpoint, None) == expected


def test_a_group_size_that_does_not_divide(tmp_path: Path) -> None:
    checkpoint = real.copied(GPTQ, tmp_path)
    change_config(group_size=96)(checkpoint)
    assert real.alarms_of(checkpoint, None)["group-size"] is FAILED


def test_an_order_that_the_config_says_nothing_of(tmp_path: Path) -> None:
    checkpoint = real.copied(DESC_ACT, tmp_path)
    change_config(desc_act=False)(checkpoint)
    assert real.alarms_of(checkpoint) == {"group-size": FAILED}


def test_an_order_that_static_groups_do_not_need(tmp_path: Path) -> None:
    checkpoint = real.copied(real.AUTO_GPTQ, tmp_path)
    change_config(desc_act=True)(checkpoint)
    assert real.alarms_of(checkpoint, None) == {"group-size": NOTICE}
    for static in ({"static_groups": True}, {"static_groups": False, "meta": {"static_groups": 1}}):
        change_config(**static)(checkpoint)
        quiet = static["static_groups"]
        assert real.alarms_of(checkpoint, None) == ({} if quiet else {"group-size": NOTICE})
    change_config(meta={"static_groups": True})(checkpoint)
    assert real.alarms_of(checkpoint, None) == {}


def test_no_quantization_config(tmp_path: Path) -> None:
    checkpoint = real.configured(AWQ, tmp_path, lambda c: c.pop("quantization_config"))
    alarms = real.alarms_of(checkpoint, None)
    assert alarms["checkpoint-readable"] is FAILED
    assert alarms["packed-layers"] is FAILED


@pytest.mark.parametrize("name", [AWQ, GPTQ])
def test_more_devices_than_the_heads_fit(name: str) -> None:
    for devices, expected in ((1, {}), (2, {}), (4, {"tensor-parallel": NOTICE})):
        assert real.alarms_of(real.FOLDER / name, tensor_parallel=devices) == expected


OLD = {"transformers": "4.46.3", "tokenizers": "0.19.1"}


def test_what_an_old_engine_does_not_understand(tmp_path: Path) -> None:
    drifts: Alarms = {"config-drift": NOTICE, "tokenizer-drift": NOTICE}
    assert real.alarms_of(real.FOLDER / GPTQ, engine=OLD) == drifts
    assert real.alarms_of(real.FOLDER / AWQ, engine=OLD) == {"tokenizer-drift": NOTICE}
    between = {"transformers": "4.57.6", "tokenizers": "0.22.1"}
    assert real.alarms_of(real.FOLDER / GPTQ, engine=between) == {"config-drift": NOTICE}
    both = real.copied(GPTQ, tmp_path)
    config(rope_theta=1e6, torch_dtype="bfloat16")(both)
    assert real.alarms_of(both, engine=between) == {}
    file = both / "tokenizer_config.json"
    real.edit_json(file, lambda c: c.update(tokenizer_class="TokenizersBackend"))
    assert real.alarms_of(both, engine=between) == {"tokenizer-drift": NOTICE}
    assert real.alarms_of(both) == {}


def cut(folder: Path) -> None:
    file = folder / WEIGHTS
    file.write_bytes(file.read_bytes()[:-1000])


def shard(folder: Path, keep: bool = True) -> None:
    """Divide the weights into two files with an index; perhaps lose one."""
    tensors, metadata = real.read_tensors(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = sorted(tensors)
    files = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, members in files.items():
        real.write_tensors(folder / file, {name: tensors[name] for name in members}, metadata)
    places = {name: file for file, members in files.items() for name in members}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": places}))
    if not keep:
        (folder / "b.safetensors").unlink()


def test_two_shards_are_as_good_as_one_file(tmp_path: Path) -> None:
    checkpoint = real.copied(AWQ, tmp_path)
    shard(checkpoint)
    assert real.alarms_of(checkpoint) == {}


def strange_index(folder: Path) -> None:
    index = {"weight_map": {"model.norm.weight": "../../elsewhere.safetensors"}}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))


UNREADABLE: dict[str, tuple[Spoil, str]] = {
    "truncated": (cut, WEIGHTS),
    "a shard missing": (lambda folder: shard(folder, keep=False), "b.safetensors"),
    "an index that leads out": (strange_index, "elsewhere"),
    "a pickle beside": (lambda f: (f / "pytorch_model.bin").write_bytes(b"\x80\x02."), "pickle"),
    "no quantization_config": (
        lambda f: real.edit_json(f / "config.json", lambda c: c.pop("quantization_config")),
        "quantization_config",
    ),
    "config.json missing": (lambda f: (f / "config.json").unlink(), "config.json"),
    "config.json no JSON": (lambda f: (f / "config.json").write_text("{"), "config.json"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "safetensors"),
}


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in [folder, *folder.rglob("*")]
    }


def inspect(*arguments: str | Path, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("MATRIX_")}
    return subprocess.run(
        [sys.executable, "-m", "matrix", "inspect", *map(str, arguments)],
        cwd=cwd, env=ours | {"PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True,
        timeout=600, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_cannot_be_read_is_one_line_and_status_2(tmp_path: Path, case: str) -> None:
    spoil, word = UNREADABLE[case]
    checkpoint = real.copied(GPTQ, tmp_path)
    spoil(checkpoint)
    before = listing(tmp_path)
    done = inspect(checkpoint, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert word in line
    assert listing(tmp_path) == before
    assert real.alarms_of(checkpoint, None)["checkpoint-readable"] is FAILED


@pytest.mark.parametrize("missing", ["nothing-here", "tests"])
def test_a_directory_that_is_no_model_is_one_line_and_status_2(missing: str) -> None:
    done = inspect(REPOSITORY / missing)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)


@pytest.mark.parametrize("name", [AWQ, GPTQ])
def test_good_and_damaged_checkpoints_by_command(tmp_path: Path, name: str) -> None:
    good = real.copied(name, tmp_path / "good")
    bad = real.damaged(
        name, tmp_path / "bad", real.put("model.layers.0.mlp.up_proj.scales", np.nan, (0, 0))
    )
    before = listing(tmp_path)
    done = inspect(good, "--original", real.FLOAT, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "weights-match       passed" in done.stdout
    done = inspect(bad, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    assert [line.split()[0] for line in done.stdout.splitlines() if " failed " in line] == [
        "scales"
    ]
    assert listing(tmp_path) == before
