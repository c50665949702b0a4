"""Which releases of compressed-tensors read what is written: the parts of ``config-drift``."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from matrix.checkpoint.quantizing import QuantizationConfig
from matrix.checks.drift import compressed_drifts

PACKED = "pack-quantized"
CHANNEL = {"strategy": "channel", "type": "float"}
TENSORS = {"strategy": "tensor_group", "group_size": 16, "num_bits": 4, "type": "float"}
GROUPS = {"strategy": "group", "group_size": 64, "num_bits": 4}
BLOCKS = {"strategy": "block", "type": "float"}


def refusing(weights: dict[str, Any], form: str, versions: tuple[str, ...]) -> list[str]:
    """Return which of some releases do not read a config.json of these weights."""
    group = {"targets": ["Linear"], "weights": weights, "format": form}
    raw = {"quant_method": "compressed-tensors", "format": form, "config_groups": {"a": group}}
    config = msgspec.json.decode(json.dumps(raw).encode(), type=QuantizationConfig)
    drifts = compressed_drifts(config.facts)
    return [v for v in versions if any(d.concerns({d.distribution: v}) for d in drifts)]


@pytest.mark.parametrize(
    ("weights", "form", "versions", "refuse"),
    [
        (GROUPS, PACKED, ("0.4.0", "0.20.0"), []),
        ({**GROUPS, "scale_dtype": None}, PACKED, ("0.10.2", "0.11.0", "0.12.2", "0.13.0"),
         ["0.11.0", "0.12.2"]),
        ({**GROUPS, "zp_dtype": "torch.int8"}, PACKED, ("0.12.2", "0.13.0"), ["0.12.2"]),
        ({**GROUPS, "actorder": "weight"}, PACKED, ("0.7.0", "0.8.1", "0.20.0"), []),
        ({**GROUPS, "actorder": "static"}, PACKED, ("0.8.0", "0.8.1"), ["0.8.0"]),
        ({**GROUPS, "actorder": "group"}, PACKED, ("0.18.0", "0.19.0", "0.20.0"),
         ["0.19.0", "0.20.0"]),
        ({**GROUPS, "actorder": True}, PACKED, ("0.18.0", "0.19.0"), ["0.19.0"]),
        ({**GROUPS, "actorder": False}, PACKED, ("0.8.0", "0.20.0"), []),
        ({**CHANNEL, "actorder": "weight"}, "float-quantized", ("0.15.0.1", "0.16.0"),
         ["0.15.0.1"]),
        ({"actorder": "weight"}, "int-quantized", ("0.15.0.1", "0.16.0"), ["0.15.0.1"]),
        ({**TENSORS, "actorder": "weight"}, "nvfp4-pack-quantized", ("0.13.0", "0.14.0"),
         ["0.13.0"]),
        (TENSORS, "nvfp4-pack-quantized", ("0.9.4", "0.10.0"), ["0.9.4"]),
        (CHANNEL, "float-quantized", ("0.4.0", "0.5.0"), ["0.4.0"]),
        (TENSORS, "mxfp4-pack-quantized", ("0.12.2", "0.13.0"), ["0.12.2"]),
        ({**BLOCKS, "block_structure": [128, 128]}, "float-quantized", ("0.10.2", "0.11.0"),
         ["0.10.2"]),
        ({**BLOCKS, "block_structure": "128x128"}, "float-quantized", ("0.10.2", "0.11.0"), []),
    ],
)  # fmt: skip
def test_releases_that_refuse_what_is_written(
    weights: dict[str, Any], form: str, versions: tuple[str, ...], refuse: list[str]
) -> None:
    assert refusing(weights, form, versions) == refuse
