"""``index.html``: the report for people, one file that needs no network and no JavaScript."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from pathlib import Path
from typing import NamedTuple

import jinja2
import pandas as pd
from markupsafe import Markup

from matrix.judge.results import CanaryState, CellResult, MatrixResult, Side
from matrix.pipeline.outcomes import Outcome, Reason, StageResult, Verdict
from matrix.pipeline.steps import Stage
from matrix.report import constraints, standings
from matrix.report.causes import causes
from matrix.report.locks import install_lines
from matrix.report.table import (
    BLAMED,
    MEANINGS,
    NO_SPECIFIERS,
    SYMBOLS,
    Part,
    Together,
    columns,
    counts,
    devices,
    frame,
    is_cpu,
    markers,
    need,
    new_releases,
    otherwise_elsewhere,
    packages,
    parts,
    pivot,
    ran,
    short_device,
    together,
)
from matrix.spec.loading import FLOAT_MODEL
from matrix.untrusted.text import visible

OPEN_ROWS = 60
"""Up to so many environments, their groups stand open."""
TEMPLATES = Path(__file__).parent / "templates"


def html_page(result: MatrixResult) -> str:
    """Return the page of a normalised result."""
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    script = (TEMPLATES / "filter.js").read_text(encoding="utf-8")
    stands = standings.groups(result)
    return (
        _environment()
        .get_template("index.html.j2")
        .render(
            result=result,
            number=counts(result.cells),
            symbols=SYMBOLS,
            meanings=MEANINGS,
            blamed=BLAMED,
            marks=markers(result),
            causes=causes(result),
            parts=[_PartOfPage.of(part) for part in parts(result)],
            details=_by_quantizer(result.cells),
            installs=install_lines(result),
            devices=devices(result.cells),
            new_releases=new_releases(result),
            stands=stands,
            open_groups=sum(len(group.rows) for group in stands) <= OPEN_ROWS,
            overview=standings.overview(stands),
            resolutions=standings.resolutions(stands),
            states=standings.STATES,
            state_meanings=standings.STATE_MEANINGS,
            forbidden=standings.FORBIDDEN,
            void=result.canaries is CanaryState.VOID,
            float=FLOAT_MODEL,
            no_specifiers=NO_SPECIFIERS,
            Verdict=Verdict,
            # Only these two files of ours stand unescaped, and the policy admits just their bytes.
            style=Markup(style),
            script=Markup(script),
            policy=f"default-src 'none'; style-src {_source(style)}; script-src {_source(script)}; "
            "base-uri 'none'; form-action 'none'",
        )
    )


Row = tuple[str, str, Side, list[list[CellResult]]]
"""Label, scheme, quantizer, and the cells of each column."""


class _PartOfPage(NamedTuple):
    """One table, and what works together in it."""

    title: str
    engines: list[str]
    models: list[str]
    """The model of each column; an engine's columns stand together."""
    spans: list[tuple[str, int]]
    """Each engine with how many columns it spans."""
    groups: dict[str, list[Row]]
    together: list[Together]
    devices: list[str]
    """What its evidence was made on."""

    @classmethod
    def of(cls, part: Part) -> _PartOfPage:
        table = pivot(frame(part.cells))
        names = [engine for engine, _ in columns(table)]
        return cls(
            title=part.title,
            engines=list(dict.fromkeys(names)),
            models=[model for _, model in columns(table)],
            spans=[(name, names.count(name)) for name in dict.fromkeys(names)],
            groups=_row_groups(table, part.cells),
            together=together(part.cells),
            devices=devices(part.cells),
        )


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        v=visible,
        anchor=anchor,
        css=_css_name,
        number=_number,
        need=need,
        ran=ran,
        short=short_device,
        otherwise=otherwise_elsewhere,
        state=standings.state,
        resolved=standings.resolved,
        remarks=standings.remarks,
        held=constraints.held_bounds,
        declared=constraints.declared_bounds,
        tried=constraints.tried,
        packages=packages,
        ten=_ten_stages,
    )
    environment.tests["cpu"] = is_cpu
    return environment


def anchor(name: str, kind: str = "cell") -> str:
    """Return an id for the place of a cell or an environment on the page: stable and distinct."""
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", name)[:80].strip("-")
    return f"{kind}-{readable}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _source(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _css_name(word: str) -> str:
    return word.replace(" ", "-")


def _number(value: float | None) -> str:
    return "" if value is None else format(value, ".4g")


def _ten_stages(cell: CellResult) -> list[StageResult]:
    results = {result.stage: result for result in cell.stages}
    return [results.get(stage, _not_tried(stage)) for stage in Stage]


def _not_tried(stage: Stage) -> StageResult:
    return StageResult(Outcome.BLOCKED, Reason.EARLIER_STAGE, stage=stage)


def _row_groups(table: pd.DataFrame, cells: list[CellResult]) -> dict[str, list[Row]]:
    """Return the table's rows under their quantizer's own version."""
    groups: dict[str, list[Row]] = {}
    for (name, scheme), values in zip(table.index, table.to_numpy(), strict=True):
        slots = [[cells[n] for n in slot] if isinstance(slot, tuple) else [] for slot in values]
        side = next(cell.quantizer for slot in slots for cell in slot)
        group, label = standings.group_and_label(name, side.axes)
        groups.setdefault(group, []).append((label, scheme, side, slots))
    return groups


def _by_quantizer(cells: list[CellResult]) -> dict[str, list[CellResult]]:
    grouped: dict[str, list[CellResult]] = {}
    for cell in cells:
        grouped.setdefault(cell.quantizer.name, []).append(cell)
    return grouped
