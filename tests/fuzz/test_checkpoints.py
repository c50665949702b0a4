"""A checkpoint of any bytes is inspected, with a problem where it is none; in bounded work."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import strategies as st

from matrix.checkpoint.inspecting import inspect
from matrix.checkpoint.inspection import Inspection
from matrix.cli.inspect import examine
from matrix.diagnose.catalogue import load_issues
from matrix.spec.loading import load
from matrix.untrusted.reading import decode
from tests.fuzz.fuzzing import fuzzed
from tests.fuzz.mutations import like_json, maybe_damaged
from tests.unit import real_checkpoints as real

BODY = b"\x3c" * 400_000
"""Whatever the tensors are of: a number of almost any type that is neither large nor none."""
SHAPES = {
    "model.embed_tokens.weight": ("F16", [48, 256]), "model.norm.weight": ("F16", [256]),
    "model.layers.0.self_attn.q_proj.qweight": ("I32", [256, 32]),
    "model.layers.0.self_attn.q_proj.qzeros": ("I32", [4, 32]),
    "model.layers.0.self_attn.q_proj.scales": ("F16", [4, 256]),
    "model.layers.0.mlp.down_proj.weight": ("BF16", [256, 512]),
}  # fmt: skip
SIZES = {"F16": 2, "BF16": 2, "I32": 4}


def header() -> dict[str, Any]:
    end, entries = 0, {}
    for name, (dtype, shape) in SHAPES.items():
        size = SIZES[dtype] * shape[0] * (shape[1] if shape[1:] else 1)
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    return {"__metadata__": {"format": "pt"}, **entries}


def config(name: str) -> Any:
    return json.loads((real.FOLDER / name / "config.json").read_text())


def written(text: bytes) -> bytes:
    return len(text).to_bytes(8, "little") + text


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    return draw(maybe_damaged(written(draw(like_json(header())))))


our_spec = cache(load)


@pytest.fixture(scope="module", autouse=True)
def _read_once() -> None:
    """Have read what belongs to no input: the spec and the known issues."""
    our_spec()
    load_issues()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(real.FOLDER / real.AWQ, tmp_path_factory.mktemp("a") / "made"))


def look(folder: Path) -> None:
    """Inspect a checkpoint as the run does and, where it can be read, as the command does."""
    inspection = inspect(folder)
    assert decode(msgspec.json.encode(inspection), Inspection) == inspection
    if not inspection.problems:
        answer = examine(folder, None, our_spec(), {}, 2, None)
        assert msgspec.json.encode(answer).decode()


@fuzzed("headers", headers())
def test_a_file_with_any_header(data: bytes, folder: Path) -> None:
    (folder / real.WEIGHTS).write_bytes(data + BODY)
    look(folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(real.FOLDER / real.AWQ, tmp_path_factory.mktemp("b") / "made"))


@fuzzed("configs", like_json(*map(config, (real.AWQ, real.GPTQ, real.LLM_GPTQ, real.FP8))))
def test_any_config(data: bytes, whole: Path) -> None:
    (whole / "config.json").write_bytes(data)
    look(whole)
