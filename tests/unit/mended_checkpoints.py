"""What tests of repairs have in common: a mended copy, a refusal, what is in a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from matrix.checkpoint.inspection import CheckpointError
from matrix.repair.names import RepairName
from matrix.repair.repairing import Repaired, repair
from tests.unit import real_checkpoints as real

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


OLD = {"transformers": "4.51.3", "tokenizers": "0.19.1"}


def mended(
    checkpoint: Path, *names: RepairName, readers: dict[str, str] | None = None
) -> tuple[Repaired, Path]:
    out = checkpoint.with_name("mended")
    return repair(checkpoint, out, names, readers or {}), out


def refusal(checkpoint: Path, *names: RepairName, readers: dict[str, str] | None = None) -> str:
    with pytest.raises(CheckpointError) as refused:
        mended(checkpoint, *names, readers=readers)
    assert sorted(path.name for path in checkpoint.parent.iterdir()) == [checkpoint.name]
    return str(refused.value)


def lines(repaired: Repaired) -> list[str]:
    return [str(change) for change in repaired.changes]


def tensors_in(folder: Path) -> real.Tensors:
    return real.read_tensors(folder / real.WEIGHTS)[0]


def json_in(folder: Path, file: str = "config.json") -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / file).read_text())
    return content


def set_in_both(checkpoint: Path, **fields: object) -> None:
    """Set fields of the quantization where AutoGPTQ writes them."""
    real.edit_json(
        checkpoint / "config.json", lambda config: config["quantization_config"].update(fields)
    )
    real.edit_json(checkpoint / "quantize_config.json", lambda config: config.update(fields))
