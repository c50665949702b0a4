"""The committed JSON Schema is that of the types, and holds for what a real run wrote."""

from __future__ import annotations

import json

import jsonschema  # type: ignore[import-untyped]
import pytest

from matrix.judge.document import decode
from matrix.judge.results import SCHEMA_FILE
from matrix.report.schema import COMMITTED, schema_of_types
from tests.recorded.recording import observations, table_of
from tests.unit.report_results import render

MAKE_IT = "make it anew: python -m matrix.report.schema"


def test_the_committed_schema_is_that_of_the_types() -> None:
    assert COMMITTED.read_text(encoding="utf-8") == schema_of_types(), MAKE_IT
    jsonschema.Draft202012Validator.check_schema(json.loads(schema_of_types()))


@pytest.mark.parametrize("profile", ["bounds", "times"])
def test_what_a_recorded_run_wrote_holds_to_the_schema_that_lies_beside_it(profile: str) -> None:
    texts = render(table_of(profile, observations(profile)))
    document = json.loads(texts["matrix.json"])
    assert document["$schema"] == SCHEMA_FILE
    validator = jsonschema.Draft202012Validator(json.loads(texts[SCHEMA_FILE]))
    assert list(validator.iter_errors(document)) == []

    document["cells"][0]["verdict"] = "fine"
    name, stages = next(iter(document["stages"].items()))
    stages[0]["reason"] = "no reason of ours"
    del document["cells"][2]["message"]
    places = [list(error.absolute_path) for error in validator.iter_errors(document)]
    assert sorted(places, key=str) == [
        ["cells", 0, "verdict"], ["cells", 2], ["stages", name, 0, "reason"],
    ]  # fmt: skip


def test_a_result_from_before_schemas_were_named_is_still_read() -> None:
    text = render(table_of("bounds", observations("bounds")))["matrix.json"]
    document = json.loads(text)
    del document["$schema"]
    assert decode(json.dumps(document).encode()) == decode(text.encode())
