"""Templates of what stands in many files of a report, and how each distinct one is made once."""

from __future__ import annotations

import shlex
from collections.abc import Callable

import jinja2
import msgspec
from markupsafe import Markup

from matrix.judge.results import Measures
from matrix.report import table
from matrix.report.addresses import anchor, page_of
from matrix.report.rendering import TEMPLATES, prose
from matrix.spec.loading import FLOAT_MODEL
from matrix.untrusted.text import visible


def kept(render: Callable[..., str]) -> Callable[..., Markup]:
    """Return a function that renders each distinct content once."""
    rendered: dict[bytes, Markup] = {}
    encode = msgspec.json.Encoder().encode

    def keeping(*values: object) -> Markup:
        key = encode(values)
        if key not in rendered:
            rendered[key] = Markup(render(*values))
        return rendered[key]

    return keeping


def _environment(*, escaped: bool) -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=escaped,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


PAGES = _environment(escaped=True)
"""For pages: what is shown is escaped unless it says otherwise."""
PAGES.globals.update(float=FLOAT_MODEL, table=table, unmeasured=Measures())
PAGES.filters.update(
    v=visible,
    prose=prose,
    anchor=anchor,
    page=page_of,
    css=table.css_class,
    number=lambda value: "" if value is None else format(value, ".4g"),
    megabytes=lambda value: f"{value / 1e6:,.0f} MB",
)
SCRIPTS = _environment(escaped=False)
"""For scripts: a value is a comment by ``v``, a word of a shell by ``sh``, or Python by ``py``."""
SCRIPTS.filters.update(v=visible, sh=shlex.quote, py=ascii)
