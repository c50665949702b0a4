"""What lies beside a spec: releases, methods and pairs are read, or are one clear error."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest

from matrix.judge.lifetimes import in_words, lifetimes
from matrix.spec import methods, pairs, snapshot
from matrix.spec.loading import DEFAULT_SPEC
from matrix.spec.tables import SpecError
from tests.fuzz.fuzzing import fuzzed
from tests.fuzz.mutations import like_json
from tests.fuzz.test_specs import CALLS, ROWS, as_toml, shown
from tests.unit import small_spec

RELEASES = json.loads((DEFAULT_SPEC / snapshot.SNAPSHOT).read_bytes())
RELEASES["packages"] = {name: RELEASES["packages"][name][-4:] for name in ("vllm", "auto-gptq")}
PAIRS = json.loads((DEFAULT_SPEC / pairs.PAIRS).read_bytes())
PAIRS["pairs"] = PAIRS["pairs"][:4]
METHODS = {
    "schema": 1, "taken": "2026-11-30",
    "packages": {"vllm": {
        "file": "a.py", "releases": ["0.6.6", "0.6.6.post1", "0.7.0rc1", "0.7.0"],
        "methods": {
            "awq": {"read": [["0.6.6", "0.6.6.post1"]], "announced": [["0.7.0rc1", "0.7.0"]]},
            "gptq": {"read": [["0.6.6", "0.7.0"]]},
        },
    }},
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("beside")
    small_spec.write(place)
    (place / "spec.toml").write_text(as_toml(ROWS))
    return place


@fuzzed("releases", like_json(RELEASES), CALLS)
def test_releases(data: bytes, folder: Path) -> None:
    """A spec is planned with any of them, or there is one error."""
    file = folder / snapshot.SNAPSHOT
    file.write_bytes(data)
    try:
        with suppress(SpecError):
            assert all(isinstance(line, str) for line in shown(folder, "all"))
    finally:
        file.unlink()


@fuzzed("methods", like_json(METHODS))
def test_methods(data: bytes, folder: Path) -> None:
    (folder / methods.METHODS).write_bytes(data)
    with suppress(SpecError):
        read = methods.methods_of(folder)
        for lifetime in lifetimes(read):
            assert in_words(lifetime)
        new = {"99.0": methods.Lists(["awq"])}
        for listing in read.packages.values():
            assert methods.with_releases(listing, new).releases[-1:] == ["99.0"]
        assert read.lacks("vllm", "0.7.0", "awq") in (True, False)
        assert methods.encode(read).decode()


@fuzzed("pairs", like_json(PAIRS))
def test_pairs(data: bytes, folder: Path) -> None:
    (folder / pairs.PAIRS).write_bytes(data)
    with suppress(SpecError):
        read = pairs.pairs_of(folder)
        assert read is not None
        assert pairs.encode(read).decode()
