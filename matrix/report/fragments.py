"""How the templates of a report are read, and how what stands in many files is made once."""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path

import jinja2
import msgspec
from markupsafe import Markup, escape

from matrix.judge.lifetimes import end_in_words
from matrix.judge.results import Measures
from matrix.pipeline.outcomes import Verdict
from matrix.report import constraints, pairs, standings, table
from matrix.report.addresses import anchor, page_of
from matrix.spec.loading import FLOAT_MODEL
from matrix.untrusted.text import counted, visible

TEMPLATES = Path(__file__).parent / "templates"
LONG = 40
"""What is told of a machine in more characters is folded."""
_CODE = re.compile(r"`([^`]{1,200})`")


def source_text(name: str) -> str:
    """Return a style sheet or a script of ours, which stands in a page unescaped."""
    return (TEMPLATES / name).read_text(encoding="utf-8")


def policy_source(text: str) -> str:
    """Return the word by which a page's policy admits just this text."""
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def rendered_once(render: Callable[..., str]) -> Callable[..., Markup]:
    """Return a function that renders each distinct content once."""
    rendered: dict[bytes, Markup] = {}
    encode = msgspec.json.Encoder().encode

    def render_once(*values: object) -> Markup:
        key = encode(values)
        if key not in rendered:
            rendered[key] = Markup(render(*values))
        return rendered[key]

    return render_once


def prose(text: str, limit: int = 2000) -> Markup:
    """Return a text of ours for the page: what stands between backquotes is code."""
    shown = visible(" ".join(text.split()), limit)
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(shown))))


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
PAGES.globals.update(
    TOP_CAUSES=5,
    CHANGES=6,
    BIG=5000,
    Verdict=Verdict,
    float=FLOAT_MODEL,
    table=table,
    standings=standings,
    constraints=constraints,
    pairs=pairs,
    end_in_words=end_in_words,
    unmeasured=Measures(),
)
PAGES.filters.update(
    v=visible,
    prose=prose,
    anchor=anchor,
    page=page_of,
    css=table.css_class,
    by_group=lambda rows: table.grouped(rows, attrgetter("group")).items(),
    number=lambda value: "" if value is None else format(value, ".4g"),
    counted=counted,
    megabytes=lambda value: f"{value / 1e6:,.0f} MB",
)
PAGES.tests.update(cpu=table.is_cpu, long=lambda value: len(value) >= LONG)
SCRIPTS = _environment(escaped=False)
"""For scripts: a value is a comment by ``v``, a word of a shell by ``sh``, or Python by ``py``."""
SCRIPTS.filters.update(v=visible, sh=shlex.quote, py=ascii)
