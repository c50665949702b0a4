"""The committed schema of known issues is that of the types; every file names it and fits it."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import msgspec
import pytest

from matrix.diagnose.catalogue import FOLDER
from matrix.diagnose.schema import COMMITTED, schema_of_types

LINE = "#:schema "
GOOD = """
title = "A"
steps = ["load"]
cause = "B"
fix = "C"
sources = ["D"]
confidence = "confirmed"
signatures = [{ texts = ["words that are long enough"] }]
"""


def validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(msgspec.json.decode(COMMITTED.read_bytes()))


def test_the_committed_schema_is_made_of_the_types() -> None:
    remake = "make it anew: python -m matrix.diagnose.schema"
    assert COMMITTED.read_text(encoding="utf-8") == schema_of_types(), remake


@pytest.mark.parametrize("file", sorted(FOLDER.iterdir()), ids=lambda file: file.name)
def test_every_file_names_the_schema_and_fits_it(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.startswith(LINE)
    named = file.parent / text.splitlines()[0].removeprefix(LINE)
    assert os.path.normpath(named) == str(COMMITTED)
    assert [str(error) for error in validator().iter_errors(tomllib.loads(text))] == []


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('["load"]', '["serve"]'),
        ('"confirmed"', '"sure"'),
        ("texts", "text"),
        ('title = "A"', ""),
        ('fix = "C"', 'fix = "C"\nid = "a"'),
        ('fix = "C"', 'fix = "C"\neffect = "bad"'),
        ('fix = "C"', 'fix = "C"\nversions = [{ package = {} }]'),
    ],
)
def test_what_is_wrong_does_not_fit(right: str, wrong: str) -> None:
    assert validator().is_valid(tomllib.loads(GOOD))
    assert not validator().is_valid(tomllib.loads(GOOD.replace(right, wrong, 1)))
