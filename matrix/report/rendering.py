"""``index.html``: the report for a browser.

It needs no network and no JavaScript. What a template shows is escaped unless it says otherwise.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from collections import Counter
from operator import attrgetter
from pathlib import Path

import jinja2
from markupsafe import Markup, escape

from matrix.judge.results import CanaryState
from matrix.pipeline.outcomes import Verdict
from matrix.report import constraints, standings, table
from matrix.report.addresses import anchor, page_of
from matrix.report.causes import causes
from matrix.report.locks import install_lines
from matrix.report.material import Material
from matrix.spec.loading import FLOAT_MODEL
from matrix.untrusted.text import visible

_CODE = re.compile(r"`([^`]{1,200})`")
TEMPLATES = Path(__file__).parent / "templates"


def page(material: Material) -> str:
    """Return the HTML page of material whose result is normalised."""
    result = material.result
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    script = (TEMPLATES / "filter.js").read_text(encoding="utf-8")
    stands = standings.rows(result)
    shown = {
        "result": result,
        "number": table.counts(result.cells),
        "marks": table.markers(result),
        "causes": causes(result),
        "parts": table.parts(result),
        "installs": install_lines(result),
        "devices": table.devices(result.cells),
        "new_releases": table.new_releases(result),
        "stands": stands,
        "overview": standings.overview(stands),
        "resolutions": standings.resolutions(stands),
        "groups": Counter(cell.group for cell in result.cells),
        "void": result.canaries is CanaryState.VOID,
        # Only these two files of ours stand unescaped, and the policy admits just their bytes.
        "style": Markup(style),
        "script": Markup(script),
        "policy": f"default-src 'none'; style-src {_source(style)}; script-src {_source(script)}; "
        "base-uri 'none'; form-action 'none'",
    }
    return _environment().get_template("index.html.j2").render(shown)


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
    environment.globals.update(
        Verdict=Verdict,
        float=FLOAT_MODEL,
        table=table,
        standings=standings,
        constraints=constraints,
    )
    environment.filters.update(
        v=visible,
        prose=prose,
        anchor=anchor,
        page=page_of,
        css=lambda word: word.replace(" ", "-"),
        number=lambda value: "" if value is None else format(value, ".4g"),
        short=lambda device: device.partition(",")[0],
        by_group=lambda rows: table.grouped(rows, attrgetter("group")).items(),
    )
    environment.tests["cpu"] = table.is_cpu
    return environment


def prose(text: str) -> Markup:
    """Return a text of ours for the page: what stands between backquotes is code."""
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(visible(" ".join(text.split()), 2000)))))


def _source(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"
