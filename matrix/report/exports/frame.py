"""The cells as a frame of plain values, as spreadsheets and other programs take them."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from matrix.judge.results import CellResult, KnownIssue, MatrixResult
from matrix.report.table import packages_in_words

Value = str | float | int | bool | None
"""``None`` is what was not measured."""
_TEXTS = (
    "id", "model", "scheme", "quantizer", "quantizer_packages", "quantizer_python", "engine",
    "engine_packages", "engine_python", "device", "elsewhere", "verdict", "blame", "stage",
    "reason", "message", "issue", "issue_cause", "fix", "source", "looks_like", "group",
    "departures", "canary",
)  # fmt: skip
COLUMNS: dict[str, str] = {
    **dict.fromkeys(_TEXTS, "str"),
    "flaky": "bool",
    "seconds": "float64",
    "perplexity": "float64",
    "nats": "float64",
    "divergence": "float64",
    "high_divergence": "float64",
    "same_top": "float64",
    "kernel": "str",
    "tokens_per_second": "float64",
    "peak_bytes": "Int64",
    "at": "str",
    "runs": "str",
    "command": "str",
}
"""The columns in their order, each with its type as pandas names it."""


def frame(result: MatrixResult) -> pd.DataFrame:
    """Return a row for each cell, in the order of the table; its texts are untrusted."""
    rows = [
        {**_identity(cell), **_cause(cell, result.issues.get(cell.issue)), **_measured(cell)}
        for cell in result.cells
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def shown(cells: pd.DataFrame, fit: Callable[[str], str]) -> pd.DataFrame:
    """Return the cells of :func:`frame` with each text made fit for where it will stand."""
    # Most columns have the same few texts over and over.
    texts = {
        name: cells[name].map({text: fit(text) for text in cells[name].unique()})
        for name, kind in COLUMNS.items()
        if kind == "str"
    }
    return cells.assign(**texts)


def _identity(cell: CellResult) -> dict[str, Value]:
    return {
        "id": cell.id,
        "model": cell.model,
        "scheme": cell.scheme,
        "quantizer": cell.quantizer.name,
        "quantizer_packages": packages_in_words(cell.quantizer),
        "quantizer_python": cell.quantizer.python,
        "engine": cell.engine.name,
        "engine_packages": packages_in_words(cell.engine),
        "engine_python": cell.engine.python,
        "device": cell.device,
        "elsewhere": "; ".join(f"{where}: {verdict}" for where, verdict in cell.elsewhere.items()),
        "verdict": cell.verdict.value,
    }


def _cause(cell: CellResult, issue: KnownIssue | None) -> dict[str, Value]:
    return {
        "blame": cell.blame.value,
        "stage": cell.stage.value if cell.stage else "",
        "reason": cell.reason.value,
        "message": cell.message,
        "issue": cell.issue,
        "issue_cause": issue.cause if issue else "",
        "fix": issue.fix if issue else "",
        "source": issue.sources[0] if issue and issue.sources else "",
        "looks_like": cell.looks_like,
        "group": cell.group,
        "departures": " ".join(cell.departures),
        "canary": cell.canary.value if cell.canary else "",
        "flaky": cell.flaky,
    }


def _measured(cell: CellResult) -> dict[str, Value]:
    return {
        "seconds": round(sum(cell.timings.values()), 3),
        "perplexity": cell.measures.perplexity,
        "nats": cell.measures.nats,
        "divergence": cell.measures.divergence,
        "high_divergence": cell.measures.high_divergence,
        "same_top": cell.measures.same_top,
        "kernel": cell.measures.kernel,
        "tokens_per_second": cell.measures.tokens_per_second,
        "peak_bytes": cell.measures.peak_bytes,
        "at": cell.at,
        "runs": " ".join(cell.runs),
        "command": cell.command,
    }
