"""``index.html``: the report for a browser.

It needs no network and no JavaScript. What a template shows is escaped unless it says otherwise.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from markupsafe import Markup

from matrix.history.changes import ChangeKind
from matrix.judge.lifetimes import lifetimes
from matrix.judge.results import CanaryState
from matrix.report import formats, pairs, picture, standings, table
from matrix.report.addresses import anchor
from matrix.report.causes import Cause, causes
from matrix.report.chooser import choices
from matrix.report.fragments import PAGES, policy_source, source_text
from matrix.report.locks import install_lines
from matrix.report.material import Material
from matrix.report.plots import captions
from matrix.report.table import Part

SCRIPTS = ("filter.js", "chooser.js", "page.js")
"""In the order in which one stands on another."""
ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http:%2F%2Fwww.w3.org/2000/svg' viewBox='0 0 2 2'%3E"
    "%3Cpath fill='%23009e73' d='M0 0h1v2h1V1H0'/%3E%3Cpath fill='%23b34400' d='M1 0h1v1H0v1h1'/%3E"
    "%3C/svg%3E"
)
"""Four squares; without an icon of its own, a browser asks the server for one."""
UNMARKED = {ChangeKind.UNCHANGED, ChangeKind.STILL_BROKEN, ChangeKind.GONE}
"""What became of cells that no square is marked for."""
FILES = {
    "matrix.csv": "a row for each cell, for a spreadsheet",
    "matrix.parquet": "the same, with types",
    "matrix.json": "all of it",
    "matrix.schema.json": "what matrix.json may hold, as JSON Schema",
    "matrix.md": "causes and changes, for an issue or a terminal",
    "matrix.junit.xml": "as test cases, for continuous integration (JUnit)",
    "matrix.ctrf.json": "as test cases (CTRF)",
    "badge.json": "a badge, as shields.io reads it",
    "feed.xml": "what changed from run to run, as an Atom feed",
}
"""Data beside the page, and what it is for."""


def page(material: Material, names: Collection[str]) -> str:
    """Return the HTML page of material whose result is normalised, with links to the files beside
    it of these names."""
    result = material.result
    style = source_text("style.css")
    script = "\n".join(source_text(name) for name in SCRIPTS)
    parts, listed, stands = table.parts(result), causes(result), standings.rows(result)
    installs = install_lines(result)
    shown = {
        "result": result,
        "number": table.counts(result.cells),
        "marks": table.markers(result),
        "causes": listed,
        "parts": parts,
        "installs": installs,
        "devices": table.devices(result.cells),
        "new_releases": table.new_releases(result),
        "stands": stands,
        "overview": standings.overview(stands),
        "resolutions": standings.resolutions(stands),
        "lasting": formats.table(lifetimes(material.methods, result)),
        "lists_taken": material.methods.taken,
        "kept_pairs": material.pairs,
        "pairs_table": pairs.table(material.pairs) if material.pairs else None,
        "void": result.canaries is CanaryState.VOID,
        "pictures": _pictures(material, parts, listed, installs),
        "choices": choices(result),
        "changes": material.changes,
        "inputs": {change.cell: change.inputs for change in material.changes.cells}
        if material.changes
        else {},
        "files": {name: what for name, what in FILES.items() if name in names},
        "plots": {name: words for name, words in captions(material).items() if name in names},
        "neighbours": material.neighbours,
        "icon": ICON,
        # Only these files of ours stand unescaped, and the policy admits just their bytes.
        "style": Markup(style),
        "script": Markup(script),
        "policy": f"default-src 'none'; style-src {policy_source(style)}; "
        f"script-src {policy_source(script)}; "
        "img-src 'self' data:; connect-src 'self'; frame-src 'self'; base-uri 'none'; "
        "form-action 'none'",
    }
    return PAGES.get_template("index.html.j2").render(shown)


def _pictures(
    material: Material, parts: list[Part], listed: list[Cause], installs: Iterable[str]
) -> list[tuple[str, list[str], list[Markup]]]:
    """Return the title, the devices and the tables of squares of each part."""
    notes = picture.Notes(
        causes={cell: number for number, cause in enumerate(listed) for cell in cause.cells},
        titles=[cause.title(material.result.issues) for cause in listed],
        changes={
            change.cell: change.kind
            for change in (material.changes.cells if material.changes else [])
            if change.kind not in UNMARKED
        },
        installs={name: anchor(name, "install") for name in installs},
        marks=table.markers(material.result),
    )
    return [
        (part.title, part.devices, list(picture.tables(part, notes, f"table-{number}")))
        for number, part in enumerate(parts, start=1)
        if part.rows
    ]
