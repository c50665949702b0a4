"""Schemes that no format stores are refused, with what to write."""

from __future__ import annotations

from pathlib import Path

import pytest

from matrix.spec.loading import load
from matrix.spec.tables import SpecError
from tests.unit import small_spec

AWQ = 'format = "awq"\nbits = 4\ngroup_size = 64'


@pytest.mark.parametrize(
    ("scheme", "key", "problem"),
    [
        ('format = "awq"\nbits = 4\ngroup_size = 64\nactivations = "int8"',
         "activations", "awq says nothing of inputs rounded to int8"),
        ('format = "awq"\nbits = 5\ngroup_size = 64', "bits", "awq has no weights of 5 bits"),
        ('format = "awq"\nbits = 4\ngroup_size = 64\ndesc_act = true',
         "desc_act", "awq has no groups in another order"),
        ('format = "awq"\nbits = 4\ngroup_size = 64\nsym = false',
         "sym", "awq has zero_point for that"),
        ('format = "awq"\nbits = 4\ngroup_size = 0', "group_size", "awq has no groups of 0"),
        ('format = "gptq"\nbits = 4\ngroup_size = -2', "group_size", "gptq has no groups of -2"),
        ('format = "gptq"\nbits = 4\ngroup_size = 64\nzero_point = false',
         "zero_point", "gptq has sym for that"),
        ('format = "gptq_v2"\nbits = 4\ngroup_size = 64\nversion = "GEMV"',
         "version", "gptq_v2 has no version"),
        ('format = "pack-quantized"\nbits = 4\ngroup_size = 64\nactivations = "fp4"',
         "activations", "pack-quantized says nothing of inputs rounded to fp4"),
        ('format = "pack-quantized"\nbits = 16\ngroup_size = 64',
         "bits", "pack-quantized has no weights of 16 bits"),
        ('format = "int-quantized"\nbits = 8\ngroup_size = -1\nactivations = "fp8"',
         "activations", "int-quantized says nothing of inputs rounded to fp8"),
        ('format = "float-quantized"\nbits = 4\ngroup_size = -1',
         "bits", "float-quantized has no weights of 4 bits"),
        ('format = "float-quantized"\nbits = 8\ngroup_size = -1\nsym = false',
         "sym", "float-quantized is of floats, which have no zero point"),
        ('format = "nvfp4-pack-quantized"\nbits = 4\ngroup_size = 32\nactivations = "fp4"',
         "group_size", "nvfp4-pack-quantized has groups of 16"),
    ],
)  # fmt: skip
def test_a_contradiction_is_refused(tmp_path: Path, scheme: str, key: str, problem: str) -> None:
    with pytest.raises(SpecError) as raised:
        load(small_spec.write(tmp_path, (AWQ, scheme)))
    assert f": schemes.awq.{key}: {problem}. " in str(raised.value)


@pytest.mark.parametrize(
    "scheme",
    [
        'format = "awq"\nbits = 4\ngroup_size = 64\nzero_point = false\nversion = "GEMV"',
        'format = "gptq"\nbits = 3\ngroup_size = -1\nsym = false\ndesc_act = true',
        'format = "pack-quantized"\nbits = 4\ngroup_size = 32\nactivations = "int8"',
        'format = "int-quantized"\nbits = 4\ngroup_size = 128\nactivations = "int8"',
        'format = "naive-quantized"\nbits = 8\ngroup_size = -1\nactivations = "fp8"',
        'format = "nvfp4-pack-quantized"\nbits = 4\ngroup_size = 16',
    ],
)
def test_what_a_format_stores_is_taken(tmp_path: Path, scheme: str) -> None:
    assert load(small_spec.write(tmp_path, (AWQ, scheme))).spec.schemes["awq"].bits
