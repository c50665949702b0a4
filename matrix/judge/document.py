"""``matrix.json``: a judged table as a file, in which each thing is said once.

What cells share stands beside them, by a name: the sides of each, how their stages ended, what
checks said. What most of them say is in ``usual``, and a cell that leaves it out says the same. All
else that is left out is empty. Each cell is a line, so that two files can be compared.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import asdict
from msgspec.structs import fields as fields_of

from matrix.judge.results import (
    SCHEMA_FILE,
    CellFacts,
    CellResult,
    MatrixResult,
    Side,
    TableFacts,
)
from matrix.pipeline.outcomes import Finding, Judgement, Outcome, StageResult
from matrix.untrusted.reading import UnreadableError
from matrix.untrusted.reading import decode as read_json

SCHEMA_VERSION = 2
MOST_FINDINGS = 1_000
"""Of a cell; the project has 24 checks."""
DIGITS = 5
"""Of a digest in the name of what cells share; more where two would have one name."""
_OFTEN_THE_SAME = ("parts", "device", "made_on", "runs", "expected")
_NOT_ASCII = re.compile(r"[^\x00-\x7e]+")
_json = msgspec.json.Encoder(order="deterministic").encode
_T = TypeVar("_T")


class _Finding(Finding, frozen=True, omit_defaults=True):
    """A finding as it is written."""


class _StageResult(StageResult, frozen=True, kw_only=True, omit_defaults=True):
    """How a stage ended, as it is written."""


class UsualFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a cell says that does not say otherwise."""

    parts: list[str] = []
    device: str = "cpu"
    made_on: str = ""
    runs: list[str] = []
    expected: str = ""
    command: str = ""
    """What stands before the cell's id in the command that runs it alone."""


class CellEntry(CellFacts, frozen=True, kw_only=True, omit_defaults=True):
    """One cell, as the file has it."""

    quantizer: str
    """Its name in ``quantizers``; so are the next three in the tables of their name."""
    engine: str
    stages: str
    findings: Annotated[list[str], msgspec.Meta(max_length=MOST_FINDINGS)]
    parts: list[str] | UnsetType = UNSET
    device: str | UnsetType = UNSET
    made_on: str | UnsetType = UNSET
    runs: list[str] | UnsetType = UNSET
    expected: str | UnsetType = UNSET
    command: str | UnsetType = UNSET
    """All of it where it is not the usual one with the cell's id."""


class Document(TableFacts, frozen=True, kw_only=True):
    """A table, as the file has it."""

    json_schema: str = msgspec.field(name="$schema", default=SCHEMA_FILE)
    """Where editors find what this file may hold."""
    schema: int = SCHEMA_VERSION
    usual: UsualFacts
    quantizers: dict[str, Side]
    engines: dict[str, Side]
    stages: dict[str, list[StageResult]]
    """How all stages of a cell ended, by the first that did not pass."""
    findings: dict[str, Finding]
    """What checks said, by the check; what does not apply is left out."""
    cells: list[CellEntry]


class _Version(msgspec.Struct):
    schema: int = 1


class _Shared(Generic[_T]):
    """What cells share, by name."""

    def __init__(self) -> None:
        self.values: dict[str, _T] = {}
        self._names: dict[bytes, str] = {}

    def name(self, value: _T, beginning: str, *, digest: bool = True) -> str:
        """Return the name of a value; without a digest where none is wanted and it is free."""
        encoded = _json(value)
        if encoded not in self._names:
            digits = hashlib.sha256(encoded).hexdigest()
            names = [f"{beginning}-{digits[:end]}" for end in range(DIGITS, len(digits) + 1)]
            names = names if digest else [beginning, *names]
            name = next(name for name in names if name not in self.values)
            self.values[name], self._names[encoded] = value, name
        return self._names[encoded]


def encode(result: MatrixResult) -> bytes:
    """Return the bytes of the ``matrix.json`` of a normalised result: ASCII, a line for each cell.

    ASCII, because a direction mark in a message must not reorder what a pager or a diff shows.
    """
    document = _document(result)
    values = {field.encode_name: getattr(document, field.name) for field in fields_of(Document)}
    first = ["$schema", "schema", "profile"]
    names = [*first, *(name for name in values if name not in first)]
    lines = ",\n".join(f"{_json(name).decode()}: {_lines(values[name])}" for name in names)
    return _NOT_ASCII.sub(_escaped, f"{{\n{lines}\n}}\n").encode()


def decode(data: bytes) -> MatrixResult:
    """Return the result that the ``matrix.json`` of this or an earlier version holds.

    Raises :class:`UnreadableError` where it is none.
    """
    match read_json(data, _Version).schema:
        case 1:
            return read_json(data, MatrixResult)
        case 2:
            return _result(read_json(data, Document))
        case other:
            raise UnreadableError(
                f"it has schema {other}, and this program reads 1 and 2: update the program, or "
                "have the report written again"
            )


def _lines(value: object) -> str:
    """Return the JSON of a value of the document, each item of it in a line of its own."""
    match value:
        case dict():
            items = [_json(key) + b": " + _json(item) for key, item in sorted(value.items())]
            start, end = "{", "}"
        case list():
            items, start, end = list(map(_json, value)), "[", "]"
        case _:
            return _json(value).decode()
    inner = b",\n ".join(items).decode()
    return f"{start}\n {inner}\n{end}" if items else start + end


def _escaped(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def _document(result: MatrixResult) -> Document:
    usual = _usual(result.cells)
    quantizers, engines = _Shared[Side](), _Shared[Side]()
    stages, findings = _Shared[list[StageResult]](), _Shared[Finding]()
    cells = []
    for cell in result.cells:
        ends = (end.stage for end in cell.stages if end.outcome is not Outcome.PASSED)
        says = {name: getattr(cell, name) for name in _OFTEN_THE_SAME}
        entry = CellEntry(
            **{name: getattr(cell, name) for name in CellFacts.__struct_fields__},
            **{name: value for name, value in says.items() if value != getattr(usual, name)},
            command=UNSET if cell.command == usual.command + cell.id else cell.command,
            quantizer=quantizers.name(cell.quantizer, cell.quantizer.name, digest=False),
            engine=engines.name(cell.engine, cell.engine.name, digest=False),
            stages=stages.name(cell.stages, next(ends, "passed")),
            findings=[
                findings.name(finding, finding.check)
                for finding in cell.findings
                if finding.judgement is not Judgement.NOT_APPLICABLE
            ],
        )
        cells.append(entry)
    return Document(
        **{name: getattr(result, name) for name in TableFacts.__struct_fields__},
        usual=usual,
        quantizers=quantizers.values,
        engines=engines.values,
        stages={
            name: [_StageResult(**asdict(end)) for end in ends]
            for name, ends in stages.values.items()
        },
        findings={name: _Finding(**asdict(finding)) for name, finding in findings.values.items()},
        cells=cells,
    )


def _usual(cells: list[CellResult]) -> UsualFacts:
    """Return what most cells say."""
    if not cells:
        return UsualFacts()
    return UsualFacts(
        **{name: _most_common(getattr(c, name) for c in cells) for name in _OFTEN_THE_SAME},
        command=_most_common(cell.command.removesuffix(cell.id) for cell in cells),
    )


def _most_common(values: Iterable[object]) -> Any:
    """Return the value that comes most often; of several the first."""
    [(encoded, _)] = Counter(map(_json, values)).most_common(1)
    return msgspec.json.decode(encoded)


def _result(document: Document) -> MatrixResult:
    return MatrixResult(
        **{name: getattr(document, name) for name in TableFacts.__struct_fields__},
        cells=[_cell(entry, document) for entry in document.cells],
    )


def _cell(entry: CellEntry, document: Document) -> CellResult:
    usual = document.usual
    says = {name: getattr(entry, name) for name in _OFTEN_THE_SAME}
    try:
        return CellResult(
            **{name: getattr(entry, name) for name in CellFacts.__struct_fields__},
            **{
                name: getattr(usual, name) if value is UNSET else value
                for name, value in says.items()
            },
            command=usual.command + entry.id if entry.command is UNSET else entry.command,
            quantizer=document.quantizers[entry.quantizer],
            engine=document.engines[entry.engine],
            stages=document.stages[entry.stages],
            findings=[document.findings[name] for name in entry.findings],
        )
    except KeyError as error:
        cell, name = entry.id[:200], error.args[0][:200]
        raise UnreadableError(f"cell {cell!r} names {name!r}, which the file lacks") from None
