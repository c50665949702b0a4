"""What a release lists is read from its source, in the form of each era, or not at all."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from matrix.index.engine_methods import SOURCE_BYTES, SOURCES, lists_in
from matrix.index.fetching import FetchError
from matrix.spec.methods import METHOD_NAME, Lists

VLLM = SOURCES["vllm"]
REGISTRY = """
from vllm.model_executor.layers.quantization.awq import AWQConfig

_QUANTIZATION_CONFIG_REGISTRY = {
    "awq": AWQConfig,
    "squeezellm": SqueezeLLMConfig,
}

__all__ = ["QuantizationConfig", "get_quantization_config"]
"""
DICT = """
QUANTIZATION_METHODS: Dict[str, Type[QuantizationConfig]] = {
    "gptq_marlin": GPTQMarlinConfig,  # before gptq: the order counts
    "gptq": GPTQConfig,
}
"""
LIST = 'QUANTIZATION_METHODS: List[str] = [\n    "aqlm",\n    # a comment\n    "nvfp4",\n]\n'
LITERAL = """
QuantizationMethods = Literal[
    "awq",
    "compressed-tensors",
]
QUANTIZATION_METHODS: list[str] = list(get_args(QuantizationMethods))
_CUSTOMIZED_METHOD_TO_QUANT_CONFIG = {}

def register_quantization_config(quantization: str):
    QUANTIZATION_METHODS = ["of a function"]
"""
ANNOUNCED = LITERAL + 'DEPRECATED_QUANTIZATION_METHODS = [\n    "fp_quant",\n    "rtn",\n]\n'


@pytest.mark.parametrize(
    ("source", "read", "announced"),
    [
        (REGISTRY, ["awq", "squeezellm"], []),
        (DICT, ["gptq", "gptq_marlin"], []),
        (LIST, ["aqlm", "nvfp4"], []),
        (LITERAL, ["awq", "compressed-tensors"], []),
        (ANNOUNCED, ["awq", "compressed-tensors"], ["fp_quant", "rtn"]),
    ],
)
def test_each_era_of_vllm_is_read(source: str, read: list[str], announced: list[str]) -> None:
    assert lists_in(source.encode(), VLLM) == Lists(read, announced)


def test_the_quantizers_of_transformers_are_read() -> None:
    source = b'AUTO_QUANTIZER_MAPPING = {\n    "awq": AwqQuantizer,\n    "fp8": FineGrained,\n}\n'
    assert lists_in(source, SOURCES["transformers"]).read == ["awq", "fp8"]


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("def broken(", "no Python"),
        ("x = 1\0", "no Python"),
        ("-" * 100_000 + "1", "no Python"),
        ("x = 1 " + "+ 1" * 60_000, "no Python"),
        ("#" * (SOURCE_BYTES + 1), "more than"),
        ("OTHERS = []", "without QuantizationMethods or "),
        ("if True:\n    QUANTIZATION_METHODS = ['awq']", "without QuantizationMethods or "),
        ("QUANTIZATION_METHODS = [*OTHERS, 'awq']", "QUANTIZATION_METHODS that is not spelled out"),
        ("QUANTIZATION_METHODS = {**OTHERS, 'awq': A}", "not spelled out"),
        ("QUANTIZATION_METHODS = list(get_args(Q))", "not spelled out"),
        ("QUANTIZATION_METHODS = ['awq', 4]", "not spelled out"),
        ("QUANTIZATION_METHODS = ['awq', '\\x1b[31m']", "not spelled out"),
        ("QUANTIZATION_METHODS = Other['awq', 'gptq']", "not spelled out"),
        (LIST + "DEPRECATED_QUANTIZATION_METHODS = OTHERS", "DEPRECATED_QUANTIZATION_METHODS that"),
    ],
)
def test_a_list_is_read_whole_or_refused(source: str, why: str) -> None:
    with pytest.raises(FetchError, match=why):
        lists_in(source.encode(), VLLM)


@given(st.one_of(st.binary(), st.text().map(str.encode)))
@example(b"QUANTIZATION_METHODS = []")
@example(b"# coding: nonsense\nQUANTIZATION_METHODS = []")
def test_whatever_the_bytes_are_they_end_in_names_or_in_a_line(raw: bytes) -> None:
    try:
        lists = lists_in(raw, VLLM)
    except FetchError:
        return
    assert all(map(METHOD_NAME.fullmatch, lists.read))
