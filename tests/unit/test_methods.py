"""Which releases list a method: kept as spans of releases, and read from there again."""

from __future__ import annotations

from pathlib import Path

import pytest

from matrix.spec.loading import DEFAULT_SPEC
from matrix.spec.methods import (
    METHODS,
    Listing,
    Lists,
    Methods,
    Spans,
    encode,
    method_of,
    methods_of,
    read_methods,
    with_releases,
)
from matrix.spec.tables import SpecError
from tests.unit.made_methods import ENGINE, METHODS_MADE


def test_releases_are_taken_in_as_spans_in_the_order_of_versions() -> None:
    old = Listing("a.py", ["0.9", "0.10"], {"awq": Spans([("0.9", "0.10")])})
    new = {
        "0.11": Lists(["awq", "gguf"], ["gguf"]),
        "0.8": Lists(["gguf"]),
        "0.9.1": Lists([]),
    }
    assert with_releases(old, new) == Listing(
        "a.py",
        ["0.8", "0.9", "0.9.1", "0.10", "0.11"],
        {
            "awq": Spans([("0.9", "0.9"), ("0.10", "0.11")]),
            "gguf": Spans([("0.8", "0.8"), ("0.11", "0.11")], [("0.11", "0.11")]),
        },
    )


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("pack-quantized", "compressed-tensors"),
        ("gptq_v2", "gptq"),
        ("inc", "auto-round"),
        ("bitsandbytes_4bit", "bitsandbytes"),
        ("AWQ", "awq"),
        ("unheard of", "unheard of"),
    ],
)
def test_what_people_call_a_format_is_of_a_method(name: str, method: str) -> None:
    assert method_of(name) == method


def test_nothing_new_changes_nothing() -> None:
    assert with_releases(ENGINE, {}) == ENGINE


def test_all_names_of_a_method_count() -> None:
    assert ENGINE.readers("auto-round") == ["1.1", "1.2", "1.3", "1.4"]
    assert ENGINE.readers("gguf") == ["1.0", "1.1"]
    assert ENGINE.readers("unheard of") == []


@pytest.mark.parametrize(
    ("package", "version", "method", "lacks"),
    [
        ("engine", "1.2", "gguf", True),
        ("engine", "1.2+cpu", "gguf", True),
        ("engine", "1.1.0", "gguf", False),
        ("engine", "1.3", "auto-round", False),
        ("engine", "1.4", "unheard of", True),
        ("engine", "9.9", "gguf", False),  # whose wheel was not read
        ("engine", "no version", "gguf", False),
        ("other", "1.2", "gguf", False),
    ],
)
def test_a_release_lacks_only_what_its_list_was_read_for(
    package: str, version: str, method: str, lacks: bool
) -> None:
    assert METHODS_MADE.lacks(package, version, method) is lacks


def test_what_is_written_is_read_again_with_a_line_for_each_method(tmp_path: Path) -> None:
    file = tmp_path / METHODS
    file.write_bytes(encode(METHODS_MADE))
    assert read_methods(file) == METHODS_MADE
    assert '   "gguf": {"read":[["1.0","1.1"]]},' in file.read_text().splitlines()
    file.write_bytes(encode(Methods(1, "", {})))
    assert read_methods(file) == Methods(1, "", {})


def test_a_spec_without_a_file_of_its_own_has_ours(tmp_path: Path) -> None:
    spec = tmp_path / "spec.toml"
    assert methods_of(spec) == methods_of(DEFAULT_SPEC)
    (tmp_path / METHODS).write_bytes(encode(METHODS_MADE))
    assert methods_of(spec) == METHODS_MADE


BAD = {
    "no JSON": "{",
    "another schema": '{"schema": 2, "taken": "", "packages": {}}',
    "not in order": encode(
        Methods(1, "", {"engine": Listing("a.py", ["1.1", "1.0"], {})})
    ).decode(),
    "no version": encode(Methods(1, "", {"engine": Listing("a.py", ["x"], {})})).decode(),
    "names no release": encode(
        Methods(1, "", {"engine": Listing("a.py", ["1.0"], {"awq": Spans([("1.0", "2.0")])})})
    ).decode(),
    "no method": encode(
        Methods(1, "", {"engine": Listing("a.py", ["1.0"], {"\x1b": Spans([("1.0", "1.0")])})})
    ).decode(),
    "backwards": encode(
        Methods(
            1, "", {"engine": Listing("a.py", ["1.0", "1.1"], {"awq": Spans([("1.1", "1.0")])})}
        )
    ).decode(),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_file_that_is_wrong_is_told_with_what_to_do(tmp_path: Path, bad: str) -> None:
    (tmp_path / METHODS).write_text(BAD[bad])
    with pytest.raises(SpecError, match=r"methods\.json: methods: .*matrix formats --take"):
        methods_of(tmp_path / "spec.toml")
