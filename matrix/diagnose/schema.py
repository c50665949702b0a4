"""The JSON Schema of a known issue's file, made from the types, for editors and checks.

It is committed as ``issue.schema.json``, and each file of the catalogue names it in its first line.
Make it anew when the types have changed:

    .venv/bin/python -m matrix.diagnose.schema
"""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from matrix.diagnose import catalogue
from matrix.diagnose.catalogue import Issue
from matrix.spec.schema import field_docs

COMMITTED = Path(__file__).with_name("issue.schema.json")


def schema_of_types() -> str:
    """Return the JSON Schema (draft 2020-12) of one file of the catalogue, as JSON text."""
    _, definitions = msgspec.json.schema_components([Issue])
    docs = field_docs(catalogue)
    for name, definition in definitions.items():
        for field, text in docs.get(name, {}).items():
            if field in definition.get("properties", {}):
                definition["properties"][field].setdefault("description", text)
    issue = definitions.pop(Issue.__name__)
    del issue["properties"]["id"]  # the name of the file
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    schema = {**head, **issue, "title": "A known issue", "$defs": definitions}
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    COMMITTED.write_text(schema_of_types(), encoding="utf-8")
