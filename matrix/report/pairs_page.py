"""``pairs.html``: which releases can share an environment, all that were asked of."""

from __future__ import annotations

from markupsafe import Markup

from matrix.report import pairs
from matrix.report.fragments import PAGES, policy_source, source_text
from matrix.spec.pairs import Pairs


def pairs_page(kept: Pairs) -> str:
    """Return the HTML page of the answers that are kept."""
    style = source_text("style.css")
    template = PAGES.get_template("pairs_page.html.j2")
    return template.render(
        kept=kept,
        shown=pairs.table(kept),
        style=Markup(style),
        style_source=policy_source(style),
    )
