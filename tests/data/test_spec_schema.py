"""The committed schema of the spec is that of the types, and every file names it and fits it."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import msgspec
import pytest

from matrix.spec.files import spec_files
from matrix.spec.loading import DEFAULT_SPEC
from matrix.spec.schema import COMMITTED, schema_of_types

FILES = spec_files(DEFAULT_SPEC)
LINE = "#:schema "
"""How editors that read TOML find a file's schema; the path is relative to the file."""


def validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(msgspec.json.decode(COMMITTED.read_bytes()))


def test_the_committed_schema_is_made_of_the_types() -> None:
    remake = "make it anew: python -m matrix.spec.schema"
    assert COMMITTED.read_text(encoding="utf-8") == schema_of_types(), remake


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_file_names_the_schema_and_fits_it(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.startswith(LINE)
    named = file.parent / text.splitlines()[0].removeprefix(LINE)
    assert os.path.normpath(named) == str(COMMITTED)
    assert [str(error) for error in validator().iter_errors(tomllib.loads(text))] == []


@pytest.mark.parametrize(
    "text",
    [
        "[limits]\nlode = { seconds = 1 }",
        "[limits]\nload = { seconds = 1 }",
        '[models.x]\ntied = "yes"',
        '[[environments]]\nnane = "x"',
        '[[environments]]\nrows = ["1.0"]',
        '[bases.x]\nnane = "x"',
        '[[engines]]\nenvironments = { pakage = "vllm" }',
        '[schemes.x]\nformat = "awq"\nbits = 4',
        "[profiles.x]\ntitle = 3",
        "thresholds = 3",
        "schema = 2",
    ],
)
def test_what_is_wrong_does_not_fit(text: str) -> None:
    assert not validator().is_valid(tomllib.loads(text))


def test_every_key_is_explained_where_its_table_explains_it() -> None:
    tables = msgspec.json.decode(schema_of_types())["$defs"]
    assert tables["Facts"]["properties"]["beside"]["description"].startswith("Others that it")
    assert tables["Limits"]["properties"]["seconds"]["description"].startswith("Wall-clock")
