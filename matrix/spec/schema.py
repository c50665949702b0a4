"""The JSON Schema of a spec's files, made from the types, by which editors complete and check them.

It is committed as ``spec.schema.json``, and each file of the project's spec names it in its first
line. Make it anew when the types have changed:

    .venv/bin/python -m matrix.spec.schema
"""

from __future__ import annotations

import ast
import inspect
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from matrix.spec import tables
from matrix.spec.tables import (
    EnvironmentTable,
    ModelTable,
    PredictionsTable,
    RangeTable,
    RoleTable,
    Spec,
    StageLimits,
)

COMMITTED = Path(__file__).with_name("spec.schema.json")
ON_BASES = (EnvironmentTable, ModelTable, RoleTable)
"""Tables that build on bases."""
COMPLETED = (*ON_BASES, RangeTable, Spec, StageLimits, PredictionsTable)
"""Tables of which a base or another file may have the rest: none of their keys is required."""


def schema_of_types() -> str:
    """Return the JSON Schema (draft 2020-12) of one file of a spec, as JSON text."""
    _, definitions = msgspec.json.schema_components([Spec], schema_hook=_anything)
    for name, definition in definitions.items():
        for field, text in field_docs(tables).get(name, {}).items():
            definition["properties"][field].setdefault("description", text)
    for table in COMPLETED:
        del definitions[table.__name__]["required"]
    spec = definitions.pop(Spec.__name__)
    references = [{"$ref": f"#/$defs/{table.__name__}"} for table in ON_BASES]
    spec["properties"]["bases"]["additionalProperties"] = {"anyOf": references}
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    schema = {**head, **spec, "title": "A file of a spec", "$defs": definitions}
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def _anything(kind: type) -> dict[str, Any]:
    """Return the schema of a value that is given on as it is."""
    if kind is object:
        return {"description": "Any value; it is given on as it is."}
    raise NotImplementedError(kind)


def field_docs(of: ModuleType) -> dict[str, dict[str, str]]:
    """Return class -> field -> the text that stands below it in a module's source."""
    module = ast.parse(inspect.getsource(of))
    docs: dict[str, dict[str, str]] = {}
    for node in module.body:
        if isinstance(node, ast.ClassDef):
            docs[node.name] = {
                field.target.id: " ".join(text.value.value.split()).replace("``", "`")
                for field, text in zip(node.body, node.body[1:], strict=False)
                if isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
                and isinstance(text.value.value, str)
            }
    return docs


if __name__ == "__main__":
    COMMITTED.write_text(schema_of_types(), encoding="utf-8")
