"""The JSON Schema of ``matrix.json``, made from the types of its values.

It is committed as ``matrix.schema.json`` in this folder and written beside each report, which names
it, so that an editor checks and completes a report. Make it anew when the types have changed:

    .venv/bin/python -m matrix.report.schema
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from matrix.judge.document import Document
from matrix.judge.results import SCHEMA_FILE

COMMITTED = Path(__file__).with_name(SCHEMA_FILE)


def schema_of_types() -> str:
    """Return the JSON Schema (draft 2020-12) of the values of ``matrix.json``, as JSON text."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A quantization compatibility matrix",
        **msgspec.json.schema(Document),
    }
    return (
        msgspec.json.format(msgspec.json.encode(schema, order="sorted"), indent=2).decode() + "\n"
    )


if __name__ == "__main__":
    COMMITTED.write_text(schema_of_types(), encoding="utf-8")
